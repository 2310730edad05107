//! A release under load: every node of 2 relays, 2 partial nodes, 2 final nodes and a replayer is restarted by SIGTERM, one
//! by one, each when `spillway rollout check` says that it is safe, while one node is sick. On 24 June 2019 the rollout of
//! the fix stopped because the layer was sick of what was to be fixed.
//!
//! Clients are as carbon-relay-ng is one: they look for the relay's FIN, and go to the other relay. Of them no point may be
//! lost: whatever such a client wrote before it saw the end was read, and is handed over or spilled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use admin_api::Verdict;
use testkit::{Behaviour, Feed, Feeding, Fleet, eventually, one_at_a_time};

use crate::injury::{Injury, operator, slow_down};
use crate::{
    Keys, SOON, cluster, feeds, form, nothing_is_lost, nothing_of_all_is_lost, say, spilled, up, up_with_failpoints,
    when,
};

/// What the supervisor of the process gives all nodes for stopping, and what it takes to notice the end.
const STOPS_WITHIN: Duration = Duration::from_secs(16);
/// Of a node whose store is away: what stores get at the most (3 s), and slack for a busy machine.
const AWAY_STOPS_WITHIN: Duration = Duration::from_secs(8);
/// All of it: a sick neighbour has to be back before the next of its layer may go.
const ROLLOUT_WITHIN: Duration = Duration::from_secs(300);

/// There is always another relay.
const CLIENTS_WAIT: Duration = Duration::from_secs(5);

const KEYS: Keys = Keys {
    send: "",
    spill: "",
    replay: "rate = \"500000/s\"\nlarge = 100000000",
    last: "",
    more: "[health]\nproof = \"2s\"\nrecover = \"2s\"\n[supervise]\nrestarts = 1000\n",
};

/// The longest that a batch waited for its answer, as relays see it, since the last question.
struct Lag {
    millis: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    looking: Option<std::thread::JoinHandle<()>>,
}

impl Lag {
    fn of(fleet: &Fleet) -> Lag {
        let (millis, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let relays = ["relay-1", "relay-2"].map(|name| fleet.api(name));
        let (seen, ends) = (Arc::clone(&millis), Arc::clone(&over));
        let look = move || {
            while !ends.load(Ordering::SeqCst) {
                // A relay that is away holds nothing.
                for status in relays.iter().filter_map(|relay| relay.status().ok()) {
                    let oldest = status.peers.iter().map(|peer| peer.oldest_unacked_ms).max().unwrap_or(0);
                    seen.fetch_max(oldest, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        Lag { millis, over, looking: Some(std::thread::spawn(look)) }
    }

    fn take(&self) -> u64 {
        self.millis.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(looking) = self.looking.take() {
            assert!(looking.join().is_ok() || std::thread::panicking(), "the one who looks panicked");
        }
    }
}

/// Points per second of all clients together.
fn rate() -> u64 {
    form(4_000, 20_000)
}

/// `rollout check`: whether it is safe, and the answer.
#[track_caller]
fn check(fleet: &Fleet, node: &str) -> (bool, String) {
    let said = operator(fleet, &["rollout", "check", node]);
    match said.code {
        0 => (true, said.out),
        1 => (false, said.out),
        code => panic!("rollout check {node} ended with {code}: {}{}", said.out, said.err),
    }
}

/// Restarts the node and says how long each step took.
#[track_caller]
fn restart(fleet: &mut Fleet, node: &str, waited: Duration, feeds: &[Feeding], lag: &Lag) {
    let (_, _) = (lag.take(), feeds.iter().map(Feeding::take_longest_wait).max());
    let stopped = fleet.stop(node);
    assert!(stopped <= STOPS_WITHIN, "{node} took {stopped:?} to stop");
    let start = Instant::now();
    fleet.restart(node);
    let api = fleet.api(node);
    eventually(SOON, &format!("{node} to serve"), || {
        let (health, _) = api.health()?;
        when(health.verdict != Verdict::Starting, health.verdict)
    });
    let clients = feeds.iter().map(Feeding::take_longest_wait).max().unwrap_or_default();
    assert!(clients <= CLIENTS_WAIT, "clients waited {clients:?} for a place while {node} was restarted");
    say(&format!(
        "{node:<10} {:>10} {:>10} {:>10} {:>14} {:>14}",
        format!("{} ms", waited.as_millis()),
        format!("{} ms", stopped.as_millis()),
        format!("{} ms", start.elapsed().as_millis()),
        format!("{} ms", clients.as_millis()),
        format!("{} ms", lag.take()),
    ));
}

/// Restarts every node of the cluster, whichever may go next. `restarted` hears of each.
#[track_caller]
fn roll(fleet: &mut Fleet, feeds: &[Feeding], mut restarted: impl FnMut(&Fleet, &str)) {
    let lag = Lag::of(fleet);
    let start = Instant::now();
    say("node       till safe    to stop   to serve   client waited   batch waited");
    let mut left = fleet.names();
    while !left.is_empty() {
        let since = Instant::now();
        let mut why = Vec::new();
        let next = loop {
            assert!(start.elapsed() < ROLLOUT_WITHIN, "{left:?} may not be restarted: {why:?}");
            let answers: Vec<(bool, String)> = left.iter().map(|node| check(fleet, node)).collect();
            if let Some(index) = answers.iter().position(|(safe, _)| *safe) {
                break left.remove(index);
            }
            why = answers;
            std::thread::sleep(Duration::from_millis(100));
        };
        restart(fleet, &next, since.elapsed(), feeds, &lag);
        restarted(fleet, &next);
        fleet.all_run();
        let lines = || feeds.iter().map(Feeding::lines).sum::<u64>();
        let enough = lines() + rate();
        eventually(SOON, "a second's load before the next", || when(lines() >= enough, enough));
    }
    say(&format!("all {} nodes: {} s", fleet.names().len(), start.elapsed().as_secs()));
}

fn is(fleet: &Fleet, node: &str, word: fn(&Verdict) -> bool) -> Result<(), String> {
    let verdict = fleet.api(node).health()?.0.verdict;
    when(word(&verdict), verdict)
}

/// No node had to be cut off at its deadline but those in `may`.
fn in_order(fleet: &Fleet, may: &[&str]) {
    for name in fleet.names().iter().filter(|name| !may.contains(&name.as_str())) {
        let log = fleet.log_text(name);
        let late: Vec<&str> = log.lines().filter(|line| line.contains("were late")).collect();
        assert!(late.is_empty(), "{name} was cut off: {late:?}");
    }
}

#[test]
fn drill_rolling_restart_with_a_crashing_node_completes_and_loses_nothing() {
    let _turn = one_at_a_time();
    let (sink, cluster) = cluster(2, 2, 2, KEYS);
    let mut fleet = up_with_failpoints("rolling-crash", cluster);
    let feeds = feeds(&fleet, rate());
    let injury = Injury::new();
    injury.crash(&fleet, "partial-2", "partial.link.final-1");
    eventually(SOON, "partial-2 to be degraded", || {
        is(&fleet, "partial-2", |verdict| matches!(verdict, Verdict::Degraded { .. }))
    });
    // The sick one may go, and nobody beside it as long as it is sick.
    let (safe, why) = check(&fleet, "partial-2");
    assert!(safe && why.contains("degraded"), "{why}");
    let (safe, why) = check(&fleet, "partial-1");
    assert!(!safe && why.contains("one at a time"), "{why}");
    // What is rolled out is the fix.
    roll(&mut fleet, &feeds, |_, node| injury.cured(node));
    let sent: Vec<_> = feeds.into_iter().map(Feeding::finish).collect();
    nothing_of_all_is_lost(&mut fleet, &sink, &sent);
    in_order(&fleet, &[]);
    fleet.end();
}

#[test]
fn drill_rolling_restart_with_an_overloaded_node_completes_and_loses_nothing() {
    let _turn = one_at_a_time();
    let (sink, cluster) = cluster(2, 2, 2, KEYS);
    let mut fleet = up_with_failpoints("rolling-slow", cluster);
    let feeds = feeds(&fleet, rate());
    slow_down(&fleet, "partial-1");
    eventually(SOON, "partial-1 to be overloaded", || {
        is(&fleet, "partial-1", |verdict| matches!(verdict, Verdict::Overloaded { .. }))
    });
    // Its machine is slow: a restart does not mend that.
    roll(&mut fleet, &feeds, |fleet, node| {
        if node == "partial-1" {
            slow_down(fleet, node);
        }
    });
    let sent: Vec<_> = feeds.into_iter().map(Feeding::finish).collect();
    for worker in fleet.api("partial-1").workers().expect("workers") {
        fleet.api("partial-1").fail(&worker.name, "slow", 0).expect("the failpoint is disarmed");
    }
    nothing_of_all_is_lost(&mut fleet, &sink, &sent);
    // What a slow node holds may take longer than it has; relays hold it too.
    in_order(&fleet, &["partial-1"]);
    fleet.end();
}

/// A store that is away must not hold up a stop: what was for it is in a relay's spill, or in a final node's log.
#[test]
fn drill_rolling_restart_does_not_wait_for_a_store_that_is_away() {
    let _turn = one_at_a_time();
    let keys = Keys { more: "[[route]]\nglob = \"load.**\"\nto = [\"carbon\"]\n", ..KEYS };
    let (sink, cluster) = cluster(1, 1, 1, keys);
    let mut fleet = up("rolling-away", cluster);
    let feed = Feed::new(fleet.cluster.graphite(), 2_000).start();
    eventually(SOON, "points", || when(feed.lines() > 2_000, feed.lines()));
    sink.behave(Behaviour::Refuse);
    eventually(SOON * 2, "a spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending > 10_000, pending)
    });
    eventually(SOON, "the replayer to hold points for the store", || {
        let held: u64 = fleet.api("replayer-1").status()?.peers.iter().map(|peer| peer.in_flight_points).sum();
        when(held > 0, held)
    });
    for node in ["replayer-1", "final-1", "partial-1", "relay-1"] {
        let took = fleet.stop(node);
        say(&format!("{node}: {} ms to stop while the store is away", took.as_millis()));
        assert!(took <= AWAY_STOPS_WITHIN, "{node} took {took:?} to stop");
        fleet.restart(node);
    }
    sink.behave(Behaviour::Read);
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    fleet.end();
}
