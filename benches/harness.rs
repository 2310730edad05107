//! The smallest harness that gives a steady figure: the best of several rounds, each long enough for the clock.
//!
//! The best and not the mean: on a shared machine every disturbance adds time and none takes any away. Figures of
//! different runs are comparable only as ratios to the floor of their own run.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; that is all it does")]
#![allow(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![allow(dead_code, reason = "each benchmark uses a part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(150);

/// One line of a table.
pub(crate) struct Row {
    name: String,
    nanos: f64,
}

impl Row {
    /// `nanos`: per line.
    pub(crate) fn new(name: &str, nanos: f64) -> Row {
        Row { name: name.to_owned(), nanos }
    }
}

/// Nanoseconds per line of `work`, which handles `lines` lines a call.
pub(crate) fn measure<T>(lines: u32, mut work: impl FnMut() -> T) -> f64 {
    black_box(work());
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut calls = 0_u32;
        while start.elapsed() < ROUND {
            black_box(work());
            calls += 1;
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9;
        best = best.min(nanos / (f64::from(calls) * f64::from(lines)));
    }
    best
}

/// Prints a table; the first row is the floor that the others are compared with.
pub(crate) fn print(title: &str, rows: &[Row]) {
    println!("\n{title}");
    println!("{:44} {:>9} {:>12} {:>9}", "", "ns/line", "M lines/s", "x floor");
    let floor = rows.first().map_or(1.0, |row| row.nanos);
    for row in rows {
        println!("{:44} {:>9.1} {:>12.1} {:>9.1}", row.name, row.nanos, 1e3 / row.nanos, row.nanos / floor);
    }
}

/// The name of series `number`, 43 bytes, as in PERFORMANCE.md.
pub(crate) fn name(number: u32) -> String {
    format!("servers.web{number:06}.dc3.rack07.cpu7.time.user")
}

/// `count` lines of 63 bytes over `series` series, in an order without locality.
pub(crate) fn lines(count: u32, series: u32) -> Vec<u8> {
    // 7919 is prime to every power of ten: each series comes once before any comes again.
    let line = |n: u32| format!("{} {} 1700000000\n", name(n.wrapping_mul(7_919) % series), 1_000_000 + n);
    (0..count).flat_map(|n| line(n).into_bytes()).collect()
}

/// The floor: what it costs to see the lines at all.
pub(crate) fn newlines(block: &[u8]) -> usize {
    let (mut rest, mut count) = (block, 0);
    while let Some(end) = memchr::memchr(b'\n', rest) {
        count += 1;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    count
}
