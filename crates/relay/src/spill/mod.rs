//! The relay's spill: one thread, `relay.spill`, owns the store and is the only one that touches it.
//!
//! ```text
//!  engine::relay, senders to stores        relay.spill                          replayers, operators
//!  what is due          <-- pulls --   append, write, sync every `spill.sync`
//!  lets go of it        <--  tells --  only then                    -- lends -->  leases, Done
//!  late `Durable`        -- settled -> settle                       -- answers -> /v1/spill
//! ```
//!
//! * What the thread knows is in the store; what it has told is in the [`Handle`], which outlives it. A successor finds
//!   what was written and not told, tells it, and asks for the rest again: every step may be the last one of a life.
//! * Only one life at a time can have the store open, so a life that hung and wakes up can do no harm: its successor
//!   begins when it has let go.
//! * While all is well the thread sleeps, and reads and writes nothing. Reading for replayers, operators and checks goes
//!   in slices of 30 ms, so that what is due does not wait for it.
//! * In the modes other than `ok` nothing is taken; settling and lending go on as far as the store lets them.

mod ask;
mod audit;
mod disk;
mod handle;
mod jobs;
mod lend;
mod links;
mod live;
mod mode;
mod news;
mod path;
mod recent;
mod session;
mod thread;
mod writing;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use node::StartError;
use runtime::{Clock, Supervisor, Worker};
use store::StoreError;

pub(crate) use disk::rocksdb;
pub(crate) use handle::{Handle, Persisted};
pub(crate) use links::Lender;
pub(crate) use live::Live;
pub(crate) use path::LivePath;
pub(crate) use thread::{Disk, Settings};
use thread::{OpenError, Thread};

/// Written to see whether a full store takes anything again; it says nothing.
const PROBE_KEY: &[u8] = b"p";

/// Opens the spill and starts its thread. What is damaged is put aside or counted; a disk that fails is a mode.
///
/// # Errors
/// When a newer program wrote the spill, another process has it open, or this one may not.
pub(crate) fn start(
    supervisor: &Supervisor,
    settings: Settings,
    handle: Arc<Handle>,
    live: Arc<dyn Live>,
    disk: Disk,
    clock: Clock,
) -> Result<(), StartError> {
    let path = settings.path.display().to_string();
    let thread =
        Arc::new(Thread { settings, handle, live, disk, clock, first: Mutex::default(), recent: Mutex::default() });
    match thread.open() {
        Ok(opening) => *crate::shared::locked(&thread.first) = Some(opening),
        Err(error) if is_final(&error) => return Err(StartError::Config(format!("spill {path}: {error}"))),
        // The thread tries again, and says so.
        Err(_) => {}
    }
    supervisor.spawn_thread("relay.spill", move |worker: Worker| thread::run(&worker, &thread));
    Ok(())
}

/// Trying again does not help, and going on without would hide it.
fn is_final(error: &OpenError) -> bool {
    match error {
        OpenError::Newer(_) | OpenError::Store(StoreError::InUse { .. }) => true,
        OpenError::Store(error) => with_source(error).contains("Permission denied"),
        OpenError::Witness(error) => error.to_string().contains("Permission denied"),
    }
}

/// What happened, with what the system said.
fn with_source(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}
