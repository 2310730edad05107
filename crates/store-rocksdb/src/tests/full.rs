//! Full disks, file systems that are read-only, and directories that go away.

use super::*;
use std::process::Command;

/// A file system of its own for a test.
struct Mount {
    folder: Folder,
}

impl Mount {
    /// `None`, with the reason printed, where mounting is not allowed.
    fn new(megabytes: u32) -> Option<Mount> {
        let folder = Folder::new();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder.0).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mount { folder }),
            Ok(output) => {
                println!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: cannot run mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.0.join("store")
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.folder.0).status();
        assert!(status.unwrap().success(), "remount {how}");
    }

    fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.folder.0).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Fills the file system but for `left` bytes with another file.
    fn fill(&self, name: &str, left: u64) {
        let hog = fs::File::create(self.folder.0.join(name)).unwrap();
        rustix::fs::fallocate(&hog, rustix::fs::FallocateFlags::empty(), 0, self.free() - left).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.0.join(name)).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(&self.folder.0).status().unwrap().success());
    }
}

fn lane(n: u32) -> Vec<u8> {
    [&[0x80], &n.to_be_bytes()[..]].concat()
}

/// Writes records from `first` on until one is refused: the first that was not written, and why.
fn write_until_refused(store: &mut RocksStore, first: u32) -> (u32, StoreError) {
    for n in first.. {
        match store.write(&put(&lane(n), &[n.to_le_bytes()[0]; 64 << 10])) {
            Ok(()) | Err(StoreError::Busy) if n > 100_000 => panic!("never refused"),
            Ok(()) => {}
            Err(StoreError::Busy) => return write_until_refused(store, n),
            Err(error) => return (n, error),
        }
    }
    unreachable!("numbers end later")
}

fn count(store: &RocksStore) -> u32 {
    let mut found = 0;
    let scanned = store.scan(b"\x80", b"\x81", &mut |key, _| {
        assert_eq!(key, lane(found));
        found += 1;
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    found
}

/// Polls for at most 60 s.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("after 60 s: {what}");
}

const RESERVE: Options = Options { families: b"\x80", quota_bytes: 1 << 30, reserve_bytes: 24 << 20 };

#[test]
fn puts_end_at_the_reserve_and_go_on_when_there_is_space_again() {
    let Some(mount) = Mount::new(96) else { return };
    let mut store = open(&mount.path(), &RESERVE).unwrap().store;
    assert_eq!(fs::metadata(mount.path().join("ballast")).unwrap().len(), 12 << 20);
    let (written, refused) = write_until_refused(&mut store, 0);
    assert!(matches!(refused, StoreError::Full { by: FullBy::Device, .. }), "{refused}");
    assert!(refused.to_string().contains("no space left on the file system"), "{refused}");
    // What is in memtables is written once more, into tables.
    assert!(mount.free() > 4 << 20, "{} bytes free", mount.free());
    store.sync().unwrap();
    let mut delete = WriteBatch::new();
    delete.delete(b"anything");
    store.write(&delete).unwrap();
    assert_eq!(count(&store), written);
    eventually("forgetting makes room", || {
        store.forget(&lane(0), &lane(written - 1)).unwrap();
        store.write(&put(&lane(written), b"")).is_ok()
    });
    assert!(store.get(&lane(written - 1)).unwrap().is_some(), "what was not forgotten");
}

#[test]
fn a_disk_that_others_filled_loses_nothing_and_opens_with_the_ballast() {
    let Some(mount) = Mount::new(96) else { return };
    let mut store = open(&mount.path(), &RESERVE).unwrap().store;
    for n in 0..200 {
        store.write(&put(&lane(n), &[n.to_le_bytes()[0]; 64 << 10])).unwrap();
    }
    store.switch(&[Some(0x80)], true).unwrap();
    // These are in the log only: opening has to write them into a table.
    for n in 200..260 {
        store.write(&put(&lane(n), &[n.to_le_bytes()[0]; 64 << 10])).unwrap();
    }
    store.sync().unwrap();
    store.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
    mount.fill("hog", 16 << 10);
    let (written, refused) = write_until_refused(&mut store, 260);
    assert_eq!(refused.disposition(), Disposition::FreeSpace, "{refused}");
    assert_eq!(written, 260, "the guard refuses before the disk does");
    drop(store);
    // Closing gave back what the log had taken ahead.
    mount.fill("another hog", 16 << 10);
    let opened = open(&mount.path(), &RESERVE).unwrap();
    let done: Vec<What> = opened.findings.iter().map(|finding| finding.what).collect();
    assert_eq!(done, [What::BallastUsed], "{:?}", opened.findings);
    assert_eq!(count(&opened.store), 260);
    let mut store = opened.store;
    mount.remove("hog");
    mount.remove("another hog");
    eventually("it takes writes again by itself", || store.write(&put(&lane(260), b"")).is_ok());
    store.sync().unwrap();
    assert_eq!(count(&store), 261);
    assert!(mount.path().join("ballast").exists(), "the ballast is there again");
}

#[test]
fn a_disk_that_fills_under_a_store_without_reserve_is_an_error_that_passes() {
    let Some(mount) = Mount::new(96) else { return };
    let mut store = open(&mount.path(), &Options { reserve_bytes: 0, ..RESERVE }).unwrap().store;
    let (written, refused) = write_until_refused(&mut store, 0);
    assert!(matches!(refused, StoreError::Full { by: FullBy::Device, .. }), "{refused}");
    assert_eq!(count(&store), written);
    mount.remount("size=192m");
    eventually("it takes writes again by itself", || store.write(&put(&lane(written), b"")).is_ok());
    store.sync().unwrap();
    drop(store);
    let opened = open(&mount.path(), &RESERVE).unwrap();
    assert_eq!((opened.findings, count(&opened.store)), (Vec::new(), written + 1));
}

#[test]
fn a_read_only_file_system_is_named_as_such_and_heals_by_opening_again() {
    let Some(mount) = Mount::new(96) else { return };
    let mut store = open(&mount.path(), &RESERVE).unwrap().store;
    store.write(&put(&lane(0), b"")).unwrap();
    drop(store);
    mount.remount("ro");
    let refused = open(&mount.path(), &RESERVE).unwrap_err();
    assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
    assert!(refused.to_string().contains("mount the file system read-write"), "{refused}");
    mount.remount("rw");
    let opened = open(&mount.path(), &RESERVE).unwrap();
    assert_eq!((opened.findings, count(&opened.store)), (Vec::new(), 1));
}

/// Everything in the folder but RocksDB's text log, and what is made anew at each opening.
fn kept(folder: &Path) -> BTreeMap<OsString, u64> {
    let mut kept = names_and_lengths(folder);
    kept.retain(|name, _| [".sst", ".log"].iter().any(|end| name.to_string_lossy().ends_with(end)));
    kept
}

#[test]
fn want_of_space_or_of_permission_never_starts_a_damaged_store_empty() {
    let Some(mount) = Mount::new(96) else { return };
    let options = Options { families: b"\x80\x81", reserve_bytes: 0, ..RESERVE };
    let mut store = open(&mount.path(), &options).unwrap().store;
    store.write(&put(b"\x81", &[1; 64 << 10])).unwrap();
    store.switch(&[Some(0x81)], true).unwrap();
    for n in 0..100 {
        store.write(&put(&lane(n), &[n.to_le_bytes()[0]; 64 << 10])).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let table = newest_file(&mount.path(), "sst");
    fs::OpenOptions::new().write(true).open(&table).unwrap().set_len(100).unwrap();
    mount.fill("hog", 1 << 20);
    let before = kept(&mount.path());
    for _ in 0..2 {
        let refused = open(&mount.path(), &options).unwrap_err();
        assert!(matches!(refused, StoreError::Full { by: FullBy::Device, .. }), "{refused}");
        assert_eq!(kept(&mount.path()), before, "what was found is as it was");
        assert!(!mount.folder.0.join("store.rebuilding").exists(), "nothing half done is left");
    }
    mount.remount("ro");
    let refused = open(&mount.path(), &options).unwrap_err();
    assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
    mount.remount("rw");
    assert_eq!(kept(&mount.path()), before);
    mount.remove("hog");
    let opened = open(&mount.path(), &options).unwrap();
    assert_eq!(opened.findings.iter().map(|found| found.what).collect::<Vec<_>>(), [What::Rebuilt]);
    assert_eq!(count(&opened.store), 100);
}

#[test]
fn a_directory_that_was_removed_under_the_store_is_noticed_at_the_next_sync() {
    let folder = Folder::new();
    let path = folder.0.join("store");
    let mut store = open(&path, &RESERVE).unwrap().store;
    store.write(&put(b"a", b"1")).unwrap();
    store.sync().unwrap();
    fs::rename(&path, folder.0.join("elsewhere")).unwrap();
    store.write(&put(b"a", b"2")).unwrap();
    let vanished = store.sync().unwrap_err();
    assert!(matches!(vanished, StoreError::Vanished { .. }), "{vanished}");
    assert_eq!(vanished.disposition(), Disposition::Reopen);
    assert!(matches!(store.write(&put(b"a", b"3")), Err(StoreError::ReadOnly { .. })));
    drop(store);
    let mut successor = open(&path, &RESERVE).unwrap();
    assert_eq!(successor.findings, []);
    successor.store.write(&put(b"a", b"4")).unwrap();
    successor.store.sync().unwrap();
}

#[test]
fn what_is_forgotten_is_given_back_from_memory_and_log_as_well() {
    let folder = Folder::new();
    let path = folder.0.join("store");
    let mut store = RocksStore::open(&path, RESERVE).unwrap();
    let occupied = || -> u64 {
        fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "ballast")
            .map(|entry| entry.metadata().unwrap().len())
            .sum()
    };
    // Less than what is written into tables by itself, in two families.
    let mut batch = WriteBatch::new();
    for n in 0..60_u8 {
        batch.clear();
        batch.put(&[0x80, n], &vec![n; 100_000]);
        batch.put(b"books", &[n]);
        store.write(&batch).unwrap();
    }
    store.sync().unwrap();
    store.forget(&[0x80, 0], &[0x80, 60]).unwrap();
    assert!(occupied() > 6_000_000, "{} bytes: the log holds everything", occupied());
    store.give_back().unwrap();
    // Log files are removed by a thread of its own.
    for _ in 0..200 {
        if occupied() < 1_000_000 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(occupied() < 1_000_000 && store.bytes() < 1_000_000, "{} bytes are left", occupied());
    assert_eq!(store.get(b"books").unwrap().as_deref(), Some(&[59][..]));
}
