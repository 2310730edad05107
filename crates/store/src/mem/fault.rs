//! Faults that a test or the simulator plans for a [`crate::MemDisk`].

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// How a planned write or sync fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As a file system without space: nothing is applied.
    Full,
    /// As a store that is behind with flushing: nothing is applied.
    Busy,
    /// As a failing disk: the handle is read-only afterwards. `applied`: whether the batch reached the disk all the
    /// same (for a sync: whether what was written before became durable), which the caller cannot know.
    Io {
        /// Whether the operation took effect although it failed.
        applied: bool,
    },
}

/// Which operations fail. Operations count from 1, from the moment the plan is set; writes, syncs and reads count apart.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    writes: BTreeMap<u64, Fault>,
    syncs: BTreeMap<u64, Fault>,
    reads: BTreeSet<u64>,
    damaged_keys: BTreeSet<Bytes>,
}

impl FaultPlan {
    /// A plan in which nothing fails.
    pub fn new() -> FaultPlan {
        FaultPlan::default()
    }

    /// The `nth` write from now on fails.
    #[must_use]
    pub fn fail_write(mut self, nth: u64, fault: Fault) -> FaultPlan {
        self.writes.insert(nth, fault);
        self
    }

    /// The `nth` sync from now on fails. Every failed sync leaves the handle read-only.
    #[must_use]
    pub fn fail_sync(mut self, nth: u64, fault: Fault) -> FaultPlan {
        self.syncs.insert(nth, fault);
        self
    }

    /// The `nth` read (get, scan or salvage) from now on fails, before it gives anything. The next one may work.
    #[must_use]
    pub fn fail_read(mut self, nth: u64) -> FaultPlan {
        self.reads.insert(nth);
        self
    }

    /// Reading `key`, if it is there, fails with `Corrupt`; a scan ends before it.
    #[must_use]
    pub fn damage(mut self, key: &[u8]) -> FaultPlan {
        self.damaged_keys.insert(Bytes::copy_from_slice(key));
        self
    }

    pub(super) fn on_write(&self, nth: u64) -> Option<Fault> {
        self.writes.get(&nth).copied()
    }

    pub(super) fn on_sync(&self, nth: u64) -> Option<Fault> {
        self.syncs.get(&nth).copied()
    }

    pub(super) fn on_read(&self, nth: u64) -> bool {
        self.reads.contains(&nth)
    }

    pub(super) fn is_damaged(&self, key: &[u8]) -> bool {
        self.damaged_keys.contains(key)
    }
}
