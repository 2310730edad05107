//! Records of the journal that were written not long ago: what must be known to settle them without reading them, and
//! which of them the live path still has.

use std::collections::BTreeMap;

use engine::spill::{Content, Meta, Origin, Tally, Why};
use engine::wire::Ticket;

use super::live::Live;

/// More are forgotten, oldest first, and have to be read.
const RECENT_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Recent {
    records: BTreeMap<Ticket, (Meta, Content)>,
    /// Of lanes.
    destinations: BTreeMap<u16, String>,
}

impl Recent {
    /// Something is written for the journal.
    pub(super) fn add(&mut self, ticket: Ticket, meta: Meta, origin: Origin<'_>) {
        if origin.why != Why::Journal {
            return;
        }
        self.destinations.entry(ticket.lane).or_insert_with(|| origin.destination.to_owned());
        self.records.insert(ticket, (meta, origin.content));
        if self.records.len() > RECENT_MAX {
            self.records.pop_first();
        }
    }

    pub(super) fn meta(&self, ticket: Ticket) -> Option<Meta> {
        self.records.get(&ticket).map(|(meta, _)| *meta)
    }

    /// It is settled, or was not written after all.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.records.remove(&ticket);
    }

    /// A former life has added what it may not have written: of each lane, from the first ordinal that was not told on.
    pub(super) fn forget_untold(&mut self, told: &BTreeMap<u16, u64>) {
        self.records.retain(|ticket, _| told.get(&ticket.lane).is_some_and(|told| ticket.ordinal < *told));
    }

    /// Once the live path has let go of a block, it never comes back to it.
    pub(super) fn forget_blocks(&mut self, live: &dyn Live) {
        let destinations = &self.destinations;
        self.records
            .retain(|ticket, (_, content)| !is_block(*content) || holds(live, destinations, ticket.lane, *content));
    }

    /// What the live path still has, by lane.
    pub(super) fn held(&self, live: &dyn Live) -> BTreeMap<u16, Tally> {
        let mut held: BTreeMap<u16, Tally> = BTreeMap::new();
        for (ticket, (meta, content)) in &self.records {
            if holds(live, &self.destinations, ticket.lane, *content) {
                held.entry(ticket.lane).or_default().add(meta.run.tally());
            }
        }
        held
    }

    /// The first block of the lane, from this one on, that the live path still has. Batches are read instead: it has them
    /// for seconds, and blocks for as long as a store lets its receipt wait.
    pub(super) fn next_held(&self, live: &dyn Live, from: Ticket) -> Option<u64> {
        let mut behind = self.records.range(from..=Ticket { ordinal: u64::MAX, ..from });
        let held = |content: Content| is_block(content) && holds(live, &self.destinations, from.lane, content);
        behind.find(|(_, (_, content))| held(*content)).map(|(ticket, _)| ticket.ordinal)
    }
}

fn is_block(content: Content) -> bool {
    matches!(content, Content::Block { .. })
}

fn holds(live: &dyn Live, destinations: &BTreeMap<u16, String>, lane: u16, content: Content) -> bool {
    let destination = destinations.get(&lane).map_or("", String::as_str);
    live.holds(Origin { why: Why::Journal, content, destination })
}
