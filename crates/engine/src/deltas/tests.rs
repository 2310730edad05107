use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::partial::Shape;
use crate::rule::{Function, OutputKey};

const FUNCTIONS: [Function; 5] =
    [Function::Sum, Function::Count, Function::Percentile(990), Function::Last, Function::Distinct];

fn order(seq: u32) -> PointOrder {
    PointOrder { ts: seq / 2, sender: 1, epoch: 1, seq, index: 0 }
}

fn table(names: &[&str]) -> (KeyTable, Vec<KeyId>) {
    let mut keys = KeyTable::new();
    let ids = (0u32..).zip(names).map(|(at, name)| {
        let key = OutputKey { rule: at % 3, name: name.as_bytes().into() };
        // Every third key is plain.
        let shape = if at % 3 == 0 { Shape::PLAIN } else { Shape::of(&FUNCTIONS) };
        keys.intern(&key, shape).expect("there is room")
    });
    let ids = ids.collect();
    (keys, ids)
}

fn encoded(deltas: &Deltas, keys: &KeyTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    deltas.encode(keys, &mut bytes);
    bytes
}

type Found = BTreeMap<(u32, String, u32), Partial>;

fn decoded(bytes: &[u8]) -> Result<Found, DecodeError> {
    let mut found = BTreeMap::new();
    decode(bytes, |delta| {
        let name = String::from_utf8_lossy(delta.name).into_owned();
        let before = found.insert((delta.rule, name, delta.window.0), delta.partial);
        assert!(before.is_none(), "no key and window stands twice");
    })?;
    Ok(found)
}

use crate::sketch::DecodeError;

/// Folds points given as (key, window, value) and compares with one partial for each key and window.
#[track_caller]
fn check(points: &[(usize, u32, f64)]) {
    let names = ["web.a.\0", "web.ab.\0", "web", "x;k=v", "web.a.b.c.\0"];
    let (keys, ids) = table(&names);
    let mut deltas = Deltas::new();
    // A first round, so that what is compared was folded into memory used before.
    for (key, window, value) in points.iter().rev() {
        deltas.fold(&keys, ids[*key], UnixSeconds(window / 2), *value, order(7), 99);
    }
    deltas.clear();
    assert!(deltas.is_empty() && deltas.points() == 0);
    let mut expected: Found = BTreeMap::new();
    for (seq, (key, window, value)) in (0u32..).zip(points) {
        let series = u64::from(seq % 5);
        deltas.fold(&keys, ids[*key], UnixSeconds(*window), *value, order(seq), series);
        let rule = u32::try_from(key % 3).expect("below 3");
        let shape = if rule == 0 { Shape::PLAIN } else { Shape::of(&FUNCTIONS) };
        let partial = expected.entry((rule, names[*key].to_owned(), *window)).or_insert_with(|| Partial::new(shape));
        partial.fold(*value, order(seq), series);
    }
    let bytes = encoded(&deltas, &keys);
    assert_eq!(deltas.len(), expected.len());
    assert_eq!(deltas.points(), points.len() as u64);
    assert_eq!(check_totals(&bytes), (expected.len() as u64, points.len() as u64));
    assert_eq!(decoded(&bytes), Ok(expected));
    assert_eq!(encoded(&deltas, &keys), bytes);
}

fn check_totals(bytes: &[u8]) -> (u64, u64) {
    let totals = super::check(bytes).expect("it was encoded");
    (totals.partials, totals.points)
}

#[test]
fn points_of_a_key_that_jumps_between_windows_are_gathered_by_window() {
    check(&[(0, 10, 1.0), (0, 20, 2.0), (0, 10, 3.0), (1, 10, 4.0), (0, 30, 5.0), (0, 20, 6.0), (0, 10, 7.0)]);
}

#[test]
fn window_zero_is_a_window() {
    check(&[(0, 0, 1.0), (3, 0, 2.0), (0, 0, 3.0)]);
}

#[test]
fn nothing_folded_is_two_bytes() {
    check(&[]);
    assert_eq!(encoded(&Deltas::new(), &KeyTable::new()), [2, 0]);
}

#[test]
fn the_layout_stays_as_it_is_drawn() {
    let (keys, ids) = table(&["a.\0", "ab"]);
    let mut deltas = Deltas::new();
    deltas.fold(&keys, ids[0], UnixSeconds(300), 2.0, order(1), 1);
    deltas.fold(&keys, ids[0], UnixSeconds(290), 1.0, order(1), 1);
    deltas.fold(&keys, ids[0], UnixSeconds(290), 3.0, order(1), 1);
    let mut expected = vec![2, 1, 0, 0, 3, b'a', b'.', 0, 2];
    expected.extend([0xa2, 0x02, 0x00, 2]);
    [4.0f64, 1.0, 3.0].iter().for_each(|value| expected.extend(value.to_le_bytes()));
    expected.extend([10, 0x00, 1]);
    expected.extend(2.0f64.to_le_bytes());
    assert_eq!(encoded(&deltas, &keys), expected);
}

#[test]
fn a_table_knows_its_keys_and_refuses_names_that_a_peer_would_refuse() {
    let mut keys = KeyTable::new();
    let key = |rule: u32, name: &[u8]| OutputKey { rule, name: name.into() };
    let first = keys.intern(&key(0, b"a"), Shape::PLAIN);
    assert_eq!(first, Some(KeyId(0)));
    assert_eq!(keys.intern(&key(1, b"a"), Shape::PLAIN), Some(KeyId(1)));
    assert_eq!(keys.intern(&key(0, b"a"), Shape::PLAIN), first);
    assert_eq!(keys.get(KeyId(1)), (1, &b"a"[..]));
    assert_eq!(keys.intern(&key(0, b""), Shape::PLAIN), None);
    assert_eq!(keys.intern(&key(0, &vec![b'a'; NAME_BYTES_MAX + 1]), Shape::PLAIN), None);
    assert!(keys.intern(&key(0, &vec![b'a'; NAME_BYTES_MAX]), Shape::PLAIN).is_some());
    assert_eq!(keys.len(), 3);
}

#[test]
fn an_open_partial_is_one_cache_line() {
    assert_eq!(size_of::<Entry>(), 64);
    assert_eq!(size_of::<Slot>(), 8);
}

#[test]
fn another_version_is_named() {
    assert_eq!(decoded(&[9, 0]), Err(DecodeError::Version(9)));
    assert_eq!(decoded(&[]), Err(DecodeError::Truncated));
    assert_eq!(decoded(&[2, 0, 0]), Err(DecodeError::Malformed("bytes behind the last key")));
}

fn points() -> impl Strategy<Value = Vec<(usize, u32, f64)>> {
    prop::collection::vec((0usize..5, (0u32..12).prop_map(|window| window * 10), -1e6..1e6f64), 0..120)
}

proptest! {
    #[test]
    fn every_point_is_in_the_partial_of_its_key_and_window(points in points()) {
        check(&points);
    }

    #[test]
    fn changed_bytes_never_panic(
        points in points(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (keys, ids) = table(&["web.a.\0", "web.ab.\0", "web", "x;k=v", "web.a.b.c.\0"]);
        let mut deltas = Deltas::new();
        points.iter().for_each(|(key, window, value)| deltas.fold(&keys, ids[*key], UnixSeconds(*window), *value, order(1), 1));
        let mut bytes = encoded(&deltas, &keys);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len() + 1);
        let mut visited = 0u64;
        let outcome = decode(&bytes[..cut], |_| visited += 1);
        prop_assert_eq!(super::check(&bytes[..cut]), outcome);
        if let Ok(totals) = outcome {
            prop_assert_eq!(totals.partials, visited);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        bytes[0] = 1;
        let mut visited = 0;
        let outcome = decode(&bytes, |_| visited += 1);
        // A partial takes at least ten bytes.
        prop_assert!(visited <= bytes.len() / 10);
        prop_assert_eq!(super::check(&bytes), outcome);
    }
}
