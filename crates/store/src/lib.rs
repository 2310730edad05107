//! Atomic writes and ordered scans over keys and values, for the few things that must outlive a worker.
//!
//! What every [`Store`] promises, and what [`conformance`] proves of each:
//! * **Atomic.** A [`WriteBatch`] is there in full or not at all: for readers, after a crash, after an error.
//! * **Ordered.** Batches take effect in the order of their `write` calls. A crash keeps a prefix of them: never a
//!   later batch without an earlier one.
//! * **Durable after `sync`, not before.** What `sync` covered survives a power cut. What it did not cover may be kept
//!   or lost, so nothing may be acknowledged before `sync` returned `Ok`.
//! * **Strict after a failure.** When a write failed with `Io`, or a sync failed at all, nobody knows what the disk
//!   holds. The handle then refuses every write and sync with [`StoreError::ReadOnly`]; the owner opens the store
//!   again and rebuilds its state from what it finds.
//!
//! A store has one owner, a thread that may block; no method may be called from an async task. Limits: a key has at
//! least one byte and its first byte is below 0xff, so that [`END`] lies behind every key; values may be empty.

pub mod conformance;

mod batch;
mod error;
mod mem;

pub use batch::{Op, WriteBatch};
pub use error::{Disposition, FullBy, StoreError, Trouble};
pub use mem::{Fault, FaultPlan, MemDisk, MemStore};

use bytes::Bytes;
use std::ops::ControlFlow;

/// Lies behind every key: the `to` of a scan or of a range delete that goes to the end. It is no key itself.
pub const END: &[u8] = &[0xff];

/// Called with key and value; breaks to end a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A place where entries cannot be read, between two keys that can; `None` where there is no such key in the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    pub after: Option<Bytes>,
    pub before: Option<Bytes>,
}

/// Atomic, ordered writes and ordered scans. The module's header says what is promised.
pub trait Store: Send + std::fmt::Debug {
    /// Applies `batch` in full, after all batches before it. Readers see it at once; it is durable after [`Store::sync`].
    ///
    /// # Errors
    /// `Full` and `Busy`: nothing was applied, the same batch may be written again. A batch that only deletes is never
    /// refused for the quota, and one that [`WriteBatch::frees`] may go beyond it and take from what the store keeps
    /// free. `Io`: unknown; after the store was opened again the batch is there in full or not at all.
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError>;

    /// Makes every batch written before durable. Blocks for the time of an fsync, typically 1 to 40 ms.
    ///
    /// # Errors
    /// Any error: what was written since the last successful sync may be lost, and the handle is read-only from now on.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// The value of `key`, or `None` when there is no such key.
    ///
    /// # Errors
    /// `Corrupt` when the value cannot be trusted; the other keys may still be readable.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `visit(key, value)` for every key in `from..to` (`to` excluded) in ascending byte order until it breaks.
    ///
    /// # Errors
    /// `Corrupt`: the scan ended early; every key visited before is right, and the next one cannot be read.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// As [`Store::scan`], but goes on behind what cannot be read: every readable entry of `from..to` is visited, in
    /// order, and each place where entries may be missing is a [`Hole`].
    ///
    /// # Errors
    /// As [`Store::scan`], except `Corrupt`.
    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError>;

    /// Gives back the space of `from..to`, whose keys their owner will never read again and all lie in one family (the
    /// same first byte). Cheap, and writes little or nothing: what it frees and when is the store's affair, so some of
    /// the keys may still be visible, now and after a crash, until they are forgotten again. Not atomic with anything.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError>;

    /// Gives back all the space there is to give back: of what was deleted and forgotten, in memory and in the log as
    /// well. Blocks while memory is written to disk, and seconds for gigabytes. For an owner whose disk is full.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn give_back(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Bytes that the store occupies, as its quota counts them. May lag behind deletes, as freeing space takes time.
    fn bytes(&self) -> u64;
}
