mod crash;
mod damage;
mod full;
mod logged;
mod remains;
mod witness;

use super::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use store::END;
use store::conformance::Harness;

const AMPLE: Options = Options { families: &[], quota_bytes: 1 << 30, reserve_bytes: 0 };

/// A directory of its own for each test, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spillway-store-rocksdb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Copies the files of a store, also of an open one, as they are at one moment: what kill -9 would leave behind.
/// RocksDB works in the background, so a copy counts only when nothing changed while it was made: its files only grow,
/// and no name comes back.
fn copy_store(from: &Path, to: &Path) {
    for _ in 0..1_000 {
        let before = names_and_lengths(from);
        fs::create_dir(to).unwrap();
        let copied = before.iter().all(|(name, _)| fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && names_and_lengths(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("the store in {} did not come to rest", from.display());
}

/// Without RocksDB's text log, which tells nothing about the data; a file that vanishes meanwhile has length 0.
fn names_and_lengths(folder: &Path) -> BTreeMap<OsString, u64> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with("LOG"))
        .map(|entry| (entry.file_name(), entry.metadata().map_or(0, |metadata| metadata.len())))
        .collect()
}

/// The files with this extension, oldest first.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}

/// The newest file with this extension.
fn newest_file(folder: &Path, extension: &str) -> PathBuf {
    files(folder, extension).pop().unwrap()
}

/// Flips bits in the middle of each of these entries' values in the tables of a closed store. Nothing is compressed.
fn damage_values(path: &Path, entries: &[(&[u8], &[u8])]) {
    for (key, value) in entries {
        let mut places = 0;
        for table in files(path, "sst") {
            let mut bytes = fs::read(&table).unwrap();
            if let Some(at) = bytes.windows(64).position(|window| window == &value[..64]) {
                bytes[at + value.len() / 2] ^= 0x55;
                fs::write(&table, bytes).unwrap();
                places += 1;
            }
        }
        assert_eq!(places, 1, "places at which the value of {key:?} was found in tables");
    }
}

struct Disk {
    folder: Folder,
    stores: u32,
    options: Options,
}

impl Disk {
    fn new(families: &'static [u8]) -> Disk {
        Disk { folder: Folder::new(), stores: 0, options: Options { families, ..AMPLE } }
    }

    fn current(&self) -> PathBuf {
        self.folder.0.join(self.stores.to_string())
    }

    fn open(&self) -> Box<dyn Store> {
        Box::new(RocksStore::open(&self.current(), self.options).unwrap())
    }
}

impl Harness for Disk {
    fn fresh(&mut self) -> Box<dyn Store> {
        self.fresh_with_quota(AMPLE.quota_bytes)
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        drop(store);
        self.open()
    }

    fn crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let crashed = self.current();
        self.stores += 1;
        copy_store(&crashed, &self.current());
        drop(store);
        self.open()
    }

    fn fresh_with_quota(&mut self, quota_bytes: u64) -> Box<dyn Store> {
        self.options.quota_bytes = quota_bytes;
        self.stores += 1;
        self.open()
    }

    fn damage(&mut self, store: Box<dyn Store>, entries: &[(&[u8], &[u8])]) -> Box<dyn Store> {
        drop(store);
        // Recovery writes what is in the log into tables.
        drop(self.open());
        damage_values(&self.current(), entries);
        self.open()
    }
}

mod with_one_family_for_all {
    store::conformance_tests!(super::Disk::new(&[]));
}

/// Bytes of most cases, some of them in families of their own.
mod with_families {
    store::conformance_tests!(super::Disk::new(b"bdx\x00\x80\x81\x90"));
}

fn put(key: &[u8], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

/// A store in `path` with batches 1 to `batches`; batch n puts n under "a" and "b". Synced after each, if `synced`.
fn open_with_batches(path: &Path, batches: u8, synced: bool) -> RocksStore {
    let mut store = RocksStore::open(path, AMPLE).unwrap();
    for n in 1..=batches {
        let mut batch = put(b"a", &[n; 40]);
        batch.put(b"b", &[n; 40]);
        store.write(&batch).unwrap();
        if synced {
            store.sync().unwrap();
        }
    }
    store
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let folder = Folder::new();
    let store = open_with_batches(&folder.0.join("killed"), 100, false);
    copy_store(&folder.0.join("killed"), &folder.0.join("left behind"));
    drop(store);
    let store = RocksStore::open(&folder.0.join("left behind"), AMPLE).unwrap();
    assert_eq!(store.get(b"b").unwrap().as_deref(), Some(&[100_u8; 40][..]));
}

#[test]
fn a_log_cut_at_any_byte_holds_a_prefix_of_whole_batches() {
    let folder = Folder::new();
    let store = open_with_batches(&folder.0.join("whole"), 5, true);
    let copied = folder.0.join("copied");
    copy_store(&folder.0.join("whole"), &copied);
    drop(store);
    let log = fs::read(newest_file(&copied, "log")).unwrap();
    let mut newest_found = Vec::new();
    for length in 0..=log.len() {
        let cut = folder.0.join("cut");
        copy_store(&copied, &cut);
        fs::write(newest_file(&cut, "log"), &log[..length]).unwrap();
        let store = RocksStore::open(&cut, AMPLE).unwrap();
        let (a, b) = (store.get(b"a").unwrap(), store.get(b"b").unwrap());
        assert_eq!(a, b, "a batch was torn by cutting the log after {length} of {} bytes", log.len());
        newest_found.push(a.map_or(0, |value| value[0]));
        drop(store);
        fs::remove_dir_all(&cut).unwrap();
    }
    assert!(newest_found.is_sorted(), "{newest_found:?}");
    newest_found.dedup();
    assert_eq!(newest_found, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_log_damaged_in_the_middle_is_an_error_and_not_a_shorter_log() {
    let folder = Folder::new();
    let path = folder.0.join("store");
    // The copy of an open store, so that closing in good order has no part in it.
    let store = open_with_batches(&folder.0.join("whole"), 200, true);
    copy_store(&folder.0.join("whole"), &path);
    drop(store);
    let log = newest_file(&path, "log");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&log, bytes).unwrap();
    let opened = RocksStore::open(&path, AMPLE);
    assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
}

#[test]
fn a_damaged_table_ends_a_scan_with_an_error_after_right_entries() {
    let folder = Folder::new();
    let path = folder.0.join("store");
    let mut store = RocksStore::open(&path, AMPLE).unwrap();
    for n in 0..1_000_u32 {
        store.write(&put(&n.to_be_bytes(), &[7; 1_000])).unwrap();
    }
    store.switch(&[None], true).unwrap();
    drop(store);
    let table = newest_file(&path, "sst");
    let mut bytes = fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&table, bytes).unwrap();
    let store = RocksStore::open(&path, AMPLE).unwrap();
    let mut next = 0_u32;
    let scanned = store.scan(b"", END, &mut |key, value| {
        assert_eq!((key, value), (&next.to_be_bytes()[..], &[7; 1_000][..]));
        next += 1;
        ControlFlow::Continue(())
    });
    assert!(matches!(scanned, Err(StoreError::Corrupt { .. })), "{scanned:?}");
    assert!((400..600).contains(&next), "{next} entries were visited before the damage");
    assert!(store.get(&999_u32.to_be_bytes()).unwrap().is_some(), "entries behind the damage stay readable");
}

#[test]
fn a_second_owner_is_told_that_the_store_is_in_use() {
    let folder = Folder::new();
    let path = folder.0.join("with/parents");
    let store = RocksStore::open(&path, AMPLE).unwrap();
    let second = RocksStore::open(&path, AMPLE);
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    drop(store);
    RocksStore::open(&path, AMPLE).unwrap();
}

#[test]
fn a_path_that_is_a_file_is_an_error_that_says_so() {
    let folder = Folder::new();
    let path = folder.0.join("file");
    fs::write(&path, b"").unwrap();
    let opened = RocksStore::open(&path, AMPLE);
    assert!(
        matches!(&opened, Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists),
        "{opened:?}"
    );
}

/// 64 MiB in batches of 64 KiB: several memtables are switched, flushed and, as their keys ascend, moved.
#[test]
fn every_log_file_but_the_newest_is_whole_while_memtables_are_switched() {
    let folder = Folder::new();
    let path = folder.0.join("store");
    let mut store = RocksStore::open(&path, AMPLE).unwrap();
    let value = vec![7_u8; 64 << 10];
    let mut switched = 0;
    for n in 0..1_024_u32 {
        let before = store.memtables.bytes_of(None);
        while let Err(error) = store.write(&put(&n.to_be_bytes(), &value)) {
            // Flushing is slower than writing on a loaded machine; the same batch is written again.
            assert!(matches!(error, StoreError::Busy), "{error}");
        }
        if store.memtables.bytes_of(None) < before {
            switched += 1;
        }
        let active = store.db.property_int_value(properties::CUR_SIZE_ACTIVE_MEM_TABLE).unwrap().unwrap();
        assert!(active < tuning::MEMTABLE_BYTES as u64, "RocksDB would have switched by itself at {active} bytes");
    }
    assert!(switched >= 7, "{switched} switches");
    drop(store);
    let store = RocksStore::open(&path, AMPLE).unwrap();
    let mut next = 0_u32;
    let scanned = store.scan(b"", END, &mut |key, _| {
        assert_eq!(key, next.to_be_bytes());
        next += 1;
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    assert_eq!(next, 1_024);
}

#[test]
fn small_entries_are_counted_at_least_as_large_as_a_memtable_has_them() {
    let folder = Folder::new();
    let mut store = RocksStore::open(&folder.0.join("store"), AMPLE).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..50_000_u32 {
        batch.put(&n.to_be_bytes(), b"");
    }
    store.write(&batch).unwrap();
    let active = store.db.property_int_value(properties::CUR_SIZE_ACTIVE_MEM_TABLE).unwrap().unwrap();
    // RocksDB takes memory for a memtable in blocks of 1 MiB.
    assert!(
        active <= store.memtables.bytes_of(None) + (1 << 20),
        "{active} bytes in the memtable, {} counted",
        store.memtables.bytes_of(None)
    );
}

#[test]
fn deletes_of_what_is_in_tables_make_room_at_the_quota() {
    let folder = Folder::new();
    let quota_bytes = 40 << 20;
    let mut store = RocksStore::open(&folder.0.join("store"), Options { quota_bytes, ..AMPLE }).unwrap();
    let value = vec![7_u8; 64 << 10];
    for n in 0..512_u32 {
        store.write(&put(&n.to_be_bytes(), &value)).unwrap();
    }
    store.switch(&[None], true).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..512_u32 {
        batch.delete(&n.to_be_bytes());
    }
    store.write(&batch).unwrap();
    assert!(store.bytes() > 32 << 20, "deleting frees nothing by itself");
    for n in 512..640_u32 {
        store.write(&put(&n.to_be_bytes(), &value)).unwrap();
    }
    assert!(store.bytes() < 20 << 20, "{} bytes in use after room was made", store.bytes());
}
