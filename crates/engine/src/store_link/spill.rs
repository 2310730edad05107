//! What the spill gets of the blocks that are held ([`Overflow::Spill`]).
//!
//! Owed blocks are *due*, oldest first, when more than `retain_bytes` are held (`Memory`: until they are no more), when
//! there has been no connection for `ack_timeout` (`NoPeer`), or after [`StoreLink::drain_to_spill`] (`Shutdown`). What
//! the spill takes stays in memory and `in_flight` until [`StoreLink::spilled`], and is not sent meanwhile.
//!
//! With [`super::Settings::journal`] every block is due when it is offered (`Journal`), but is sent and held all the same.
//! Once it is due for one of the reasons above it is let go, because the disk has it; see `journal`.
//!
//! A block has no identity. If the spill's thread dies, its successor first tells what it finds written, and then calls
//! [`StoreLink::spill_restarted`]; the other order sends a block twice, which a store does not mind, and counts it twice.

use super::journal::Journal;
use super::{Block, Command, Overflow, Receipts, State, StoreLink};
use crate::spill::Why;
use crate::time::Mono;
use crate::wire::Ticket;

/// A block that the spill is to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The lines.
    pub block: Block,
    /// Why it is not sent; or `Journal`, then it is.
    pub why: Why,
    /// Grows with every block taken from this link: for [`StoreLink::spilled`]. Of the journal another number, in the
    /// order of offering: for [`StoreLink::journalled`].
    pub number: u64,
}

impl StoreLink {
    /// What is due for the spill, oldest first, about `max_bytes` of it and at least one.
    pub fn take_due(&mut self, now: Mono, max_bytes: u64) -> Vec<Due> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        self.let_go(now);
        while bytes < max_bytes
            && let Some(why) = self.is_due(now)
            && let Some((number, block)) = self.log.take_oldest_owed()
        {
            bytes += block.bytes.len() as u64;
            taken.push(Due { block, why, number });
            self.let_go(now);
        }
        if bytes < max_bytes
            && self.can_spill()
            && let Some(journal) = &mut self.log.journal
        {
            let due = journal.take(max_bytes - bytes).into_iter();
            taken.extend(due.map(|(number, block)| Due { block, why: Why::Journal, number }));
        }
        self.step(now);
        taken
    }

    /// Whether [`StoreLink::take_due`] has something to do.
    pub fn has_due(&self, now: Mono) -> bool {
        (self.is_due(now).is_some() && self.log.has_owed())
            || (self.can_spill() && self.log.journal.as_ref().is_some_and(Journal::has_due))
    }

    /// Everything taken up to this number is on disk, synced.
    pub fn spilled(&mut self, now: Mono, upto_number: u64) {
        self.log.spilled(upto_number);
        self.step(now);
    }

    /// A block taken for the journal is on disk under `ticket`, synced. False: it is off this link's hands already, so
    /// that the ticket is to be settled at once.
    pub fn journalled(&mut self, now: Mono, number: u64, ticket: Ticket) -> bool {
        let keeps = self.log.journal.as_mut().is_none_or(|journal| journal.told(number, ticket));
        self.let_go(now);
        self.step(now);
        keeps
    }

    /// Tickets of journalled blocks that are off this link's hands: to be settled. Once each.
    pub fn take_settled(&mut self) -> Vec<Ticket> {
        self.log.journal.as_mut().map(Journal::take_settled).unwrap_or_default()
    }

    /// Whether this link still has a journalled block, so that its record is to be neither lent nor given up.
    pub fn holds(&self, number: u64) -> bool {
        self.log.journal.as_ref().is_some_and(|journal| journal.holds(number))
    }

    /// The spill has nothing in hand any more: what it took and did not tell is to be sent, or due again.
    pub fn spill_restarted(&mut self) {
        self.log.put_back();
        if let Some(journal) = &mut self.log.journal {
            journal.restarted();
        }
    }

    /// Whether the spill can take anything. While it cannot, nothing is due.
    pub fn set_spill(&mut self, able: bool) {
        if self.spill_able && !able {
            self.log.put_back();
            if let Some(journal) = &mut self.log.journal {
                journal.failed();
            }
            self.to_spill = false;
        }
        self.spill_able = able;
    }

    /// Shutdown, when there is no time left for receipts: takes no more, sends no more, and everything that the store has
    /// not confirmed is due. Without an able spill it is only [`super::Event::Drain`].
    ///
    /// A store that never gives receipts keeps what was written to it: it would stay unconfirmed for ever.
    pub fn drain_to_spill(&mut self, now: Mono) {
        self.draining = true;
        self.log.forget_reasserts();
        if !self.can_spill() {
            return;
        }
        self.to_spill = true;
        match self.receipts {
            Receipts::Unknown | Receipts::Supported => {}
            Receipts::Unsupported => self.log.give_up_written(0),
        }
        self.log.lose(None);
        self.commands.clear();
        match self.state {
            State::Disconnected { .. } | State::Drained => {}
            State::Connecting | State::Open { .. } | State::HalfClosed { .. } => {
                self.commands.push_back(Command::Close)
            }
        }
        if !matches!(self.state, State::Drained) {
            self.state = State::Disconnected { until: now };
        }
        self.step(now);
    }

    /// What is due and journalled is let go: the disk has it.
    pub(super) fn let_go(&mut self, now: Mono) {
        while self.settings.journal && self.is_due(now).is_some() && self.log.hand_over_oldest() {}
    }

    pub(super) fn can_spill(&self) -> bool {
        self.settings.overflow == Overflow::Spill && self.spill_able
    }

    fn is_due(&self, now: Mono) -> Option<Why> {
        if !self.can_spill() {
            return None;
        }
        let is_away = self.away_since.is_some_and(|since| now.since(since) > self.settings.ack_timeout);
        if self.to_spill {
            Some(Why::Shutdown)
        } else if is_away {
            Some(Why::NoPeer)
        } else {
            (self.log.bytes() > self.settings.retain_bytes).then_some(Why::Memory)
        }
    }
}
