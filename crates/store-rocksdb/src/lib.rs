//! A [`Store`] on disk, in RocksDB. The only crate of the workspace that links C++.
//!
//! What it adds to the promises of [`store`]:
//! * **A killed process loses nothing**: every write reaches the kernel before it returns. A power cut loses at most
//!   what was written since the last sync, always from the end. There is no thread in here that syncs: how often is
//!   the owner's decision, in the owner's loop (50 ms between syncs is a good start).
//! * **A damaged log is an error, not a shorter log.** Opening fails with `Corrupt`; only a record that was cut off at
//!   the very end is dropped, as a power cut leaves one.
//! * **Families**: keys whose first byte the owner listed lie in files of their own, so that forgetting the oldest of
//!   one family removes whole files at once and writes nothing. What is left of a forgotten range is at most what is
//!   in the memtable, in a file just flushed, and in the file that straddles the border: some 24 MiB a family.
//! * **Bounded**: memory by 128 MiB of memtables, those being flushed included (48 MiB and one batch while flushing
//!   keeps up), a cache of 8 MiB, and the indexes of 256 open files; the disk by the quota, except for the log (up to
//!   64 MiB and what is being flushed) and for the moments in which a file and the one that replaces it both exist.
//!
//! A batch may have any size that memory bears: it is one record of the log, and memtables are switched, with a sync, before
//! the next one, well before RocksDB would begin a new log by itself (`crash::a_batch_of_any_size...`).
//!
//! Space that deletes free comes back with later flushes and compactions; a write that would go over the quota first
//! waits for that (seconds for gigabytes). An owner at its quota should therefore delete in large pieces.

mod directory;
mod failure;
mod families;
mod mend;
mod open;
mod remains;
mod replay;
mod salvage;
mod space;
mod survey;
mod tuning;
mod witness;

#[cfg(test)]
mod tests;

pub use open::{Finding, Opened, What, open};
pub use witness::Witness;

use bytes::Bytes;
use directory::{Owner, create_directory, identity, lock};
use families::{Families, Family, Memtables, OP_BYTES, Piece};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, FlushOptions, ReadOptions, WaitForCompactOptions,
    WriteOptions,
};
use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, properties};
use space::Space;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use store::{Disposition, FullBy, Hole, Op, Store, StoreError, Visit, WriteBatch};
use tuning::Care;

/// How often the bytes in use are read anew: after this many were written ...
const REREAD_AFTER_BYTES: u64 = 1 << 20;
/// ... or after this many questions, as background work changes them too. A reading costs some microseconds a family.
const REREAD_AFTER_CALLS: u32 = 16;

/// How long making room waits for files to be moved to where they can be removed.
const MOVING_MICROS: u64 = 5_000_000;

/// What the owner decides about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes that tables and memtables may occupy. Below 64 MiB the store is mostly busy with making room.
    pub quota_bytes: u64,
    /// First bytes of keys that get a column family of their own each: what is appended and forgotten apart from the
    /// rest must not be mixed with it in one file. Keys with any other first byte share one. A byte that is listed only
    /// after keys with it had been written stays with the rest; one that is no longer listed keeps its family.
    pub families: &'static [u8],
    /// Bytes that stay free on the file system: puts are refused when they would take them, deletes and forgetting go
    /// on. Half of it, at most 128 MiB, is held by a file (`ballast`) besides, with whose space a full disk is opened. 0
    /// for none of that.
    pub reserve_bytes: u64,
}

/// A store in a directory of its own. One handle at a time, in one process.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
    quota_bytes: u64,
    /// Every family has the same options.
    tuned: rocksdb::Options,
    write_options: WriteOptions,
    families: Families,
    memtables: Memtables,
    /// The span of keys deleted from each family since room was last made: where there may be space to free.
    deleted: BTreeMap<Family, (Vec<u8>, Vec<u8>)>,
    /// What was last forgotten of each family: what was in memory then may be removable now.
    forgotten: BTreeMap<Family, (Vec<u8>, Vec<u8>)>,
    used: Cell<Used>,
    space: Space,
    /// Device and number of the directory: another one of the same name is not ours.
    directory: (u64, u64),
    /// Damage was met and noted for the next opening.
    is_marked: bool,
    /// Held for as long as the store is open.
    lock: Option<Owner>,
    /// The failure after which this handle takes no more writes.
    failed: Option<String>,
}

/// The last reading of the bytes in use, and what happened since.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: u64,
    written_since: u64,
    calls_left: u32,
}

impl RocksStore {
    /// Opens the store in the directory `path`, which is created with its parents when it is missing. Any damage is an
    /// error.
    ///
    /// # Errors
    /// `InUse` when another handle has it open, here or in another process. `Corrupt` when its files are damaged.
    /// `Full` when there is no space for what recovery has to write. `Io` for anything else.
    pub fn open(path: &Path, options: Options) -> Result<RocksStore, StoreError> {
        create_directory(path).map_err(|error| failure::of_system("create the directory of", error, path))?;
        let held = lock(path)?;
        Ok(RocksStore::open_tuned(path, options, Care::Strict)?.with_lock(held))
    }

    fn with_lock(mut self, lock: Owner) -> RocksStore {
        self.lock = Some(lock);
        self
    }

    fn open_tuned(path: &Path, options: Options, care: Care) -> Result<RocksStore, StoreError> {
        let tuned = tuning::options(care);
        let found = if path.join("CURRENT").exists() {
            DB::list_cf(&tuned, path).map_err(|error| failure::when_opening(&error, path))?
        } else {
            vec![DEFAULT_COLUMN_FAMILY_NAME.to_owned()]
        };
        // Not `DB::open_cf`: that one opens every column family with default options and ignores those it is given.
        let descriptors = found.iter().map(|name| ColumnFamilyDescriptor::new(name, tuned.clone()));
        let db =
            DB::open_cf_descriptors(&tuned, path, descriptors).map_err(|error| failure::when_opening(&error, path))?;
        let mut write_options = WriteOptions::default();
        // A store that is behind with flushing refuses at once as `Busy`; without this, `write` could block for ever.
        write_options.set_no_slowdown(true);
        let directory = identity(path).map_err(|error| failure::of_system("open", error, path))?;
        let mut space = Space::new(path, options.reserve_bytes);
        space.settle();
        Ok(RocksStore {
            db,
            path: path.to_owned(),
            quota_bytes: options.quota_bytes,
            tuned,
            write_options,
            families: Families::new(options.families, &found),
            memtables: Memtables::default(),
            deleted: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            used: Cell::default(),
            space,
            directory,
            is_marked: false,
            lock: None,
            failed: None,
        })
    }

    /// Fails when `more` bytes do not fit into the quota, after making what room there is to be made.
    fn ensure_room(&mut self, more: u64) -> Result<(), StoreError> {
        if !self.space.admits(more) {
            return Err(StoreError::Full { used_bytes: self.bytes(), by: FullBy::Device });
        }
        if self.bytes().saturating_add(more) <= self.quota_bytes {
            return Ok(());
        }
        self.make_room()?;
        let used_bytes = self.bytes();
        if used_bytes.saturating_add(more) <= self.quota_bytes {
            Ok(())
        } else {
            Err(StoreError::Full { used_bytes, by: FullBy::Quota(self.quota_bytes) })
        }
    }

    /// Frees what deletes and forgetting have left behind, and waits for it.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let (deleted, forgotten) = (std::mem::take(&mut self.deleted), std::mem::take(&mut self.forgotten));
        for (family, (first, last)) in deleted {
            self.switch(&[family], true)?;
            // The C interface returns nothing here; an error shows in the next write.
            self.db.compact_range_cf(self.handle(family)?, Some(first), Some(last));
        }
        if !forgotten.is_empty() {
            let filled: Vec<Family> =
                forgotten.keys().copied().filter(|family| self.memtables.holds(*family)).collect();
            self.switch(&filled, true)?;
            let mut options = WaitForCompactOptions::default();
            options.set_timeout(MOVING_MICROS);
            // Files that have not been moved in time are only not freed yet; an error shows in the next write.
            if self.db.wait_for_compact(&options).is_ok() {
                for (family, (from, to)) in forgotten {
                    self.remove_files(family, &from, &to)?;
                }
            }
        }
        self.used.set(Used::default());
        Ok(())
    }

    /// Writes `batch`, however long flushing takes.
    fn write_patiently(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        loop {
            match self.write(batch) {
                Err(StoreError::Busy) => {
                    let filled: Vec<Family> =
                        self.families.all().filter(|family| self.memtables.holds(*family)).collect();
                    self.switch(&filled, true)?;
                }
                written => return written,
            }
        }
    }

    /// Hands memtables over for flushing and starts new ones, and with them a new log file; `wait`: until they are
    /// flushed. RocksDB would do that by itself in the midst of writes; but then a power cut could lose the end of the
    /// old file and keep the beginning of the new one, and what is found would be no prefix. Hence the sync.
    fn switch(&mut self, families: &[Family], wait: bool) -> Result<(), StoreError> {
        if families.is_empty() {
            return Ok(());
        }
        self.sync()?;
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        for family in families {
            let flushed = self.db.flush_cf_opt(self.handle(*family)?, &options);
            flushed.map_err(|error| self.failure_of_write("flush memtable", &error))?;
            self.memtables.switched(*family);
        }
        Ok(())
    }

    fn handle(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let name = self.families.name(family);
        self.db.cf_handle(name).ok_or_else(|| StoreError::Corrupt {
            place: self.path.display().to_string(),
            detail: format!("column family {name} is missing"),
        })
    }

    /// Makes the families that `batch` is the first to put into.
    fn make_families(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        for op in batch.ops() {
            let Op::Put { key, .. } = op else { continue };
            let Some(byte) = self.families.to_come(key) else { continue };
            let mut is_used = false;
            self.scan(&[byte], &[byte + 1], &mut |_, _| {
                is_used = true;
                std::ops::ControlFlow::Break(())
            })?;
            if is_used {
                self.families.stays_shared(byte);
                continue;
            }
            let made = self.db.create_cf(families::name_of(byte), &self.tuned);
            made.map_err(|error| self.failure_of_write("make a family", &error))?;
            self.families.made(byte);
        }
        Ok(())
    }

    /// `from..to` of `family`, as far as whole files lie in it.
    fn remove_files(&mut self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let removed = self.db.delete_file_in_range_cf(self.handle(family)?, from, &last_before(to));
        self.used.set(Used::default());
        removed.map_err(|error| self.failure_of_write("forget", &error))
    }

    fn failure(&self, doing: &'static str, error: &rocksdb::Error) -> StoreError {
        failure::when_open(doing, error, &self.path, self.bytes())
    }

    /// Unless it is certain that nothing was applied, the handle takes no more writes.
    fn failure_of_write(&mut self, doing: &'static str, error: &rocksdb::Error) -> StoreError {
        let failure = self.failure(doing, error);
        if matches!(failure, StoreError::Full { by: FullBy::Device, .. }) {
            // RocksDB tries again by itself every few seconds, and succeeds with this.
            self.space.drop_ballast();
        }
        if matches!(failure, StoreError::Corrupt { .. }) {
            // Work in the background met it, and would again: `open` copies what can be read. If this cannot be
            // written either, opening comes back here.
            self.is_marked = fs::write(self.path.join(open::DAMAGED), error.to_string()).is_ok();
        }
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

    fn remember_deleted(&mut self, family: Family, from: &[u8], to: &[u8]) {
        let (first, last) = self.deleted.entry(family).or_insert_with(|| (from.to_vec(), to.to_vec()));
        if from < first.as_slice() {
            *first = from.to_vec();
        }
        if to > last.as_slice() {
            *last = to.to_vec();
        }
    }

    /// One piece of a scan; whether the visitor wants more.
    fn scan_piece(&self, piece: &Piece, visit: &mut Visit<'_>) -> Result<bool, StoreError> {
        let mut cursor = self.cursor(piece.family, &piece.from, &piece.to)?;
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            if visit(key, value).is_break() {
                return Ok(false);
            }
            cursor.next();
        }
        // The cursor also ends at a block that it cannot read: only the status tells that from the real end.
        cursor.status().map(|()| true).map_err(|error| self.failure("scan", &error))
    }

    fn cursor(&self, family: Family, from: &[u8], to: &[u8]) -> Result<DBRawIterator<'_>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        // A scan reads everything once; it must not push out of the cache what `get` needs.
        options.fill_cache(false);
        Ok(self.db.raw_iterator_cf_opt(self.handle(family)?, options))
    }

    fn live_files(&self) -> Result<Vec<rocksdb::LiveFile>, StoreError> {
        self.db.live_files().map_err(|error| self.failure("list tables", &error))
    }

    fn read_used(&self) -> u64 {
        let of = |family: Family, property| {
            // These properties exist in every RocksDB and cannot fail; were they missing, the quota would not hold.
            let handle = self.db.cf_handle(self.families.name(family))?;
            self.db.property_int_value_cf(handle, property).ok().flatten()
        };
        self.families
            .all()
            .flat_map(|family| {
                [properties::LIVE_SST_FILES_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES]
                    .map(|property| of(family, property).unwrap_or(0))
            })
            .sum()
    }
}

impl Store for RocksStore {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        if batch.puts_any() {
            if !batch.frees() {
                self.ensure_room(batch.bytes())?;
            }
            self.make_families(batch)?;
        }
        self.switch(&self.memtables.due(), false)?;
        let mut native = rocksdb::WriteBatch::default();
        let mut grown: BTreeMap<Family, u64> = BTreeMap::new();
        for op in batch.ops() {
            match op {
                Op::Put { key, value } => {
                    let family = self.families.of(key);
                    native.put_cf(self.handle(family)?, key, value);
                    *grown.entry(family).or_default() += OP_BYTES + (key.len() + value.len()) as u64;
                }
                Op::Delete { key } => {
                    let family = self.families.of(key);
                    native.delete_cf(self.handle(family)?, key);
                    *grown.entry(family).or_default() += OP_BYTES + key.len() as u64;
                    self.remember_deleted(family, key, key);
                }
                Op::DeleteRange { from, to } => {
                    for Piece { family, from, to } in self.families.pieces(from, to) {
                        native.delete_range_cf(self.handle(family)?, &from, &to);
                        *grown.entry(family).or_default() += OP_BYTES + (from.len() + to.len()) as u64;
                        self.remember_deleted(family, &from, &to);
                    }
                }
            }
        }
        // Counted also when the write fails: too much is safe.
        for (family, bytes) in grown {
            self.memtables.add(family, bytes);
        }
        let used = self.used.get();
        self.used.set(Used { written_since: used.written_since + batch.bytes(), ..used });
        self.db.write_opt(native, &self.write_options).map_err(|error| self.failure_of_write("write batch", &error))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        if identity(&self.path).ok() != Some(self.directory) {
            self.failed = Some("its directory was removed".to_owned());
            return Err(StoreError::Vanished { path: self.path.display().to_string() });
        }
        self.db.flush_wal(true).map_err(|error| {
            self.failed = Some(error.to_string());
            self.failure("sync", &error)
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_cf(self.handle(self.families.of(key))?, key);
        Ok(value.map_err(|error| self.failure("read a key", &error))?.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for piece in self.families.pieces(from, to) {
            if !self.scan_piece(&piece, visit)? {
                break;
            }
        }
        Ok(())
    }

    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
        salvage::pieces(self, &self.families.pieces(from, to), visit)
    }

    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        for Piece { family, from, to } in self.families.pieces(from, to) {
            self.remove_files(family, &from, &to)?;
            self.forgotten.insert(family, (from, to));
        }
        Ok(())
    }

    fn give_back(&mut self) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        // Every family holds the log back for as long as it has anything in memory.
        let filled: Vec<Family> = self.families.all().filter(|family| self.memtables.holds(*family)).collect();
        self.switch(&filled, true)?;
        self.make_room()
    }

    /// Live tables and memtables; the log repeats what is in the memtables. Read anew now and then, and estimated from
    /// what was written in between.
    fn bytes(&self) -> u64 {
        let mut used = self.used.get();
        if used.calls_left == 0 || used.written_since >= REREAD_AFTER_BYTES {
            used = Used { bytes: self.read_used(), written_since: 0, calls_left: REREAD_AFTER_CALLS };
        }
        used.calls_left -= 1;
        self.used.set(used);
        used.bytes + used.written_since
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksStore")
            .field("path", &self.path)
            .field("failed", &self.failed)
            .field("is_marked", &self.is_marked)
            .finish_non_exhaustive()
    }
}

/// A key before `to` with only few keys between them: what removes files takes an end that is included.
fn last_before(to: &[u8]) -> Vec<u8> {
    let mut key = to.to_vec();
    match key.pop() {
        None | Some(0) => {}
        Some(byte) => {
            key.push(byte - 1);
            key.extend([0xff; 16]);
        }
    }
    key
}
