//! The log thread: it owns the store's writing handle, writes what the shards append in their order, and syncs once for
//! all that had come together. Only then a shard hears of it.

use std::time::Duration;

use runtime::{Worker, WorkerError};
use store::{Disposition, StoreError};
use telemetry::LogSite;
use tracing::{error, warn};

use super::role::{Append, FinalRole};
use crate::partial_lock as lock;

static FULL: LogSite = LogSite::new(Duration::from_secs(10));
const WAIT: Duration = Duration::from_millis(100);
/// How many appends share one sync at the most.
const GROUP_MAX: usize = 512;
/// How long to wait before a write is tried again that found no room.
const RETRY: Duration = Duration::from_millis(100);

/// Runs one life of the log.
pub(crate) fn run(worker: &Worker, role: &FinalRole) -> Result<(), WorkerError> {
    // Opening fences: a ghost of the log that wakes up finds its handle superseded.
    role.open_store().map_err(|error| WorkerError::new(error.to_string()))?;
    loop {
        worker.beat();
        take(role);
        if lock(&role.log_in_hand).is_empty() {
            if worker.should_stop() {
                return Ok(());
            }
            continue;
        }
        worker.failpoint("append")?;
        if !worker.is_current() {
            return Ok(());
        }
        match make_durable(role) {
            Ok(()) => tell(role),
            Err(error) => overcome(worker, role, &error)?,
        }
    }
}

/// Takes appends into hand, where they stay until they are durable.
fn take(role: &FinalRole) {
    let mut in_hand = lock(&role.log_in_hand);
    if !in_hand.is_empty() {
        return;
    }
    if let Ok(first) = role.appends.1.recv_timeout(WAIT) {
        in_hand.push(first);
        in_hand.extend(role.appends.1.try_iter().take(GROUP_MAX - 1));
        in_hand.retain(|append| role.is_of_present_life(append));
    }
}

/// Writing something twice is harmless: records have their keys.
fn make_durable(role: &FinalRole) -> Result<(), StoreError> {
    role.with_store(|store| {
        for append in lock(&role.log_in_hand).iter() {
            store.write(&append.batch)?;
        }
        store.sync()
    })
}

fn tell(role: &FinalRole) {
    let done: Vec<Append> = std::mem::take(&mut *lock(&role.log_in_hand));
    let mut tokens = vec![0u64; role.setup.shards];
    for append in done {
        tokens[append.shard] = tokens[append.shard].max(append.token);
    }
    for (shard, token) in tokens.into_iter().enumerate().filter(|(_, token)| *token > 0) {
        role.note_synced(shard, token);
    }
}

fn overcome(worker: &Worker, role: &FinalRole, error: &StoreError) -> Result<(), WorkerError> {
    match error.disposition() {
        Disposition::FreeSpace | Disposition::RetrySoon => {
            if let Some(swallowed) = FULL.admit(worker.clock().now()) {
                warn!(node = %role.setup.node, %error, swallowed, "the log waits; relays keep what is not durable");
            }
            worker.beat();
            std::thread::sleep(RETRY);
            Ok(())
        }
        Disposition::Reopen => role.open_store().map_err(|error| WorkerError::new(error.to_string())),
        Disposition::Stop if !worker.is_current() => Ok(()),
        Disposition::Stop | Disposition::Escalate => {
            error!(node = %role.setup.node, %error, "the log cannot go on");
            Err(WorkerError::new(error.to_string()))
        }
    }
}
