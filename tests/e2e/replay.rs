//! What the relay spilled while the partial layer was away comes back through the replayer: every point is counted once, at
//! the rate that the operator allows, and the operator's word is in force within a second.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use admin_api::{ReplayChange, ReplayStatus};
use testkit::{Admin, Cluster, Fleet, Keep, Sink, eventually, one_at_a_time, unix_now};

use crate::{SOON, support, when};

pub(crate) const LONG: Duration = Duration::from_secs(120);
const WINDOWS: u64 = 6;
pub(crate) const POINTS: u64 = 60_000;
pub(crate) const RULE: &str = "[[rule]]\nname = \"hits\"\nglob = \"web.*.hits\"\noutput = \"web.all.hits.{function}\"\n\
    interval = \"10s\"\ngrace = \"0s\"\nfunctions = [\"sum\", \"count\"]\nto = [\"carbon\"]\n";
/// A rate of which a change can be seen, and no adaptation that would hide it.
const SLOW: &str = "[replay]\nrate = \"1000/s\"\nfloor = \"500/s\"\nadaptive = false\n\
    [send]\nack_timeout = \"1s\"\nbatch = \"16KiB\"\n";

fn done(status: &ReplayStatus) -> u64 {
    status.sources.iter().map(|source| source.done_points).sum()
}

fn change(replayer: &Admin, change: ReplayChange) {
    let change = ReplayChange { by: "e2e".to_owned(), ..change };
    replayer.change_replay(&change).expect("the replayer takes the change");
}

/// Points settled in two seconds, and the time that took.
fn rate(replayer: &Admin) -> f64 {
    let count = || done(&replayer.replay().expect("the replayer answers"));
    let (from, at) = (count(), unix_now());
    std::thread::sleep(Duration::from_secs(2));
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let points = (count() - from) as f64;
    points / (unix_now() - at)
}

/// Sends every point; returns the first window.
pub(crate) fn send(to: std::net::SocketAddr) -> u64 {
    let now: u64 = unix_now().to_string().split('.').next().and_then(|text| text.parse().ok()).expect("a clock");
    let first = now / 10 * 10 - 10 * WINDOWS - 60;
    let mut stream = TcpStream::connect(to).expect("the relay listens");
    let mut text = String::new();
    for n in 0..POINTS {
        text.push_str(&format!("web.host-{}.hits {} {}\n", n % 97, n % 7, first + n % (10 * WINDOWS)));
    }
    stream.write_all(text.as_bytes()).expect("the relay reads");
    stream.shutdown(Shutdown::Write).expect("half-close");
    first
}

/// Waits until the store has every window as the points that were sent make it: each counted once.
pub(crate) fn every_window(sink: &Sink, first: u64) {
    let expected = |window: u64| {
        let inside = (0..POINTS).filter(|n| (n % (10 * WINDOWS)) / 10 == window);
        inside.fold((0.0, 0.0), |(sum, count), n| (sum + f64::from(u32::try_from(n % 7).expect("small")), count + 1.0))
    };
    eventually(LONG, "every window", || {
        sink.look(|seen| {
            let (sums, counts) = (seen.series("web.all.hits.sum"), seen.series("web.all.hits.count"));
            for window in 0..WINDOWS {
                let at = first + 10 * window;
                let got = (sums.get(&at).copied().unwrap_or_default(), counts.get(&at).copied().unwrap_or_default());
                when(got == expected(window), (at, got, expected(window)))?;
            }
            Ok::<_, String>(())
        })
    });
}

pub(crate) fn pending(relay: &Admin) -> Result<u64, String> {
    Ok(relay.ledger()?.destinations.iter().map(|to| to.spill_pending).sum())
}

#[test]
fn what_was_spilled_is_replayed_at_the_operator_s_rate_and_counted_once() {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let cluster =
        Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]).with(RULE).with(SLOW);
    let mut fleet = Fleet::new("replay", cluster, support::program).up();
    let (relay, replayer) = (fleet.api("relay-1"), fleet.api("replayer-1"));
    fleet.kill("partial-1");
    let first = send(fleet.cluster.graphite());
    eventually(LONG, "everything in the spill", || {
        let pending = pending(&relay)?;
        when(pending == POINTS, pending)
    });
    eventually(SOON, "the replayer to know of it", || {
        let status = replayer.replay()?;
        when(status.backlog_points == POINTS, status)
    });
    fleet.restart("partial-1");
    eventually(LONG, "the first points replayed", || {
        let status = replayer.replay()?;
        when(done(&status) > 0, status)
    });

    // Batches become durable a flush later, in lumps of half a second.
    let slow = rate(&replayer);
    assert!(slow <= 2_000.0, "{slow}/s under a ceiling of 1000/s");
    change(&replayer, ReplayChange { rate: Some(5_000), ..ReplayChange::default() });
    eventually(Duration::from_secs(1), "the new ceiling", || {
        let status = replayer.replay()?;
        when(status.ceiling_now == 5_000, status)
    });
    let fast = rate(&replayer);
    assert!((2_500.0..=7_500.0).contains(&fast), "{fast}/s under a ceiling of 5000/s");
    change(&replayer, ReplayChange { paused: Some(true), ..ReplayChange::default() });
    std::thread::sleep(Duration::from_secs(2));
    assert!(rate(&replayer) < 1.0, "it is paused");
    change(&replayer, ReplayChange { paused: Some(false), rate: Some(1_000_000), ..ReplayChange::default() });

    eventually(LONG, "everything replayed", || {
        let ledger = relay.ledger()?;
        let pending: u64 = ledger.destinations.iter().map(|to| to.spill_pending + to.in_flight).sum();
        when(pending == 0 && ledger.balanced, ledger)
    });
    every_window(&sink, first);
    let ledger = replayer.ledger().expect("the replayer answers");
    assert!(ledger.balanced && ledger.received >= POINTS, "{ledger:?}");
    fleet.settled(LONG);
    eventually(SOON, "an idle replayer", || {
        let status = replayer.replay()?;
        when(status.limited_by == "idle" && status.backlog_points == 0, status)
    });
}

/// Two replayers share one relay's backlog; one of them is killed while records are in its hands.
#[test]
fn a_replayer_that_is_killed_leaves_its_part_to_the_other_and_nothing_counts_twice() {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let cluster =
        Cluster::of(1, 1, 1, 2).store("carbon", &[sink.address()]).route_all(&["aggregate"]).with(RULE).with(SLOW);
    let mut fleet = Fleet::new("replayers", cluster, support::program).up();
    let (relay, one, other) = (fleet.api("relay-1"), fleet.api("replayer-1"), fleet.api("replayer-2"));
    fleet.kill("partial-1");
    let first = send(fleet.cluster.graphite());
    eventually(LONG, "everything in the spill", || {
        let pending = pending(&relay)?;
        when(pending == POINTS, pending)
    });
    for replayer in [&one, &other] {
        eventually(SOON, "both replayers to know of it", || {
            let status = replayer.replay()?;
            when(status.backlog_points == POINTS, status)
        });
        change(replayer, ReplayChange { rate: Some(12_000), ..ReplayChange::default() });
    }
    fleet.restart("partial-1");
    eventually(LONG, "points replayed by both", || {
        let (one, other) = (one.replay()?, other.replay()?);
        when(done(&one) > 0 && done(&other) > 0, (done(&one), done(&other)))
    });
    eventually(LONG, "records in the hands of the one that will be killed", || {
        let leased: u64 = one.replay()?.sources.iter().map(|source| source.leased_points).sum();
        when(leased > 0, leased)
    });
    fleet.kill("replayer-1");
    let left = pending(&relay).expect("the relay answers");
    assert!((1..POINTS).contains(&left), "killed in the midst: {left} of {POINTS} wait");

    eventually(LONG, "everything replayed by the other", || {
        let pending = pending(&relay)?;
        when(pending == 0, pending)
    });
    every_window(&sink, first);
    let spill = relay.spill().expect("the relay answers");
    let settled: u64 = spill.lanes.iter().map(|lane| lane.settled_points).sum();
    let dropped: u64 = spill.lanes.iter().flat_map(|lane| lane.dropped.values()).sum();
    assert_eq!((settled, dropped), (POINTS, 0), "{spill:?}");
    fleet.restart("replayer-1");
    fleet.settled(LONG);
    every_window(&sink, first);
}
