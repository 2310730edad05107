//! Whom records go to: nodes that take batches within a window, and senders to stores that say how far they are.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::lane::Lane;
use super::{Key, Record, Replay, State, Target, To};
use crate::batch::BatchId;
use crate::time::Mono;
use crate::wire::{Durable, NackReason, Outcome};

/// A receiver that has said nothing for so long is taken for overloaded: one that does well says so twice a second.
const SILENT: Duration = Duration::from_secs(3);
/// Bytes on their way to one store: they are until its receipt comes, so this much goes at most for each receipt.
const STORE_OUT_MAX: u64 = super::AHEAD_BYTES;

#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) up: bool,
    pub(super) draining: bool,
    /// The pool keeps work from it.
    kept_out: bool,
    pub(super) window: u64,
    pub(super) out_bytes: u64,
    outbox: VecDeque<Key>,
    pub(super) queue_delay: Option<Duration>,
    heard: Mono,
    blocked_until: Mono,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) accepts: bool,
    outbox: VecDeque<Key>,
    out_bytes: u64,
    /// In the order of offering, with the sender's count after each.
    offered: VecDeque<(u64, Key)>,
}

impl Replay {
    /// A receiver welcomed us.
    pub fn receiver_up(&mut self, now: Mono, receiver: usize, window: u64) {
        if let Some(to) = self.receivers.get_mut(receiver) {
            let kept_out = to.kept_out;
            *to = Receiver { up: true, window, heard: now, kept_out, ..Receiver::default() };
        }
    }

    /// The link to a receiver is gone: what was on its way goes again.
    pub fn receiver_down(&mut self, receiver: usize) {
        if let Some(to) = self.receivers.get_mut(receiver) {
            *to = Receiver { kept_out: to.kept_out, ..Receiver::default() };
        }
        self.wait_again_all(To::Receiver(receiver));
    }

    /// The receiver takes no more; what is on its way may still become durable.
    pub fn receiver_draining(&mut self, receiver: usize) {
        // Of a link that is down it would be said of the next one.
        if let Some(to) = self.receivers.get_mut(receiver).filter(|to| to.up) {
            to.draining = true;
        }
    }

    /// Which receivers may get work, as decided by `health`; all before this is said for the first time.
    pub fn set_eligible(&mut self, eligible: &[bool]) {
        for (to, eligible) in self.receivers.iter_mut().zip(eligible) {
            to.kept_out = !eligible;
        }
    }

    fn wait_again_all(&mut self, lost: To) {
        let on_the_way = |state| match state {
            State::Turn(to) | State::Out(to) | State::Sent(to) => to == lost,
            State::Ready => false,
        };
        let again = self.records.iter().filter(|(_, record)| on_the_way(record.state));
        let again: Vec<Key> = again.map(|(key, _)| *key).collect();
        again.into_iter().for_each(|key| self.wait_again(key));
    }

    /// The next batch to write to a receiver; it counts as sent from now on.
    pub fn next_batch(&mut self, receiver: usize) -> Option<Bytes> {
        let to = To::Receiver(receiver);
        loop {
            let key = self.receivers.get_mut(receiver)?.outbox.pop_front()?;
            if let Some(record) = self.out(key, to) {
                record.state = State::Sent(to);
                return Some(record.bytes.clone());
            }
        }
    }

    fn out(&mut self, key: Key, to: To) -> Option<&mut Record> {
        self.records.get_mut(&key).filter(|record| record.state == State::Out(to))
    }

    /// Batches are safe at the final layer, whoever says so; and how the receiver does.
    pub fn durable(&mut self, now: Mono, receiver: usize, durable: &Durable) {
        if let Some(to) = self.receivers.get_mut(receiver) {
            to.window = durable.window_bytes;
            to.queue_delay = Some(Duration::from_millis(u64::from(durable.queue_delay_ms)));
            to.heard = now;
        }
        for range in &durable.ranges {
            let id = |seq| BatchId { sender: range.sender, epoch: range.epoch, seq };
            if range.first > range.last {
                continue;
            }
            let done = self.by_id.range(id(range.first)..=id(range.last)).flat_map(|(_, keys)| keys.iter().copied());
            let done: Vec<Key> = done.collect();
            done.into_iter().for_each(|key| self.settle(key, Outcome::Delivered));
        }
    }

    /// One batch was not taken.
    pub fn nack(&mut self, now: Mono, receiver: usize, id: BatchId, reason: NackReason) {
        let keys = self.by_id.get(&id).cloned().unwrap_or_default();
        for key in keys {
            let sent = self.records.get(&key).is_some_and(|record| record.state == State::Sent(To::Receiver(receiver)));
            if sent {
                self.refused(now, receiver, key, reason);
            }
        }
    }

    fn refused(&mut self, now: Mono, receiver: usize, key: Key, reason: NackReason) {
        match reason {
            NackReason::Overloaded { retry_after_ms } => {
                if let Some(to) = self.receivers.get_mut(receiver) {
                    to.blocked_until = now + Duration::from_millis(u64::from(retry_after_ms));
                }
                self.wait_again(key);
            }
            NackReason::BadChecksum => {
                let failures = self.records.get_mut(&key).map_or(0, |record| {
                    record.checksum_failures += 1;
                    record.checksum_failures
                });
                if failures > 1 { self.settle(key, Outcome::BadChecksum) } else { self.wait_again(key) }
            }
            NackReason::TooManyHoles => self.give_back(now, key, "the final layer wants older points first"),
            // Refused for good there, but not lost: with the rules it was made for it can still be replayed.
            NackReason::UnknownVersion => self.give_back(
                now,
                key,
                "made for rules that the partial node does not know (`rules.json` in its data directory), or for other final nodes",
            ),
            NackReason::TooOld => self.settle(key, Outcome::TooOld),
            NackReason::Poison => self.settle(key, Outcome::Poison),
            // Whether its points are in is not known any more: it is kept, but not as one to be sent.
            NackReason::DuplicateSender | NackReason::Retired { .. } => self.settle(key, Outcome::DuplicateSender),
        }
    }

    fn give_back(&mut self, now: Mono, key: Key, why: &str) {
        self.settle(key, Outcome::Released);
        if let Some(lane) = self.lanes.get_mut(&(key.0, key.1.lane)) {
            lane.failed(now, why.to_owned());
        }
    }

    /// The next block for a store's sender, and the record to name when it was taken.
    pub fn next_block(&mut self, store: usize) -> Option<(Key, Bytes, u32)> {
        let to = To::Store(store);
        loop {
            let key = self.stores.get_mut(store)?.outbox.pop_front()?;
            if let Some(record) = self.out(key, to) {
                let points = u32::try_from(record.points).unwrap_or(u32::MAX);
                return Some((key, record.bytes.clone(), points));
            }
        }
    }

    /// The sender took the block; `count`: how many it has taken in its life.
    pub fn block_offered(&mut self, store: usize, key: Key, count: u64) {
        if let Some(record) = self.out(key, To::Store(store)) {
            record.state = State::Sent(To::Store(store));
            if let Some(to) = self.stores.get_mut(store) {
                to.offered.push_back((count, key));
            }
        }
    }

    /// The sender did not take it: it goes back to the front.
    pub fn block_refused(&mut self, store: usize, key: Key) {
        if self.out(key, To::Store(store)).is_some() {
            self.wait_again(key);
        }
        self.store_state(store, false);
    }

    /// Whether the sender takes blocks.
    pub fn store_state(&mut self, store: usize, accepts: bool) {
        if let Some(to) = self.stores.get_mut(store) {
            to.accepts = accepts;
        }
    }

    /// What a sender says of blocks that it was offered of a relay's is of no interest any more.
    pub(super) fn forget_offers_of(&mut self, source: super::Source) {
        self.stores.iter_mut().for_each(|to| to.offered.retain(|(_, key)| key.0 != source));
    }

    /// The sender will never send its first `released` blocks again.
    pub fn store_released(&mut self, store: usize, released: u64) {
        while let Some((count, key)) = self.stores.get(store).and_then(|to| to.offered.front().copied())
            && count <= released
        {
            if let Some(to) = self.stores.get_mut(store) {
                to.offered.pop_front();
            }
            self.settle(key, Outcome::Delivered);
        }
    }

    /// Who would take a record now: of the receivers in the canary the one with the most room, or its store.
    pub(super) fn room_for(&self, now: Mono, key: Key) -> Option<To> {
        let bytes = self.records.get(&key)?.bytes.len() as u64;
        match self.lanes.get(&(key.0, key.1.lane))?.target? {
            Target::Store(store) => {
                let to = self.stores.get(store)?;
                (to.accepts && (to.out_bytes == 0 || to.out_bytes + bytes <= STORE_OUT_MAX)).then_some(To::Store(store))
            }
            Target::Aggregate => self
                .eligible()
                .filter(|(_, to)| now >= to.blocked_until && to.window > 0)
                .filter(|(_, to)| to.out_bytes == 0 || to.out_bytes + bytes <= to.window)
                .max_by_key(|(index, to)| (to.window.saturating_sub(to.out_bytes), usize::MAX - index))
                .map(|(index, _)| To::Receiver(index)),
        }
    }

    /// The receivers that replay goes to: the first of the list, as many as the canary says, that are up.
    fn eligible(&self) -> impl Iterator<Item = (usize, &Receiver)> {
        let share = self.receivers.len() * usize::from(self.control.canary_percent);
        let canaries = share.div_ceil(100).max(1);
        let takes = |to: &Receiver| to.up && !to.draining && !to.kept_out;
        self.receivers.iter().enumerate().filter(|(_, to)| !to.kept_out).take(canaries).filter(move |(_, to)| takes(to))
    }

    /// Whether anything could take what this lane holds: else nothing is borrowed.
    pub(super) fn is_reachable(&self, lane: &Lane) -> bool {
        match lane.target {
            None => false,
            Some(Target::Aggregate) => self.eligible().any(|(_, to)| to.window > 0),
            Some(Target::Store(store)) => self.stores.get(store).is_some_and(|to| to.accepts),
        }
    }

    /// The longest queue delay among the receivers that replay goes to; silence counts as more than any.
    pub fn queue_delay(&self, now: Mono) -> Option<Duration> {
        let delay = |to: &Receiver| {
            let silence = now.since(to.heard);
            if silence > SILENT { Some(silence) } else { to.queue_delay }
        };
        self.eligible().filter_map(|(_, to)| delay(to)).max()
    }

    /// Bytes that one lane may have on the way at the most.
    pub(super) fn lane_share(&self, target: Target) -> u64 {
        match target {
            Target::Store(_) => super::AHEAD_BYTES,
            Target::Aggregate => {
                let windows: u64 = self.eligible().map(|(_, to)| to.window).sum();
                let active = self.lanes.values().filter(|lane| lane.target == Some(target) && lane.here() > 0).count();
                (windows / (active.max(1) as u64)).min(windows / 4 * 3)
            }
        }
    }

    pub(super) fn reserve(&mut self, to: To, bytes: u64) {
        if let Some(out) = self.out_bytes(to) {
            *out += bytes;
        }
    }

    pub(super) fn unreserve(&mut self, to: To, bytes: u64) {
        if let Some(out) = self.out_bytes(to) {
            *out = out.saturating_sub(bytes);
        }
    }

    fn out_bytes(&mut self, to: To) -> Option<&mut u64> {
        match to {
            To::Receiver(receiver) => self.receivers.get_mut(receiver).map(|to| &mut to.out_bytes),
            To::Store(store) => self.stores.get_mut(store).map(|to| &mut to.out_bytes),
        }
    }

    pub(super) fn queue(&mut self, to: To, key: Key) {
        let outbox = match to {
            To::Receiver(receiver) => self.receivers.get_mut(receiver).map(|to| &mut to.outbox),
            To::Store(store) => self.stores.get_mut(store).map(|to| &mut to.outbox),
        };
        if let Some(outbox) = outbox {
            outbox.push_back(key);
        }
    }
}
