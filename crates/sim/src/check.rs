//! The invariants that are checked while a run goes on, and those of its end. Ids are those of the design.

use engine::batch::BatchId;
use engine::health::{Evidence, Hand, Orders, Outcome, Standing, Why};
use engine::verdict::Verdict;
use engine::wire::{Durable, FlushReply, GroupReply};

use crate::node::Cx;
use crate::oracle::{self, Lines};
use crate::setup::Setup;
use crate::truth::{Fate, Truth};

/// INV-2: a partial node calls durable only what is in the log of every partition, synced.
pub fn durable(cx: &mut Cx<'_>, durable: &Durable) {
    for range in &durable.ranges {
        let id = |seq| BatchId { sender: range.sender, epoch: range.epoch, seq };
        let ids: Vec<BatchId> = cx.truth.batches.range(id(range.first)..=id(range.last)).map(|(id, _)| *id).collect();
        for id in ids {
            if !cx.truth.is_durable(id) && !cx.truth.is_damaged(id) {
                cx.truth.violated("INV-2", || format!("{id:?} was called durable, and is not"));
            }
        }
    }
}

/// INV-2: a final node says "included" only of what is synced.
pub fn reply(cx: &mut Cx<'_>, reply: &FlushReply) {
    for group in &reply.groups {
        let GroupReply::Refused { included } = group else { continue };
        for id in included {
            let has_points = cx.truth.batches.contains_key(id);
            let damaged = cx.truth.logs.get(&reply.partition).is_some_and(|log| log.damaged);
            if has_points && !damaged && !cx.truth.has(reply.partition, *id) {
                cx.truth.violated("INV-2", || format!("{id:?} was called included before it was durable"));
            }
        }
    }
}

/// INV-8: no check takes a pool below its floor, and overload alone takes nobody out.
pub fn floor(cx: &mut Cx<'_>, outcome: &Outcome, evidence: &[Evidence], orders: &Orders) {
    let soft = |(evidence, hand): (&Evidence, &Hand)| {
        let leaves = evidence.verdict == Some(Verdict::Draining);
        evidence.up && !leaves && *hand == Hand::Off
    };
    let able = evidence.iter().zip(&orders.hands).filter(|pair| soft(*pair)).count();
    let eligible = outcome.nodes.iter().filter(|standing| standing.is_in()).count();
    if eligible < outcome.floor.min(able) {
        cx.truth.violated("INV-8", || format!("{eligible} of {able} nodes are eligible: {outcome:?}"));
    }
    if outcome.nodes.iter().any(|standing| matches!(standing, Standing::In(Why::Floor(_)))) {
        cx.truth.visit("floor of a pool");
    }
    cx.truth.visit(match outcome.stance {
        engine::health::Stance::Strict => "stance strict",
        engine::health::Stance::Lenient => "stance lenient",
        engine::health::Stance::AutoStrict => "stance auto strict",
        engine::health::Stance::AutoLenient { .. } => "stance auto lenient",
    });
}

/// INV-3 in the end: whatever a relay answered for is in every partition that it feeds.
pub fn nothing_missing(truth: &mut Truth) {
    let mut missing = Vec::new();
    for (id, sealed) in &truth.batches {
        let owed = match sealed.fate {
            // What was durable stays so; of the rest each partition takes what comes before it hears of the order.
            Fate::Spilled | Fate::Held if truth.forgotten.contains(&id.sender) => false,
            Fate::Durable | Fate::Spilled | Fate::Held => true,
            Fate::Dropped | Fate::Doubtful => false,
        };
        if owed && !truth.is_durable(*id) && !truth.is_damaged(*id) {
            missing.push((*id, sealed.fate));
        }
    }
    for (id, fate) in missing {
        truth.violated("INV-3", || format!("{id:?}, {fate:?} at its relay, is not in every partition that it feeds"));
    }
}

/// INV-4: a store holds what the oracle says, no more and no less.
pub fn converged(setup: &Setup, truth: &mut Truth, store: &str, has: &Lines) {
    let expected = oracle::expected(setup, truth);
    for ((name, at), value) in &expected {
        let found = has.get(&(name.clone(), *at));
        if found != Some(value) {
            let name = String::from_utf8_lossy(name).into_owned();
            truth.violated("INV-4", || format!("{store} has {found:?} for {name} at {at}, right is {value}"));
            return;
        }
    }
    if let Some(((name, at), value)) = has.iter().find(|(key, _)| !expected.contains_key(*key)) {
        let name = String::from_utf8_lossy(name).into_owned();
        truth.violated("INV-4", || format!("{store} has {value} for {name} at {at}, which nobody sent"));
    }
}
