//! The lives of the thread `relay.spill`: open the store, find what is in it, work until that fails, wait a second, again.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admin::Refusal;
use admin_api::Quarantined;
use bytes::Bytes;
use engine::spill::{LoadError, Spill, books_range};
use engine::time::UnixSeconds;
use engine::wire::{Frame, LeaseEnd};
use runtime::{Clock, Worker, WorkerError};
use store::{Store, StoreError};
use tracing::{error, info, warn};

use super::handle::{FromLink, Handle};
use super::live::Live;
use super::mode::Mode;
use super::recent::Recent;
use super::session::{End, Session};

/// How long a spill that failed rests before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A store that was opened, and what had to be put aside for that.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Box<dyn Store>,
    pub(crate) quarantined: Vec<Quarantined>,
}

/// What is kept beside the store, to say what is gone when the store is.
pub(crate) trait Witness: Send + std::fmt::Debug {
    /// What was written last, if that can be read.
    fn read(&self) -> Option<Vec<u8>>;
    /// Durable when it returns.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

/// Where a spill is and how it is written.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node: String,
    /// This relay as a sender, and the epoch of this process.
    pub(crate) sender: u64,
    pub(crate) epoch: u32,
    pub(crate) path: PathBuf,
    pub(crate) quota_bytes: u64,
    /// How long a write may stay unsynced; `None`: not at all.
    pub(crate) sync_every: Option<Duration>,
    pub(crate) journal: bool,
}

type Open = dyn Fn(&Path, UnixSeconds) -> Result<Opened, StoreError> + Send + Sync;
type OpenWitness = dyn Fn(&Path) -> std::io::Result<Box<dyn Witness>> + Send + Sync;

/// How the thread comes by a store and a witness; tests give it others than the relay does.
pub(crate) struct Disk {
    pub(crate) open: Box<Open>,
    pub(crate) witness: Box<OpenWitness>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

/// Why a spill does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{0}")]
    Newer(#[from] LoadError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("open the witness beside the spill: {0}")]
    Witness(std::io::Error),
}

/// What every life of the thread is given.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) settings: Settings,
    pub(crate) handle: Arc<Handle>,
    pub(crate) live: Arc<dyn Live>,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// What the start opened, for the first life.
    pub(crate) first: Mutex<Option<Opening>>,
    /// Used by the current life only; it is worth more than one life.
    pub(super) recent: Mutex<Recent>,
}

/// A spill that was opened and loaded.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) store: Box<dyn Store>,
    pub(crate) witness: Box<dyn Witness>,
    pub(crate) spill: Spill,
    pub(crate) audit: Vec<(Bytes, Bytes)>,
}

impl Thread {
    /// Opens the spill as it lies on disk. Nothing is changed in it, but for what recovery puts aside.
    pub(crate) fn open(&self) -> Result<Opening, OpenError> {
        let now = self.clock.unix();
        let Opened { store, quarantined } = (self.disk.open)(&self.settings.path, now)?;
        for found in &quarantined {
            error!(node = %self.settings.node, path = %found.path, reason = %found.reason, "damaged spill put aside");
        }
        self.handle.add_quarantined(quarantined);
        let witness = (self.disk.witness)(&self.settings.path).map_err(OpenError::Witness)?;
        let (from, to) = books_range();
        let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
        let holes = store.salvage(&from, &to, &mut |key, value| {
            entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        if !holes.is_empty() {
            error!(node = %self.settings.node, holes = holes.len(), "books of the spill are damaged; records and the witness stand in");
        }
        let program = concat!("spillway ", env!("CARGO_PKG_VERSION"));
        let seen = self.handle.kept_witness().or_else(|| witness.read());
        let mut spill = Spill::load(self.settings.sender, program, &entries, seen.as_deref())?;
        for (from, to) in spill.beyond_books() {
            store.salvage(&from, &to, &mut |key, value| {
                spill.found(key, value);
                ControlFlow::Continue(())
            })?;
        }
        spill.loaded(now);
        entries.retain(|(key, _)| key.first() == Some(&super::audit::KEY));
        Ok(Opening { store, witness, spill, audit: entries })
    }

    fn take_first(&self) -> Option<Opening> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says a mode once, to the log and to the live path.
    pub(crate) fn enter(&self, mode: Mode, detail: &str) {
        if !self.handle.set_mode(mode, detail, self.clock.unix()) {
            return;
        }
        let (node, mode) = (&self.settings.node, mode.as_str());
        if mode == Mode::Ok.as_str() {
            info!(%node, mode, "spill");
        } else {
            warn!(%node, mode, detail, "spill takes nothing; live traffic goes on");
        }
    }
}

/// One life of the worker. A spill that fails is no failure of the worker.
pub(crate) fn run(worker: &Worker, thread: &Thread) -> Result<(), WorkerError> {
    loop {
        worker.beat();
        worker.failpoint("open")?;
        if worker.should_stop() {
            return Ok(());
        }
        let opened = thread.take_first().map_or_else(|| thread.open(), Ok);
        let trouble = match opened {
            Ok(opening) => match Session::new(thread, opening)?.run(worker)? {
                End::Stopped => return Ok(()),
                End::Failed(error) => (Mode::of(&error), error.to_string()),
            },
            Err(OpenError::Store(error)) => (Mode::of(&error), error.to_string()),
            Err(error) => (Mode::Error, error.to_string()),
        };
        if !worker.is_current() {
            return Ok(());
        }
        // What the disk holds of what was in hand is not known; whoever gave it keeps it.
        thread.handle.void_blocks();
        thread.live.set_able(thread.clock.now(), false);
        thread.enter(trouble.0, &trouble.1);
        rest(worker, thread);
    }
}

/// Waits, and answers that nothing can be answered.
fn rest(worker: &Worker, thread: &Thread) {
    let handle = &thread.handle;
    let end = thread.clock.now() + RETRY_AFTER;
    loop {
        worker.beat();
        while let Some(asked) = handle.next_request() {
            let mode = handle.mode();
            let answer = match asked.request {
                admin::SpillRequest::Status => Ok(super::ask::status(thread)),
                admin::SpillRequest::Records(_)
                | admin::SpillRequest::Verify(_)
                | admin::SpillRequest::Export(_)
                | admin::SpillRequest::Import(..)
                | admin::SpillRequest::Discard(_)
                | admin::SpillRequest::Cursor(_) => Err(Refusal::unavailable(format!(
                    "the spill of {} is in mode {}: {}",
                    thread.settings.node,
                    mode.mode.as_str(),
                    mode.detail
                ))),
            };
            // Who asked may have gone.
            asked.answer.send(answer).ok();
        }
        let (links, _) = handle.links();
        for link in links {
            for what in handle.take_inbox(link) {
                match what {
                    FromLink::Ping(echo) => handle.send(link, Frame::Pong { echo }),
                    FromLink::Lease(asked) => {
                        handle.send(link, Frame::LeaseEnd(LeaseEnd { number: asked.number, granted: 0 }));
                    }
                    // Said again by the lease running out.
                    FromLink::Done(_) => {}
                }
            }
        }
        let left = end.since(thread.clock.now());
        if worker.should_stop() || left.is_zero() {
            return;
        }
        handle.wait(left.min(worker.beat_interval()));
    }
}
