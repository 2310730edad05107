//! What is known of the cluster, from one look to the next: counters become rates, rates become history.

use std::collections::VecDeque;

use admin_api::{ReplayStatus, SpillStatus, Status, Verdict};
use config::{Cluster, Layer};
use engine::time::Mono;

/// Seconds of history.
pub(super) const HISTORY: usize = 60;

/// What one node said in one look.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) status: Result<Status, String>,
    pub(super) spill: Option<SpillStatus>,
    pub(super) replay: Option<ReplayStatus>,
}

/// Counters of points, since a node's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    taken_in: u64,
    handed_on: u64,
    spilled: u64,
}

/// What flows, in points per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) taken_in: u64,
    pub(super) handed_on: u64,
    pub(super) spilled: u64,
    pub(super) replayed: u64,
}

/// One node, over time.
#[derive(Debug)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) layer: Layer,
    pub(super) look: Option<Look>,
    /// Oldest first, at most [`HISTORY`]. `None`: nothing is known of that second.
    pub(super) history: VecDeque<Option<Flow>>,
    last: Option<(Mono, Counters)>,
}

/// The cluster as it is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) cluster: String,
    /// By layer, in the order of the file.
    pub(super) nodes: Vec<NodeView>,
    pub(super) selected: usize,
}

impl Model {
    pub(super) fn new(cluster: &Cluster) -> Model {
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
    pub(super) fn see(&mut self, at: Mono, name: &str, look: Look) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else { return };
        let counters = look.status.as_ref().ok().map(|status| counters(status, look.spill.as_ref()));
        let flow = node.last.zip(counters).and_then(|((before, old), new)| {
            let millis = u64::try_from(at.since(before).as_millis()).unwrap_or(u64::MAX);
            let per_second = |old: u64, new: u64| new.checked_sub(old)?.saturating_mul(1000).checked_div(millis);
            Some(Flow {
                // A counter that went back: the node has started anew, and the first second after it is not known.
                taken_in: per_second(old.taken_in, new.taken_in)?,
                handed_on: per_second(old.handed_on, new.handed_on)?,
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
    pub(super) fn select(&mut self, down: bool) {
        let last = self.nodes.len().saturating_sub(1);
        self.selected = if down { (self.selected + 1).min(last) } else { self.selected.saturating_sub(1) };
    }

    pub(super) fn selected(&self) -> Option<&NodeView> {
        self.nodes.get(self.selected)
    }

    /// Nodes that say of themselves that they are ready.
    pub(super) fn ready(&self) -> usize {
        self.nodes.iter().filter(|node| node.verdict() == Some(&Verdict::Ready)).count()
    }

    /// Every node that replays and answers, with what it says of that.
    pub(super) fn replays(&self) -> impl Iterator<Item = (&NodeView, &ReplayStatus)> {
        self.nodes.iter().filter_map(|node| Some((node, node.look.as_ref()?.replay.as_ref()?)))
    }
}

impl NodeView {
    pub(super) fn status(&self) -> Option<&Status> {
        self.look.as_ref()?.status.as_ref().ok()
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.status().map(|status| &status.verdict)
    }

    /// What flows now.
    pub(super) fn flow(&self) -> Option<Flow> {
        self.history.back().copied().flatten()
    }

    /// Points in the spill that wait for a replayer.
    pub(super) fn backlog(&self) -> Option<u64> {
        let spill = self.look.as_ref()?.spill.as_ref()?;
        Some(spill.lanes.iter().map(|lane| lane.pending_points.saturating_sub(lane.held_points)).sum())
    }

    /// Bytes on their way to peers, and the age of the oldest of them.
    pub(super) fn queue(&self) -> Option<(u64, u64)> {
        let peers = &self.status()?.peers;
        let bytes = peers.iter().map(|peer| peer.in_flight_bytes).sum();
        Some((bytes, peers.iter().map(|peer| peer.oldest_unacked_ms).max().unwrap_or(0)))
    }
}

fn counters(status: &Status, spill: Option<&SpillStatus>) -> Counters {
    let out = status.ledger.destinations.iter().map(|to| to.delivered.saturating_add(to.delivered_unconfirmed));
    Counters {
        taken_in: status.ledger.received,
        handed_on: out.sum(),
        spilled: spill.map_or(0, |spill| spill.lanes.iter().map(|lane| lane.spilled_points).sum()),
    }
}
