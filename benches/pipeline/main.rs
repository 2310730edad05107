//! What a point costs end to end: CPU-seconds per million points of the real binaries, beside a plain TCP forwarder and
//! Debian's carbon-c-relay, in the same run and interleaved, medians of three rounds.
//!
//! Load, sink and forwarder are children of this process (it runs itself with an argument), so that only the system's own
//! process tree is counted. Absolute figures belong to the machine; ratios within one run are what to look at.
//!
//!   cargo bench --bench pipeline              `SPILLWAY_BENCH_LINES` (default 4000000) lines a run
//!   cargo bench --bench pipeline -- stores    only cases whose name contains `stores`
//!   cargo bench --bench pipeline -- latency   only how long a point takes at half load, and what full load is
#![allow(
    clippy::disallowed_methods,
    reason = "a driver of processes: its clock is the wall's, its threads end with it"
)]
#![allow(clippy::print_stdout, reason = "a benchmark's output is its result")]

mod children;
mod latency;
mod systems;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use testkit::{TempDir, tree_cpu, within};

use children::{Load, SinkChild, Timestamps};
use systems::{Running, Shape, System};
use table::Figure;

const ROUNDS: usize = 3;

struct Case {
    name: &'static str,
    shape: Shape,
    connections: usize,
    sinks: usize,
    timestamps: Timestamps,
    systems: &'static [System],
}

const CASES: [Case; 6] = [
    Case {
        name: "relay, 1 connection -> 1 store",
        shape: Shape::Stores,
        connections: 1,
        sinks: 1,
        timestamps: Timestamps::Fixed,
        systems: &[System::Forwarder, System::Spillway, System::Journal, System::CarbonCRelay],
    },
    Case {
        name: "relay, 16 connections -> 4 stores, carbon_ch",
        shape: Shape::Stores,
        connections: 16,
        sinks: 4,
        timestamps: Timestamps::Fixed,
        systems: &[System::Forwarder, System::Spillway, System::CarbonCRelay],
    },
    Case {
        name: "relay, 16 connections -> 4 partial nodes over links",
        shape: Shape::Links { partials: 4 },
        connections: 16,
        sinks: 1,
        timestamps: Timestamps::Now,
        systems: &[System::Forwarder, System::Spillway, System::Tls, System::Journal],
    },
    Case {
        name: "aggregator, both layers, 10,000 series, 5 functions",
        shape: Shape::Aggregate,
        connections: 4,
        sinks: 1,
        timestamps: Timestamps::Now,
        systems: &[System::Forwarder, System::Spillway, System::Tls, System::CarbonCRelay],
    },
    Case {
        name: "spilling, no aggregator, 4 connections",
        shape: Shape::Spill,
        connections: 4,
        sinks: 1,
        timestamps: Timestamps::Now,
        systems: &[System::Forwarder, System::Spillway],
    },
    Case {
        name: "replay of a backlog without a ceiling, both layers",
        shape: Shape::Replay,
        connections: 4,
        sinks: 1,
        timestamps: Timestamps::Now,
        systems: &[System::Spillway],
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("child", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return children::run(rest);
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    let lines = std::env::var("SPILLWAY_BENCH_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000_000_u64);
    let latency = wanted.is_some_and(|wanted| wanted == "latency");
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| wanted.is_none_or(|wanted| case.name.contains(wanted.as_str())))
        .chain(CASES.iter().filter(|case| latency && case.shape == Shape::Aggregate))
        .collect();
    let mut figures: Vec<Vec<Vec<Figure>>> =
        cases.iter().map(|case| case.systems.iter().map(|_| Vec::new()).collect()).collect();
    for round in 1..=ROUNDS {
        for (case, of_case) in cases.iter().zip(&mut figures) {
            for (system, of_system) in case.systems.iter().zip(of_case) {
                if latency && *system != System::Spillway {
                    continue;
                }
                match run(case, *system, lines) {
                    Ok(figure) => of_system.push(figure),
                    Err(why) => println!("round {round}, {}, {}: {why}", case.name, system.name()),
                }
            }
        }
    }
    println!("{lines} lines of 63 bytes a run, 10,000 series, medians of {ROUNDS} rounds");
    for (case, of_case) in cases.iter().zip(&figures) {
        table::print(case.name, case.systems, of_case);
    }
    if latency || wanted.is_none() {
        let aggregated = cases.iter().zip(&figures).find(|(case, _)| case.shape == Shape::Aggregate);
        // The second row is ours.
        let full = aggregated.and_then(|(_, of_case)| of_case.get(1)).and_then(|figures| table::throughput(figures));
        latency::print(full);
    }
    ExitCode::SUCCESS
}

/// One run: start sink and system, load, wait until all has arrived, read the clocks.
fn run(case: &Case, system: System, lines: u64) -> Result<Figure, String> {
    let dir = TempDir::new("bench");
    let sink = SinkChild::start(case.sinks, dir.path());
    let mut running = Running::start(system, case.shape, &sink.addresses, dir.path())?;
    let load = Load { target: running.address(), connections: case.connections, lines, timestamps: case.timestamps };
    if case.shape == Shape::Replay {
        load.run(dir.path())?;
        within(Duration::from_secs(120), "the backlog", || match running.spilled()? {
            spilled if spilled == lines => Ok(()),
            spilled => Err(format!("{spilled} of {lines} spilled")),
        })?;
        running.start_the_rest();
    }
    let before: Vec<_> = running.processes().iter().map(|(_, process)| tree_cpu(process.id())).collect();
    let start = Instant::now();
    if case.shape != Shape::Replay {
        load.run(dir.path())?;
    }
    let arrived = within(Duration::from_secs(120), "all lines", || running.arrived(&sink, lines));
    let elapsed = start.elapsed();
    if case.shape == Shape::Aggregate {
        // The windows of the run end, and are emitted: that is part of what aggregation costs.
        std::thread::sleep(Duration::from_secs(14));
    }
    let mut cpu = Vec::new();
    for ((role, process), before) in running.processes().iter().zip(before) {
        cpu.push((*role, (tree_cpu(process.id()) - before).seconds()));
    }
    let delivered = match arrived {
        Ok(_) => lines,
        Err(_) => running.count(&sink)?.min(lines),
    };
    if delivered == 0 {
        return Err("nothing arrived".to_owned());
    }
    Ok(Figure::new(cpu, lines, delivered, elapsed))
}
