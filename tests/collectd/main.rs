//! A real source and a real store: Debian's collectd (write_graphite) -> `spillway up` -> Debian's carbon-cache, at 1 s
//! resolution. Afterwards the store is read back with whisper-fetch: raw series must equal what collectd sent, and
//! aggregates must equal sums that the test computes from the raw files.
//!
//! `SPILLWAY_COLLECTD_SECONDS` says how long the traffic runs (default 120, at most 480: the store keeps ten minutes).

#[path = "../support/mod.rs"]
mod support;

mod peers;
mod recorder;
mod whisper;

use std::collections::BTreeMap;
use std::time::Duration;

use peers::{CarbonCache, Collectd};
use recorder::{Recorder, Sent};
use testkit::{Cluster, Layer, Process, TempDir, eventually};

/// Rules of the test: two inputs a window at 10 s, and many inputs a window at 1 s.
const RULES: [Rule; 2] = [
    Rule {
        prefix: "collectd.",
        infix: ".cpu-",
        suffix: ".cpu-user",
        glob: "collectd.*.cpu-*.cpu-user",
        output: "agg.cpu_user",
        seconds: 10,
    },
    Rule {
        prefix: "collectd.",
        infix: ".memory.",
        suffix: "",
        glob: "collectd.*.memory.*",
        output: "agg.memory",
        seconds: 1,
    },
];

struct Rule {
    prefix: &'static str,
    infix: &'static str,
    suffix: &'static str,
    glob: &'static str,
    output: &'static str,
    seconds: u64,
}

impl Rule {
    /// What the glob means for names that collectd makes, in the test's own words.
    fn takes(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && name.contains(self.infix) && name.ends_with(self.suffix)
    }

    fn toml(&self) -> String {
        format!(
            "[[rule]]\nname = \"{0}\"\nglob = \"{1}\"\noutput = \"{0}.{{function}}\"\ninterval = \"{2}s\"\ngrace = \"5s\"\n\
             functions = [\"sum\", \"count\"]\nto = [\"carbon\"]\n",
            self.output, self.glob, self.seconds
        )
    }
}

fn seconds() -> Duration {
    let text = std::env::var("SPILLWAY_COLLECTD_SECONDS").unwrap_or_else(|_| "120".to_owned());
    let seconds = text.parse().unwrap_or_else(|error| panic!("SPILLWAY_COLLECTD_SECONDS = {text:?}: {error}"));
    assert!(seconds <= 480, "SPILLWAY_COLLECTD_SECONDS = {seconds}: the store keeps ten minutes");
    Duration::from_secs(seconds)
}

/// The measurement itself, without the product: what this test calls "sent" is what the store holds.
#[test]
fn collectd_straight_into_carbon_reads_back_as_recorded() {
    let dir = TempDir::new("collectd-control");
    let carbon = CarbonCache::start(&dir);
    let recorder = Recorder::start(carbon.address());
    let collectd = Collectd::start(&dir, "host-a", recorder.address());
    std::thread::sleep(Duration::from_secs(8)); // the length of the measurement
    collectd.stop();
    let sent = recorder.stop();
    assert!(sent.points() > 100, "collectd sent only {} points", sent.points());
    eventually(Duration::from_secs(30), "the store to hold what was sent", || compare_raw(&carbon, &sent));
    carbon.stop();
}

#[test]
fn collectd_through_spillway_reads_back_raw_and_aggregated() {
    let dir = TempDir::new("collectd");
    let carbon = CarbonCache::start(&dir);
    let cluster = Cluster::new(1, 1, 1)
        .store("carbon", &[carbon.address()])
        .route_all(&["aggregate", "carbon"])
        .with(&RULES.iter().map(Rule::toml).collect::<Vec<_>>().join("\n"));
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    let recorder = Recorder::start(cluster.graphite());
    let sources = ["host-a", "host-b"].map(|host| Collectd::start(&dir, host, recorder.address()));
    std::thread::sleep(seconds()); // the length of the measurement
    for source in sources {
        source.stop();
    }
    let sent = recorder.stop();

    let ledger = eventually(Duration::from_secs(30), "the relay's ledger to settle", || {
        let ledger = cluster.first(Layer::Relay).api().ledger()?;
        if ledger.balanced && ledger.in_hand == 0 && ledger.destinations.iter().all(|to| to.in_flight == 0) {
            Ok(ledger)
        } else {
            Err(format!("{ledger:?}"))
        }
    });
    assert_eq!(ledger.received, sent.points() + sent.not_a_number, "every line sent is a line received");
    assert_eq!(ledger.rejected.values().sum::<u64>(), sent.not_a_number, "only `nan` is rejected: {ledger:?}");

    eventually(Duration::from_secs(30), "the store to hold what was sent", || compare_raw(&carbon, &sent));
    for rule in &RULES {
        eventually(Duration::from_secs(60), rule.output, || compare_rule(&carbon, &sent, rule));
    }
    spillway.stop(&[]);
    carbon.stop();
}

/// Every point that was sent stands in its file with the value sent last, and the files hold nothing else.
fn compare_raw(carbon: &CarbonCache, sent: &Sent) -> Result<(), String> {
    for (name, points) in sent.series() {
        let held = carbon.fetch(name, sent.first_second(), sent.last_second())?;
        if held != *points {
            let missing = points.iter().find(|(at, value)| held.get(at) != Some(value));
            let extra = held.iter().find(|(at, _)| !points.contains_key(at));
            return Err(format!("{name}: sent but not held: {missing:?}; held but not sent: {extra:?}"));
        }
    }
    Ok(())
}

/// Every window of `rule` holds the sum and the count of the raw files' points in it.
fn compare_rule(carbon: &CarbonCache, sent: &Sent, rule: &Rule) -> Result<(), String> {
    let (from, until) = (sent.first_second(), sent.last_second());
    let mut windows: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for name in sent.series().keys().filter(|name| rule.takes(name)) {
        for (at, value) in carbon.fetch(name, from, until)? {
            windows.entry(at - at % rule.seconds).or_default().push(value);
        }
    }
    // Two points of one series in one second: the file keeps the second, the window has both. Those windows are known
    // from the recording, and must stay rare for the comparison to mean something.
    let blurred = sent.blurred(rule.seconds, |name| rule.takes(name));
    if windows.is_empty() || blurred.len() * 5 > windows.len() {
        return Err(format!("{} windows, {} of them with two points in one second", windows.len(), blurred.len()));
    }
    let from = from - from % rule.seconds;
    let sums = carbon.fetch(&format!("{}.sum", rule.output), from, until)?;
    let counts = carbon.fetch(&format!("{}.count", rule.output), from, until)?;
    let starts = |map: &BTreeMap<u64, f64>| map.keys().copied().collect::<Vec<u64>>();
    let expected: Vec<u64> = windows.keys().copied().collect();
    if starts(&sums) != expected || starts(&counts) != expected {
        return Err(format!("windows {expected:?}, sums at {:?}, counts at {:?}", starts(&sums), starts(&counts)));
    }
    for (start, values) in windows.iter().filter(|(start, _)| !blurred.contains(start)) {
        let (sum, count) = (exact_sum(values), values.len() as f64);
        if !same(sums.get(start), sum) || counts.get(start) != Some(&count) {
            return Err(format!(
                "{} at {start}: holds sum {:?} count {:?}, the raw files say {sum} and {count}",
                rule.output,
                sums.get(start),
                counts.get(start)
            ));
        }
    }
    Ok(())
}

/// Neumaier's sum: with a handful of values it is right to the last bit or the one before.
fn exact_sum(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

/// Equal up to one unit in the last place, which the two ways of summing may differ by.
fn same(held: Option<&f64>, wanted: f64) -> bool {
    held.is_some_and(|held| (held - wanted).abs() <= wanted.abs() * f64::EPSILON)
}
