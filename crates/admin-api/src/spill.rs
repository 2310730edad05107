//! What a relay says of its spill, and what an operator may do to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /v1/spill`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillStatus {
    pub node: String,
    /// `ok`, `quota` (as full as it may be), `disk_full`, `read_only`, `error` (the store failed and is being opened
    /// again) or `starting`.
    pub mode: String,
    /// Seconds since 1970.
    pub mode_since: u64,
    /// What happened and what would be right; empty while `ok`.
    pub detail: String,
    pub quota_bytes: u64,
    pub bytes: u64,
    /// Free on the file system.
    pub free_bytes: u64,
    /// Age of the oldest write that is not synced; zero when all is.
    pub unsynced_ms: u64,
    pub journal: bool,
    pub lanes: Vec<SpillLane>,
    /// What was damaged and put aside, oldest first.
    pub quarantined: Vec<Quarantined>,
}

/// One lane. `spilled_points = pending_points + settled_points + sum(dropped)`, over all lives of the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillLane {
    pub lane: u16,
    /// `aggregate`, `aggregate:<final node>`, or `<store>/<host:port>`.
    pub destination: String,
    pub pending_points: u64,
    pub pending_batches: u64,
    pub pending_bytes: u64,
    /// Lent to replayers now; part of `pending_points`.
    pub leased_points: u64,
    /// Journalled and still held in memory by the live path; part of `pending_points`.
    pub held_points: u64,
    /// The first ordinal that is not settled, and the one after the last.
    pub head: u64,
    pub tail: u64,
    pub oldest: Option<u64>,
    pub newest: Option<u64>,
    pub spilled_points: u64,
    pub settled_points: u64,
    /// `corrupt`, `discarded`, `too_old`, `poison`, `bad_checksum`, `duplicate_sender`.
    pub dropped: BTreeMap<String, u64>,
    /// Ranges that are gone, oldest first.
    pub gaps: Vec<Gap>,
    /// The lane is being checked: what is missing in it may still be among `pending_points`.
    #[serde(default)]
    pub checking: bool,
}

/// A range of a lane that is gone, and is counted as lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Ordinals, both ends included.
    pub from: u64,
    pub to: u64,
    pub batches: u64,
    pub points: u64,
    /// `corrupt` or `discarded`.
    pub reason: String,
    /// When it was noticed, seconds since 1970.
    pub at: u64,
}

/// Files that were damaged and put aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub path: String,
    pub at: u64,
    pub reason: String,
}

/// One record, for `GET /v1/spill/records?lane=&from=&limit=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillRecord {
    pub lane: u16,
    pub ordinal: u64,
    /// `sender/epoch/seq` of a batch; empty for a block of lines for a store.
    pub id: String,
    pub points: u64,
    /// As it goes on the wire, and as it lies on disk.
    pub bytes: u64,
    pub stored_bytes: u64,
    /// Timestamps of its points.
    pub min: u64,
    pub max: u64,
    /// When it was spilled, seconds since 1970.
    pub spilled_at: u64,
    /// `timeout`, `memory`, `no_peer`, `shutdown`, `journal`, `import`
    pub why: String,
    /// `pending`, `leased` or `held`
    pub state: String,
}

/// A page of records; `next` asks for the following one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillPage {
    pub records: Vec<SpillRecord>,
    /// The ordinal to go on with in this lane; `None` at its end.
    pub next: Option<u64>,
}

/// What `GET /v1/spill/verify?lane=&from=&limit=` found in one page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillVerified {
    pub records: u64,
    pub points: u64,
    /// One sentence each.
    pub damaged: Vec<String>,
    pub next: Option<u64>,
}

/// `POST /v1/spill/discard`: pending records that match all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpillDiscard {
    /// A lane's destination; `None`: all lanes.
    #[serde(default)]
    pub destination: Option<String>,
    /// Records all of whose points lie in this time, both ends included.
    #[serde(default)]
    pub from: Option<u64>,
    #[serde(default)]
    pub to: Option<u64>,
    /// Records all of whose series match this glob.
    #[serde(default)]
    pub matching: Option<String>,
    /// Says what would go and does nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Without it, a discard that would lose anything is refused with 409.
    #[serde(default)]
    pub force: bool,
    #[serde(default)]
    pub by: String,
}

/// `POST /v1/spill/cursor`: everything before `to` in this lane is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorAdvance {
    pub destination: String,
    /// An ordinal; the new head.
    pub to: u64,
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default)]
    pub force: bool,
    #[serde(default)]
    pub by: String,
}

/// What was, or would be, lost by a discard or an advance of the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillLoss {
    pub batches: u64,
    pub points: u64,
    pub bytes: u64,
    /// Timestamps of the oldest and newest of these points.
    pub oldest: Option<u64>,
    pub newest: Option<u64>,
    /// Whether it is done; false: it would be.
    pub done: bool,
}

/// What `POST /v1/spill/import` took up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillImported {
    pub records: u64,
    pub points: u64,
}

/// An answer with a status of 400 or above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong, and what would be right.
    pub error: String,
    /// With 409: what would be lost without `force`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_lose: Option<SpillLoss>,
}
