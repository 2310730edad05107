//! What a relay's spill asks of the retaining machine and of the senders of raw lines; as `relay::spill::{live, path}`. And the
//! checks of what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use engine::batch::{Batch, BatchId, Incarnation};
use engine::relay::Relay;
use engine::spill::{self, AGGREGATE, Content, Entry, Header, Lost, Origin, Spill, Why, records_from};
use engine::time::UnixSeconds;
use engine::wire::Ticket;
use store::{MemStore, Store, StoreError};

use crate::lines::Kept;
use crate::node::Cx;
use crate::raw::RawLines;
use crate::truth::Fate;

/// See the module's head.
pub struct Live<'a> {
    pub machine: &'a mut Relay,
    pub raw: &'a mut RawLines,
}

/// Who is to be told that something is on disk.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    Batch(BatchId),
    /// Everything that the sender to this store gave up to the number.
    Block {
        store: usize,
        number: u64,
    },
    Journalled {
        store: usize,
        number: u64,
    },
}

/// Who is to hear of a record.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    Live(Told),
    Nobody,
    /// Its sender has it back.
    Void,
}

impl Live<'_> {
    /// Takes what is due, and appends it.
    pub fn append_due(
        &mut self,
        cx: &mut Cx<'_>,
        epoch: u32,
        max_bytes: u64,
        spill: &mut Spill,
    ) -> Vec<(Ticket, Owner)> {
        let mut fresh = Vec::new();
        let mut left = max_bytes;
        for due in self.machine.next_due(cx.now, max_bytes) {
            cx.truth.visit(due.why.as_str());
            left = left.saturating_sub(due.batch.bytes().len() as u64);
            let ticket = spill.append(&Entry::batch(&destination(cx, &due.batch), &due.batch, due.why));
            fresh.push((ticket, Owner::Live(Told::Batch(due.batch.id()))));
        }
        for due in self.raw.take_due(cx, left) {
            let (store, number) = (due.store, due.number);
            let entry = Entry::block(&due.destination, &due.lines, due.points, epoch, number, due.why);
            let is_journal = due.why == Why::Journal;
            let told = if is_journal { Told::Journalled { store, number } } else { Told::Block { store, number } };
            fresh.push((spill.append(&entry), Owner::Live(told)));
        }
        fresh
    }

    /// It is on disk, synced. False: the ticket is to be settled at once.
    pub fn spilled(&mut self, cx: &mut Cx<'_>, told: Told, ticket: Ticket) -> bool {
        match told {
            Told::Batch(id) => self.machine.spilled(cx.now, id, ticket),
            Told::Block { store, number } => {
                self.raw.spilled(cx, store, number);
                true
            }
            Told::Journalled { store, number } => self.raw.journalled(cx, store, number, ticket),
        }
    }

    /// Tickets of what became durable by another way.
    pub fn take_settled(&mut self) -> Vec<Ticket> {
        let mut settled = self.machine.take_settled();
        settled.extend(self.raw.take_settled());
        settled
    }

    /// Whether the live path still has what is in a record.
    pub fn holds(&self, origin: Origin<'_>) -> bool {
        match origin.content {
            Content::Batch(id) => self.machine.holds(id),
            Content::Block { epoch, number } => {
                origin.why == Why::Journal && self.raw.holds(origin.destination, epoch, number)
            }
        }
    }

    /// The spill has nothing in hand any more.
    pub fn restarted(&mut self, cx: &Cx<'_>) {
        self.machine.spill_restarted(cx.now);
        self.raw.spill_restarted();
    }

    /// Whether the spill takes anything.
    pub fn set_able(&mut self, cx: &mut Cx<'_>, able: bool) {
        if !able {
            // What it had in hand comes back, and what it could not settle comes once more: later than what was sent since (hazard 9).
            cx.truth.lines.is_copied(cx.me);
        }
        self.machine.set_spill(cx.now, able);
        self.raw.set_spill(able);
    }

    /// What the spill holds of this sender.
    pub fn set_spilled(&mut self, oldest: (Option<u32>, Option<UnixSeconds>)) {
        self.machine.set_spilled(oldest.0, oldest.1);
    }
}

/// What a former life wrote and did not tell. `void_blocks`: the store failed, and the senders have their blocks back.
///
/// # Errors
/// When the store cannot be read.
pub fn find_untold(
    (store, spill): (&MemStore, &Spill),
    tails: &BTreeMap<u16, u64>,
    (who, void_blocks): (Incarnation, bool),
    raw: &RawLines,
) -> Result<Vec<(Ticket, Owner)>, StoreError> {
    let mut untold = Vec::new();
    for lane in spill.lanes() {
        let (from, to) = records_from(lane.lane, tails.get(&lane.lane).copied().unwrap_or(0));
        store.salvage(&from, &to, &mut |_, value| {
            let Ok(record) = spill::decode(value) else { return ControlFlow::Continue(()) };
            let Header { before, destination, why, content, .. } = record.header;
            let ticket = Ticket { lane: lane.lane, ordinal: before.ordinal };
            let owner = match (content, raw.store_of(destination)) {
                _ if why == Why::Import || !spill.is_own(&record, who.epoch) => Owner::Nobody,
                (Content::Batch(id), _) => Owner::Live(Told::Batch(id)),
                (Content::Block { number, .. }, Some(store)) if why == Why::Journal => {
                    Owner::Live(Told::Journalled { store, number })
                }
                (Content::Block { .. }, _) if void_blocks => Owner::Void,
                (Content::Block { number, .. }, Some(store)) => Owner::Live(Told::Block { store, number }),
                (Content::Block { .. }, None) => Owner::Nobody,
            };
            untold.push((ticket, owner));
            ControlFlow::Continue(())
        })?;
    }
    Ok(untold)
}

/// INV-2 at the spill: what is settled as delivered is durable, or read; what is dropped there is no longer owed.
pub fn finished(cx: &mut Cx<'_>, header: &Header<'_>, store: Option<usize>, lost: Option<Lost>) {
    let kept = Kept::of(header, cx.me, store);
    if let Some(why) = lost {
        cx.truth.visit(why.as_str());
        cx.truth.dropped(why.as_str());
    }
    match (header.content, kept) {
        (Content::Batch(id), _) if lost.is_none() => {
            if cx.truth.is_dropped(id) {
                cx.truth.visit("dropped out of the journal");
                return;
            }
            cx.truth.visit("settled by replay");
            if !cx.truth.is_durable(id) && !cx.truth.is_damaged(id) {
                cx.truth.violated("INV-2", || format!("{id:?} was settled in the spill, and is not durable"));
            }
        }
        (Content::Batch(id), _) => {
            if !cx.truth.is_durable(id) {
                cx.truth.set_fate(id, Fate::Dropped);
            }
        }
        (Content::Block { .. }, Some(kept)) if lost.is_none() => {
            cx.truth.visit("block settled");
            if let Some(id) = cx.truth.lines.settled(kept) {
                cx.truth.violated("INV-2", || format!("{kept:?} was settled in the spill, and line {id} was not read"));
            }
        }
        (Content::Block { .. }, Some(kept)) => cx.truth.lines.record_lost(kept),
        (Content::Block { .. }, None) => {}
    }
}

/// INV-1 of every lane.
pub fn balance(cx: &mut Cx<'_>, spill: &Spill) {
    for lane in spill.lanes() {
        let dropped: u64 = lane.dropped.iter().map(|(_, tally)| tally.points).sum();
        lane.dropped.iter().for_each(|(why, _)| cx.truth.visit(why.as_str()));
        if lane.spilled.points != lane.pending.points + lane.settled.points + dropped {
            cx.truth.violated("INV-1", || format!("books of a spill's lane: {lane:?}"));
        }
    }
}

fn destination(cx: &Cx<'_>, batch: &Batch) -> String {
    let owners: BTreeSet<usize> = batch
        .header()
        .claims
        .iter()
        .filter_map(|claim| cx.setup.owners.get(usize::from(claim.partition)).copied())
        .collect();
    match (owners.first(), owners.len()) {
        (Some(owner), 1) => format!("{AGGREGATE}:{}", cx.setup.finals[*owner]),
        _ => AGGREGATE.to_owned(),
    }
}
