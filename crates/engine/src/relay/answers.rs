//! What the peers answered.

use std::time::Duration;

use super::{Disowned, Drop, Peer, Relay, State};
use crate::batch::BatchId;
use crate::time::Mono;
use crate::wire::{Durable, FORGOTTEN, NackReason};

impl Relay {
    /// Batches are safe at the final layer: they are forgotten here, whoever says so. Those that the spill has are
    /// settled there, see [`Relay::take_settled`].
    pub fn durable(&mut self, now: Mono, peer: Peer, durable: &Durable) {
        if let Some(link) = self.links.get_mut(peer) {
            link.window_bytes = durable.window_bytes;
            link.queue_delay_ms = durable.queue_delay_ms;
        }
        let me = self.settings.incarnation;
        for range in &durable.ranges {
            if range.sender != me.sender || range.epoch != me.epoch {
                continue;
            }
            self.canaries.durable(range.first, range.last);
            let done: Vec<u32> = self
                .held
                .range(range.first..=range.last + u32::from(mutant!("durable_too_wide")))
                .map(|(seq, _)| *seq)
                .collect();
            for seq in done {
                self.one_durable(now, seq);
            }
            let late: Vec<u32> = self.handed_over.range(range.first..=range.last).map(|(seq, _)| *seq).collect();
            self.settled.extend(late.iter().filter_map(|seq| self.handed_over.remove(seq)).map(|(ticket, _)| ticket));
        }
    }

    fn one_durable(&mut self, now: Mono, seq: u32) {
        let Some(held) = self.close(seq) else { return };
        self.books.delivered += u64::from(held.batch.header().points);
        self.latency.note(now.since(held.sealed_at));
        self.last_progress = now;
        if let State::Sent { peer, at } = held.state {
            self.streams.answered(now, peer, &held.batch, at);
            if let Some(link) = self.links.get_mut(peer) {
                link.answered = (link.answered.0 + now.since(at), link.answered.1 + 1);
            }
        }
    }

    /// One batch was not taken.
    pub fn nack(&mut self, now: Mono, peer: Peer, id: BatchId, reason: NackReason) {
        let me = self.settings.incarnation;
        if id.sender != me.sender || id.epoch != me.epoch {
            return;
        }
        self.canaries.refused(id.seq);
        match reason {
            NackReason::Overloaded { retry_after_ms } => {
                self.wait_again(id.seq, now + Duration::from_millis(u64::from(retry_after_ms)), peer);
            }
            NackReason::TooManyHoles => self.wait_again(id.seq, now + self.settings.ack_timeout, peer),
            NackReason::BadChecksum => {
                let failures = self.held.get_mut(&id.seq).map(|held| {
                    held.checksum_failures += 1;
                    held.checksum_failures
                });
                if failures.is_some_and(|n| n > 1) {
                    self.refuse(id.seq, Drop::BadChecksum);
                } else {
                    self.wait_again(id.seq, now, peer);
                }
            }
            NackReason::TooOld => self.refuse(id.seq, Drop::TooOld),
            NackReason::UnknownVersion => self.refuse(id.seq, Drop::UnknownVersion),
            NackReason::Poison => self.refuse(id.seq, Drop::Poison),
            NackReason::DuplicateSender => self.disown(now, id.seq, Disowned::Duplicate),
            NackReason::Retired { floor: FORGOTTEN } => self.disown(now, id.seq, Disowned::Forgotten),
            NackReason::Retired { floor } => self.disown(now, id.seq, Disowned::Retired { floor }),
        }
    }

    fn disown(&mut self, now: Mono, seq: u32, why: Disowned) {
        self.refuse(seq, Drop::DuplicateSender);
        self.disowned.get_or_insert(why);
        self.assign_slots(now);
    }

    /// Refused for good: counted, and kept for the dead letters where there is a spill that can take them.
    fn refuse(&mut self, seq: u32, why: Drop) {
        let Some(batch) = self.give_up(seq, why) else { return };
        let size = super::len(&batch);
        if self.spill_able && self.dead_bytes + size <= DEAD_BYTES_MAX {
            self.dead_bytes += size;
            self.dead.push((batch, why));
        }
    }
}

/// Refused batches that wait for the spill; beyond it they are counted only.
const DEAD_BYTES_MAX: u64 = 32 << 20;
