//! What is known of the cluster, from one look to the next: counters become rates, rates become history.

use std::collections::VecDeque;

use admin_api::{DestinationLedger, Health, ModeStatus, ReplayStatus, SpillStatus, Status, Verdict};
use config::{Cluster, Layer};
use engine::time::Mono;

/// Seconds of history.
pub(crate) const HISTORY: usize = 60;

/// The destination of a relay that is no store; lanes of its spill begin with it.
pub(crate) const AGGREGATE: &str = "aggregate";

/// What one node said in one look.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) status: Result<Status, String>,
    pub(crate) health: Option<Health>,
    pub(crate) orders: Option<ModeStatus>,
    pub(crate) spill: Option<SpillStatus>,
    pub(crate) replay: Option<ReplayStatus>,
}

/// Counters of points, since a node's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    taken_in: u64,
    handed_on: u64,
    to_stores: u64,
    spilled: u64,
}

/// What flows, in points per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) taken_in: u64,
    pub(crate) handed_on: u64,
    /// The part of it that stores took from this node.
    pub(crate) to_stores: u64,
    pub(crate) spilled: u64,
    pub(crate) replayed: u64,
}

/// One node, over time.
#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    pub(crate) look: Option<Look>,
    /// Oldest first, at most [`HISTORY`]. `None`: nothing is known of that second.
    pub(crate) history: VecDeque<Option<Flow>>,
    last: Option<(Mono, Counters)>,
}

/// The cluster as it is shown.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) cluster: String,
    /// By layer, in the order of the file.
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) selected: usize,
}

impl Model {
    pub(crate) fn new(cluster: &Cluster) -> Model {
        let mut nodes: Vec<NodeView> = cluster
            .nodes
            .iter()
            .map(|node| NodeView {
                name: node.name.clone(),
                layer: node.layer,
                look: None,
                history: VecDeque::new(),
                last: None,
            })
            .collect();
        nodes.sort_by_key(|node| node.layer);
        Model { cluster: cluster.name.clone(), nodes, selected: 0 }
    }

    /// Takes up what a node said at `at`, when it was asked.
    pub(crate) fn see(&mut self, at: Mono, name: &str, look: Look) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else { return };
        let counters = look.status.as_ref().ok().map(|status| counters(status, look.spill.as_ref()));
        let flow = node.last.zip(counters).and_then(|((before, old), new)| {
            let millis = u64::try_from(at.since(before).as_millis()).unwrap_or(u64::MAX);
            let per_second = |old: u64, new: u64| new.checked_sub(old)?.saturating_mul(1000).checked_div(millis);
            Some(Flow {
                // A counter that went back: the node has started anew, and the first second after it is not known.
                taken_in: per_second(old.taken_in, new.taken_in)?,
                handed_on: per_second(old.handed_on, new.handed_on)?,
                to_stores: per_second(old.to_stores, new.to_stores)?,
                spilled: per_second(old.spilled, new.spilled)?,
                replayed: look.replay.as_ref().map_or(0, |replay| replay.rate_now),
            })
        });
        node.history.push_back(flow);
        if node.history.len() > HISTORY {
            node.history.pop_front();
        }
        node.last = counters.map(|counters| (at, counters));
        node.look = Some(look);
    }

    /// Moves the selection.
    pub(crate) fn select(&mut self, down: bool) {
        let last = self.nodes.len().saturating_sub(1);
        self.selected = if down { (self.selected + 1).min(last) } else { self.selected.saturating_sub(1) };
    }

    pub(crate) fn selected(&self) -> Option<&NodeView> {
        self.nodes.get(self.selected)
    }

    /// Nodes that say of themselves that they are ready.
    pub(crate) fn ready(&self) -> usize {
        self.nodes.iter().filter(|node| node.verdict() == Some(&Verdict::Ready)).count()
    }

    /// Every node that replays and answers, with what it says of that.
    pub(crate) fn replays(&self) -> impl Iterator<Item = (&NodeView, &ReplayStatus)> {
        self.nodes.iter().filter_map(|node| Some((node, node.look.as_ref()?.replay.as_ref()?)))
    }
}

impl NodeView {
    pub(crate) fn status(&self) -> Option<&Status> {
        self.look.as_ref()?.status.as_ref().ok()
    }

    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.status().map(|status| &status.verdict)
    }

    /// What flows now.
    pub(crate) fn flow(&self) -> Option<Flow> {
        self.history.back().copied().flatten()
    }

    /// Points in the spill that wait for a replayer.
    pub(crate) fn backlog(&self) -> Option<u64> {
        let spill = self.look.as_ref()?.spill.as_ref()?;
        Some(spill.lanes.iter().map(|lane| lane.pending_points.saturating_sub(lane.held_points)).sum())
    }

    /// Bytes on their way to peers, and the age of the oldest of them.
    pub(crate) fn queue(&self) -> Option<(u64, u64)> {
        let peers = &self.status()?.peers;
        let bytes = peers.iter().map(|peer| peer.in_flight_bytes).sum();
        Some((bytes, peers.iter().map(|peer| peer.oldest_unacked_ms).max().unwrap_or(0)))
    }
}

fn counters(status: &Status, spill: Option<&SpillStatus>) -> Counters {
    let out = |stores_only: bool| {
        let wanted = |to: &&DestinationLedger| !stores_only || to.destination != AGGREGATE;
        let all = status.ledger.destinations.iter().filter(wanted);
        all.fold(0u64, |sum, to| sum.saturating_add(to.delivered).saturating_add(to.delivered_unconfirmed))
    };
    Counters {
        taken_in: status.ledger.received,
        handed_on: out(false),
        to_stores: out(true),
        spilled: spill.map_or(0, |spill| spill.lanes.iter().map(|lane| lane.spilled_points).sum()),
    }
}
