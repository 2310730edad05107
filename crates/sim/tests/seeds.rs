//! A number of seeds, and all that ever failed. `SIM_SEEDS`: how many (CI: 1000), over four tests that run side by side.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sim::{Plan, Report, coverage, run, shrink};

/// Seeds that found a bug, with what it was; see `README.md`.
const REGRESSIONS: &str = include_str!("../regressions.txt");

fn passes(plan: &Plan) -> Report {
    let report = run(plan);
    if !report.violations.is_empty() {
        let small = shrink::shrink(&report);
        panic!(
            "seed {} fails: {:?}; shrunk: {:?}; `cargo run --profile sim -p sim -- --seed {}` says what happens",
            plan.seed, small.violations, small.schedule, plan.seed
        );
    }
    report
}

/// What the quarters that are done have met, and how many they are.
static MET: Mutex<(BTreeMap<&'static str, u64>, u64)> = Mutex::new((BTreeMap::new(), 0));

/// The last quarter says what none has met, if enough seeds were run.
fn quarter(number: u64) {
    let seeds: u64 = std::env::var("SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let mut seen = BTreeMap::new();
    for seed in (0..seeds).filter(|seed| seed % 4 == number) {
        seen.append(&mut passes(&Plan::seed(seed)).seen);
    }
    let mut met = MET.lock().expect("no quarter fails while it holds this");
    met.0.append(&mut seen);
    met.1 += 1;
    if met.1 == 4 && seeds >= coverage::SEEDS {
        let missed = coverage::missed(&met.0);
        assert!(missed.is_empty(), "{seeds} seeds, and none has met {missed:?}");
    }
}

#[test]
fn seeds_pass_first_quarter() {
    quarter(0);
}

#[test]
fn seeds_pass_second_quarter() {
    quarter(1);
}

#[test]
fn seeds_pass_third_quarter() {
    quarter(2);
}

#[test]
fn seeds_pass_last_quarter() {
    quarter(3);
}

#[test]
fn every_seed_that_ever_failed_passes() {
    let seeds = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> = seeds.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(!seeds.is_empty(), "a file of regressions without any");
    for seed in seeds {
        passes(&Plan::seed(seed));
        passes(&Plan { old: true, ..Plan::seed(seed) });
    }
}

#[test]
fn a_seed_is_the_same_run_to_the_byte() {
    for seed in [3, 5] {
        let (first, second) = (run(&Plan::seed(seed)), run(&Plan::seed(seed)));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
    assert_ne!(run(&Plan::seed(3)).hash, run(&Plan::seed(5)).hash);
}

#[test]
fn without_faults_nothing_is_lost_or_in_doubt() {
    for seed in 0..4 {
        let report = passes(&Plan { calm: true, ..Plan::seed(seed) });
        assert!(report.points > 0 && !report.seen.contains_key("relay dropped"), "seed {seed}");
    }
}
