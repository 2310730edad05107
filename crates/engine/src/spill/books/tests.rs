use super::*;

/// A mark in a lane whose records all have 10 points and 100 bytes.
fn at(ordinal: u64) -> Mark {
    Mark { ordinal, points: ordinal * 10, bytes: ordinal * 100 }
}

fn run(first: u64, end: u64) -> Run {
    Run { first: at(first), end: at(end) }
}

fn lane_of(records: u64) -> Books {
    Books { next: at(records), ..Books::default() }
}

/// Finishes ranges one after the other; says how many records each finished, then head, runs and pending batches.
#[track_caller]
fn check(ranges: &[(u64, u64)], finished: &[u64], head: u64, runs: usize, pending: u64) {
    let mut books = lane_of(20);
    let count = |parts: Vec<Run>| parts.iter().map(|part| part.tally().batches).sum::<u64>();
    let found: Vec<u64> =
        ranges.iter().map(|(first, end)| count(books.finish(run(*first, *end)).expect("room"))).collect();
    assert_eq!((found.as_slice(), books.head, books.runs()), (finished, at(head), runs), "{ranges:?}");
    assert_eq!(books.pending(), Tally { batches: pending, points: pending * 10, bytes: pending * 100 });
    assert_eq!(books.settled().batches + pending, 20);
    let again = decode_runs(&books.encode_runs()).expect("runs");
    let (mut read, _) = decode(&mut &books.encode(books.next, None)[..]).expect("books");
    read.set_runs(again);
    assert_eq!(read, books, "what is written is what is read");
}

#[test]
fn in_order_the_head_moves() {
    check(&[(0, 1), (1, 2), (2, 5)], &[1, 1, 3], 5, 0, 15);
}

#[test]
fn out_of_order_it_is_a_run_until_the_head_comes() {
    check(&[(3, 4), (1, 2), (0, 1)], &[1, 1, 1], 2, 1, 17);
    check(&[(3, 4), (1, 2), (0, 1), (2, 3)], &[1, 1, 1, 1], 4, 0, 16);
    check(&[(5, 7), (9, 10), (7, 9)], &[2, 1, 2], 0, 1, 15);
}

#[test]
fn twice_is_harmless() {
    check(&[(0, 3), (0, 3), (1, 2)], &[3, 0, 0], 3, 0, 17);
    check(&[(5, 8), (6, 7), (4, 9)], &[3, 0, 2], 0, 1, 15);
    check(&[(2, 4), (6, 8), (0, 20)], &[2, 2, 16], 20, 0, 0);
}

#[test]
fn what_is_not_there_is_not_finished() {
    check(&[(18, 25), (30, 40)], &[2, 0], 0, 1, 18);
}

#[test]
fn the_parts_that_are_pending_are_known_exactly() {
    let mut books = lane_of(20);
    for (first, end) in [(0, 2), (5, 6), (8, 10), (19, 20)] {
        books.finish(run(first, end)).expect("room");
    }
    for (range, expected) in [
        ((0, 20), vec![(2, 5), (6, 8), (10, 19)]),
        ((3, 7), vec![(3, 5), (6, 7)]),
        ((8, 10), vec![]),
        ((9, 11), vec![(10, 11)]),
        ((0, 2), vec![]),
    ] {
        let expected: Vec<Run> = expected.into_iter().map(|(first, end)| run(first, end)).collect();
        assert_eq!(books.pending_in(run(range.0, range.1)), expected, "{range:?}");
    }
    let next: Vec<u64> = [0, 2, 5, 6, 8, 9, 10, 19, 25].into_iter().map(|n| books.next_pending(n)).collect();
    assert_eq!(next, [2, 2, 6, 6, 10, 10, 10, 20, 25]);
}

#[test]
fn too_many_runs_are_refused_and_what_joins_is_not() {
    let most = u64::try_from(RUNS_MAX).expect("small");
    let mut books = lane_of(4 * most);
    for n in 1..=most {
        books.finish(run(2 * n, 2 * n + 1)).expect("room");
    }
    let before = books.clone();
    assert_eq!(books.finish(run(3 * most, 3 * most + 1)), None);
    assert_eq!(books, before, "nothing has changed");
    assert!(books.finish(run(3, 4)).is_some(), "it joins two runs");
    assert!(books.finish(run(0, 1)).is_some(), "it moves the head");
    assert!(books.finish(run(3 * most, 3 * most + 1)).is_some(), "there is room again");
}

#[test]
fn of_two_accounts_the_later_marks_and_the_larger_losses_count() {
    let mut store = lane_of(10);
    store.finish(run(0, 2)).expect("room");
    store.finish(run(4, 6)).expect("room");
    let mut witness = lane_of(12);
    witness.finish(run(0, 5)).expect("room");
    witness.dropped[0] = Tally { batches: 1, points: 10, bytes: 100 };
    store.join(&witness);
    assert_eq!((store.head, store.next, store.runs()), (at(6), at(12), 0));
    assert_eq!((store.pending().batches, store.settled().batches), (6, 5));
}

#[test]
fn damaged_books_are_none() {
    let whole = lane_of(3).encode(at(3), Some((UnixSeconds(5), UnixSeconds(9))));
    assert_eq!(decode(&mut &whole[..]).map(|(_, span)| span), Some(Some((UnixSeconds(5), UnixSeconds(9)))));
    for length in 0..whole.len() {
        assert_eq!(decode(&mut &whole[..length]), None, "{length} bytes");
    }
}
