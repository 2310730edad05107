//! A store in memory: for the final layer's log until it has a disk, for tests, and for the simulator.
//!
//! A [`MemDisk`] stands for the disk and outlives its owners: a worker that dies leaves it behind whole, and the next
//! one opens it and finds every batch. It also models what a real disk does: [`MemDisk::crash`] forgets what was not
//! synced, batch by batch from the newest, and a [`FaultPlan`] makes operations fail.
//!
//! Opening fences: from then on older handles get [`StoreError::Superseded`]. A worker that hung, was replaced and woke
//! up again can therefore not write into its successor's data.
//!
//! Limits: nothing outlives the process. Until `sync`, what a batch replaced or removed is kept beside the data to be
//! able to forget the batch again, and the quota does not count that.

mod fault;
#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultPlan};

use crate::{FullBy, Hole, Op, Store, StoreError, Visit, WriteBatch};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an entry counts for besides its bytes: two `Bytes` of 32 bytes in a tree's node. Without it empty values would
/// be free, and a quota no limit on memory.
const ENTRY_BYTES: u64 = 64;

/// Entries that a scan takes out under the lock at a time, so that the visitor runs without it.
const SCAN_CHUNK: usize = 256;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemDisk {
    shared: Arc<Mutex<Shared>>,
}

/// The owner's handle on a [`MemDisk`].
#[derive(Debug)]
pub struct MemStore {
    shared: Arc<Mutex<Shared>>,
    generation: u64,
    /// The failure after which this handle takes no more writes.
    failed: Option<String>,
}

#[derive(Debug)]
struct Shared {
    live: BTreeMap<Bytes, Bytes>,
    live_bytes: u64,
    quota_bytes: u64,
    /// How to forget each batch since the last sync, oldest first.
    unsynced: Vec<Undo>,
    generation: u64,
    plan: FaultPlan,
    writes: u64,
    syncs: u64,
    reads: u64,
}

/// What each touched key held before, oldest first; undone from the back.
type Undo = Vec<(Bytes, Option<Bytes>)>;

impl MemDisk {
    /// An empty disk that holds at most `quota_bytes` of keys, values and 64 bytes an entry.
    pub fn new(quota_bytes: u64) -> MemDisk {
        let shared = Shared {
            live: BTreeMap::new(),
            live_bytes: 0,
            quota_bytes,
            unsynced: Vec::new(),
            generation: 0,
            plan: FaultPlan::new(),
            writes: 0,
            syncs: 0,
            reads: 0,
        };
        MemDisk { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Another disk with all that was written, all of it synced: as a backup takes it of a running node. No handle is
    /// fenced, and no fault is planned.
    pub fn copy(&self) -> MemDisk {
        let from = lock(&self.shared);
        let copy = MemDisk::new(from.quota_bytes);
        let mut to = lock(&copy.shared);
        (to.live, to.live_bytes) = (from.live.clone(), from.live_bytes);
        drop(to);
        copy
    }

    /// Opens the store for a new owner, with all that was written, synced or not. Older handles end as `Superseded`.
    pub fn open(&self) -> MemStore {
        let mut shared = lock(&self.shared);
        shared.generation += 1;
        MemStore { shared: Arc::clone(&self.shared), generation: shared.generation, failed: None }
    }

    /// Cuts the power: every batch since the last sync is forgotten, and handles end as `Superseded`.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Cuts the power when the oldest `batches` of the batches since the last sync had reached the disk by chance.
    pub fn crash_keeping(&self, batches: usize) {
        let mut shared = lock(&self.shared);
        while shared.unsynced.len() > batches {
            if let Some(undo) = shared.unsynced.pop() {
                shared.undo(undo);
            }
        }
        shared.unsynced.clear();
        shared.generation += 1;
    }

    /// How many batches a crash could lose now.
    pub fn unsynced_batches(&self) -> usize {
        lock(&self.shared).unsynced.len()
    }

    /// Replaces the planned faults; writes, syncs and reads count from 1 again.
    pub fn set_faults(&self, plan: FaultPlan) {
        let mut shared = lock(&self.shared);
        shared.plan = plan;
        shared.writes = 0;
        shared.syncs = 0;
        shared.reads = 0;
    }
}

impl Store for MemStore {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut shared = owned(&self.shared, self.generation)?;
        refuse_after_failure(self.failed.as_ref())?;
        shared.writes += 1;
        match shared.plan.on_write(shared.writes) {
            None => shared.apply(batch),
            Some(Fault::Full) => Err(StoreError::Full { used_bytes: shared.live_bytes, by: FullBy::Device }),
            Some(Fault::Busy) => Err(StoreError::Busy),
            Some(Fault::Io { applied }) => {
                self.failed = Some("planned fault: write batch".to_owned());
                if applied {
                    shared.apply(batch)?;
                }
                Err(StoreError::Io { doing: "write batch", source: io::Error::other("planned fault") })
            }
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let mut shared = owned(&self.shared, self.generation)?;
        refuse_after_failure(self.failed.as_ref())?;
        shared.syncs += 1;
        let Some(fault) = shared.plan.on_sync(shared.syncs) else {
            shared.unsynced.clear();
            return Ok(());
        };
        self.failed = Some("planned fault: sync".to_owned());
        match fault {
            Fault::Full => Err(StoreError::Full { used_bytes: shared.live_bytes, by: FullBy::Device }),
            Fault::Busy => Err(StoreError::Busy),
            Fault::Io { applied } => {
                if applied {
                    shared.unsynced.clear();
                }
                Err(StoreError::Io { doing: "sync", source: io::Error::other("planned fault") })
            }
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut shared = owned(&self.shared, self.generation)?;
        shared.read()?;
        match shared.live.get(key) {
            Some(_) if shared.plan.is_damaged(key) => Err(damaged(key)),
            Some(value) => Ok(Some(value.clone())),
            None => Ok(None),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut chunk: Vec<(Bytes, Bytes)> = Vec::with_capacity(SCAN_CHUNK);
        let mut start = Bound::Included(Bytes::copy_from_slice(from));
        owned(&self.shared, self.generation)?.read()?;
        loop {
            let shared = owned(&self.shared, self.generation)?;
            chunk.clear();
            chunk.extend(shared.range(&start, to).take(SCAN_CHUNK).map(|(key, value)| (key.clone(), value.clone())));
            let damaged_at = chunk.iter().position(|(key, _)| shared.plan.is_damaged(key));
            drop(shared);
            for (index, (key, value)) in chunk.iter().enumerate() {
                if damaged_at == Some(index) {
                    return Err(damaged(key));
                }
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
            match chunk.last() {
                Some((last, _)) if chunk.len() == SCAN_CHUNK => start = Bound::Excluded(last.clone()),
                Some(_) | None => return Ok(()),
            }
        }
    }

    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
        let mut shared = owned(&self.shared, self.generation)?;
        shared.read()?;
        let start = Bound::Included(Bytes::copy_from_slice(from));
        let entries: Vec<(Bytes, Bytes, bool)> = shared
            .range(&start, to)
            .map(|(key, value)| (key.clone(), value.clone(), shared.plan.is_damaged(key)))
            .collect();
        drop(shared);
        let mut holes: Vec<Hole> = Vec::new();
        let (mut last, mut in_hole) = (None, false);
        for (key, value, damaged) in entries {
            if damaged {
                if !in_hole {
                    holes.push(Hole { after: last.clone(), before: None });
                }
                in_hole = true;
                continue;
            }
            if let Some(hole) = holes.last_mut().filter(|_| in_hole) {
                hole.before = Some(key.clone());
            }
            in_hole = false;
            if visit(&key, &value).is_break() {
                break;
            }
            last = Some(key);
        }
        Ok(holes)
    }

    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::new();
        batch.delete_range(from, to);
        self.write(&batch)
    }

    fn bytes(&self) -> u64 {
        lock(&self.shared).live_bytes
    }
}

impl Shared {
    fn read(&mut self) -> Result<(), StoreError> {
        self.reads += 1;
        if self.plan.on_read(self.reads) {
            return Err(StoreError::Io { doing: "read", source: io::Error::other("planned fault") });
        }
        Ok(())
    }

    /// Applies the whole batch, or nothing when the store would grow beyond its quota.
    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let used_bytes = self.live_bytes;
        let mut undo = Undo::new();
        for op in batch.ops() {
            match op {
                Op::Put { key, value } => {
                    self.set(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)), &mut undo)
                }
                Op::Delete { key } => self.set(Bytes::copy_from_slice(key), None, &mut undo),
                Op::DeleteRange { from, to } => {
                    let start = Bound::Included(Bytes::copy_from_slice(from));
                    let keys: Vec<Bytes> = self.range(&start, to).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        self.set(key, None, &mut undo);
                    }
                }
            }
        }
        // A batch that does not make the store larger is let in even when the store is over its quota, and one that frees.
        if self.live_bytes > self.quota_bytes && self.live_bytes > used_bytes && !batch.frees() {
            self.undo(undo);
            return Err(StoreError::Full { used_bytes, by: FullBy::Quota(self.quota_bytes) });
        }
        self.unsynced.push(undo);
        Ok(())
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>, undo: &mut Undo) {
        let before = self.replace(key.clone(), value);
        undo.push((key, before));
    }

    fn undo(&mut self, mut undo: Undo) {
        while let Some((key, before)) = undo.pop() {
            self.replace(key, before);
        }
    }

    /// Sets or removes `key`, keeps the count of bytes right, and returns what was there.
    fn replace(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        let key_bytes = key.len() as u64 + ENTRY_BYTES;
        let before = match value {
            Some(value) => {
                self.live_bytes += key_bytes + value.len() as u64;
                self.live.insert(key, value)
            }
            None => self.live.remove(&key),
        };
        if let Some(before) = &before {
            self.live_bytes -= key_bytes + before.len() as u64;
        }
        before
    }

    /// The entries from `start` up to `to` (excluded).
    fn range(&self, start: &Bound<Bytes>, to: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        // `BTreeMap::range` panics when the start lies behind the end, so the end is checked entry by entry instead.
        let to = Bytes::copy_from_slice(to);
        self.live.range((start.clone(), Bound::Unbounded)).take_while(move |(key, _)| **key < to)
    }
}

/// The data, when `generation` still owns it.
fn owned(shared: &Mutex<Shared>, generation: u64) -> Result<MutexGuard<'_, Shared>, StoreError> {
    let shared = lock(shared);
    if shared.generation == generation { Ok(shared) } else { Err(StoreError::Superseded) }
}

/// No code of a caller runs under the lock and ours does not panic, so a poisoned lock still guards whole batches.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse_after_failure(failed: Option<&String>) -> Result<(), StoreError> {
    match failed {
        Some(cause) => Err(StoreError::ReadOnly { cause: cause.clone() }),
        None => Ok(()),
    }
}

fn damaged(key: &[u8]) -> StoreError {
    StoreError::Corrupt { place: format!("key {}", key.escape_ascii()), detail: "planned fault".to_owned() }
}
