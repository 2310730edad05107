//! `cargo run --release -p sim -- --seeds 10000`

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::faults::KINDS;
use sim::{Plan, Report, coverage, run, shrink};

/// Runs a simulated cluster through bad days and compares what it holds in the end.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone and says what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Without faults.
    #[arg(long)]
    calm: bool,
    /// Without the kinds of faults that came later: an old seed as it was.
    #[arg(long)]
    old: bool,
    /// Goes on after a failing seed.
    #[arg(long)]
    keep_going: bool,
    /// In a build with `--cfg mutants`: how many seeds it takes to notice each deliberate fault.
    #[arg(long)]
    mutants: bool,
    /// With `--mutants`: this one alone.
    #[arg(long)]
    mutant: Option<String>,
    /// Does not shrink a failing schedule.
    #[arg(long)]
    no_shrink: bool,
}

#[derive(Default)]
struct Summary {
    runs: u64,
    failed: Vec<u64>,
    events: u64,
    seconds: u64,
    batches: u64,
    points: u64,
    faults: [u64; KINDS.len()],
    seen: BTreeMap<&'static str, (u64, u64)>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.events += report.events;
        self.seconds += report.virtual_seconds;
        self.batches += report.batches;
        self.points += report.points;
        report.schedule.iter().for_each(|planned| self.faults[planned.fault.kind()] += 1);
        for (what, times) in &report.seen {
            let entry = self.seen.entry(what).or_default();
            *entry = (entry.0 + times, entry.1 + 1);
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // The panic of a machine is reported with its seed.
    if args.seed.is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let mut out = std::io::stdout();
    if let Some(seed) = args.seed {
        let report = run(&Plan { verbose: true, calm: args.calm, old: args.old, ..Plan::seed(seed) });
        let failed = !report.violations.is_empty();
        let said = report.log.iter().try_for_each(|line| writeln!(out, "{line}"));
        drop(said.and_then(|()| tell(&mut out, &report)));
        return ExitCode::from(u8::from(failed));
    }
    if args.mutants {
        return mutants(&mut out, args.seeds, args.mutant.as_deref());
    }
    let bar = ProgressBar::new(args.seeds);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut summary = Summary::default();
    for seed in args.from..args.from + args.seeds {
        let report = run(&Plan { calm: args.calm, old: args.old, ..Plan::seed(seed) });
        summary.add(&report);
        bar.inc(1);
        if !report.violations.is_empty() {
            summary.failed.push(seed);
            let small = if args.no_shrink { report } else { shrink::shrink(&report) };
            bar.suspend(|| drop(tell(&mut out, &small)));
            if !args.keep_going {
                break;
            }
        }
    }
    let took = bar.elapsed().as_secs_f64();
    bar.finish_and_clear();
    drop(sum_up(&mut out, &summary, took));
    ExitCode::from(u8::from(!summary.failed.is_empty()))
}

fn tell(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(out, "seed {}: trace {:016x}, {} events", report.seed, report.hash, report.events)?;
    for violation in &report.violations {
        writeln!(out, "  VIOLATED {violation}")?;
    }
    for planned in &report.schedule {
        writeln!(out, "  {:>7} ms  {:?}", planned.at_ms, planned.fault)?;
    }
    Ok(())
}

fn sum_up(out: &mut impl Write, summary: &Summary, took: f64) -> std::io::Result<()> {
    let Summary { runs, failed, events, seconds, batches, points, faults, seen } = summary;
    writeln!(out, "{runs} seeds in {took:.1} s, {} failed {failed:?}", failed.len())?;
    writeln!(out, "{events} events, {batches} batches, {points} points, {} virtual hours", seconds / 3600)?;
    let injected: Vec<String> = KINDS.iter().zip(faults).map(|(kind, count)| format!("{kind} {count}")).collect();
    writeln!(out, "faults: {}", injected.join(", "))?;
    let missed = coverage::missed(seen);
    if !missed.is_empty() {
        writeln!(out, "not met: {}", missed.join(", "))?;
    }
    writeln!(out, "states visited (times, in so many runs):")?;
    seen.iter().try_for_each(|(what, (times, runs))| writeln!(out, "  {what}: {times} in {runs}"))
}

#[cfg(mutants)]
fn mutants(out: &mut impl Write, seeds: u64, only: Option<&str>) -> ExitCode {
    let mut missed = 0_u8;
    for name in sim::MUTANTS.into_iter().filter(|name| only.is_none_or(|only| only == *name)) {
        engine::switch_mutant(name);
        let caught = (0..seeds).find_map(|seed| {
            let report = run(&Plan::seed(seed));
            report.violations.first().map(|what| (seed + 1, what.chars().take(90).collect::<String>()))
        });
        missed = missed.saturating_add(u8::from(caught.is_none()));
        let (tries, what) = caught.unwrap_or((seeds, "MISSED".to_owned()));
        drop(writeln!(out, "| `{name}` | {tries} | {what} |").and_then(|()| out.flush()));
    }
    ExitCode::from(missed)
}

#[cfg(not(mutants))]
fn mutants(out: &mut impl Write, _seeds: u64, _only: Option<&str>) -> ExitCode {
    drop(writeln!(
        out,
        "this build has no mutants in it: build with RUSTFLAGS=\"--cfg mutants\" and a target directory of its own"
    ));
    ExitCode::from(2)
}
