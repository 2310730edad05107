//! A shard's partitions from the store: the fold of the log over the last checkpoint.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use engine::final_node::{Finding, Found, Mark, Partition, RestoreError, Snapshots, keys, record};
use engine::time::UnixSeconds;
use engine::window::BlockId;
use store::{Store, StoreError};

use crate::journal;

const ENTRIES_PER_BEAT: u32 = 4096;

/// A partition, and what of it is damaged.
pub type Recovered = (Partition, Vec<Finding>);

/// Rebuilds partitions, in their order; empty ones where the store has nothing of them. What is damaged is passed over and
/// found. `beat`: called again and again, for a store of a day's windows takes its time.
///
/// # Errors
/// When the store cannot be read now; or, inside, when a newer program wrote it.
pub fn partitions(
    numbers: &[u16],
    targets: &[String],
    store: &dyn Store,
    mark: &dyn Fn(u16) -> Option<Mark>,
    beat: &dyn Fn(),
) -> Result<Result<Vec<Recovered>, RestoreError>, StoreError> {
    let mut found = BTreeMap::new();
    for number in numbers {
        let mut of = Found { mark: mark(*number), ..Found::default() };
        for key in keys::meta_keys(*number) {
            of.metas.extend(readable(store.get(&key))?);
        }
        found.insert(*number, of);
    }
    let mut seen = 0u32;
    let mut visited = || {
        seen = seen.wrapping_add(1);
        if seen.is_multiple_of(ENTRIES_PER_BEAT) {
            beat();
        }
        ControlFlow::Continue(())
    };
    let (from, until) = keys::window_range(b'x', UnixSeconds(0), None);
    store.salvage(&from, &until, &mut |key, bytes| {
        if let Some((number, id)) = keys::block_of(key)
            && let Some(of) = found.get_mut(&number)
        {
            of.index.push((id, Bytes::copy_from_slice(bytes)));
        }
        visited()
    })?;
    let (from, until) = (keys::log_key(journal::head(store)?), keys::log_key(u64::MAX));
    store.salvage(&from, &until, &mut |_, bytes| {
        if let Some((number, _)) = record::place(bytes)
            && let Some(of) = found.get_mut(&number)
        {
            of.records.push(Bytes::copy_from_slice(bytes));
        }
        visited()
    })?;
    let mut failed = None;
    let rebuild = |(number, found): (u16, Found)| {
        beat();
        Partition::recover(number, targets, &found, &mut Blocks { number, store, beat, failed: &mut failed })
    };
    let rebuilt = found.into_iter().map(rebuild).collect();
    // What cannot be read now is no damage: nothing of it may be called lost.
    failed.map_or(Ok(rebuilt), Err)
}

/// The snapshot of one block; `None` when it is not there or damaged.
///
/// # Errors
/// When the store cannot be read now.
pub fn load(store: &dyn Store, partition: u16, id: BlockId) -> Result<Option<Bytes>, StoreError> {
    readable(store.get(&keys::block_key(partition, id)))
}

fn readable(got: Result<Option<Bytes>, StoreError>) -> Result<Option<Bytes>, StoreError> {
    match got {
        Err(StoreError::Corrupt { .. }) => Ok(None),
        other => other,
    }
}

struct Blocks<'s> {
    number: u16,
    store: &'s dyn Store,
    beat: &'s dyn Fn(),
    /// The first read that failed although nothing is damaged.
    failed: &'s mut Option<StoreError>,
}

impl Snapshots for Blocks<'_> {
    fn load(&mut self, id: BlockId) -> Option<Bytes> {
        (self.beat)();
        load(self.store, self.number, id).unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            None
        })
    }

    fn all(&mut self, visit: &mut dyn FnMut(BlockId, &[u8])) {
        let (from, until) = keys::window_range(b'w', UnixSeconds(0), None);
        let read = self.store.salvage(&from, &until, &mut |key, bytes| {
            if let Some((_, id)) = keys::block_of(key).filter(|(of, _)| *of == self.number) {
                (self.beat)();
                visit(id, bytes);
            }
            ControlFlow::Continue(())
        });
        // What is damaged is missing in the sums that the caller compares.
        if let Err(error) = read {
            self.failed.get_or_insert(error);
        }
    }
}
