//! What a shard does once a second: retire epochs, let old windows go, take checkpoints, and keep within its budgets of
//! memory and disk.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::time::{Mono, UnixSeconds};
use engine::wire::FORGOTTEN;
use runtime::WorkerError;

use super::journal::{Append, appends};
use super::shard::Shard;
use crate::partial_lock as lock;

/// A checkpoint is taken when the log of a partition has grown by this, or ...
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// ... something has changed and it is so old.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// Windows leave memory for their snapshots above this share of the budget ...
const EVICT_PERCENT: u64 = 60;
/// ... and above this one also those that are still to be emitted.
const EVICT_ALL_PERCENT: u64 = 80;
/// Windows that leave memory in one turn.
const EVICT_PER_TURN: usize = 1024;
/// Above this share of the quota the oldest windows are sealed before their time.
const SEAL_PERCENT: u64 = 85;

impl Shard<'_> {
    pub(super) fn keep(&mut self, now: Mono) -> Result<(), WorkerError> {
        let horizon = u32::try_from(self.role.setup.horizon.as_secs()).unwrap_or(u32::MAX);
        let floor = UnixSeconds(self.role.setup.clock.unix().0.saturating_sub(horizon));
        let watermarks = self.role.watermarks();
        let forgotten = self.role.setup.forgotten.senders();
        let births = self.role.births();
        let is_reborn = std::mem::replace(&mut self.births, births) != births;
        let is_short_of_disk = self.role.used_bytes() / SEAL_PERCENT >= self.role.setup.quota_bytes / 100;
        for index in 0..self.owned.len() {
            self.owned[index].partition.seal_before(floor);
            if is_reborn {
                self.owned[index].partition.windows().mark_all_changed();
                self.owned[index].checkpointed = Mono::ZERO;
            }
            if is_short_of_disk {
                self.seal_oldest(index);
            }
            if !self.role.admits() && !is_short_of_disk {
                continue; // the disk takes nothing now
            }
            for watermark in watermarks.iter().filter(|watermark| watermark.retired > 0) {
                self.retire(index, watermark.sender, watermark.retired)?;
            }
            for sender in &forgotten {
                self.retire(index, *sender, FORGOTTEN)?;
            }
            self.checkpoint(index, now, is_short_of_disk)?;
        }
        self.evict();
        Ok(())
    }

    fn retire(&mut self, index: usize, sender: u64, floor: u32) -> Result<(), WorkerError> {
        if !self.has_room() {
            return Ok(()); // said again in a second
        }
        let partition = &mut self.owned[index].partition;
        if let Some((_, record)) = partition.retire(sender, floor) {
            let mark = Some((partition.number(), partition.mark()));
            self.append(Append { record: Some(record), mark, ..Append::default() })?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, index: usize, now: Mono, urgent: bool) -> Result<(), WorkerError> {
        let owned = &mut self.owned[index];
        let partition = &mut owned.partition;
        let is_old = now.since(owned.checkpointed) >= CHECKPOINT_EVERY;
        let due = partition.log_bytes() >= CHECKPOINT_BYTES || ((is_old || urgent) && partition.has_changed());
        // One at a time: the next begins when the last is durable.
        if !due || owned.checkpoint_token > self.synced || !self.has_room() {
            return Ok(());
        }
        let owned = &mut self.owned[index];
        owned.checkpointed = now;
        let (number, made, mark) = (owned.partition.number(), owned.partition.checkpoint(), owned.partition.mark());
        let mut token = 0;
        for append in appends(number, made, mark) {
            token = self.append(append)?;
        }
        self.owned[index].checkpoint_token = token;
        Ok(())
    }

    /// A window leaves memory only when the snapshot that would bring it back is durable.
    fn evict(&mut self) {
        let budget = (self.role.setup.memory_bytes / self.role.setup.shards as u64).max(1);
        let used: u64 = self.owned.iter().map(|owned| owned.partition.bytes() as u64).sum();
        self.is_over_memory = used > budget;
        let percent = used.saturating_mul(100) / budget;
        if percent < EVICT_PERCENT {
            return;
        }
        let all = percent >= EVICT_ALL_PERCENT;
        for owned in &mut self.owned {
            if owned.checkpoint_token > 0 && owned.checkpoint_token <= self.synced {
                let windows = owned.partition.windows();
                for id in windows.evictable(EVICT_PER_TURN, all) {
                    windows.evict(id);
                }
            }
        }
    }

    /// The disk is nearly full: the horizon is what it allows.
    fn seal_oldest(&mut self, index: usize) {
        let partition = &mut self.owned[index].partition;
        if let Some(oldest) = partition.windows().oldest() {
            partition.seal_before(UnixSeconds(oldest.0.saturating_add(1)));
            lock(&self.role.states[self.number]).sealed_early += 1;
        }
    }

    /// Shows what an operator may ask for.
    pub(super) fn publish(&mut self) {
        let mut senders = BTreeMap::new();
        for owned in &self.owned {
            for (sender, known) in owned.partition.senders() {
                let entry = senders.entry(sender).or_insert(known);
                *entry = entry.or_more(known);
            }
        }
        let mut waiting = vec![engine::final_node::cursor::Waiting::default(); self.role.targets.len()];
        for owned in &mut self.owned {
            for (target, sum) in waiting.iter_mut().enumerate() {
                *sum = sum.and(owned.partition.cursor().waiting(target));
            }
        }
        let mut state = lock(&self.role.states[self.number]);
        state.senders = senders;
        state.waiting = waiting;
        state.windows = self.owned.iter_mut().map(|owned| owned.partition.windows().len() as u64).sum();
        state.bytes = self.owned.iter().map(|owned| owned.partition.bytes() as u64).sum();
        state.dead_letters_unkept = self.owned.iter().map(|owned| owned.partition.dead_letters_unkept()).sum();
        for owned in &self.owned {
            state.books.insert(owned.partition.number(), owned.partition.books());
        }
    }
}
