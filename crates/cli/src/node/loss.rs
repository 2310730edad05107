//! What would be lost with a node, as far as anybody can say: the node itself if it answers, else those who knew it.

use admin_api::{Ledger, NodeKnown, ReplayStatus, SpillStatus, paths};
use config::{Layer, Node};
use serde::Serialize;

use crate::client::{Answer, Reply, Request};
use crate::context::Context;

/// Points that are on one node only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    /// A lane of the spill, or `in memory`.
    pub(super) lane: String,
    pub(super) points: u64,
    pub(super) batches: u64,
    pub(super) bytes: u64,
    /// Timestamp of the oldest point, seconds since 1970.
    pub(super) oldest: Option<u64>,
    /// Who says it: the node itself, or who heard it last.
    pub(super) says: String,
}

/// All that was found out.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// It answers, so it is there.
    pub(super) is_alive: bool,
    /// Why it does not answer.
    pub(super) error: Option<String>,
    /// Nodes that have a link with it.
    pub(super) linked: Vec<String>,
    /// Of a relay: its sender, 16 hex digits.
    pub(super) sender: Option<String>,
    pub(super) parts: Vec<Part>,
    /// What nobody can say, as a sentence each.
    pub(super) unknown: Vec<String>,
}

impl Found {
    pub(super) fn points(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.points))
    }

    pub(super) fn loses(&self) -> bool {
        self.points() > 0 || !self.unknown.is_empty()
    }
}

/// Asks everybody.
pub(super) fn find(context: &Context<'_>, node: &Node) -> Found {
    let all = context.cluster.nodes.iter().map(|other| (other, Request::get(format!("/v1/nodes/{}", node.name))));
    let known: Vec<Answer<'_, NodeKnown>> = context.client.all(all.collect());
    let own = known.iter().find(|answer| answer.node.name == node.name);
    let said = || known.iter().filter_map(|answer| Some((answer.node, answer.result.as_ref().ok()?)));
    let mut found = Found {
        // Who says no has answered.
        is_alive: own.is_some_and(|answer| answer.result.as_ref().err().is_none_or(crate::client::Fault::is_refusal)),
        error: own.and_then(|answer| answer.result.as_ref().err()).map(ToString::to_string),
        linked: said()
            .filter(|(other, known)| known.linked && other.name != node.name)
            .map(|(other, _)| other.name.clone())
            .collect(),
        sender: own.and_then(|answer| answer.result.as_ref().ok()?.sender.clone()),
        ..Found::default()
    };
    found.sender = found.sender.or_else(|| said().find_map(|(_, known)| known.sender.clone()));
    match node.layer {
        Layer::Relay if found.is_alive => of_itself(context, node, &mut found),
        Layer::Relay => of_others(context, node, &mut found),
        // A partial node holds nothing that relays do not hold, and a replayer what relays have lent it.
        Layer::Partial | Layer::Final | Layer::Replayer => {}
    }
    found
}

/// What a relay that answers says.
fn of_itself(context: &Context<'_>, node: &Node, found: &mut Found) {
    let mut replies: Vec<Answer<'_, Reply>> =
        context.client.exchange(vec![(node, Request::get(paths::SPILL)), (node, Request::get(paths::LEDGER))]);
    let ledger = replies.pop().map(Answer::decoded::<Ledger>);
    let spill = replies.pop().map(Answer::decoded::<SpillStatus>);
    match spill.map(|answer| answer.result) {
        Some(Ok(spill)) => {
            let lanes = spill.lanes.iter().filter(|lane| lane.pending_points > lane.held_points);
            found.parts.extend(lanes.map(|lane| Part {
                lane: lane.destination.clone(),
                points: lane.pending_points - lane.held_points,
                batches: lane.pending_batches,
                bytes: lane.pending_bytes,
                oldest: lane.oldest,
                says: node.name.clone(),
            }));
            if spill.lanes.iter().any(|lane| lane.checking) {
                found.unknown.push("its spill is being checked: more or less of it may be there".into());
            }
        }
        Some(Err(fault)) => found.unknown.push(format!("its spill: {fault}")),
        None => {}
    }
    match ledger.map(|answer| answer.result) {
        Some(Ok(ledger)) => {
            let moving = ledger.destinations.iter().fold(ledger.in_hand, |sum, to| sum.saturating_add(to.in_flight));
            found.parts.extend((moving > 0).then(|| Part {
                lane: "in memory".into(),
                points: moving,
                batches: 0,
                bytes: 0,
                oldest: None,
                says: node.name.clone(),
            }));
        }
        Some(Err(fault)) => found.unknown.push(format!("what is in its memory: {fault}")),
        None => {}
    }
}

/// What replayers heard of a relay that does not answer, while it did.
fn of_others(context: &Context<'_>, node: &Node, found: &mut Found) {
    let replayers = context.nodes(&[Layer::Replayer]).into_iter().map(|node| (node, Request::get(paths::REPLAY)));
    let answers: Vec<Answer<'_, ReplayStatus>> = context.client.all(replayers.collect());
    let heard = |answer: &Answer<'_, ReplayStatus>| -> Vec<Part> {
        let sources = answer.result.as_ref().map(|status| status.sources.as_slice()).unwrap_or_default();
        let of_it = sources.iter().filter(|source| source.source == node.name);
        of_it
            .map(|source| Part {
                lane: source.destination.clone(),
                points: source.pending_points,
                batches: source.pending_batches,
                bytes: source.pending_bytes,
                oldest: source.oldest,
                says: format!("{}, when it last heard of it", answer.node.name),
            })
            .collect()
    };
    // The word that names most: a replayer that began later may have heard nothing.
    let parts = answers.iter().map(heard).max_by_key(|parts| parts.iter().map(|part| part.points).sum::<u64>());
    found.parts = parts.unwrap_or_default();
    found.parts.retain(|part| part.points > 0);
    found.unknown.push(match found.parts.is_empty() {
        true => "its spill and its memory: unknown, it is not reachable and no replayer has heard of a backlog".into(),
        false => "what it spilled since, and what was in its memory: unknown, it is not reachable".into(),
    });
}
