//! Random histories against a model: a map and the list of maps that a crash may bring back.

use super::{Entries, Harness, entries, entries_between, must};
use crate::{Op, Store, WriteBatch};
use std::collections::BTreeMap;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const HISTORIES: u64 = 40;
const STEPS: u32 = 60;

/// 40 histories of 60 steps over 16 keys: writes, syncs, scans, reopenings and crashes. A failure names its seed.
pub fn random_histories_match_a_model(harness: &mut dyn Harness) {
    for seed in 0..HISTORIES {
        run(harness, seed);
    }
}

fn run(harness: &mut dyn Harness, seed: u64) {
    let mut random = Random(seed);
    let mut store = harness.fresh();
    // What a crash may bring back: the state at the last sync and after each batch since, the newest last.
    let mut states = vec![Map::new()];
    for step in 0..STEPS {
        match random.below(12) {
            0..=5 => {
                let batch = random_batch(&mut random);
                must(store.write(&batch), "write");
                states.push(applied(newest(&states), &batch));
            }
            6 | 7 => {
                must(store.sync(), "sync");
                states = vec![newest(&states).clone()];
            }
            8 => check_scan(&*store, newest(&states), &mut random, seed, step),
            9 => store = harness.reopen(store),
            _ => {
                store = harness.crash(store);
                let found: Map = entries(&*store).into_iter().collect();
                assert!(states.contains(&found), "seed {seed} step {step}: {found:?} is none of {states:?}");
                // What a crash kept is not durable by that: the next crash may still lose it.
                let kept = states.iter().rposition(|state| *state == found).unwrap_or_default();
                states.truncate(kept + 1);
            }
        }
        let expected: Entries = newest(&states).clone().into_iter().collect();
        assert_eq!(entries(&*store), expected, "seed {seed} step {step}: entries");
    }
}

fn check_scan(store: &dyn Store, model: &Map, random: &mut Random, seed: u64, step: u32) {
    let (from, to) = (random_key(random), random_key(random));
    let expected: Entries = model
        .iter()
        .filter(|(key, _)| (&from..&to).contains(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(entries_between(store, &from, &to), expected, "seed {seed} step {step}: scan from {from:?} to {to:?}");
    let value = must(store.get(&from), "get");
    assert_eq!(value.as_deref(), model.get(&from).map(Vec::as_slice), "seed {seed} step {step}: get {from:?}");
}

fn newest(states: &[Map]) -> &Map {
    match states.last() {
        Some(state) => state,
        None => unreachable!("BUG: the state at the last sync is always in the list"),
    }
}

fn applied(state: &Map, batch: &WriteBatch) -> Map {
    let mut state = state.clone();
    for op in batch.ops() {
        match op {
            Op::Put { key, value } => {
                state.insert(key.to_vec(), value.to_vec());
            }
            Op::Delete { key } => {
                state.remove(key);
            }
            Op::DeleteRange { from, to } => state.retain(|key, _| !(from..to).contains(&key.as_slice())),
        }
    }
    state
}

fn random_batch(random: &mut Random) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..random.below(5) {
        let key = random_key(random);
        match random.below(8) {
            0..=4 => batch.put(&key, &vec![random.byte(); usize::from(random.byte() % 40)]),
            5 | 6 => batch.delete(&key),
            _ => batch.delete_range(&key, &random_key(random)),
        }
    }
    batch
}

/// One of 20 keys of one or two bytes, so that histories touch the same keys often.
fn random_key(random: &mut Random) -> Vec<u8> {
    let first = b'a' + random.byte() % 4;
    match random.byte() % 5 {
        0 => vec![first],
        second => vec![first, second],
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): a seed in the failure message is enough to see the history again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to `limit` (excluded).
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
