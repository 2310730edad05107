//! What the spill gets of the batches that are held, and what it says of them.
//!
//! A batch is *due*, oldest first, when
//! * it has waited for `ack_timeout`, and three attempts or the retry budget are used up (`Timeout`);
//! * no peer has taken batches for `ack_timeout` (`NoPeer`);
//! * more than `retain` is held (`Memory`): first what waits, so that what a slow peer works off is not written for
//!   nothing, then what is on its way;
//! * the relay stops (`Shutdown`).
//!
//! While its answers come, however late, what a slow peer has is not due: see `streams`.
//!
//! With `journal` every batch is due when it is sealed (`Journal`), but is sent and held all the same. It is let go as
//! soon as it is due for one of the reasons above: the disk has it.
//!
//! **If the spill's thread dies.** Its successor tells what it finds written ([`Relay::spilled`]) and then asks again for
//! the rest ([`Relay::spill_restarted`]). The other order, or telling twice, writes a batch twice and counts it once: the
//! second ticket is refused and so settled at once.

use std::collections::BTreeMap;

use super::{Drop, Held, Journal, Relay, State, len};
use crate::batch::{Batch, BatchId};
use crate::spill::Why;
use crate::time::{Mono, UnixSeconds};
use crate::wire::Ticket;

/// Tickets remembered for a late `Durable`: ten minutes of a million points a second. What is older is found out by a
/// replay ("included already").
const REMEMBERED_MAX: usize = 1 << 16;

/// A batch that the spill is to write.
#[derive(Clone, Debug)]
pub struct Due {
    pub batch: Batch,
    pub why: Why,
}

impl Relay {
    /// What is due for the spill, oldest first, about `max_bytes` of it and at least one. It is not sent from now on
    /// (except for `Journal`), and held until [`Relay::spilled`].
    pub fn next_due(&mut self, now: Mono, max_bytes: u64) -> Vec<Due> {
        let due = self.due(now, max_bytes);
        let mut taken = Vec::with_capacity(due.len());
        for (seq, why) in due {
            if why == Why::Journal {
                self.unjournalled.remove(&seq);
            } else {
                self.take_off_link(seq);
                self.waiting.remove(&seq);
            }
            let Some(held) = self.held.get_mut(&seq) else { continue };
            if why == Why::Journal {
                held.journal = Journal::InHand;
            } else {
                held.state = State::Spilling;
                self.spilling_bytes += len(&held.batch);
                self.unjournalled.remove(&seq);
            }
            taken.push(Due { batch: held.batch.clone(), why });
        }
        taken
    }

    /// Whether [`Relay::next_due`] has something.
    pub fn has_due(&self, now: Mono) -> bool {
        !self.due(now, 1).is_empty()
    }

    /// `id` is on disk under `ticket`, synced. True: it is off this machine's hands (or journalled). False: it was
    /// durable, dropped or spilled meanwhile; the ticket is to be settled at once.
    pub fn spilled(&mut self, now: Mono, id: BatchId, ticket: Ticket) -> bool {
        let me = self.settings.incarnation;
        if id.sender != me.sender || id.epoch != me.epoch {
            return true;
        }
        let Some(held) = self.held.get_mut(&id.seq) else {
            let known = self.written_for_nothing.remove(&id.seq);
            let known = known.or_else(|| self.handed_over.get(&id.seq).map(|(_, points)| *points));
            self.books.answered_here += u64::from(known.unwrap_or(0));
            return false;
        };
        let points = held.batch.header().points;
        if let Journal::Done(_) = held.journal {
            self.books.answered_here += u64::from(points);
            return false;
        }
        if held.state == State::Spilling || held.journal == Journal::No {
            self.hand_over(id.seq, ticket);
        } else {
            held.journal = Journal::Done(ticket);
            self.books.journalled += u64::from(points);
            self.unjournalled.remove(&id.seq);
        }
        self.last_progress = now;
        true
    }

    /// Tickets of batches that became durable although the spill has them: to be settled. Once each.
    pub fn take_settled(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.settled)
    }

    /// Batches that a peer refused for good while the spill was able: for the dead letters. Counted as dropped here, so
    /// not to be counted again.
    pub fn take_dead(&mut self) -> Vec<(Batch, Drop)> {
        self.dead_bytes = 0;
        std::mem::take(&mut self.dead)
    }

    /// The spill has nothing in hand any more: what it took and did not tell is due again.
    pub fn spill_restarted(&mut self, now: Mono) {
        for (&seq, held) in &mut self.held {
            if held.state == State::Spilling {
                held.state = State::Waiting { after: now, avoid: None };
                self.waiting.insert(seq);
            }
            if held.journal == Journal::InHand {
                held.journal = Journal::Due;
            }
            if held.journal == Journal::Due {
                self.unjournalled.insert(seq);
            }
        }
        self.spilling_bytes = 0;
    }

    /// Whether the spill can take anything. While it cannot, nothing is due: the live path goes on, and over `retain` the
    /// oldest is dropped as `spill_full` when no peer makes progress.
    pub fn set_spill(&mut self, now: Mono, able: bool) {
        if self.spill_able && !able {
            self.spill_restarted(now);
        }
        self.spill_able = able;
    }

    /// What the spill holds of this sender, told at its start and whenever it changes. Until it is told for the first
    /// time, nothing is retired and the watermark stands still.
    pub fn set_spilled(&mut self, oldest_epoch: Option<u32>, min_ts: Option<UnixSeconds>) {
        self.in_spill = Some((oldest_epoch, min_ts));
    }

    /// Whether the live path still holds this batch, so that it is not to be lent to a replayer.
    pub fn holds(&self, id: BatchId) -> bool {
        let me = self.settings.incarnation;
        id.sender == me.sender && id.epoch == me.epoch && self.held.contains_key(&id.seq)
    }

    /// Shutdown: nothing is sent any more, everything is due.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    fn due(&self, now: Mono, max_bytes: u64) -> Vec<(u32, Why)> {
        if !self.spill_able {
            return Vec::new();
        }
        let mut due: BTreeMap<u32, Why> = BTreeMap::new();
        let mut bytes = 0;
        let mut add = |seq: u32, held: &Held, why: Why| {
            bytes += len(&held.batch);
            due.entry(seq).or_insert(why);
            bytes < max_bytes
        };
        self.overdue(now, &mut |seq, held, why| {
            // What the journal has, or has in hand, is let go without being written again.
            let is_written = matches!(held.journal, Journal::InHand | Journal::Done(_));
            is_written || add(seq, held, why)
        });
        for seq in &self.unjournalled {
            let Some(held) = self.held.get(seq) else { continue };
            if !add(*seq, held, Why::Journal) {
                break;
            }
        }
        due.into_iter().collect()
    }

    /// Everything due for another reason than the journal's, in the order in which it shall go, until `each` says stop.
    fn overdue(&self, now: Mono, each: &mut dyn FnMut(u32, &Held, Why) -> bool) {
        if self.draining {
            for (seq, held) in &self.held {
                if held.state != State::Spilling && !each(*seq, held, Why::Shutdown) {
                    return;
                }
            }
            return;
        }
        let nobody = self.nobody_since.is_some_and(|since| now.since(since) > self.settings.ack_timeout);
        let mut excess = (self.held_bytes - self.spilling_bytes).saturating_sub(self.settings.retain_bytes);
        for seq in &self.waiting {
            let Some(held) = self.held.get(seq) else { continue };
            let why = if nobody {
                Why::NoPeer
            } else if self.is_given_up(now, held) {
                Why::Timeout
            } else if excess > 0 {
                Why::Memory
            } else {
                continue;
            };
            excess = excess.saturating_sub(len(&held.batch));
            if !each(*seq, held, why) {
                return;
            }
        }
        let sent = self.held.iter().filter(|(_, held)| matches!(held.state, State::Sent { .. }));
        for (seq, held) in sent {
            if excess == 0 || !each(*seq, held, Why::Memory) {
                return;
            }
            excess = excess.saturating_sub(len(&held.batch));
        }
    }

    /// Old enough, and not to be sent again.
    pub(super) fn is_given_up(&self, now: Mono, held: &Held) -> bool {
        held.sends > 0
            && now.since(held.sealed_at) > self.settings.ack_timeout
            && (held.sends >= super::links::ATTEMPTS_MAX || !self.budget.allows(now, len(&held.batch)))
    }

    /// What is due and journalled is let go: the disk has it.
    pub(super) fn let_go(&mut self, now: Mono) {
        if !self.settings.journal {
            return;
        }
        let mut done = Vec::new();
        self.overdue(now, &mut |seq, held, _| {
            if let Journal::Done(ticket) = held.journal {
                done.push((seq, ticket));
            }
            true
        });
        for (seq, ticket) in done {
            self.hand_over(seq, ticket);
        }
    }

    /// From here on the spill answers for a batch.
    pub(super) fn hand_over(&mut self, seq: u32, ticket: Ticket) {
        let Some(held) = self.release(seq) else { return };
        let points = held.batch.header().points;
        if let Journal::Done(_) = held.journal {
            self.books.journalled -= u64::from(points);
        }
        self.books.spilled += u64::from(points);
        remember(&mut self.handed_over, seq, (ticket, points));
    }

    /// A batch leaves for another reason than the spill; what the spill has of it is settled. The one way out besides
    /// [`Relay::hand_over`].
    pub(super) fn close(&mut self, seq: u32) -> Option<Held> {
        let held = self.release(seq)?;
        let points = held.batch.header().points;
        if let Journal::Done(ticket) = held.journal {
            self.books.journalled -= u64::from(points);
            self.books.answered_here += u64::from(points);
            self.settled.push(ticket);
        } else if held.state == State::Spilling || held.journal == Journal::InHand {
            remember(&mut self.written_for_nothing, seq, points);
        }
        Some(held)
    }
}

fn remember<T>(map: &mut BTreeMap<u32, T>, seq: u32, what: T) {
    map.insert(seq, what);
    if map.len() > REMEMBERED_MAX {
        map.pop_first();
    }
}
