//! Processes killed with -9 and power cuts, at every write of a history.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Tells how long the newest log was at the last sync.
#[derive(Debug)]
struct Metered {
    store: RocksStore,
    synced: Arc<Mutex<Option<(PathBuf, u64)>>>,
}

impl Metered {
    fn note_synced(&self, log: PathBuf) {
        let length = fs::metadata(&log).unwrap().len();
        *self.synced.lock().unwrap() = Some((log, length));
    }
}

impl Store for Metered {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.store.write(batch)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.store.sync()?;
        let log = newest_file(&self.store.path, "log");
        self.note_synced(log);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.store.scan(from, to, visit)
    }

    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
        self.store.salvage(from, to, visit)
    }

    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.store.forget(from, to)
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

/// Cuts the power: of what the newest log got since the last sync, only this many of eight parts reached the disk.
/// Tables, the list of tables and older logs are whole, as they are synced before anything depends on them.
struct PowerCut {
    disk: Disk,
    synced: Arc<Mutex<Option<(PathBuf, u64)>>>,
    eighths: u64,
}

impl PowerCut {
    fn new(eighths: u64) -> PowerCut {
        PowerCut { disk: Disk::new(b"bdx\x80\x81\x90"), synced: Arc::default(), eighths }
    }

    fn open(&self) -> Box<dyn Store> {
        let store = RocksStore::open(&self.disk.current(), self.disk.options).unwrap();
        *self.synced.lock().unwrap() = None;
        Box::new(Metered { store, synced: Arc::clone(&self.synced) })
    }
}

impl Harness for PowerCut {
    fn fresh(&mut self) -> Box<dyn Store> {
        drop(self.disk.fresh());
        self.open()
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        drop(store);
        self.open()
    }

    fn crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let crashed = self.disk.current();
        self.disk.stores += 1;
        copy_store(&crashed, &self.disk.current());
        let log = newest_file(&self.disk.current(), "log");
        let synced = self.synced.lock().unwrap().take().filter(|(path, _)| path.file_name() == log.file_name());
        let synced = synced.map_or(0, |(_, length)| length);
        let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
        let written = file.metadata().unwrap().len() - synced;
        file.set_len(synced + written * self.eighths / 8).unwrap();
        drop(store);
        self.open()
    }

    fn fresh_with_quota(&mut self, quota_bytes: u64) -> Box<dyn Store> {
        drop(self.disk.fresh_with_quota(quota_bytes));
        self.open()
    }

    fn damage(&mut self, store: Box<dyn Store>, entries: &[(&[u8], &[u8])]) -> Box<dyn Store> {
        self.disk.damage(store, entries)
    }
}

mod when_the_power_cut_loses_all_that_was_not_synced {
    store::conformance_tests!(super::PowerCut::new(0));
}

mod when_the_power_cut_loses_some_of_what_was_not_synced {
    store::conformance_tests!(super::PowerCut::new(3));
}

const CHILD: &str = "SPILLWAY_CRASH_CHILD";
const FAMILIES: Options = Options { families: b"\x80\x81", ..AMPLE };

/// Batch n: n under "first" and in two families, a key of its own, and the key of the batch before removed.
fn history(n: u32) -> WriteBatch {
    let said = n.to_be_bytes();
    let mut batch = put(b"first", &said);
    batch.put(&[&[0x80], &said[..]].concat(), &vec![n.to_le_bytes()[0]; 30_000]);
    batch.delete(&[&[0x81], &(n.wrapping_sub(1)).to_be_bytes()[..]].concat());
    batch.put(&[&[0x81], &said[..]].concat(), &said);
    batch
}

/// Fails unless `store` holds the history up to some batch, whole; that batch.
#[track_caller]
fn check_is_prefix(store: &dyn Store) -> u32 {
    let newest = store.get(b"first").unwrap().map_or(0, |said| u32::from_be_bytes(said[..].try_into().unwrap()));
    let mut next = 1;
    store
        .scan(&[0x80], END, &mut |key, value| {
            if key[0] == 0x80 {
                assert_eq!(key[1..], u32::to_be_bytes(next), "records in order");
                assert_eq!(value, vec![next.to_le_bytes()[0]; 30_000]);
                next += 1;
            } else {
                assert_eq!(key[1..], newest.to_be_bytes(), "the only key of the other family");
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(next, newest + 1, "records up to the newest batch");
    newest
}

/// No test of its own: what the children of the next test run. It writes, and says so after each write.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut store = open(Path::new(&path), &FAMILIES).unwrap().store;
    let first = check_is_prefix(&store) + 1;
    for n in first.. {
        while let Err(error) = store.write(&history(n)) {
            assert!(matches!(error, StoreError::Busy), "{error}");
        }
        println!("wrote {n}");
    }
}

fn start_child(path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::crash::child_that_writes_until_it_is_killed", "--nocapture"]);
    command.env(CHILD, path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The children go on where the killed ones ended, so kills come in the midst of flushes and of recoveries, too.
#[test]
fn a_process_killed_after_any_write_has_lost_nothing_that_it_wrote() {
    let folder = Folder::new();
    let path = folder.0.join("store");
    let mut before = 0;
    for kill_after in [1, 2, 3, 5, 8, 40, 290, 300, 310, 700, 1, 1] {
        let mut child = start_child(&path);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = lines.filter(|line| line.contains("wrote ")).nth(kill_after - 1).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let said: u32 = said.rsplit(' ').next().unwrap().parse().unwrap();
        let opened = open(&path, &FAMILIES).unwrap();
        assert_eq!(opened.findings, [], "a kill is no damage");
        let found = check_is_prefix(&opened.store);
        assert!(found >= said && said > before, "batch {found} is the newest, but the child wrote {said}");
        before = found;
    }
}

/// A log that RocksDB itself begins in the midst of writes could be kept by a power cut that takes the end of the one
/// before. Whatever is written at once, a new one begins behind a switch of ours, which syncs first.
#[test]
fn a_batch_of_any_size_never_lets_the_log_be_switched_without_a_sync() {
    const LANES: Options = Options { families: b"\x80\x81\x82\x83\x84\x85\x86\x87", ..AMPLE };
    for (small, large_mebibytes) in [(1, 9), (110, 12), (110, 24), (700, 17), (700, 40)] {
        let folder = Folder::new();
        let path = folder.0.join("store");
        let mut store = RocksStore::open(&path, LANES).unwrap();
        for family in 0x80..0x88 {
            store.write_patiently(&put(&[family], b"")).unwrap();
        }
        let mut large = WriteBatch::new();
        for n in 0..large_mebibytes {
            large.put(&[0x80, 1, n], &vec![n; 1 << 20]);
        }
        let mut logs = 0;
        let mut write = |store: &mut RocksStore, batch: &WriteBatch| loop {
            let (before, due) = (newest_file(&path, "log"), store.memtables.due());
            let written = store.write(batch);
            if newest_file(&path, "log") != before {
                logs += 1;
                assert!(!due.is_empty(), "{small} small batches, one of {large_mebibytes} MiB: a log of RocksDB's own");
            }
            match written {
                Ok(()) => break,
                // Flushing is behind.
                Err(StoreError::Busy) => std::thread::sleep(std::time::Duration::from_millis(5)),
                Err(error) => panic!("{error}"),
            }
        };
        for round in 0..3_u8 {
            for n in 0..small {
                write(
                    &mut store,
                    &put(&[[0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87][n % 8], round], &[1; 64 << 10]),
                );
            }
            write(&mut store, &large);
        }
        write(&mut store, &put(b"\x80end", b""));
        assert!(logs >= 3, "{logs} new logs");
    }
}
