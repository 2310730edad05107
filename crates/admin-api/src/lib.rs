//! What the admin API says, as types shared by the server on each node and by the CLI.
//!
//! Every path answers JSON, but `/metrics` (Prometheus text). Counters are totals since the node's start.

pub mod access;
mod health;
mod known;
mod notice;
mod replay;
mod spill;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use health::{HealthEvent, LayerMode, ModeChange, ModeStatus, NodeChange, Ordered, PoolNode, PoolStatus};
pub use known::NodeKnown;
pub use notice::Notice;
pub use replay::{AuditEntry, ReplayChange, ReplaySettings, ReplaySource, ReplayStatus, SourceSettings, TimeRange};
pub use spill::{
    CursorAdvance, Gap, Quarantined, Refused, SpillDiscard, SpillImported, SpillLane, SpillLoss, SpillPage,
    SpillRecord, SpillStatus, SpillVerified,
};

/// The paths of the API.
pub mod paths {
    /// 200 as long as the supervisor runs.
    pub const LIVE: &str = "/v1/live";
    /// [`super::Health`]; 503 while starting, draining or degraded, 200 while ready or overloaded.
    pub const HEALTH: &str = "/v1/health";
    /// `GET` [`super::ModeStatus`], `PUT` [`super::ModeChange`]: [`super::Ordered`]
    pub const HEALTH_MODE: &str = "/v1/health/mode";
    /// `POST` [`super::NodeChange`]: [`super::Ordered`]; `{change}` is `drain`, `undrain` or `forget`
    pub const NODE_CHANGE: &str = "/v1/nodes/{node}/{change}";
    /// `Vec<`[`super::AuditEntry`]`>`, latest first: orders, as this node heard of them
    pub const CONTROL_AUDIT: &str = "/v1/control/audit";
    /// [`super::Status`]
    pub const STATUS: &str = "/v1/status";
    /// [`super::Ledger`]
    pub const LEDGER: &str = "/v1/ledger";
    /// `Vec<`[`super::WorkerStatus`]`>`
    pub const WORKERS: &str = "/v1/workers";
    /// `Vec<`[`super::BadLine`]`>`, latest first
    pub const BADLINES: &str = "/v1/badlines";
    /// [`super::NodeKnown`]
    pub const NODE: &str = "/v1/nodes/{name}";
    /// `GET` [`super::ReplayStatus`], `PUT` [`super::ReplayChange`]; replayers and final nodes
    pub const REPLAY: &str = "/v1/replay";
    /// `Vec<`[`super::AuditEntry`]`>`, latest first; replayers, final nodes, relays
    pub const REPLAY_AUDIT: &str = "/v1/replay/audit";
    /// [`super::SpillStatus`]; relays only, like all below
    pub const SPILL: &str = "/v1/spill";
    /// `?lane=&from=&limit=`: [`super::SpillPage`]
    pub const SPILL_RECORDS: &str = "/v1/spill/records";
    /// `?lane=&from=&limit=`: [`super::SpillVerified`]; reads every byte of the page
    pub const SPILL_VERIFY: &str = "/v1/spill/verify";
    /// `?lane=&from=&limit=`: records as they lie on disk, each behind its length (u32, little-endian); the header
    /// `x-spillway-next` has the ordinal to go on with, and is missing at the end
    pub const SPILL_EXPORT: &str = "/v1/spill/export";
    /// `POST` what export gave: [`super::SpillImported`]
    pub const SPILL_IMPORT: &str = "/v1/spill/import";
    /// `POST` [`super::SpillDiscard`]: [`super::SpillLoss`], or 409 with [`super::Refused`]
    pub const SPILL_DISCARD: &str = "/v1/spill/discard";
    /// `POST` [`super::CursorAdvance`]: [`super::SpillLoss`], or 409 with [`super::Refused`]
    pub const SPILL_CURSOR: &str = "/v1/spill/cursor";
    /// Prometheus text
    pub const METRICS: &str = "/metrics";
    /// `POST` [`super::Failpoint`]; only in a binary built with `--cfg failpoints`
    pub const FAILPOINT: &str = "/v1/failpoint";
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    Starting,
    Ready,
    Overloaded { queue_bytes: u64, lag_ms: u64 },
    Degraded { worker: String, restarts: u64, error: String },
    Draining,
}

impl Verdict {
    /// The word in JSON, in `status` and in labels.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Verdict::Starting => "starting",
            Verdict::Ready => "ready",
            Verdict::Overloaded { .. } => "overloaded",
            Verdict::Degraded { .. } => "degraded",
            Verdict::Draining => "draining",
        }
    }
}

/// `/v1/health`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub node: String,
    pub layer: String,
    pub verdict: Verdict,
    /// The nodes that this one sends to, as it sees them.
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
    /// What happened in them lately, latest first.
    #[serde(default)]
    pub events: Vec<HealthEvent>,
}

impl Health {
    /// Of a node that says nothing of others.
    pub fn new(node: &str, layer: &str, verdict: Verdict) -> Health {
        Health { node: node.to_owned(), layer: layer.to_owned(), verdict, pools: Vec::new(), events: Vec::new() }
    }
}

impl Verdict {
    /// The word alone, without what it is because of: for who may not know more.
    #[must_use]
    pub fn without_reason(&self) -> Verdict {
        match self {
            Verdict::Overloaded { .. } => Verdict::Overloaded { queue_bytes: 0, lag_ms: 0 },
            Verdict::Degraded { .. } => Verdict::Degraded { worker: String::new(), restarts: 0, error: String::new() },
            Verdict::Starting | Verdict::Ready | Verdict::Draining => self.clone(),
        }
    }
}

/// One supervised worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Dotted, such as `relay.router.0`.
    pub name: String,
    /// `running`, `restarting`, `hung`, `stopped` or `escalated`.
    pub state: String,
    pub restarts: u64,
    /// How often it was given up as hung; part of `restarts`.
    pub hangs: u64,
    pub heartbeat_age_ms: u64,
    pub last_error: Option<String>,
}

/// One link or store connection as its sender sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Node name, or `store/address`.
    pub peer: String,
    /// `up`, `connecting`, `draining` or `down`.
    pub state: String,
    pub in_flight_points: u64,
    pub in_flight_bytes: u64,
    pub oldest_unacked_ms: u64,
    /// What the peer last said of itself; links only, while they are up.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    pub last_error: Option<String>,
}

/// `/v1/status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub layer: String,
    pub version: String,
    pub uptime_seconds: u64,
    pub verdict: Verdict,
    pub workers: Vec<WorkerStatus>,
    pub peers: Vec<PeerStatus>,
    /// Layer-specific figures, such as `connections`, `series`, `windows_open`, `batches_held`.
    pub figures: BTreeMap<String, u64>,
    pub ledger: Ledger,
}

/// The books of one destination:
/// `owed = delivered + delivered_unconfirmed + in_flight + spill_pending + returned + sum(dropped)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationLedger {
    /// `aggregate`, or the store's name.
    pub destination: String,
    pub owed: u64,
    pub delivered: u64,
    /// Written to a plain store, without a receipt yet.
    pub delivered_unconfirmed: u64,
    pub in_flight: u64,
    pub spill_pending: u64,
    /// Given back to the relay that lent it, which lends it again; replayers only.
    #[serde(default)]
    pub returned: u64,
    pub dropped: BTreeMap<String, u64>,
    /// `owed` minus all the rest: zero, or the books do not balance.
    pub unaccounted: i64,
}

/// `/v1/ledger`: `received = accepted + sum(rejected) + in_hand`, `accepted = routed + sum(dropped)`, and each
/// destination's own books.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub node: String,
    pub layer: String,
    /// Lines (relay), points in batches (partial) or points in partials (final) taken in.
    pub received: u64,
    /// By reject reason; relay only.
    pub rejected: BTreeMap<String, u64>,
    /// Received but not yet parsed or merged.
    pub in_hand: u64,
    /// Parsed lines; points taken up.
    pub accepted: u64,
    /// Accepted points that are owed to at least one destination.
    pub routed: u64,
    /// Accepted points that are owed to none, by reason.
    pub dropped: BTreeMap<String, u64>,
    pub destinations: Vec<DestinationLedger>,
    /// `received` minus all the rest: zero, or the books do not balance.
    pub unaccounted: i64,
    pub balanced: bool,
}

/// A sample of a rejected line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLine {
    /// Seconds since 1970.
    pub at: u64,
    pub peer: String,
    pub reason: String,
    /// The line, cut to 256 bytes, with what is not UTF-8 replaced.
    pub line: String,
}

/// What a failpoint build is asked to do to one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failpoint {
    pub worker: String,
    /// `panic`, `error`, `hang` or `slow`
    pub action: String,
    /// How many times; then the failpoint is off again.
    pub times: u32,
}
