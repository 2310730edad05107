//! A link between two small services: one dials and has numbered batches to deliver, the other takes each once and says so.
//! Strangers knock at the same port.

mod ends;
mod strangers;

use std::time::Duration;

use ends::{Feeder, Taker};

use crate::{Fault, Kind, Pair, Run, Trace, check_seeds};

const PAIR: Pair = ("feeder", "taker");
const KNOCKERS: Pair = ("stranger", "taker");
/// The taker's workers answer nothing.
const HANG: &str = "hang";
/// The taker refuses every greeting.
const REFUSE: &str = "refuse";
/// A dead peer is found within this (`link::DEAD_AFTER`, a look four times a second, and what was under way).
const FOUND_WITHIN: Duration = Duration::from_secs(5);
/// Whoever does not greet is sent away within this, and the ticks around it.
const GREETS_WITHIN: Duration = Duration::from_millis(2_020);
/// Two seconds for an attempt under way, five of back-off, two for connecting and greeting.
const UP_WITHIN: Duration = Duration::from_secs(10);

fn weather_of(run: &mut Run) {
    run.weather.pairs = vec![PAIR, KNOCKERS];
    run.weather.mortal = vec![PAIR.0, PAIR.1];
    run.weather.begin(&[
        Kind::Hold,
        Kind::Cut,
        Kind::CutOneWay,
        Kind::Slow,
        Kind::Kill,
        Kind::PowerCut,
        Kind::Switch(HANG),
        Kind::Switch(REFUSE),
    ]);
}

/// One seed from its first fault to the quiet after the last.
fn run(seed: u64) -> Trace {
    let latency = Duration::from_millis(seed % 40);
    let mut run = Run::new(seed, (latency, latency));
    run.weather.latency = latency;
    let taker = Taker::host(&mut run);
    let feeder = Feeder::host(&mut run);
    strangers::host(&mut run);
    weather_of(&mut run);
    run.go(Duration::from_secs(45), |run| {
        taker.weather(run.weather.is_on(HANG), run.weather.is_on(REFUSE));
        look(run, &feeder, &taker);
    });
    run.weather.heal(&mut run.sim);
    taker.weather(false, false);
    let mut up_at = None;
    let healed = run.now();
    run.go(UP_WITHIN + Duration::from_secs(10), |run| {
        look(run, &feeder, &taker);
        match (feeder.up_since(), up_at) {
            (Some(_), None) => up_at = Some(run.now()),
            (None, Some(_)) => up_at = None,
            (None, None) => run.check(run.now() < healed + UP_WITHIN, || "no link although all is well".to_owned()),
            (Some(_), Some(_)) => {}
        }
    });
    feeder.stop_making();
    run.go(Duration::from_secs(5), |run| look(run, &feeder, &taker));
    let late = feeder.undelivered();
    run.check(late.is_empty(), || format!("not delivered: {late:?}"));
    let (made, taken) = (feeder.made(), taker.taken());
    run.check(made == taken, || format!("{made} batches were made, {taken} were taken"));
    run.check(made > 100, || format!("only {made} batches"));
    let problems = [feeder.problems(), taker.problems()].concat();
    run.check(problems.is_empty(), || problems.join("; "));
    run.trace
}

/// What must hold at every moment: who is dead to the other is found in time.
fn look(run: &mut Run, feeder: &Feeder, taker: &Taker) {
    let now = run.now();
    let mut dead = Vec::new();
    for outage in run.weather.outages() {
        let (is_dialler, is_acceptor) = match &outage.fault {
            Fault::Hold(pair) | Fault::Cut(pair) => (*pair == PAIR, *pair == PAIR),
            Fault::CutOneWay { from, to } => {
                let is_ours = (*from, *to) == PAIR || (*to, *from) == PAIR;
                (is_ours, is_ours)
            }
            Fault::PowerCut(host) => (*host == PAIR.1, *host == PAIR.0),
            Fault::Switch(name) => (*name == HANG, false),
            Fault::Slow(_) | Fault::Kill(_) => (false, false),
        };
        let both = [(is_dialler, feeder.up_since()), (is_acceptor, taker.oldest())];
        for (_, up_since) in both.into_iter().filter(|(is_dead, _)| *is_dead) {
            let since = up_since.map(|up_since| up_since.max(outage.since));
            if since.is_some_and(|since| now > since + FOUND_WITHIN) {
                dead.push(format!("{:?} since {:?}, link up since {up_since:?}", outage.fault, outage.since));
            }
        }
    }
    let is_greeted = taker.oldest_ungreeted().is_none_or(|since| now < since + GREETS_WITHIN);
    run.check(is_greeted, || "somebody who does not greet is still there".to_owned());
    run.check(dead.is_empty(), || format!("a dead peer was not found: {dead:?}"));
}

#[test]
fn nothing_is_lost_or_taken_twice_and_the_dead_are_found_in_time() {
    check_seeds(run);
}

#[test]
fn a_seed_is_the_same_run_to_the_byte() {
    for seed in [1, 4] {
        assert_eq!(run(seed).hash(), run(seed).hash(), "seed {seed}");
    }
    assert_ne!(run(1).hash(), run(4).hash());
}
