//! From what is appended to what its owners are told: write, sync, tell; and what happens when the store is full.

use std::time::Duration;

use engine::spill::{Content, Op, Origin, Why};
use runtime::Worker;
use store::{StoreError, WriteBatch};
use tracing::warn;

use super::live::Told;
use super::mode::Mode;
use super::session::{Owner, Session, Trouble, Untold};

/// A full spill takes again when this much is free.
const ROOM_BYTES: u64 = 8 << 20;
/// A store that is behind is asked again so often.
const BUSY_WAIT: Duration = Duration::from_millis(2);
const BUSY_MAX: u32 = 2_000;

impl Session<'_> {
    /// Writes everything that the books have to say, and what was appended. What does not fit is given back. False: it
    /// was.
    pub(super) fn write(&mut self, worker: &Worker) -> Result<bool, Trouble> {
        let staged = self.spill.staged_bytes();
        let quota = self.thread.settings.quota_bytes;
        if staged > 0 && self.store.bytes().saturating_add(staged) > quota {
            let used = self.store.bytes();
            self.refuse(
                worker,
                Mode::Quota,
                &format!("{used} of {quota} bytes used: replay, discard, or raise spill.quota"),
            )?;
            return Ok(false);
        }
        self.batch.clear();
        if let Some((from, to)) = &self.delete {
            self.batch.delete_range(from, to);
        }
        for op in self.spill.ops() {
            match op {
                Op::Put { key, value } => self.batch.put(&key, &value),
                Op::Delete { key } => self.batch.delete(&key),
            }
        }
        for (key, value) in self.spill.records() {
            self.batch.put(key, value);
        }
        if staged == 0 {
            // Only the books: on a full disk, what is settled is forgotten when they say so.
            self.batch.set_frees();
        }
        worker.failpoint("write")?;
        let mut tries = 0;
        loop {
            match self.store.write(&self.batch) {
                Ok(()) => break,
                Err(StoreError::Busy) if tries < BUSY_MAX => {
                    tries += 1;
                    worker.beat();
                    std::thread::sleep(BUSY_WAIT);
                }
                Err(error @ StoreError::Full { .. }) => {
                    self.refuse(worker, Mode::of(&error), &error.to_string())?;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        worker.failpoint("written")?;
        self.spill.written();
        self.delete = None;
        self.figures.written_bytes += staged;
        self.figures.written_points += self.fresh.iter().map(|fresh| fresh.points).sum::<u64>();
        self.untold.extend(self.fresh.drain(..));
        let now = self.now();
        self.unsynced_since.get_or_insert(now);
        self.stale = true;
        Ok(true)
    }

    /// The store is full: what was written is told, what was not is given back, and nothing more is taken.
    pub(super) fn refuse(&mut self, worker: &Worker, mode: Mode, detail: &str) -> Result<(), Trouble> {
        self.spill.refused();
        for fresh in std::mem::take(&mut self.fresh) {
            self.recent().remove(fresh.ticket);
        }
        if self.unsynced_since.is_some() {
            self.sync_written(worker)?;
        }
        self.thread.live.set_able(self.now(), false);
        self.thread.enter(mode, detail);
        Ok(())
    }

    /// Once a second: whether the directory is still there, and for a full spill whether there is room again.
    pub(super) fn look_at_disk(&mut self, worker: &Worker) -> Result<(), Trouble> {
        let now = self.now();
        if now.since(self.looked_at) < Duration::from_secs(1) {
            return Ok(());
        }
        self.looked_at = now;
        let path = &self.thread.settings.path;
        if !path.exists() {
            // RocksDB would go on writing to files that nobody can open again.
            return Err(StoreError::Vanished { path: path.display().to_string() }.into());
        }
        if self.thread.handle.mode().mode == Mode::Ok {
            return Ok(());
        }
        self.give_back(worker)?;
        let room = ROOM_BYTES.min(self.thread.settings.quota_bytes / 8);
        let fits = self.store.bytes().saturating_add(room) <= self.thread.settings.quota_bytes;
        let writes = || {
            let mut probe = WriteBatch::new();
            probe.put(super::PROBE_KEY, &[]);
            probe
        };
        if fits && self.store.write(&writes()).is_ok() {
            self.thread.live.set_able(now, true);
            self.thread.enter(Mode::Ok, "");
        }
        Ok(())
    }

    /// Gives the space of what was settled back at once, from the store's memory and log as well.
    fn give_back(&mut self, worker: &Worker) -> Result<(), Trouble> {
        let ranges = self.spill.to_give_back();
        if ranges.is_empty() {
            return Ok(());
        }
        worker.beat();
        let store = &mut self.store;
        let given = ranges.iter().try_for_each(|(from, to)| store.forget(from, to)).and_then(|()| store.give_back());
        worker.beat();
        match given {
            Ok(()) => self.spill.given_back(),
            // Again in a second.
            Err(StoreError::Busy | StoreError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.stale = true;
        Ok(())
    }

    /// Writes what there is to write, and makes it durable.
    pub(super) fn sync(&mut self, worker: &Worker) -> Result<(), Trouble> {
        if self.spill.has_changes() {
            self.write(worker)?;
        }
        self.sync_written(worker)
    }

    /// Makes everything written durable, and tells its owners.
    pub(super) fn sync_written(&mut self, worker: &Worker) -> Result<(), Trouble> {
        let before = self.now();
        worker.failpoint("sync")?;
        self.store.sync()?;
        worker.beat();
        worker.failpoint("synced")?;
        let witness = self.spill.witness();
        let kept = self.witness.write(&witness);
        self.thread.handle.keep_witness(witness);
        if let Err(error) = kept {
            // The records are safe without it; only the loss of the whole store would be counted less exactly.
            warn!(node = %self.thread.settings.node, %error, "write the witness beside the spill");
        }
        self.figures.syncs += 1;
        self.figures.sync_nanos += u64::try_from(self.now().since(before).as_nanos()).unwrap_or(u64::MAX);
        self.unsynced_since = None;
        worker.failpoint("tell")?;
        if worker.is_current() {
            self.tell();
        }
        for (from, to) in self.spill.synced() {
            match self.store.forget(&from, &to) {
                Ok(()) | Err(StoreError::Busy) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn tell(&mut self) {
        // Before the machine lets go of anything: what is on disk holds the watermark back.
        self.say_oldest();
        let now = self.now();
        let _moving = self.thread.live.moving();
        let mut at_once = Vec::new();
        for untold in self.untold.drain(..) {
            let Untold { ticket, points, owner } = untold;
            self.thread.handle.telling(ticket);
            let live = &self.thread.live;
            let keeps = match owner {
                Owner::Live(told) => live.spilled(now, &told, ticket),
                // Whoever held it has let go, or is told again; its word does not count, for it may be the second one.
                Owner::Doubtful(id) => {
                    let destination = "";
                    if live.holds(Origin { why: Why::Journal, content: Content::Batch(id), destination }) {
                        live.spilled(now, &Told::Batch(id), ticket);
                    }
                    true
                }
                Owner::Nobody | Owner::Void => {
                    self.thread.handle.carry(ticket.lane, points);
                    matches!(owner, Owner::Nobody)
                }
            };
            if !keeps {
                at_once.push(ticket);
            }
            self.thread.handle.tell(ticket.lane, ticket.ordinal + 1);
        }
        for ticket in at_once {
            if let Ok(Some(meta)) = self.meta(ticket) {
                self.recent().remove(ticket);
                self.spill.settle(ticket, meta);
            }
        }
        self.stale = true;
        self.publish_held();
    }
}
