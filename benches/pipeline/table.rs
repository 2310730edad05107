//! Medians, ratios and their print.

use std::time::Duration;

use crate::systems::{Role, System};

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// CPU-seconds per million points delivered.
    relay: f64,
    aggregator: f64,
    replayer: f64,
    /// Million points per second.
    throughput: f64,
    /// Share of the points that did not arrive.
    lost: f64,
}

impl Figure {
    pub(crate) fn new(cpu: Vec<(Role, f64)>, lines: u64, delivered: u64, elapsed: Duration) -> Figure {
        let millions = delivered as f64 / 1e6;
        let of = |wanted: Role| {
            let seconds: f64 = cpu.iter().filter(|(role, _)| *role == wanted).map(|(_, seconds)| seconds).sum();
            seconds.max(0.0) / millions // the sum of nothing is -0.0
        };
        Figure {
            relay: of(Role::Relay),
            aggregator: of(Role::Aggregator),
            replayer: of(Role::Replayer),
            throughput: millions / elapsed.as_secs_f64(),
            lost: 1.0 - delivered as f64 / lines as f64,
        }
    }
}

fn median(figures: &[Figure], of: impl Fn(&Figure) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Million points per second, the median of some runs.
pub(crate) fn throughput(figures: &[Figure]) -> Option<f64> {
    median(figures, |figure| figure.throughput)
}

/// Prints a case's table. `x forwarder` compares the relay's CPU with the forwarder's, all of it with the first row.
pub(crate) fn print(case: &str, systems: &[System], figures: &[Vec<Figure>]) {
    println!("\n{case}");
    println!(
        "{:18} {:>14} {:>14} {:>14} {:>14} {:>12} {:>12} {:>8}",
        "", "relay CPU-s/M", "aggr. CPU-s/M", "repl. CPU-s/M", "all CPU-s/M", "x forwarder", "M points/s", "lost %"
    );
    let all = |figure: &Figure| figure.relay + figure.aggregator + figure.replayer;
    let floor = figures.first().and_then(|figures| median(figures, all));
    for (system, figures) in systems.iter().zip(figures) {
        let Some(total) = median(figures, all) else {
            println!("{:18} no figures", system.name());
            continue;
        };
        let value = |of: fn(&Figure) -> f64| median(figures, of).unwrap_or(0.0);
        println!(
            "{:18} {:>14.3} {:>14.3} {:>14.3} {:>14.3} {:>12.1} {:>12.2} {:>8.2}",
            system.name(),
            value(|figure| figure.relay),
            value(|figure| figure.aggregator),
            value(|figure| figure.replayer),
            total,
            floor.map_or(f64::NAN, |floor| total / floor),
            value(|figure| figure.throughput),
            value(|figure| figure.lost) * 100.0
        );
    }
}
