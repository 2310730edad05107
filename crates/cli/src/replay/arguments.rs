//! The arguments of `spillway replay`.

use clap::{Args, Subcommand, ValueEnum};

/// `spillway replay ...`
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(subcommand)]
    pub(crate) command: ReplayCommand,
    /// Who changes this, for the audit log of the nodes [default: user@host]
    #[arg(long, global = true, value_name = "WHO")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReplayCommand {
    /// What waits, how fast it goes, who limits it, when it is done, and what would come too late
    Status(Watch),
    /// Show the ceiling, or set it at once on all nodes that replay
    Rate {
        /// Points per second: 50000/s, 50k/s, 1.5M/s, or max
        #[arg(allow_hyphen_values = true)]
        rate: Option<String>,
        /// For this source only: RELAY, RELAY/DESTINATION, FINAL/windows:STORE/ADDRESS, or windows:STORE/ADDRESS for
        /// all final nodes
        #[arg(long)]
        source: Option<String>,
    },
    /// Stop replaying; nothing is lost or forgotten
    Pause {
        /// This source only
        #[arg(long)]
        source: Option<String>,
    },
    /// Go on replaying; also ends a cautious start
    Resume {
        /// This source only
        #[arg(long)]
        source: Option<String>,
    },
    /// Replay to a share of the receiving nodes only
    Canary {
        /// 1 to 100
        #[arg(allow_hyphen_values = true)]
        percent: String,
        #[command(flatten)]
        not_alone: NotAlone,
    },
    /// Below the ceiling, follow the queue delay that receivers report
    Adaptive {
        state: OnOff,
        #[command(flatten)]
        not_alone: NotAlone,
    },
    /// Replay only what has points of this time
    Range(Range),
    /// Replay only what has a series that this glob matches
    Match {
        #[arg(required_unless_present = "all")]
        glob: Option<String>,
        /// All series again
        #[arg(long, conflicts_with = "glob")]
        all: bool,
        #[command(flatten)]
        not_alone: NotAlone,
    },
    /// Head, tail, lag and gaps of each source; move a head
    Cursor {
        #[command(subcommand)]
        command: Option<CursorCommand>,
    },
    /// What is gone from the spills: ranges, counts, reasons, times
    Gaps,
    /// Give up what waits. Without --force: says exactly what would be lost, and does nothing
    Discard(Discard),
    /// Who changed what, when, from where: old and new value, the latest first
    Audit {
        /// This replayer, final node or relay only
        node: Option<String>,
        /// At most so many changes
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = positive)]
        limit: usize,
    },
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a whole number from 1 on".to_owned())
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Watch {
    /// This source only: RELAY, RELAY/DESTINATION, FINAL/windows:STORE/ADDRESS, or windows:STORE/ADDRESS
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Look again every so many seconds [default: 2]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
    /// With --watch: stop after so many looks
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) looks: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

/// Times are RFC 3339, seconds since 1970, `-2h`, or `now`.
#[derive(Debug, Args)]
pub(crate) struct Range {
    /// RFC 3339, seconds since 1970, -2h, or now; left out: from the beginning
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, required_unless_present_any = ["to", "all"])]
    pub(crate) from: Option<String>,
    /// As --from; left out: to the end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// All times again
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) not_alone: NotAlone,
}

/// What is set for all sources together: a source is asked for by mistake, and told so with the reason.
#[derive(Debug, Args)]
pub(crate) struct NotAlone {
    #[arg(long, hide = true)]
    pub(crate) source: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CursorCommand {
    /// Head, tail, lag and gaps of each source
    Show,
    /// Give up everything before an ordinal. Without --force: says exactly what would be lost, and does nothing
    Advance {
        /// RELAY/DESTINATION, or RELAY if it has one lane
        source: String,
        /// The new head, as `spillway spill ls` shows them
        #[arg(long, value_name = "ORDINAL")]
        to: u64,
        /// Say what would be lost, and do nothing
        #[arg(long, conflicts_with = "force")]
        dry_run: bool,
        /// Lose it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Discard {
    /// RELAY or RELAY/DESTINATION
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Only what has all its points at or after this time: RFC 3339, seconds since 1970, -2h, or now
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Only what has all its points at or before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// Only what has all its series matched by this glob
    #[arg(long = "match", value_name = "GLOB")]
    pub(crate) matching: Option<String>,
    /// Everything that waits on all relays
    #[arg(long, conflicts_with_all = ["source", "from", "to", "matching"])]
    pub(crate) all: bool,
    /// Say what would be lost, and do nothing
    #[arg(long, conflicts_with = "force")]
    pub(crate) dry_run: bool,
    /// Lose it
    #[arg(long)]
    pub(crate) force: bool,
}
