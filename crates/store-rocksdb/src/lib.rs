//! A [`Store`] on disk, in RocksDB. The only crate of the workspace that links C++.
//!
//! What it adds to the promises of [`store`]:
//! * **A killed process loses nothing**: every write reaches the kernel before it returns. A power cut loses at most
//!   what was written since the last sync, always from the end.
//! * **A damaged log is an error, not a shorter log.** Opening fails with `Corrupt`; only a record that was cut off at
//!   the very end is dropped, as a power cut leaves one. What it cannot see: a damaged MANIFEST may make RocksDB start
//!   from an older list of files without a word, so owners number their records and look for gaps.
//! * **Bounded**: memory by three memtables of 16 MiB and a cache of 8 MiB; the disk by the quota, except for the
//!   moments in which a file and the one that replaces it both exist (up to 64 MiB more).
//!
//! Space that deletes free comes back with later flushes and compactions; a write that would go over the quota first
//! waits for that (seconds for gigabytes). An owner at its quota should therefore delete in large pieces.
//!
//! The quota is not a guard for the file system: see to free space outside. When it does run out, writes fail as
//! `Full`, and RocksDB goes on by itself some 10 s after there is space again.

mod failure;
mod tuning;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use rocksdb::{DB, FlushOptions, ReadOptions, WriteOptions, properties};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use store::{Disposition, FullBy, Hole, Op, Store, StoreError, Visit, WriteBatch};

/// A memtable is handed over for flushing when it holds this much by our count, well before RocksDB would do it at
/// [`tuning::MEMTABLE_BYTES`]: see `switch_memtable`.
const SWITCH_BYTES: u64 = 8 << 20;

/// What an operation costs in a memtable besides its bytes, rounded up: skip list node, sequence number, lengths.
const OP_BYTES: u64 = 64;

/// What the owner decides about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes that tables and memtables may occupy. Below 64 MiB the store is mostly busy with making room.
    pub quota_bytes: u64,
    /// First bytes of keys that get a column family of their own each: what is appended and forgotten apart from the
    /// rest must not be mixed with it in one file. Keys with any other first byte share one.
    pub families: &'static [u8],
}

/// A store in a directory of its own. One handle at a time, in one process.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
    quota_bytes: u64,
    write_options: WriteOptions,
    /// Bytes handed to the memtable that is being filled, by our count.
    memtable_bytes: u64,
    /// The span of keys deleted since room was last made, both ends included: where there may be space to free.
    deleted: Option<(Vec<u8>, Vec<u8>)>,
    /// The failure after which this handle takes no more writes.
    failed: Option<String>,
}

impl RocksStore {
    /// Opens the store in the directory `path`, which is created with its parents when it is missing.
    ///
    /// # Errors
    /// `InUse` when another handle has it open, here or in another process. `Corrupt` when its files are damaged.
    /// `Full` when there is no space for what recovery has to write. `Io` for anything else.
    pub fn open(path: &Path, options: Options) -> Result<RocksStore, StoreError> {
        create_directory(path)
            .map_err(|source| StoreError::Io { doing: "create the directory of the store", source })?;
        let tuned = tuning::options();
        // Not `DB::open_cf`: that one opens every column family with default options and ignores those it is given.
        let db = DB::open_cf_with_opts(&tuned, path, [("default", tuned.clone())])
            .map_err(|error| failure::when_opening(&error, path))?;
        let mut write_options = WriteOptions::default();
        // A store that is behind with flushing refuses at once as `Busy`; without this, `write` could block for ever.
        write_options.set_no_slowdown(true);
        Ok(RocksStore {
            db,
            path: path.to_owned(),
            quota_bytes: options.quota_bytes,
            write_options,
            memtable_bytes: 0,
            deleted: None,
            failed: None,
        })
    }

    /// Fails when `more` bytes do not fit into the quota, after making what room there is to be made.
    fn ensure_room(&mut self, more: u64) -> Result<(), StoreError> {
        if self.bytes().saturating_add(more) <= self.quota_bytes {
            return Ok(());
        }
        if let Some((first, last)) = self.deleted.clone() {
            self.switch_memtable(true)?;
            // The C interface returns nothing here; an error shows in the next write.
            self.db.compact_range(Some(first), Some(last));
            self.deleted = None;
        }
        let used_bytes = self.bytes();
        if used_bytes.saturating_add(more) <= self.quota_bytes {
            Ok(())
        } else {
            Err(StoreError::Full { used_bytes, by: FullBy::Quota(self.quota_bytes) })
        }
    }

    /// Hands the memtable over for flushing and starts a new one, and with it a new log file; `wait`: until it is
    /// flushed. RocksDB would do that by itself in the midst of writes; but then a power cut could lose the end of the
    /// old file and keep the beginning of the new one, and what is found would be no prefix. Hence the sync.
    fn switch_memtable(&mut self, wait: bool) -> Result<(), StoreError> {
        self.sync()?;
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.db.flush_opt(&options).map_err(|error| self.failure_of_write("flush memtable", &error))?;
        self.memtable_bytes = 0;
        Ok(())
    }

    fn failure(&self, doing: &'static str, error: &rocksdb::Error) -> StoreError {
        failure::when_open(doing, error, &self.path, self.bytes())
    }

    /// Unless it is certain that nothing was applied, the handle takes no more writes.
    fn failure_of_write(&mut self, doing: &'static str, error: &rocksdb::Error) -> StoreError {
        let failure = self.failure(doing, error);
        match failure.disposition() {
            Disposition::FreeSpace | Disposition::RetrySoon => {}
            Disposition::Reopen | Disposition::Stop | Disposition::Escalate => self.failed = Some(error.to_string()),
        }
        failure
    }

    fn refuse_after_failure(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(cause) => Err(StoreError::ReadOnly { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn remember_deleted(&mut self, from: &[u8], to: &[u8]) {
        let (first, last) = self.deleted.get_or_insert_with(|| (from.to_vec(), to.to_vec()));
        if from < first.as_slice() {
            *first = from.to_vec();
        }
        if to > last.as_slice() {
            *last = to.to_vec();
        }
    }
}

impl Store for RocksStore {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        if batch.puts_any() {
            self.ensure_room(batch.bytes())?;
        }
        if self.memtable_bytes >= SWITCH_BYTES {
            self.switch_memtable(false)?;
        }
        let mut native = rocksdb::WriteBatch::default();
        for op in batch.ops() {
            self.memtable_bytes += OP_BYTES;
            match op {
                Op::Put { key, value } => native.put(key, value),
                Op::Delete { key } => {
                    native.delete(key);
                    self.remember_deleted(key, key);
                }
                Op::DeleteRange { from, to } => {
                    native.delete_range(from, to);
                    self.remember_deleted(from, to);
                }
            }
        }
        self.memtable_bytes += batch.bytes();
        self.db.write_opt(native, &self.write_options).map_err(|error| self.failure_of_write("write batch", &error))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        self.db.flush_wal(true).map_err(|error| {
            self.failed = Some(error.to_string());
            self.failure("sync", &error)
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get(key).map_err(|error| self.failure("read a key", &error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        // A scan reads everything once; it must not push out of the cache what `get` needs.
        options.fill_cache(false);
        let mut cursor = self.db.raw_iterator_opt(options);
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            cursor.next();
        }
        // The cursor also ends at a block that it cannot read: only the status tells that from the real end.
        cursor.status().map_err(|error| self.failure("scan", &error))
    }

    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
        self.scan(from, to, visit).map(|()| Vec::new())
    }

    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        self.db.delete_file_in_range(from, to).map_err(|error| self.failure_of_write("forget", &error))
    }

    /// Live tables and memtables; the log repeats what is in the memtables.
    fn bytes(&self) -> u64 {
        [properties::LIVE_SST_FILES_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES]
            .into_iter()
            // These properties exist in every RocksDB and cannot fail; were they missing, the quota would not hold.
            .map(|property| self.db.property_int_value(property).ok().flatten().unwrap_or(0))
            .sum()
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.path).field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// Creates the directory with its parents and makes its own entry durable: RocksDB syncs only what is inside.
fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        Some(_) | None => fs::File::open(".")?.sync_all(),
    }
}
