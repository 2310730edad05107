use super::*;
use crate::conformance::Harness;
use crate::{Disposition, END};
use std::ops::ControlFlow;

/// Crashes that keep the given number of the batches that were not synced.
struct Memory {
    disk: MemDisk,
    crash_keeps: usize,
}

impl Memory {
    fn new(crash_keeps: usize) -> Memory {
        Memory { disk: MemDisk::new(0), crash_keeps }
    }
}

impl Harness for Memory {
    fn fresh(&mut self) -> Box<dyn Store> {
        self.fresh_with_quota(256 << 20)
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        drop(store);
        Box::new(self.disk.open())
    }

    fn crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        self.disk.crash_keeping(self.crash_keeps);
        drop(store);
        Box::new(self.disk.open())
    }

    fn fresh_with_quota(&mut self, quota_bytes: u64) -> Box<dyn Store> {
        self.disk = MemDisk::new(quota_bytes);
        Box::new(self.disk.open())
    }

    fn damage(&mut self, store: Box<dyn Store>, entries: &[(&[u8], &[u8])]) -> Box<dyn Store> {
        self.disk.set_faults(entries.iter().fold(FaultPlan::new(), |plan, (key, _)| plan.damage(key)));
        self.reopen(store)
    }
}

mod when_a_crash_keeps_nothing_unsynced {
    crate::conformance_tests!(super::Memory::new(0));
}

mod when_a_crash_keeps_one_unsynced_batch {
    crate::conformance_tests!(super::Memory::new(1));
}

mod when_a_crash_keeps_everything {
    crate::conformance_tests!(super::Memory::new(usize::MAX));
}

fn put(key: &[u8], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

fn keys(store: &MemStore) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    store.scan(b"", END, &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// Writes a, syncs, writes b and c with `plan`, crashes so that `kept` unsynced batches stay; what is found.
#[track_caller]
fn check(plan: FaultPlan, kept: usize, expected_dispositions: &[Disposition], expected_keys: &[&str]) {
    let disk = MemDisk::new(1 << 20);
    let mut store = disk.open();
    store.write(&put(b"a", b"1")).unwrap();
    store.sync().unwrap();
    disk.set_faults(plan);
    let results = [store.write(&put(b"b", b"1")), store.write(&put(b"c", b"1")), store.sync()];
    let dispositions: Vec<Disposition> =
        results.iter().filter_map(|result| result.as_ref().err()).map(StoreError::disposition).collect();
    assert_eq!(dispositions, expected_dispositions, "what the caller is told to do");
    disk.crash_keeping(kept);
    let expected_keys: Vec<Vec<u8>> = expected_keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    assert_eq!(keys(&disk.open()).unwrap(), expected_keys, "keys after the crash");
}

#[test]
fn planned_faults_end_as_the_real_ones_would() {
    use Disposition::{FreeSpace, Reopen, RetrySoon};
    let lost = Fault::Io { applied: false };
    let applied = Fault::Io { applied: true };
    check(FaultPlan::new(), 0, &[], &["a", "b", "c"]);
    check(FaultPlan::new().fail_write(1, Fault::Full), 0, &[FreeSpace], &["a", "c"]);
    check(FaultPlan::new().fail_write(2, Fault::Busy), 0, &[RetrySoon], &["a", "b"]);
    check(FaultPlan::new().fail_write(2, lost), 9, &[Reopen, Reopen], &["a", "b"]);
    check(FaultPlan::new().fail_write(2, applied), 9, &[Reopen, Reopen], &["a", "b", "c"]);
    check(FaultPlan::new().fail_write(2, applied), 1, &[Reopen, Reopen], &["a", "b"]);
    check(FaultPlan::new().fail_sync(1, lost), 0, &[Reopen], &["a"]);
    check(FaultPlan::new().fail_sync(1, lost), 1, &[Reopen], &["a", "b"]);
    check(FaultPlan::new().fail_sync(1, applied), 0, &[Reopen], &["a", "b", "c"]);
    check(FaultPlan::new().fail_write(9, lost).fail_sync(9, lost), 0, &[], &["a", "b", "c"]);
}

#[test]
fn after_a_failed_sync_the_handle_reads_but_does_not_write_until_reopened() {
    let disk = MemDisk::new(1 << 20);
    let mut store = disk.open();
    disk.set_faults(FaultPlan::new().fail_sync(1, Fault::Full));
    store.write(&put(b"a", b"1")).unwrap();
    assert!(matches!(store.sync(), Err(StoreError::Full { by: FullBy::Device, .. })));
    assert!(matches!(store.write(&put(b"b", b"1")), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.sync(), Err(StoreError::ReadOnly { .. })));
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    let mut store = disk.open();
    store.write(&put(b"b", b"1")).unwrap();
    store.sync().unwrap();
    assert_eq!(disk.unsynced_batches(), 0);
    assert_eq!(keys(&store).unwrap(), [b"a", b"b"]);
}

#[test]
fn a_worker_that_was_replaced_can_neither_write_nor_read() {
    let disk = MemDisk::new(1 << 20);
    let mut hung = disk.open();
    let mut successor = disk.open();
    assert!(matches!(hung.write(&put(b"a", b"stale")), Err(StoreError::Superseded)));
    assert!(matches!(hung.sync(), Err(StoreError::Superseded)));
    assert!(matches!(hung.get(b"a"), Err(StoreError::Superseded)));
    assert!(matches!(keys(&hung), Err(StoreError::Superseded)));
    successor.write(&put(b"a", b"1")).unwrap();
    disk.crash();
    assert!(matches!(successor.sync(), Err(StoreError::Superseded)), "a crash ends every owner");
}

#[test]
fn a_worker_that_panics_leaves_its_batches_to_the_next_one() {
    let disk = MemDisk::new(1 << 20);
    let of_worker = disk.clone();
    let panicked = std::panic::catch_unwind(move || {
        let mut store = of_worker.open();
        store.write(&put(b"a", b"1")).unwrap();
        panic!("a bug");
    });
    assert!(panicked.is_err());
    assert_eq!(keys(&disk.open()).unwrap(), [b"a"]);
}

#[test]
fn a_damaged_key_is_an_error_and_ends_a_scan_before_it() {
    let disk = MemDisk::new(1 << 30);
    let mut store = disk.open();
    let mut batch = WriteBatch::new();
    for n in 0..1_000_u16 {
        batch.put(&n.to_be_bytes(), b"v");
    }
    store.write(&batch).unwrap();
    let damaged = 700_u16.to_be_bytes();
    disk.set_faults(FaultPlan::new().damage(&damaged).damage(b"not there"));
    assert!(matches!(store.get(&damaged), Err(StoreError::Corrupt { .. })));
    assert_eq!(store.get(b"not there").unwrap(), None);
    let mut visited = 0_u32;
    let scanned = store.scan(b"", END, &mut |_, _| {
        visited += 1;
        ControlFlow::Continue(())
    });
    assert!(matches!(scanned, Err(StoreError::Corrupt { .. })));
    assert_eq!(visited, 700, "keys before the damaged one");
    let mut after = damaged.to_vec();
    after.push(0);
    store.scan(&after, END, &mut |_, _| ControlFlow::Continue(())).unwrap();
}

#[test]
fn the_quota_counts_entries_exactly_and_lets_shrinking_batches_in() {
    let disk = MemDisk::new(2 * (ENTRY_BYTES + 11));
    let mut store = disk.open();
    store.write(&put(b"a", b"0123456789")).unwrap();
    store.write(&put(b"b", b"0123456789")).unwrap();
    assert_eq!(store.bytes(), 2 * (ENTRY_BYTES + 11));
    assert!(matches!(store.write(&put(b"b", b"0123456789+")), Err(StoreError::Full { .. })));
    assert!(matches!(store.write(&put(b"c", b"")), Err(StoreError::Full { .. })));
    let mut swap = put(b"c", b"012345678");
    swap.delete(b"a");
    store.write(&swap).unwrap();
    assert_eq!(store.bytes(), 2 * (ENTRY_BYTES + 11) - 1);
    disk.crash();
    assert_eq!(disk.open().bytes(), 0, "a crash gives back what was not synced");
}

#[test]
fn a_visitor_may_end_the_store_it_scans() {
    let disk = MemDisk::new(1 << 20);
    let mut store = disk.open();
    let mut batch = WriteBatch::new();
    for n in 0..1_000_u16 {
        batch.put(&n.to_be_bytes(), b"v");
    }
    store.write(&batch).unwrap();
    let scanned = store.scan(b"", END, &mut |_, _| {
        disk.crash();
        ControlFlow::Continue(())
    });
    assert!(matches!(scanned, Err(StoreError::Superseded)));
}
