//! What replayers, and final nodes in their catch-up after a store's outage, say of replay and take from an operator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /v1/replay`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    pub node: String,
    pub layer: String,
    pub settings: ReplaySettings,
    /// Points per second, mean of the last five seconds.
    pub rate_now: u64,
    /// What may be sent now, in points per second: the operator's ceiling, less what adaptation takes off it.
    pub ceiling_now: u64,
    /// `operator`, `receiver`, `network`, `paused`, `cautious` (a large backlog was found at the start) or `idle`.
    pub limited_by: String,
    pub backlog_points: u64,
    pub backlog_bytes: u64,
    /// At the rate of now; `None` when nothing moves.
    pub eta_seconds: Option<u64>,
    /// Timestamp of the oldest point that waits, seconds since 1970.
    pub oldest: Option<u64>,
    /// How far back the final layer corrects windows, seconds.
    pub horizon_seconds: u64,
    /// Age of the oldest point as a share of the horizon, in percent; above 100 it will be refused as too old.
    pub horizon_used_percent: u64,
    pub sources: Vec<ReplaySource>,
    /// Sentences for a person, such as why it came up at the floor rate and what to do about it.
    pub notes: Vec<String>,
}

/// One lane of one relay's spill, or the windows that one store missed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaySource {
    /// The relay, or the final node.
    pub source: String,
    /// `aggregate:final-1`, `carbon/127.0.0.1:2103`, or `windows:carbon/127.0.0.1:2103`.
    pub destination: String,
    /// Whether the source answers.
    pub connected: bool,
    pub pending_points: u64,
    pub pending_batches: u64,
    pub pending_bytes: u64,
    pub leased_points: u64,
    /// Points settled since the node's start.
    pub done_points: u64,
    /// Points that went to the dead letters since the node's start, by reason.
    pub refused: BTreeMap<String, u64>,
    /// The first ordinal that is not settled, and the one after the last.
    pub head: u64,
    pub tail: u64,
    /// Timestamps of the oldest and newest point that wait.
    pub oldest: Option<u64>,
    pub newest: Option<u64>,
    pub rate_now: u64,
    pub paused: bool,
    /// A ceiling of its own, below that of all.
    pub rate: Option<u64>,
    pub limited_by: String,
    pub last_error: Option<String>,
}

/// What the operator has set. Survives restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaySettings {
    /// Grows with every change.
    pub version: u64,
    /// Points per second, all sources together.
    pub rate: u64,
    pub paused: bool,
    pub adaptive: bool,
    /// Share of the receiving nodes that replay goes to, 1 to 100; at least one node.
    pub canary_percent: u8,
    /// Only records with points of this time, seconds since 1970, both ends included.
    pub from: Option<u64>,
    pub to: Option<u64>,
    /// Only records with a series that this glob matches.
    pub matching: Option<String>,
    /// Own settings of single sources, by `source` or `source/destination`.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceSettings>,
    /// True from a start with a large backlog until the operator sets a rate or resumes.
    pub cautious: bool,
    pub changed_at: u64,
    pub changed_by: String,
}

impl Default for ReplaySettings {
    fn default() -> ReplaySettings {
        ReplaySettings {
            version: 0,
            rate: 50_000,
            paused: false,
            adaptive: true,
            canary_percent: 100,
            from: None,
            to: None,
            matching: None,
            sources: BTreeMap::new(),
            cautious: false,
            changed_at: 0,
            changed_by: String::new(),
        }
    }
}

/// What is set for one source alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSettings {
    pub rate: Option<u64>,
    pub paused: bool,
}

/// `PUT /v1/replay`: what is `None` stays as it is. Sent twice it is once done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayChange {
    /// For one source only (`rate` and `paused`), else for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Points per second. Zero is refused: pausing is `paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<u8>,
    /// Replaces both bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<TimeRange>,
    /// Empty: all series again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<String>,
    /// Who asks, for the audit log.
    #[serde(default)]
    pub by: String,
}

/// Seconds since 1970, both ends included; `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeRange {
    pub from: Option<u64>,
    pub to: Option<u64>,
}

/// One line of `GET /v1/replay/audit`, latest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: u64,
    pub by: String,
    /// What was changed, such as `rate` or `relay-1.paused`.
    pub what: String,
    pub old: String,
    pub new: String,
}
