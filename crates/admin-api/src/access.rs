//! Who may do what: one decision, the same for every path, in a node that asks for tokens or certificates.

use crate::paths;

/// What a caller may do. The later one may all that the earlier one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Look and change.
    Operate,
}

impl Role {
    /// As it stands in the cluster file, and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
        }
    }
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everybody may ask it, whatever they show: probes, scrapers.
    Nothing,
    /// Everybody may ask it; who shows nothing gets the verdict without its reasons.
    Verdict,
    Role(Role),
}

impl Need {
    /// Of a request. `changes`: its method is another one than GET and HEAD. `open_metrics`: `/metrics` is for everybody.
    pub fn of(changes: bool, path: &str, open_metrics: bool) -> Need {
        match path {
            _ if changes => Need::Role(Role::Operate),
            paths::LIVE => Need::Nothing,
            paths::HEALTH => Need::Verdict,
            paths::METRICS if open_metrics => Need::Nothing,
            // A path that does not exist is one like any other: who has no token learns nothing.
            _ => Need::Role(Role::Read),
        }
    }
}

/// What the caller showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    /// A token that is in no file, or something that is no token.
    Wrong,
    /// A token of this role; a client certificate of the cluster's authority shows that its holder operates.
    Role(Role),
}

/// Whether a request is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As somebody of this role; `None`: as anybody.
    Granted(Option<Role>),
    Denied(Denial),
}

/// Why not: the reasons of `spillway_admin_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// 401
    NoToken,
    /// 401
    WrongToken,
    /// 429: as above, from an address that sent many of them.
    TooMany,
    /// 403
    Role,
}

impl Denial {
    pub const ALL: [Denial; 4] = [Denial::NoToken, Denial::WrongToken, Denial::TooMany, Denial::Role];

    /// As the metric names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Denial::NoToken => "no_token",
            Denial::WrongToken => "wrong_token",
            Denial::TooMany => "too_many",
            Denial::Role => "role",
        }
    }
}

/// The decision.
pub fn decide(need: Need, shown: Shown) -> Access {
    match (need, shown) {
        (Need::Nothing, Shown::Nothing | Shown::Wrong) | (Need::Verdict, Shown::Nothing) => Access::Granted(None),
        (Need::Nothing | Need::Verdict, Shown::Role(role)) => Access::Granted(Some(role)),
        // Who shows a token means to be known by it: told that it is wrong, rather than given less.
        (Need::Verdict | Need::Role(_), Shown::Wrong) => Access::Denied(Denial::WrongToken),
        (Need::Role(_), Shown::Nothing) => Access::Denied(Denial::NoToken),
        (Need::Role(least), Shown::Role(role)) if role >= least => Access::Granted(Some(role)),
        (Need::Role(_), Shown::Role(_)) => Access::Denied(Denial::Role),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_do_what_is_this_table() {
        use Access::{Denied, Granted};
        use Denial::{NoToken, Role as TooLittle, WrongToken};
        let (read, operate) = (Some(Role::Read), Some(Role::Operate));
        // Shown: nothing, something wrong, a token of read, one of operate.
        let cases = [
            ("GET", "/v1/live", [Granted(None), Granted(None), Granted(read), Granted(operate)]),
            ("GET", "/metrics", [Granted(None), Granted(None), Granted(read), Granted(operate)]),
            ("GET", "/v1/health", [Granted(None), Denied(WrongToken), Granted(read), Granted(operate)]),
            ("GET", "/v1/status", [Denied(NoToken), Denied(WrongToken), Granted(read), Granted(operate)]),
            ("HEAD", "/v1/ledger", [Denied(NoToken), Denied(WrongToken), Granted(read), Granted(operate)]),
            ("GET", "/v1/nowhere", [Denied(NoToken), Denied(WrongToken), Granted(read), Granted(operate)]),
            ("GET", "/v1/health/", [Denied(NoToken), Denied(WrongToken), Granted(read), Granted(operate)]),
            ("GET", "/v1/health/mode", [Denied(NoToken), Denied(WrongToken), Granted(read), Granted(operate)]),
            ("PUT", "/v1/health/mode", [Denied(NoToken), Denied(WrongToken), Denied(TooLittle), Granted(operate)]),
            ("POST", "/v1/failpoint", [Denied(NoToken), Denied(WrongToken), Denied(TooLittle), Granted(operate)]),
            // A method that a path does not take is no way around it.
            ("DELETE", "/v1/live", [Denied(NoToken), Denied(WrongToken), Denied(TooLittle), Granted(operate)]),
            ("POST", "/metrics", [Denied(NoToken), Denied(WrongToken), Denied(TooLittle), Granted(operate)]),
        ];
        let shown = [Shown::Nothing, Shown::Wrong, Shown::Role(Role::Read), Shown::Role(Role::Operate)];
        for (method, path, expected) in cases {
            let changes = !["GET", "HEAD"].contains(&method);
            let decided = shown.map(|shown| decide(Need::of(changes, path, true), shown));
            assert_eq!(decided, expected, "{method} {path}");
        }
    }

    #[test]
    fn closed_metrics_take_a_token_like_the_rest() {
        assert_eq!(Need::of(false, "/metrics", false), Need::Role(Role::Read));
        assert_eq!(Need::of(false, "/v1/live", false), Need::Nothing);
    }
}
