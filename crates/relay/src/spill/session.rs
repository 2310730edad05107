//! One store, from its opening to its failure: pull what is due, write, sync, tell; settle, lend and answer in between.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::MutexGuard;
use std::time::Duration;

use engine::batch::BatchId;
use engine::spill::{self, Content, Header, KeyRange, Lost, Meta, Settled, Spill, Tally, Why, records_from};
use engine::time::{Mono, UnixSeconds};
use engine::wire::{Backlog, Outcome, Ticket};
use runtime::{Worker, WorkerError};
use store::{Store, StoreError, WriteBatch};
use tracing::error;

use super::handle::Figures;
use super::jobs::Job;
use super::lend::Asking;
use super::live::Told;
use super::mode::Mode;
use super::recent::Recent;
use super::thread::{Opening, Thread, Witness};
use crate::shared::locked;

/// Pulled at once: large enough for few writes, small enough for the store's limit of 8 MiB a batch.
const PULL_BYTES: u64 = 4 << 20;
/// Records that are written at once, and one more: what one damaged bit of the log can take.
pub(super) const WRITE_BYTES: u64 = 256 << 10;
/// Reading for others takes no longer than this at a time, so that what is due does not wait.
pub(super) const SLICE: Duration = Duration::from_millis(30);
/// How long the thread sleeps when nothing wakes it: what is due by time is looked for so often.
const IDLE: Duration = Duration::from_millis(25);
/// Beyond the quota the store gets this much, so that settling, which makes room, can always be written.
pub(super) const RESERVE_BYTES: u64 = 64 << 20;
const BACKLOG_EVERY: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    Stopped,
    Failed(StoreError),
}

/// Why a step did not work.
#[derive(Debug)]
pub(super) enum Trouble {
    Store(StoreError),
    Worker(WorkerError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}

impl From<WorkerError> for Trouble {
    fn from(error: WorkerError) -> Trouble {
        Trouble::Worker(error)
    }
}

/// Who is to hear that a record is on disk.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    Live(Told),
    /// A former life died while it told this one.
    Doubtful(BatchId),
    /// It came by an import.
    Nobody,
    /// Its sender has it back: it must not be sent from here as well.
    Void,
}

/// Written, and its owner not told.
#[derive(Clone, Debug)]
pub(super) struct Untold {
    pub(super) ticket: Ticket,
    pub(super) points: u64,
    pub(super) owner: Owner,
}

#[derive(Debug)]
pub(super) struct Session<'t> {
    pub(super) thread: &'t Thread,
    pub(super) store: Box<dyn Store>,
    pub(super) witness: Box<dyn Witness>,
    pub(super) spill: Spill,
    pub(super) batch: WriteBatch,
    /// To be deleted with the next write.
    pub(super) delete: Option<KeyRange>,
    /// Appended, not written; written, not told.
    pub(super) fresh: Vec<Untold>,
    pub(super) untold: VecDeque<Untold>,
    pub(super) unsynced_since: Option<Mono>,
    oldest: Option<(Option<u32>, Option<UnixSeconds>)>,
    pub(super) askings: VecDeque<Asking>,
    pub(super) jobs: VecDeque<Job>,
    backlog_at: Mono,
    pub(super) looked_at: Mono,
    pub(super) figures: Figures,
    /// Something in the books has changed since they were published.
    pub(super) stale: bool,
    pub(super) audits: u32,
}

impl<'t> Session<'t> {
    /// Takes up a spill: finds what was written and not told, tells it, and is ready.
    pub(super) fn new(thread: &'t Thread, opening: Opening) -> Result<Session<'t>, WorkerError> {
        let Opening { store, witness, spill, audit } = opening;
        let audits = super::audit::load(&thread.handle, &audit);
        Ok(Session {
            thread,
            store,
            witness,
            spill,
            batch: WriteBatch::new(),
            delete: None,
            fresh: Vec::new(),
            untold: VecDeque::new(),
            unsynced_since: None,
            oldest: None,
            askings: VecDeque::new(),
            jobs: VecDeque::new(),
            backlog_at: Mono::ZERO,
            looked_at: Mono::ZERO,
            figures: thread.handle.seen().2,
            stale: true,
            audits,
        })
    }

    pub(super) fn run(mut self, worker: &Worker) -> Result<End, WorkerError> {
        let ended = match self.begin(worker) {
            Ok(()) => self.work(worker),
            Err(trouble) => Err(trouble),
        };
        match ended {
            Ok(()) => Ok(End::Stopped),
            Err(Trouble::Store(error)) => Ok(End::Failed(error)),
            Err(Trouble::Worker(error)) => Err(error),
        }
    }

    /// Tells what a former life wrote and did not tell, and asks for the rest again.
    fn begin(&mut self, worker: &Worker) -> Result<(), Trouble> {
        let (handle, live) = (&self.thread.handle, &self.thread.live);
        match handle.told() {
            None => handle.carry_over(&self.spill.lanes()),
            Some(told) => self.find_untold(&told)?,
        }
        handle.end_requests();
        // First what is there is told, whether or not more can be written.
        self.sync_written(worker)?;
        live.restarted(self.now());
        if self.write(worker)? {
            live.set_able(self.now(), true);
            self.thread.enter(Mode::Ok, "");
        }
        self.publish();
        Ok(())
    }

    fn find_untold(&mut self, told: &BTreeMap<u16, u64>) -> Result<(), Trouble> {
        let void_blocks = self.thread.handle.take_void_blocks();
        let doubtful = self.thread.handle.doubtful();
        let epoch = self.thread.settings.epoch;
        let mut recent = locked(&self.thread.recent);
        recent.forget_untold(told);
        for lane in self.spill.lanes() {
            let (from, to) = records_from(lane.lane, told.get(&lane.lane).copied().unwrap_or(0));
            let (spill, untold) = (&self.spill, &mut self.untold);
            self.store.salvage(&from, &to, &mut |_, value| {
                let Ok(record) = spill::decode(value) else { return ControlFlow::Continue(()) };
                let Header { before, points, destination, .. } = record.header;
                let ticket = Ticket { lane: lane.lane, ordinal: before.ordinal };
                let owner = match record.header.content {
                    _ if record.header.why == Why::Import || !spill.is_own(&record, epoch) => Owner::Nobody,
                    Content::Batch(id) if doubtful == Some(ticket) => Owner::Doubtful(id),
                    Content::Batch(id) => Owner::Live(Told::Batch(id)),
                    Content::Block { number, .. } if record.header.why == Why::Journal => {
                        Owner::Live(Told::Journalled { destination: destination.to_owned(), number })
                    }
                    Content::Block { .. } if void_blocks => Owner::Void,
                    Content::Block { number, .. } => {
                        Owner::Live(Told::Block { destination: destination.to_owned(), number })
                    }
                };
                if matches!(owner, Owner::Live(_) | Owner::Doubtful(_)) {
                    recent.add(ticket, spill.meta(&record), record.header.origin());
                }
                untold.push_back(Untold { ticket, points: u64::from(points), owner });
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    fn work(&mut self, worker: &Worker) -> Result<(), Trouble> {
        loop {
            worker.beat();
            worker.failpoint("tick")?;
            if !worker.is_current() {
                return Ok(());
            }
            let stopping = worker.should_stop();
            self.spill.tick(self.now(), self.thread.clock.unix());
            let mut busy = self.pull(worker)?;
            busy |= self.take_settled()?;
            if !stopping {
                busy |= self.serve_links()?;
                busy |= self.serve_requests(worker)?;
                busy |= self.check()?;
            }
            if self.spill.has_changes() {
                self.write(worker)?;
            }
            let due = self.unsynced_since.is_some_and(|since| {
                let every = self.thread.settings.sync_every;
                every.is_none_or(|every| self.now().since(since) >= every)
            });
            if due || (stopping && !busy) {
                self.sync(worker)?;
            }
            self.look_at_disk(worker)?;
            self.publish();
            self.say_backlog();
            if stopping && !busy && self.unsynced_since.is_none() {
                return Ok(());
            }
            if !busy {
                self.thread.handle.wait(self.sleep(worker));
            }
        }
    }

    /// Until a write has to be synced, or something may be due by time.
    fn sleep(&self, worker: &Worker) -> Duration {
        let now = self.now();
        let sync = self.unsynced_since.zip(self.thread.settings.sync_every);
        let sync = sync.map_or(IDLE, |(since, every)| (since + every).since(now));
        sync.min(IDLE).min(worker.beat_interval())
    }

    pub(super) fn now(&self) -> Mono {
        self.thread.clock.now()
    }

    /// What the journal wrote lately; never locked while it is in use.
    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        locked(&self.thread.recent)
    }

    pub(super) fn is_able(&self) -> bool {
        self.thread.handle.able()
    }

    /// Takes what is due into its lanes and writes it. True: there may be more.
    fn pull(&mut self, worker: &Worker) -> Result<bool, Trouble> {
        if !self.is_able() {
            return Ok(false);
        }
        let now = self.now();
        for (batch, why) in self.thread.live.dead() {
            self.spill.keep_dead(&batch, why);
        }
        let due = self.thread.live.due(now, PULL_BYTES, &|| worker.is_current());
        if due.is_empty() {
            return Ok(false);
        }
        worker.failpoint("pulled")?;
        for due in due {
            let entry = due.entry(self.thread.settings.epoch);
            let ticket = self.spill.append(&entry);
            if let Some(meta) = self.spill.staged_meta(ticket).filter(|_| due.why == Why::Journal) {
                self.recent().add(ticket, meta, entry.origin());
            }
            self.fresh.push(Untold { ticket, points: due.points(), owner: Owner::Live(due.told()) });
            // What was refused is given back, and what is left of it as well.
            if self.spill.staged_bytes() >= WRITE_BYTES && !self.write(worker)? {
                return Ok(true);
            }
        }
        if !self.fresh.is_empty() {
            self.write(worker)?;
        }
        Ok(true)
    }

    /// What must be known to settle a record: at hand, or read.
    pub(super) fn meta(&self, ticket: Ticket) -> Result<Option<Meta>, StoreError> {
        if !self.spill.is_pending(ticket) {
            return Ok(None);
        }
        if let Some(meta) = self.spill.leased_meta(ticket).or_else(|| self.recent().meta(ticket)) {
            return Ok(Some(meta));
        }
        let Some(value) = self.value(ticket)? else { return Ok(None) };
        Ok(spill::decode(&value).ok().map(|record| self.spill.meta(&record)))
    }

    /// A record as it lies in the store, if it can be read.
    pub(super) fn value(&self, ticket: Ticket) -> Result<Option<bytes::Bytes>, StoreError> {
        match self.store.get(&spill::key(ticket.lane, ticket.ordinal)) {
            Ok(value) => Ok(value),
            Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take_settled(&mut self) -> Result<bool, Trouble> {
        let settled = self.thread.live.settled();
        let any = !settled.is_empty();
        for ticket in settled {
            self.settle(ticket, Outcome::Delivered)?;
            self.recent().remove(ticket);
        }
        Ok(any)
    }

    /// What became of a record, as a replayer or the live path says.
    pub(super) fn settle(&mut self, ticket: Ticket, outcome: Outcome) -> Result<(), Trouble> {
        if outcome == Outcome::Released {
            self.spill.release(ticket);
            return Ok(());
        }
        let lost = Lost::of(outcome);
        let Some(meta) = self.meta(ticket)? else {
            self.spill.release_unread(ticket);
            return Ok(());
        };
        let settled = match lost {
            None => self.spill.settle(ticket, meta),
            Some(why) => {
                let value = self.value(ticket)?;
                error!(
                    node = %self.thread.settings.node, lane = ticket.lane, ordinal = ticket.ordinal,
                    reason = why.as_str(), "spilled batch refused for good: kept as a dead letter"
                );
                self.spill.bury(ticket, meta, why, value.as_deref())
            }
        };
        self.stale |= settled == Settled::Now;
        Ok(())
    }

    /// A slice of looking for what is missing.
    fn check(&mut self) -> Result<bool, Trouble> {
        let Some((lane, (from, to))) = self.spill.check_range() else { return Ok(false) };
        let end = self.now() + SLICE;
        let (spill, clock) = (&mut self.spill, self.thread.clock);
        let mut whole = true;
        self.store.salvage(&from, &to, &mut |_, value| {
            spill.checked(lane, value);
            if clock.now() >= end {
                whole = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if whole {
            self.spill.checked_all(lane);
        }
        self.stale = true;
        Ok(true)
    }

    /// Something in the books has changed.
    pub(super) fn touched(&mut self) {
        self.stale = true;
    }

    pub(super) fn say_oldest(&mut self) {
        let oldest = self.spill.oldest();
        if self.oldest != Some(oldest) {
            self.oldest = Some(oldest);
            self.thread.live.set_spilled(oldest.0, oldest.1);
        }
    }

    fn publish(&mut self) {
        if self.stale {
            let _moving = self.thread.live.moving();
            self.publish_held();
        }
    }

    /// The books and figures, for everyone. The caller is moving.
    pub(super) fn publish_held(&mut self) {
        let mut untold = BTreeMap::new();
        for one in &self.untold {
            *untold.entry(one.ticket.lane).or_default() += one.points;
        }
        self.thread.handle.publish(self.spill.lanes(), &untold);
        self.figures.bytes = self.store.bytes();
        self.figures.unsynced_since = self.unsynced_since;
        self.thread.handle.set_figures(&self.figures);
        self.stale = false;
        self.say_oldest();
    }

    fn say_backlog(&mut self) {
        let now = self.now();
        if now.since(self.backlog_at) >= BACKLOG_EVERY {
            self.backlog_at = now;
            let backlog = self.free_backlog();
            self.thread.handle.send_backlog(&backlog);
        }
    }

    /// What could be lent: not what the live path still has.
    fn free_backlog(&self) -> Backlog {
        let live = self.thread.live.as_ref();
        self.recent().forget_blocks(live);
        let (mut backlog, held) = (self.spill.backlog(), self.recent().held(live));
        for lane in &mut backlog.lanes {
            let Tally { batches, points, bytes } = held.get(&lane.lane).copied().unwrap_or_default();
            lane.batches = lane.batches.saturating_sub(batches);
            lane.points = lane.points.saturating_sub(points);
            lane.bytes = lane.bytes.saturating_sub(bytes);
        }
        backlog
    }
}
