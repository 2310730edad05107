//! Who is let in. The decision is `admin_api::access`; here is what the caller showed, and what refused callers are told.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admin_api::Refused;
use admin_api::access::{Access, Denial, Need, Role, Shown, decide};
use auth::Keys;
use axum::extract::{Json, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use engine::throttle::Throttle;
use metrics::Counter;
use runtime::Clock;
use telemetry::{LogSite, Metric, Telemetry};

static REFUSED: LogSite = LogSite::new(Duration::from_secs(10));

/// What callers say of themselves is cut to this.
const BY_CHARS_MAX: usize = 200;

/// What a node asks of those who come to its admin API.
#[derive(Debug)]
pub struct Door {
    /// `None`: it asks for no tokens.
    pub keys: Option<Keys>,
    /// A client certificate shows that its holder operates.
    pub mutual: bool,
    /// `/metrics` takes no token.
    pub open_metrics: bool,
}

impl Door {
    /// Everybody may do everything.
    pub fn open() -> Door {
        Door { keys: None, mutual: false, open_metrics: true }
    }

    fn is_guarded(&self) -> bool {
        self.keys.is_some() || self.mutual
    }
}

/// The door with its books.
#[derive(Debug)]
pub(crate) struct Keeper {
    door: Door,
    throttle: Mutex<Throttle>,
    clock: Clock,
    telemetry: Telemetry,
    refused: Vec<(Denial, Counter)>,
    node: String,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// It showed a certificate of the cluster's authority.
    pub(crate) is_certified: bool,
}

/// Who asks, as far as the door knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    address: IpAddr,
    role: Option<Role>,
    /// May see what is not for everybody.
    pub(crate) is_known: bool,
}

impl Caller {
    /// Adds to what a caller says of itself what is known of it. Without a guard and from this machine nothing is known.
    pub(crate) fn sign(&self, by: &mut String) {
        // It goes into logs and onto terminals.
        let mut said: String = by.chars().filter(|c| !c.is_control()).take(BY_CHARS_MAX).collect();
        let known = match self.role {
            Some(role) => format!("{} from {}", role.as_str(), self.address),
            None if !self.address.is_loopback() => format!("from {}", self.address),
            None => String::new(),
        };
        if !known.is_empty() {
            let who = if said.is_empty() { "unknown" } else { &said };
            said = format!("{who} ({known})");
        }
        *by = said;
    }
}

/// What a refused caller is told besides the code.
struct Told {
    code: StatusCode,
    error: String,
    challenge: Option<&'static str>,
    retry_after: Option<Duration>,
}

impl Keeper {
    pub(crate) fn new(door: Door, node: &str, clock: Clock, telemetry: &Telemetry) -> Keeper {
        // All of them from the start: a counter that begins with its first refusal shows no rise.
        let count = |denial: Denial| {
            (denial, telemetry.counter(Metric::AdminRefused, &[("reason", denial.as_str().to_owned())]))
        };
        let refused = Denial::ALL.into_iter().map(count).collect();
        let keeper = Keeper {
            door,
            throttle: Mutex::default(),
            clock,
            telemetry: telemetry.clone(),
            refused,
            node: node.to_owned(),
        };
        keeper.note_files();
        keeper
    }

    /// Shows which token files cannot be used.
    fn note_files(&self) {
        let faults = self.door.keys.as_ref().map(Keys::faults).unwrap_or_default();
        for role in [Role::Read, Role::Operate] {
            let is_unusable = faults.iter().any(|(of, fault)| *of == role && fault.is_some());
            let gauge = self.telemetry.gauge(Metric::AdminTokenFileUnusable, &[("role", role.as_str().to_owned())]);
            gauge.set(if is_unusable { 1.0 } else { 0.0 });
        }
    }

    fn shown(&self, peer: Peer, headers: &HeaderMap) -> Shown {
        let token = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let by_token = match (token, &self.door.keys) {
            (None, _) => Shown::Nothing,
            (Some(value), Some(keys)) => {
                bearer(value).and_then(|token| keys.role_of(token)).map_or(Shown::Wrong, Shown::Role)
            }
            (Some(_), None) => Shown::Wrong,
        };
        if self.door.mutual && peer.is_certified { Shown::Role(Role::Operate) } else { by_token }
    }

    /// # Errors
    /// What to tell a caller who is not let in.
    fn admit(&self, peer: Peer, method: &Method, path: &str, headers: &HeaderMap) -> Result<Caller, Told> {
        let address = peer.address;
        if !self.door.is_guarded() {
            return Ok(Caller { address, role: None, is_known: true });
        }
        let changes = ![Method::GET, Method::HEAD].contains(method);
        let need = Need::of(changes, path, self.door.open_metrics);
        match decide(need, self.shown(peer, headers)) {
            Access::Granted(role) => Ok(Caller { address, role, is_known: role.is_some() }),
            Access::Denied(denial) => Err(self.refuse(denial, address)),
        }
    }

    fn refuse(&self, denial: Denial, address: IpAddr) -> Told {
        let now = self.clock.now();
        let wait = match denial {
            Denial::WrongToken => self.throttle.lock().unwrap_or_else(PoisonError::into_inner).strike(now, address),
            Denial::NoToken | Denial::TooMany | Denial::Role => None,
        };
        let denial = if wait.is_some() { Denial::TooMany } else { denial };
        for (_, counter) in self.refused.iter().filter(|(counted, _)| *counted == denial) {
            counter.increment(1);
        }
        if let Some(swallowed) = REFUSED.admit(now) {
            // Never what was shown, nor the path: a token may have been pasted there.
            tracing::warn!(node = %self.node, from = %address, reason = denial.as_str(), swallowed, "admin request refused");
        }
        self.told(denial, address, wait)
    }

    fn told(&self, denial: Denial, address: IpAddr, wait: Option<Duration>) -> Told {
        let of_files = "of the files that auth.read and auth.operate name";
        let (code, error, challenge) = match denial {
            Denial::NoToken if self.door.keys.is_none() => {
                let error = "this takes a client certificate of the cluster's authority".to_owned();
                (StatusCode::UNAUTHORIZED, error, Some("Bearer realm=\"spillway\""))
            }
            Denial::NoToken => {
                let error = format!("this takes a token {of_files}: send `Authorization: Bearer TOKEN`");
                (StatusCode::UNAUTHORIZED, error, Some("Bearer realm=\"spillway\""))
            }
            Denial::WrongToken => {
                let error = format!("the token that was sent is in none {of_files}");
                (StatusCode::UNAUTHORIZED, error, Some("Bearer realm=\"spillway\", error=\"invalid_token\""))
            }
            Denial::TooMany => {
                let error = format!("too many wrong tokens from {address}; a right one is taken at any time");
                (StatusCode::TOO_MANY_REQUESTS, error, None)
            }
            Denial::Role => {
                let error = "with this token one may look, not change: it takes one of auth.operate".to_owned();
                (StatusCode::FORBIDDEN, error, Some("Bearer realm=\"spillway\", error=\"insufficient_scope\""))
            }
        };
        Told { code, error, challenge, retry_after: wait }
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(Refused { error: self.error, would_lose: None })).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Before each path, also those that do not exist.
pub(crate) async fn guard(State(keeper): State<Arc<Keeper>>, mut request: Request, next: Next) -> Response {
    keeper.note_files();
    // Without it, which would be our own fault, it is a stranger.
    let stranger = Peer { address: IpAddr::from([0, 0, 0, 0]), is_certified: false };
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(stranger);
    match keeper.admit(peer, request.method(), request.uri().path(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            // What comes behind has no use for it.
            request.headers_mut().remove(header::AUTHORIZATION);
            next.run(request).await
        }
        Err(told) => told.into_response(),
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// To an answer that has more for those who show a token.
pub(crate) fn invite(response: &mut Response) {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"spillway\""));
}
