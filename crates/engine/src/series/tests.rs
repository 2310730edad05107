use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn name(number: u32) -> Vec<u8> {
    format!("servers.web{number:06}.dc3.rack07.cpu7.time.user").into_bytes()
}

fn get<T: Copy>(table: &mut SeriesTable<T>, name: &[u8]) -> Option<T> {
    table.get(name, hash(name))
}

fn insert<T: Copy>(table: &mut SeriesTable<T>, name: &[u8], value: T) {
    table.insert(name, hash(name), value);
}

#[test]
fn an_empty_table_knows_nothing_and_owns_no_memory() {
    let mut table = SeriesTable::<u32>::new(1 << 30);
    assert_eq!(get(&mut table, b"a"), None);
    assert_eq!((table.len(), table.bytes(), table.is_empty()), (0, 0, true));
}

#[test]
fn a_hundred_thousand_series_are_all_found_with_their_values() {
    let mut table = SeriesTable::new(100_000 * 140);
    for number in 0..100_000 {
        insert(&mut table, &name(number), number);
    }
    assert_eq!((table.len(), table.turns()), (100_000, 0));
    for number in 0..100_000 {
        assert_eq!(get(&mut table, &name(number)), Some(number));
    }
    assert_eq!(get(&mut table, &name(100_000)), None);
}

#[test]
fn names_with_one_hash_are_told_apart() {
    let mut table = SeriesTable::new(1 << 20);
    table.insert(b"a", 7, 1);
    table.insert(b"ab", 7, 2);
    table.insert(b"", 7, 3);
    assert_eq!([b"a".as_slice(), b"ab", b"", b"b"].map(|name| table.get(name, 7)), [Some(1), Some(2), Some(3), None]);
}

#[test]
fn inserting_again_replaces_the_value_in_either_generation() {
    let mut table = SeriesTable::new(BUDGET_BYTES_MIN);
    insert(&mut table, &name(0), 1);
    insert(&mut table, &name(0), 2);
    assert_eq!((get(&mut table, &name(0)), table.len()), (Some(2), 1));
    turn(&mut table, 1000);
    insert(&mut table, &name(0), 3);
    assert_eq!(get(&mut table, &name(0)), Some(3));
    turn(&mut table, 2000);
    assert_eq!(get(&mut table, &name(0)), Some(3), "the value of before does not come back");
}

/// Inserts new names until the young generation becomes the old one.
fn turn(table: &mut SeriesTable<u32>, first: u32) {
    let turns = table.turns();
    for number in first.. {
        if table.turns() > turns {
            return;
        }
        insert(table, &name(number), number);
    }
}

#[test]
fn what_is_in_use_survives_every_turn_and_what_is_not_is_forgotten() {
    let mut table = SeriesTable::new(BUDGET_BYTES_MIN);
    insert(&mut table, &name(0), 0);
    insert(&mut table, &name(1), 1);
    for round in 1..=5 {
        turn(&mut table, round * 10_000);
        assert_eq!(get(&mut table, &name(0)), Some(0), "round {round}");
    }
    assert_eq!(get(&mut table, &name(1)), None);
}

#[test]
fn the_budget_holds_while_names_of_all_lengths_come() {
    for budget in [0, 100_000, 1_000_000] {
        let mut table = SeriesTable::new(budget);
        for number in 0..20_000_u32 {
            let long = [name(number), vec![b'x'; number as usize % 700]].concat();
            insert(&mut table, &long, u64::from(number));
            assert_eq!(get(&mut table, &long), Some(u64::from(number)), "the newest name is always known");
            let (bytes, budget) = (table.bytes(), budget.max(BUDGET_BYTES_MIN));
            assert!(bytes <= budget, "{bytes} bytes of {budget}");
        }
        assert!(table.turns() > 0);
    }
}

#[test]
fn a_name_that_fits_no_chunk_is_not_kept() {
    let mut table = SeriesTable::new(BUDGET_BYTES_MIN);
    let (fits, too_long) = (vec![b'a'; CHUNK_BYTES_MIN - LENGTH_BYTES], vec![b'a'; CHUNK_BYTES_MIN - LENGTH_BYTES + 1]);
    insert(&mut table, &fits, 1);
    insert(&mut table, &too_long, 2);
    assert_eq!((get(&mut table, &fits), get(&mut table, &too_long)), (Some(1), None));
}

#[test]
fn a_cleared_table_is_empty_and_usable() {
    let mut table = SeriesTable::new(BUDGET_BYTES_MIN);
    turn(&mut table, 0);
    table.clear();
    assert_eq!((table.len(), table.bytes()), (0, 0));
    insert(&mut table, b"a", 1);
    assert_eq!(get(&mut table, b"a"), Some(1));
}

#[test]
fn the_hash_is_the_published_xxh3() {
    // XXH3_64bits of the empty input, from the reference implementation's own test.
    assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
}

proptest! {
    #[test]
    fn under_its_budget_it_is_a_map(
        steps in prop::collection::vec((any::<bool>(), "[a-c]{0,3}", any::<u32>(), 0..4_u64), 0..300),
    ) {
        let mut table = SeriesTable::new(1 << 20);
        let mut model = HashMap::new();
        for (inserts, name, value, poor_hash) in steps {
            // A poor hash makes names meet; it is a function of the name, as a hash has to be.
            let hash = (name.len() as u64 * 4 + poor_hash * u64::from(name.is_empty())) << 32;
            let key = (name.clone(), hash);
            if inserts {
                table.insert(name.as_bytes(), hash, value);
                model.insert(key, value);
            } else {
                prop_assert_eq!(table.get(name.as_bytes(), hash), model.get(&key).copied());
            }
        }
        prop_assert_eq!(table.len(), model.len());
    }
}

proptest! {
    // Each case is thousands of steps: a generation has room for some hundreds of names.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn beyond_its_budget_it_forgets_but_never_lies(
        steps in prop::collection::vec((any::<bool>(), 0..2000_u32, any::<u32>()), 3000..5000),
    ) {
        let mut table = SeriesTable::new(BUDGET_BYTES_MIN);
        let mut model = HashMap::new();
        for (inserts, number, value) in steps {
            let name = name(number);
            if inserts {
                insert(&mut table, &name, value);
                model.insert(number, value);
            } else if let Some(found) = get(&mut table, &name) {
                prop_assert_eq!(Some(&found), model.get(&number));
            }
            prop_assert!(table.bytes() <= BUDGET_BYTES_MIN);
        }
    }
}
