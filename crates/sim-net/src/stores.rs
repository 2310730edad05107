//! A sender to a plain store, and the store: slow, dying, closing by itself, giving receipts or none; or behind a bad network.
//! What the store holds in the end is the newest value of everything that was offered.
//!
//! The two never come together: a FIN of a store that closed by itself, whose reset the network then swallows or keeps back for
//! more than two round trips, is a receipt for all that we can know (`output::connection`), and turmoil repeats nothing.

mod ends;

use std::time::Duration;

use engine::store_link::{Overflow, Receipts, Settings};

use ends::{Manners, Offerer, Store};

use crate::{Kind, Pair, Run, Trace, check_seeds};

const PAIR: Pair = ("sender", "store");
/// Time for the first receipt, before anything goes wrong: without it a store that is away twice is taken for one that
/// gives none.
const CALM: Duration = Duration::from_secs(4);
/// Longer than the network keeps messages back, and than a store sits on what it was sent.
const LINGER: Duration = Duration::from_secs(12);
/// After healing nothing is sent or held any more within this: the longest patience twice, and what a store without receipts was sent
/// is kept for `Settings::silence` (a minute) and `LINGER` behind it.
const QUIET_WITHIN: Duration = Duration::from_secs(180);

fn settings(run: &mut Run) -> Settings {
    let rng = run.weather.rng();
    Settings {
        rotate: rng.millis(200, 3_000),
        rotate_bytes: rng.range(10_000, 400_000),
        receipt_timeout: rng.millis(500, 3_000),
        linger: LINGER,
        retain_bytes: rng.range(100_000, 4_000_000),
        overflow: Overflow::Refuse,
        ..Settings::default()
    }
}

fn run(seed: u64) -> Trace {
    let is_network = seed.is_multiple_of(2);
    let latency = Duration::from_millis(seed / 2 % 60);
    let mut run = Run::new(seed, (latency, latency));
    run.weather.latency = latency;
    let settings = settings(&mut run);
    let manners = if is_network { Manners::good() } else { Manners::drawn(run.weather.rng()) };
    run.trace.say_at(Duration::ZERO, &format!("{manners:?}, {settings:?}"));
    let store = Store::host(&mut run, manners);
    let sender = Offerer::host(&mut run, settings);
    run.weather.pairs = vec![PAIR];
    run.weather.mortal = vec![PAIR.1];
    run.go(CALM, |run| balance(run, &sender));
    if is_network {
        run.weather.begin(&[Kind::Hold, Kind::Cut, Kind::CutOneWay, Kind::Slow, Kind::PowerCut]);
    } else {
        run.weather.begin(&[Kind::Kill, Kind::Kill]);
    }
    run.go(Duration::from_secs(45), |run| balance(run, &sender));
    run.weather.heal(&mut run.sim);
    store.behave();
    sender.stop_offering();
    let healed = run.now();
    while !sender.is_quiet() {
        run.step();
        balance(&run, &sender);
        run.check(run.now() < healed + QUIET_WITHIN, || format!("still at work: {:?}", sender.status()));
    }
    let (status, newest, held) = (sender.status(), sender.newest(), store.held());
    let wrong: Vec<_> = newest.iter().filter(|(series, value)| held.get(*series) != Some(*value)).collect();
    run.check(wrong.is_empty(), || {
        let lines = wrong.iter().map(|(series, value)| format!("{series}: {value}, held {:?}", held.get(*series)));
        format!("the store does not hold the newest values: {}", lines.collect::<Vec<_>>().join("; "))
    });
    run.check(held.len() == newest.len(), || format!("the store holds what was never offered: {held:?}"));
    run.check(status.books.owed > 1_000, || format!("hardly anything was offered: {status:?}"));
    run.check(status.receipts != Receipts::Supported || status.books.delivered == status.books.owed, || {
        format!("not all has its receipt: {status:?}")
    });
    let problems = sender.problems();
    run.check(problems.is_empty(), || problems.join("; "));
    run.trace.say_at(run.now(), &format!("{status:?}"));
    run.trace
}

/// INV-1 at every moment, and nothing is ever dropped: offers wait.
fn balance(run: &Run, sender: &Offerer) {
    let books = sender.status().books;
    run.check(books.balance(), || format!("books do not balance: {books:?}"));
    run.check(books.dropped_retain_full + books.spilled == 0, || format!("points were dropped: {books:?}"));
    run.check(books.owed == sender.offered(), || format!("{} points were offered: {books:?}", sender.offered()));
}

#[test]
fn a_store_holds_the_newest_of_everything_offered() {
    check_seeds(run);
}

#[test]
fn a_seed_is_the_same_run_to_the_byte() {
    for seed in [2, 3] {
        assert_eq!(run(seed).hash(), run(seed).hash(), "seed {seed}");
    }
    assert_ne!(run(2).hash(), run(3).hash());
}
