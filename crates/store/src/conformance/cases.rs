//! The cases of the suite, one promise each.

use super::{Harness, check_holds, entries, entries_between, must, puts};
use crate::{Disposition, END, Store, WriteBatch};
use std::ops::ControlFlow;

/// A fresh store has no entries, finds no key and can be synced.
pub fn an_empty_store_holds_nothing(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    check_holds(&*store, &[]);
    assert_eq!(must(store.get(b"absent"), "get"), None, "a key that was never written");
    must(store.sync(), "sync an empty store");
}

/// A value is visible at once, without sync, and the latest one wins.
pub fn a_written_value_is_read_back_and_overwritten(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b"1"), (b"b", b"2")])), "write");
    check_holds(&*store, &[(b"a", b"1"), (b"b", b"2")]);
    must(store.write(&puts(&[(b"a", b"longer than before")])), "overwrite");
    check_holds(&*store, &[(b"a", b"longer than before"), (b"b", b"2")]);
    assert_eq!(must(store.get(b"ab"), "get"), None, "a key between two keys");
}

/// Writing nothing is allowed.
pub fn an_empty_batch_changes_nothing(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b"1")])), "write");
    must(store.write(&WriteBatch::new()), "write an empty batch");
    check_holds(&*store, &[(b"a", b"1")]);
}

/// Values of 0 bytes to 1 MiB, with every byte in them, over sync and reopen.
pub fn empty_and_large_values_come_back_unchanged(harness: &mut dyn Harness) {
    let large: Vec<u8> = (0..=255_u8).cycle().take(1 << 20).collect();
    let expected: [(&[u8], &[u8]); 4] =
        [(b"\x00", b""), (b"empty", b""), (b"large", &large), (b"\xfe\xff\xff", b"\x00\xff")];
    let mut store = harness.fresh();
    must(store.write(&puts(&expected)), "write");
    check_holds(&*store, &expected);
    must(store.sync(), "sync");
    let store = harness.reopen(store);
    check_holds(&*store, &expected);
}

/// Keys come in unsigned byte order, a prefix before what it begins; `from` is included and `to` is not.
pub fn scans_are_in_byte_order_and_within_bounds(harness: &mut dyn Harness) {
    let ordered: [&[u8]; 8] = [b"\x00", b"\x00\x00", b"a", b"a\x00", b"ab", b"b", b"\x7f", b"\x80"];
    let mut store = harness.fresh();
    for index in [5, 0, 7, 2, 1, 6, 4, 3] {
        must(store.write(&puts(&[(ordered[index], b"v")])), "write");
    }
    let keys_between = |from: &[u8], to: &[u8]| -> Vec<Vec<u8>> {
        entries_between(&*store, from, to).into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys_between(b"", END), ordered, "all keys");
    for (first, from) in ordered.iter().enumerate() {
        for (last, to) in ordered.iter().enumerate() {
            let expected = ordered.get(first..last).unwrap_or_default();
            assert_eq!(keys_between(from, to), expected, "scan from {from:?} to {to:?}");
        }
    }
    assert_eq!(keys_between(b"aa", b"az"), [b"ab"], "bounds that are no keys");
    assert_eq!(keys_between(b"c", b"d"), Vec::<Vec<u8>>::new(), "bounds with nothing between");
}

/// The visitor is not called again after it broke.
pub fn a_scan_ends_when_the_visitor_breaks(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])), "write");
    let mut visited = Vec::new();
    let scanned = store.scan(b"", END, &mut |key, _| {
        visited.push(key.to_vec());
        if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    must(scanned, "scan");
    assert_eq!(visited, [b"a", b"b"], "keys visited");
}

/// Also across reopening: a delete must not uncover an older value.
pub fn a_deleted_key_is_gone_and_can_come_back(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b"old"), (b"b", b"2")])), "write");
    must(store.write(&puts(&[(b"a", b"new")])), "overwrite");
    let mut batch = WriteBatch::new();
    batch.delete(b"a");
    batch.delete(b"never there");
    must(store.write(&batch), "delete");
    check_holds(&*store, &[(b"b", b"2")]);
    must(store.sync(), "sync");
    let mut store = harness.reopen(store);
    check_holds(&*store, &[(b"b", b"2")]);
    must(store.write(&puts(&[(b"a", b"again")])), "write");
    check_holds(&*store, &[(b"a", b"again"), (b"b", b"2")]);
}

/// Half open like a scan; empty and reversed ranges remove nothing; survives reopening.
pub fn delete_range_takes_its_first_key_and_leaves_its_last(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b""), (b"b", b""), (b"bb", b""), (b"c", b""), (b"d", b"")])), "write");
    let mut batch = WriteBatch::new();
    batch.delete_range(b"b", b"c");
    batch.delete_range(b"d", b"d");
    batch.delete_range(b"z", b"a");
    must(store.write(&batch), "delete a range");
    check_holds(&*store, &[(b"a", b""), (b"c", b""), (b"d", b"")]);
    must(store.sync(), "sync");
    let mut store = harness.reopen(store);
    check_holds(&*store, &[(b"a", b""), (b"c", b""), (b"d", b"")]);
    batch.clear();
    batch.delete_range(b"", END);
    must(store.write(&batch), "delete everything");
    check_holds(&*store, &[]);
}

/// Within one batch a later operation wins over an earlier one on the same keys.
pub fn operations_of_one_batch_take_effect_in_order(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"k1", b"before"), (b"k4", b"before")])), "write");
    let mut batch = puts(&[(b"k1", b"1"), (b"k2", b"2"), (b"k2", b"two")]);
    batch.delete(b"k2");
    batch.put(b"k3", b"3");
    batch.delete_range(b"k3", b"k5");
    batch.put(b"k4", b"after the range");
    must(store.write(&batch), "write");
    check_holds(&*store, &[(b"k1", b"1"), (b"k4", b"after the range")]);
}

/// Closing in good order loses nothing, not even what was not synced.
pub fn reopening_keeps_everything(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b"synced")])), "write");
    must(store.sync(), "sync");
    must(store.write(&puts(&[(b"b", b"not synced")])), "write");
    let store = harness.reopen(store);
    check_holds(&*store, &[(b"a", b"synced"), (b"b", b"not synced")]);
}

/// Overwrites and deletes that were synced stay, too; and the store works on after a crash.
pub fn a_crash_keeps_what_was_synced(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    must(store.write(&puts(&[(b"a", b"1"), (b"b", b"1"), (b"c", b"1")])), "write");
    let mut batch = puts(&[(b"a", b"2")]);
    batch.delete(b"b");
    must(store.write(&batch), "write");
    must(store.sync(), "sync");
    let mut store = harness.crash(store);
    check_holds(&*store, &[(b"a", b"2"), (b"c", b"1")]);
    must(store.write(&puts(&[(b"d", b"1")])), "write after a crash");
    must(store.sync(), "sync after a crash");
    let store = harness.crash(store);
    check_holds(&*store, &[(b"a", b"2"), (b"c", b"1"), (b"d", b"1")]);
}

/// Batch n sets three keys to n and removes a fourth; a crash after every single write, with a sync after every third.
pub fn a_crash_after_any_write_keeps_a_prefix_of_whole_batches(harness: &mut dyn Harness) {
    for writes in 1..=12_u8 {
        let mut store = harness.fresh();
        for n in 1..=writes {
            let mut batch = puts(&[(b"first", &[n]), (&[b'n', n], b""), (b"second", &[n])]);
            batch.delete(&[b'n', n - 1]);
            must(store.write(&batch), "write");
            if n % 3 == 0 {
                must(store.sync(), "sync");
            }
        }
        let store = harness.crash(store);
        let found = must(store.get(b"first"), "get").map_or(0, |value| value[0]);
        assert!(
            found >= writes - writes % 3,
            "batch {found} is the newest, but batch {} was synced",
            writes - writes % 3
        );
        if found == 0 {
            check_holds(&*store, &[]);
        } else {
            check_holds(&*store, &[(b"first", &[found]), (&[b'n', found], b""), (b"second", &[found])]);
        }
    }
}

/// In batches of 1,000, written backwards, then read in order after reopening.
pub fn hundred_thousand_small_keys_survive(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    let mut batch = WriteBatch::new();
    for thousand in (0..100_u32).rev() {
        batch.clear();
        for n in 0..1_000 {
            let n = thousand * 1_000 + n;
            batch.put(&n.to_be_bytes(), &n.to_le_bytes());
        }
        must(store.write(&batch), "write");
    }
    must(store.sync(), "sync");
    let store = harness.reopen(store);
    let mut next = 0_u32;
    let scanned = store.scan(b"", END, &mut |key, value| {
        assert_eq!((key, value), (&next.to_be_bytes()[..], &next.to_le_bytes()[..]), "entry {next}");
        next += 1;
        ControlFlow::Continue(())
    });
    must(scanned, "scan");
    assert_eq!(next, 100_000, "keys found");
}

const QUOTA_BYTES: u64 = 8 << 20;

/// Fills a store to its quota in batches of two entries; the number of batches that it took.
fn fill(store: &mut dyn Store) -> u32 {
    let value = vec![7_u8; 32 << 10];
    for n in 0..10_000_u32 {
        let key = n.to_be_bytes();
        let batch = puts(&[(&[b"x", &key[..]].concat(), &value), (&[b"y", &key[..]].concat(), &value)]);
        if let Err(error) = store.write(&batch) {
            assert_eq!(error.disposition(), Disposition::FreeSpace, "the error of a full store: {error}");
            assert_eq!(must(store.get(&[b"x", &key[..]].concat()), "get"), None, "first half of a refused batch");
            return n;
        }
    }
    panic!("a store with a quota of {QUOTA_BYTES} bytes took 10,000 batches of 64 KiB");
}

/// The quota is met within a factor of two, refused batches leave nothing behind, deletes and syncs go on.
pub fn a_full_store_refuses_whole_batches_and_accepts_deletes(harness: &mut dyn Harness) {
    let mut store = harness.fresh_with_quota(QUOTA_BYTES);
    let batches = fill(&mut *store);
    assert!((40..=130).contains(&batches), "a quota of 8 MiB took {batches} batches of 64 KiB");
    assert!(store.bytes() <= QUOTA_BYTES + (64 << 10), "{} bytes in use", store.bytes());
    assert_eq!(entries(&*store).len(), 2 * batches as usize, "entries of whole batches");
    must(store.sync(), "sync a full store");
    let mut batch = WriteBatch::new();
    batch.delete(&[b"x", &0_u32.to_be_bytes()[..]].concat());
    batch.delete_range(b"y", b"z");
    must(store.write(&batch), "delete from a full store");
    assert_eq!(entries(&*store).len(), batches as usize - 1, "entries left");
}

/// Three times in a row, so that space does not leak.
pub fn a_full_store_takes_writes_again_after_deletes(harness: &mut dyn Harness) {
    let mut store = harness.fresh_with_quota(QUOTA_BYTES);
    for round in 0..3 {
        let batches = fill(&mut *store);
        assert!(batches >= 40, "round {round} took {batches} batches of 64 KiB into 8 MiB");
        let mut batch = WriteBatch::new();
        batch.delete_range(b"", END);
        must(store.write(&batch), "delete everything");
        must(store.sync(), "sync");
        check_holds(&*store, &[]);
    }
}
