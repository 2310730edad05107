//! The log thread: it owns the store, writes what the shards append in their order, and syncs once for all that had come
//! together. Only then a shard hears of it. It also reads the blocks that shards need, before the sync, so that nobody
//! waits for a disk that writes merely to read.
//!
//! A store that fails does not end it: it names the [`Mode`], keeps what it has in hand, and tries again until that works.

use std::time::Duration;

use runtime::{Worker, WorkerError};
use store::{Disposition, FullBy, StoreError};
use telemetry::LogSite;
use tracing::{info, warn};

use super::journal::Append;
use super::mode::Mode;
use super::recover;
use super::role::FinalRole;
use crate::partial_lock as lock;

static FAILED: LogSite = LogSite::new(Duration::from_secs(10));
static UNWITNESSED: LogSite = LogSite::new(Duration::from_secs(10));
const WAIT: Duration = Duration::from_millis(100);
/// How many appends share one sync at the most, and how many bytes.
const GROUP_MAX: usize = 1024;
const GROUP_BYTES: u64 = 16 << 20;
/// How long to wait before a write is tried again ...
const RETRY: Duration = Duration::from_millis(100);
/// ... and before a store is opened again that could not be.
const REOPEN: Duration = Duration::from_secs(1);

/// Runs one life of the log.
pub(crate) fn run(worker: &Worker, role: &FinalRole) -> Result<(), WorkerError> {
    // Opening fences: a ghost of the log that wakes up finds its handle superseded.
    let mut reopen = true;
    loop {
        worker.beat();
        if reopen {
            let mut disk = role.disk(&|| worker.beat());
            let opened = disk.open();
            let (births, repairs) = (disk.births(), disk.take_repairs());
            drop(disk);
            match opened {
                Ok(()) => {
                    reopen = false;
                    role.note_births(births);
                    tell_repairs(role, repairs);
                }
                Err(error) => {
                    if !overcome(worker, role, &error, REOPEN) {
                        return Ok(());
                    }
                    continue;
                }
            }
        }
        take(worker, role);
        if lock(&role.log_in_hand).is_empty() {
            if worker.should_stop() {
                return Ok(());
            }
            match look(worker, role) {
                Ok(()) => be_well(role),
                Err(error) => {
                    reopen = must_reopen(&error);
                    if !overcome(worker, role, &error, RETRY) {
                        return Ok(());
                    }
                }
            }
            continue;
        }
        worker.failpoint("append")?;
        if !worker.is_current() {
            return Ok(());
        }
        match make_durable(worker, role) {
            Ok(()) => tell(role),
            Err(error) => {
                reopen = must_reopen(&error);
                if !overcome(worker, role, &error, RETRY) {
                    return Ok(());
                }
            }
        }
    }
}

fn tell_repairs(role: &FinalRole, repairs: Vec<String>) {
    for repair in repairs {
        warn!(node = %role.setup.node, "{repair}");
        role.note(repair);
    }
}

/// Takes appends into hand, where they stay until they are durable.
fn take(worker: &Worker, role: &FinalRole) {
    let mut in_hand = lock(&role.log_in_hand);
    if !in_hand.is_empty() {
        return;
    }
    let Ok(first) = role.appends.1.recv_timeout(WAIT) else { return };
    let mut bytes = first.bytes();
    in_hand.push(first);
    while in_hand.len() < GROUP_MAX
        && bytes < GROUP_BYTES
        && let Ok(next) = role.appends.1.try_recv()
    {
        bytes += next.bytes();
        in_hand.push(next);
    }
    in_hand.retain(|append| {
        let present = role.is_of_present_life(append);
        if !present {
            role.count_append(append.bytes(), false);
        }
        present
    });
    let mut disk = role.disk(&|| worker.beat());
    // Without an open store the places are given when it is there.
    if disk.is_open() {
        let given = disk.work(|_, journal| {
            in_hand.iter_mut().for_each(|append| journal.take(append));
            Ok(())
        });
        debug_assert!(given.is_ok(), "BUG: giving places needs no disk");
    }
}

/// Writing something twice is harmless: records have their keys.
fn make_durable(worker: &Worker, role: &FinalRole) -> Result<(), StoreError> {
    let mut in_hand = lock(&role.log_in_hand);
    let mut disk = role.disk(&|| worker.beat());
    let wrote = disk.work(|store, journal| {
        in_hand.iter_mut().for_each(|append| journal.take(append));
        let mut batches = journal.batches(&in_hand);
        for batch in &mut batches {
            match store.write(batch) {
                // Flushes have been put off long before: what comes is a bounded rest, and behind it the checkpoints
                // that free space. This is met when the quota was lowered.
                Err(StoreError::Full { by: FullBy::Quota(_), .. }) => {
                    batch.set_frees();
                    store.write(batch)?;
                }
                written => written?,
            }
        }
        for append in in_hand.iter_mut().filter(|append| !append.loads.is_empty()) {
            let mut blocks = Vec::with_capacity(append.loads.len());
            for (partition, id) in &append.loads {
                blocks.push((*partition, *id, recover::load(store, *partition, *id)?));
            }
            append.loads.clear();
            role.note_loaded(append.shard, blocks);
        }
        if !batches.is_empty() {
            store.sync()?;
        }
        journal.done(&in_hand);
        journal.forget(store, role.setup.mine.len())?;
        role.set_used_bytes(store.bytes());
        Ok(!batches.is_empty())
    })?;
    if wrote && let Err(error) = disk.testify() {
        // It only counts what a lost store held: no reason to withhold answers.
        if let Some(swallowed) = UNWITNESSED.admit(role.setup.clock.now()) {
            warn!(node = %role.setup.node, %error, swallowed, "write the witness file");
        }
    }
    Ok(())
}

/// Looks at the disk when nothing else is to do, and gives back what no append has: at the quota none may come.
fn look(worker: &Worker, role: &FinalRole) -> Result<(), StoreError> {
    role.disk(&|| worker.beat()).work(|store, journal| {
        if let Some(head) = journal.head_to_write() {
            store.write(&head)?;
            store.sync()?;
            journal.done(&[]);
            journal.forget(store, role.setup.mine.len())?;
        }
        role.set_used_bytes(store.bytes());
        Ok(())
    })
}

fn must_reopen(error: &StoreError) -> bool {
    !matches!(error.disposition(), Disposition::FreeSpace | Disposition::RetrySoon)
}

fn be_well(role: &FinalRole) {
    if role.raw_mode() != Mode::Ok {
        info!(node = %role.setup.node, "the log writes again");
        role.set_mode(Mode::Ok, "");
    }
}

fn tell(role: &FinalRole) {
    be_well(role);
    let done: Vec<Append> = std::mem::take(&mut *lock(&role.log_in_hand));
    let mut tokens = vec![0u64; role.setup.shards];
    for append in done {
        role.count_append(append.bytes(), false);
        tokens[append.shard] = tokens[append.shard].max(append.token);
    }
    for (shard, token) in tokens.into_iter().enumerate().filter(|(_, token)| *token > 0) {
        role.note_synced(shard, token);
    }
}

/// Names the mode and rests. False: this life is over.
fn overcome(worker: &Worker, role: &FinalRole, error: &StoreError, rest: Duration) -> bool {
    if !worker.is_current() || worker.should_stop() {
        return false;
    }
    let is_busy = matches!(error, StoreError::Busy);
    if !is_busy {
        role.set_mode(Mode::of(error), &error.to_string());
        if let Some(swallowed) = FAILED.admit(worker.clock().now()) {
            warn!(node = %role.setup.node, %error, swallowed, "the log waits; relays keep what is not durable");
        }
    }
    worker.beat();
    std::thread::sleep(rest);
    true
}
