//! What a node says of the nodes that it sends to, and the orders that it takes from an operator.

use serde::{Deserialize, Serialize};

use crate::{AuditEntry, Verdict};

/// A pool: the nodes of one layer as this node, which sends to them, sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// `partial` or `final`.
    pub layer: String,
    /// Whether work for one can go to another. Where not (final nodes own their partitions), only a drain keeps it back.
    pub shared: bool,
    /// `strict`, `lenient` or `auto`, as ordered.
    pub mode: String,
    /// `strict` or `lenient`, as in effect.
    pub stance: String,
    /// Nodes that are always eligible, if so many have nothing hard against them.
    pub floor: usize,
    /// Nodes that are not forgotten.
    pub size: usize,
    /// How many strict would leave.
    pub strict: usize,
    pub nodes: Vec<PoolNode>,
}

/// One node of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNode {
    pub node: String,
    /// Whether it gets traffic from this node.
    pub eligible: bool,
    /// A closed set of words: `proven`, `link_up`, `owner`, `floor`; `link_down`, `leaving`, `forgotten`, `drained`,
    /// `starting`, `degraded`, `unproven`, `ejected`.
    pub standing: String,
    /// The same as a sentence.
    pub why: String,
    /// What it last said of itself, while there is a link.
    pub verdict: Option<Verdict>,
    /// For how long its canaries were acknowledged without a break.
    pub clean_seconds: Option<u64>,
    /// Smoothed, from sending to the acknowledgement.
    pub ack_ms: Option<u64>,
    pub queue_ms: Option<u64>,
    /// Since this node's start.
    pub canaries_acked: u64,
    pub canaries_failed: u64,
    pub ejections: u64,
}

/// Something that happened in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthEvent {
    /// Seconds since 1970.
    pub at: u64,
    pub layer: String,
    pub text: String,
}

/// `GET /v1/health/mode`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeStatus {
    pub node: String,
    /// The layers that are chosen from.
    pub layers: Vec<LayerMode>,
    /// Nodes that are drained by order.
    #[serde(default)]
    pub drained: Vec<String>,
    /// A number that is the same on nodes that know the same orders.
    pub digest: String,
}

/// The mode of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMode {
    pub layer: String,
    pub mode: String,
    /// Second in which it reverts.
    pub until: Option<u64>,
    /// To what.
    pub then: Option<String>,
    /// When and by whom it was ordered; `None`: the cluster file says so.
    pub ordered_at: Option<u64>,
    pub ordered_by: Option<String>,
}

/// `PUT /v1/health/mode`. Sent twice it is once done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange {
    /// `None`: all layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// `strict`, `lenient` or `auto`.
    pub mode: String,
    /// Second since 1970 in which it reverts to what holds without this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Change nothing, and say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks, for the audit log.
    #[serde(default)]
    pub by: String,
}

/// `POST /v1/nodes/NAME/drain`, `undrain`, `forget`. Sent twice it is once done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// Of a relay that is forgotten: its sender, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Of a relay that is forgotten: points that are given up with it; `None`: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_points: Option<u64>,
    /// Without it a relay is forgotten only if it is known that nothing is lost; else 409.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default)]
    pub by: String,
}

/// What an order did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    pub node: String,
    pub dry_run: bool,
    /// Empty: it was in force already.
    pub changes: Vec<AuditEntry>,
    /// The pools of this node as they are now, or would be.
    pub pools: Vec<PoolStatus>,
    /// Nodes that get traffic from this node by the order ...
    pub gain: Vec<String>,
    /// ... and that lose it.
    pub lose: Vec<String>,
}
