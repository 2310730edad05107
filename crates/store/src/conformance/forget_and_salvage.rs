//! Cases about many families of keys, about forgetting them, and about what is still readable after damage.

use super::{Harness, check_holds, entries, entries_between, must, puts};
use crate::{END, Hole, Store, StoreError, WriteBatch};
use std::ops::ControlFlow;

/// The first bytes of keys in these cases. A harness may give some of them files of their own.
const LANES: [u8; 4] = [0x80, 0x81, 0x90, 0xc0];

fn key(lane: u8, ordinal: u64) -> [u8; 9] {
    let mut key = [lane; 9];
    key[1..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

/// Not to be compressed, and found in a file by what it holds: different for every key.
fn value(lane: u8, ordinal: u64, length: usize) -> Vec<u8> {
    let mut state = ordinal << 8 | u64::from(lane);
    let mut value = Vec::with_capacity(length + 8);
    while value.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value.extend_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
    }
    value.truncate(length);
    value
}

/// One batch puts into every lane and into what lies between them; order and values hold over all, also reopened.
pub fn keys_of_many_families_are_one_ordered_space(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    let mut expected = Vec::new();
    for ordinal in [300_u64, 2, 70_000, 0] {
        let mut batch = WriteBatch::new();
        for (index, lane) in LANES.iter().enumerate().rev() {
            batch.put(&key(*lane, ordinal), &[1]);
            batch.put(&[*lane], &ordinal.to_be_bytes());
            batch.put(&[b'b', u8::try_from(index).unwrap_or(0)], &ordinal.to_be_bytes());
        }
        must(store.write(&batch), "write into all families");
    }
    for lane in LANES {
        expected.push(vec![lane]);
        expected.extend([0, 2, 300, 70_000].map(|ordinal| key(lane, ordinal).to_vec()));
    }
    let keys = |store: &dyn Store, from: &[u8], to: &[u8]| -> Vec<Vec<u8>> {
        entries_between(store, from, to).into_iter().map(|(key, _)| key).collect()
    };
    let shared: Vec<Vec<u8>> = (0..4).map(|index| vec![b'b', index]).collect();
    let all: Vec<Vec<u8>> = shared.iter().chain(&expected).cloned().collect();
    assert_eq!(keys(&*store, b"", END), all, "all keys");
    must(store.sync(), "sync");
    let mut store = harness.reopen(store);
    assert_eq!(keys(&*store, b"", END), all, "all keys, reopened");
    assert_eq!(keys(&*store, &key(0x80, 300), &key(0x81, 1)), &expected[3..7], "from within one to within the next");
    let mut batch = WriteBatch::new();
    batch.delete_range(&key(0x80, 300), &key(0xc0, 3));
    batch.put(&key(0x90, 5), b"after");
    must(store.write(&batch), "delete over families");
    let left: Vec<Vec<u8>> = [&shared[..], &expected[..3], &[key(0x90, 5).to_vec()], &expected[18..]].concat();
    assert_eq!(keys(&*store, b"", END), left, "keys after a range over families was deleted");
    let store = harness.crash(store);
    let found = keys(&*store, b"", END);
    assert!(found == left || found == all, "a batch over families was torn: {found:?}");
}

/// What is forgotten may stay for a while; what is not must stay, in every family, also after a crash.
pub fn forgetting_takes_nothing_else_with_it(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    for ordinal in 0..200_u64 {
        let mut batch = WriteBatch::new();
        for lane in LANES {
            batch.put(&key(lane, ordinal), &value(lane, ordinal, 20_000));
        }
        must(store.write(&batch), "write");
    }
    must(store.sync(), "sync");
    must(store.forget(&key(0x81, 0), &key(0x81, 150)), "forget");
    must(store.forget(&key(0x90, 0), &[0x91]), "forget a whole family");
    must(store.forget(&key(0xc0, 7), &key(0xc0, 7)), "forget nothing");
    let mut store = harness.crash(store);
    must(store.forget(&key(0x81, 0), &key(0x81, 150)), "forget once more");
    for (lane, from) in [(0x80, 0), (0x81, 150), (0xc0, 0)] {
        let found = entries_between(&*store, &key(lane, from), &[lane + 1]);
        let expected: Vec<_> =
            (from..200).map(|ordinal| (key(lane, ordinal).to_vec(), value(lane, ordinal, 20_000))).collect();
        assert!(found == expected, "lane {lane:x} holds {} entries of {}", found.len(), expected.len());
    }
    must(store.write(&puts(&[(&key(0x90, 200), b"on")])), "write into a forgotten family");
    assert_eq!(must(store.get(&key(0x90, 200)), "get").as_deref(), Some(&b"on"[..]), "written after forgetting");
    let mut batch = WriteBatch::new();
    batch.delete_range(&[0x81], &[0x82]);
    batch.delete_range(&[0x90], &[0x91]);
    must(store.write(&batch), "delete what was forgotten in part");
    assert_eq!(entries_between(&*store, &[0x81], &[0x92]), [], "keys after a delete");
}

/// Six times its quota goes through a store whose owner forgets behind itself; at the end everything is given back.
pub fn a_store_whose_owner_forgets_never_fills_up(harness: &mut dyn Harness) {
    const QUOTA_BYTES: u64 = 64 << 20;
    let mut store = harness.fresh_with_quota(QUOTA_BYTES);
    let body = value(0x80, 0, 64 << 10);
    let mut tries = 0;
    for ordinal in 0..6_144_u64 {
        let batch = puts(&[(&key(0x80, ordinal), &body), (b"books", &ordinal.to_be_bytes())]);
        // Flushing is slower than writing on a loaded machine: the same batch is written again.
        while let Err(error) = store.write(&batch) {
            tries += 1;
            assert!(matches!(error, StoreError::Busy) && tries < 1_000_000, "write {ordinal}: {error}");
        }
        if ordinal % 64 == 63 {
            must(store.forget(&key(0x80, 0), &key(0x80, ordinal - 15)), "forget");
        }
    }
    let newest = entries_between(&*store, &key(0x80, 6_128), END);
    assert_eq!(newest.len(), 16, "entries that were not forgotten");
    must(store.forget(&[0x80], &[0x81]), "forget the rest");
    let left = entries(&*store).len();
    assert!(left <= 1_025, "{left} entries of 6,144 are left after forgetting them: more than the quota holds");
}

/// Damage in three places: what is readable is visited, and what is not lies between the neighbours of a hole.
pub fn salvage_goes_on_behind_damage_and_names_the_holes(harness: &mut dyn Harness) {
    const ENTRIES: u64 = 600;
    let mut store = harness.fresh();
    for lane in [0x80, 0x81] {
        for ordinal in 0..ENTRIES {
            must(store.write(&puts(&[(&key(lane, ordinal), &value(lane, ordinal, 1_500))])), "write");
        }
    }
    must(store.sync(), "sync");
    let damaged = [key(0x80, 0), key(0x80, 300), key(0x81, 100), key(0x81, ENTRIES - 1)];
    let values: Vec<Vec<u8>> =
        [(0x80, 0), (0x80, 300), (0x81, 100), (0x81, ENTRIES - 1)].map(|(lane, n)| value(lane, n, 1_500)).to_vec();
    let entries: Vec<(&[u8], &[u8])> = damaged.iter().zip(&values).map(|(k, v)| (&k[..], &v[..])).collect();
    let store = harness.damage(store, &entries);
    let scanned = store.scan(b"", END, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(scanned, Err(StoreError::Corrupt { .. })), "a scan over damage: {scanned:?}");
    check_salvage(&*store, b"", END, &damaged);
    check_salvage(&*store, &key(0x80, 290), &key(0x80, 310), &damaged[1..2]);
    check_salvage(&*store, &key(0x80, 300), &key(0x80, 301), &damaged[1..2]);
    check_salvage(&*store, &key(0x81, 200), &key(0x81, 400), &[]);
    let mut visited = 0;
    let holes = store.salvage(b"", END, &mut |_, _| {
        visited += 1;
        if visited == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((must(holes, "salvage").len(), visited), (1, 5), "holes before the fifth entry, and entries");
}

/// Salvages `from..to` of the entries of the case above and checks that each one is visited or in a hole.
#[track_caller]
fn check_salvage(store: &dyn Store, from: &[u8], to: &[u8], damaged: &[[u8; 9]]) {
    let mut found = Vec::new();
    let holes = store.salvage(from, to, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    let holes = must(holes, "salvage");
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "salvaged keys ascend");
    let mut lost: Vec<Hole> = Vec::new();
    let (mut last, mut is_in_hole, mut unread) = (None, false, 0);
    let mut visited = found.into_iter().peekable();
    for (lane, ordinal) in [0x80_u8, 0x81].into_iter().flat_map(|lane| (0..600).map(move |n| (lane, n))) {
        let expected = key(lane, ordinal);
        if expected.as_slice() < from || expected.as_slice() >= to {
            continue;
        }
        if visited.peek().is_some_and(|(key, _)| key.as_slice() == expected) {
            assert!(!damaged.contains(&expected), "a damaged entry was visited");
            assert!(visited.next().is_some_and(|(_, v)| v == value(lane, ordinal, 1_500)), "a salvaged value is right");
            if let (true, Some(hole)) = (is_in_hole, lost.last_mut()) {
                hole.before = Some(expected.to_vec().into());
            }
            (last, is_in_hole) = (Some(expected.to_vec()), false);
        } else {
            unread += 1;
            if !is_in_hole {
                lost.push(Hole { after: last.clone().map(Into::into), before: None });
            }
            is_in_hole = true;
        }
    }
    assert_eq!(visited.next(), None, "an entry that was never written");
    assert_eq!(holes, lost, "holes");
    assert!(unread >= damaged.len() && unread <= 8 * damaged.len(), "{unread} entries for {} places", damaged.len());
}

/// Nothing is damaged: everything is visited, without a hole.
pub fn salvage_of_a_sound_store_is_a_scan(harness: &mut dyn Harness) {
    let mut store = harness.fresh();
    let expected: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"\x80", b"2"), (b"\x81\x01", b"3")];
    must(store.write(&puts(&expected)), "write");
    check_holds(&*store, &expected);
    let mut found = Vec::new();
    let holes = store.salvage(b"", END, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    assert_eq!((must(holes, "salvage"), found), (Vec::new(), entries(&*store)), "holes and entries");
    let mut visited = 0;
    let holes = store.salvage(b"\x80", b"\x80", &mut |_, _| {
        visited += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((must(holes, "salvage nothing"), visited), (Vec::new(), 0), "holes and entries of an empty range");
}
