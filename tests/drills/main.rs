//! The incident drills: what took real services down (INCIDENTS.md), done to the real binaries, a process a node.
//!
//! Each ends the same way: the books of every node balance, nothing is on its way any more, and what the store holds
//! equals an offline oracle computed from the points that were sent. A drill asserts on numbers only.
//!
//!   cargo test --test drills                                    the short forms, minutes in all
//!   SPILLWAY_DRILLS=long cargo test --release --test drills NAME    one drill with the full figures
//!   SPILLWAY_SEED=7                                             another schedule of random faults
//!
//! Those that need network namespaces or mounts need root; elsewhere they say so and pass.

#[path = "../support/mod.rs"]
mod support;

mod bad_disk;
mod cascade;
mod cursor_expired;
mod damage;
mod disk_full;
mod health_modes;
#[allow(clippy::disallowed_methods, reason = "measures by the wall's clock, with threads that it joins itself")]
mod injury;
#[allow(clippy::disallowed_methods, reason = "measures by the wall's clock, with threads that it joins itself")]
mod june_24;
mod kill_storm;
mod memory;
mod recv_reset;
mod replay_beside_live;
mod rolled_back;
#[allow(clippy::disallowed_methods, reason = "measures by the wall's clock, with threads that it joins itself")]
mod rolling_restart;
mod slow_then_dead;
mod stuck_connection;
#[allow(clippy::disallowed_methods, reason = "measures by the wall's clock, with threads that it joins itself")]
mod stuck_state;

use std::time::Duration;

use admin_api::Ledger;
use testkit::{Cluster, Expected, Feed, Feeding, Fleet, Keep, Layer, Oracle, Sent, Sink, eventually, growth, mix};

/// Long enough for anything that should happen soon on a machine that is busy with something else too.
const SOON: Duration = Duration::from_secs(20);
/// For catching up: unacknowledged batches go again, windows are corrected every 5 s, stores get receipts.
const CATCH_UP: Duration = Duration::from_secs(90);

/// Whether the full figures are asked for.
fn long() -> bool {
    std::env::var("SPILLWAY_DRILLS").is_ok_and(|form| form == "long")
}

/// `short` in CI, `full` in the long form.
fn form<T>(short: T, full: T) -> T {
    if long() { full } else { short }
}

/// Says a figure, for the reader of `--nocapture` and of a failure.
#[allow(clippy::print_stdout, reason = "the figures of a drill are a part of its result")]
fn say(what: &str) {
    println!("{what}");
}

/// Numbers of a drill's random schedule, the same for the same seed.
#[derive(Debug)]
struct Dice {
    state: u64,
}

impl Dice {
    /// From `SPILLWAY_SEED`, else 1; printed, so that a failure can be repeated.
    fn new(drill: &str) -> Dice {
        let seed = std::env::var("SPILLWAY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        say(&format!("{drill}: SPILLWAY_SEED={seed}"));
        Dice { state: seed }
    }

    /// Below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state) % bound
    }

    /// Dice with numbers of their own, for what runs beside.
    fn more(&mut self) -> Dice {
        Dice { state: mix(self.below(u64::MAX)) }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(from.len() as u64)).expect("an index");
        from.get(index).expect("one of them")
    }
}

/// The rule of all drills: ten groups of series, every function the oracle knows.
const RULE: &str = "[[rule]]\nname = \"groups\"\nglob = \"load.<group>.*\"\noutput = \"groups.{group}.{function}\"\n\
    interval = \"10s\"\ngrace = \"1s\"\nfunctions = [\"count\", \"sum\", \"min\", \"max\", \"avg\", \"first\", \"last\"]\n\
    to = [\"carbon\"]\n";

fn expected() -> Expected {
    Expected {
        interval: 10,
        output: |series| {
            let mut parts = series.split('.');
            (parts.next() == Some("load")).then(|| format!("groups.{}", parts.next().unwrap_or_default()))
        },
        functions: &["count", "sum", "min", "max", "avg", "first", "last"],
    }
}

/// Keys of the cluster file that a drill sets itself, beyond those that make all drills quick.
#[derive(Clone, Copy, Debug, Default)]
struct Keys {
    send: &'static str,
    spill: &'static str,
    replay: &'static str,
    last: &'static str,
    /// Any other TOML.
    more: &'static str,
}

/// A sink that keeps every point, and a cluster whose aggregates go there. Time-outs are short: a drill is to be over soon.
fn cluster(relays: usize, partials: usize, finals: usize, keys: Keys) -> (Sink, Cluster) {
    let sink = Sink::start(Keep::Points);
    let cluster = Cluster::new(relays, partials, finals).store("carbon", &[sink.address()]);
    (sink, tuned(cluster, keys))
}

fn tuned(cluster: Cluster, keys: Keys) -> Cluster {
    let Keys { send, spill, replay, last, more } = keys;
    cluster.with("[[route]]\nglob = \"load.**\"\nto = [\"aggregate\"]\n").with(RULE).with(&format!(
        "[send]\nlinger = \"50ms\"\nack_timeout = \"1s\"\n{send}\n[spill]\n{spill}\n[replay]\n{replay}\n\
         [final]\nflush = \"200ms\"\n{last}\n\
         [output]\nrotate = \"2s\"\nlinger_bound = \"3s\"\nreceipt_timeout = \"1s\"\n{more}\n"
    ))
}

/// Starts a process a node.
#[track_caller]
fn up(name: &str, cluster: Cluster) -> Fleet {
    Fleet::new(name, cluster, support::program).up()
}

/// The same with binaries that can be hurt.
#[track_caller]
fn up_with_failpoints(name: &str, cluster: Cluster) -> Fleet {
    Fleet::new(name, cluster, support::program_with_failpoints).up()
}

/// One feed for each relay, which goes to the other relays while its own takes no connection.
fn feeds(fleet: &Fleet, rate: u64) -> Vec<Feeding> {
    let relays = fleet.cluster.layer(Layer::Relay);
    let all: Vec<_> = relays.into_iter().filter_map(|relay| relay.graphite).collect();
    let feed = |own: &std::net::SocketAddr| {
        let also = all.iter().copied().filter(|other| other != own).collect();
        Feed { also, ..Feed::new(*own, rate / all.len() as u64) }.start()
    };
    all.iter().map(feed).collect()
}

/// How much `count` grows per second, measured over `time`.
fn rate_of(time: Duration, mut count: impl FnMut() -> u64) -> f64 {
    growth(time, || Ok::<u64, std::convert::Infallible>(count())).unwrap_or_else(|never| match never {})
}

/// `Ok` when `holds`, else what was seen instead: for `eventually`.
fn when<T: std::fmt::Debug>(holds: bool, seen: T) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{seen:?}")) }
}

/// All points that a destination has dropped, whatever the reason.
fn dropped(ledger: &Ledger) -> u64 {
    let owed: u64 = ledger.destinations.iter().flat_map(|to| to.dropped.values()).sum();
    owed + ledger.dropped.values().sum::<u64>()
}

/// Points in a relay's spill.
fn spilled(fleet: &Fleet, relay: &str) -> Result<u64, String> {
    Ok(fleet.api(relay).ledger()?.destinations.iter().map(|to| to.spill_pending).sum())
}

/// Points that the aggregates in the store count in all.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts")]
fn counted(sink: &Sink) -> u64 {
    sink.look(|seen| {
        let counts =
            seen.points.iter().filter(|((name, _), _)| name.starts_with("groups.") && name.ends_with(".count"));
        counts.filter_map(|(_, values)| values.last()).sum::<f64>() as u64
    })
}

/// The end of a drill that loses nothing: books settled, no drop at any node, and the store equal to the oracle.
#[track_caller]
fn nothing_is_lost(fleet: &mut Fleet, sink: &Sink, sent: &Sent) {
    nothing_of_all_is_lost(fleet, sink, std::slice::from_ref(sent));
}

/// The same, of several feeds.
#[track_caller]
fn nothing_of_all_is_lost(fleet: &mut Fleet, sink: &Sink, sent: &[Sent]) {
    let books = fleet.settled(CATCH_UP);
    for ledger in &books {
        assert_eq!(dropped(ledger), 0, "{} dropped points: {ledger:?}", ledger.node);
    }
    equals_the_oracle_of_all(fleet, sink, sent);
}

/// The store holds what the oracle computes from every point of `sent`.
#[track_caller]
fn equals_the_oracle(fleet: &mut Fleet, sink: &Sink, sent: &Sent) {
    equals_the_oracle_of_all(fleet, sink, std::slice::from_ref(sent));
}

/// The same, of several feeds.
#[track_caller]
fn equals_the_oracle_of_all(fleet: &mut Fleet, sink: &Sink, sent: &[Sent]) {
    let mut oracle = Oracle::new(expected());
    for sent in sent {
        assert!(sent.doubtful.is_empty(), "lines on connections that were cut: {:?}", sent.doubtful);
        oracle = oracle.with(sent.points());
    }
    eventually(CATCH_UP, "the store to hold what the oracle computes", || sink.look(|seen| oracle.agrees(seen)));
    sink.look(|seen| assert!(seen.strange.is_empty(), "torn lines: {:?}", seen.strange));
    fleet.all_run();
    say(&format!("{} points, {} windows: equal to the oracle", oracle.points, oracle.len()));
}

/// No worker of any node was restarted.
#[track_caller]
fn no_worker_failed(fleet: &Fleet) {
    for name in fleet.names() {
        let workers = fleet.api(&name).workers().expect("the list of workers");
        let failed: Vec<_> = workers.iter().filter(|worker| worker.restarts > 0).collect();
        assert!(failed.is_empty(), "{name}: {failed:?}");
    }
}

/// The names of the aggregators: both layers.
fn aggregators(fleet: &Fleet) -> Vec<String> {
    [fleet.layer(Layer::Partial), fleet.layer(Layer::Final)].concat()
}

/// What all drills write must be a file without problems.
#[test]
fn the_drills_cluster_file_has_no_problems() {
    let (_sink, cluster) = cluster(1, 1, 1, Keys::default());
    match config::load("drill.toml", &cluster.toml()) {
        Ok(loaded) => assert_eq!(loaded.warnings.to_string(), "", "{}", cluster.toml()),
        Err(problems) => panic!("{problems}"),
    }
}
