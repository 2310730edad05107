//! A large backlog is replayed beside live load, at every ceiling up to none: live points do not notice, a change of the
//! ceiling is in effect within a second, and in the end every aggregate is right.

use std::time::Duration;

use admin_api::ReplayChange;
use testkit::{Admin, Cluster, Feed, Fleet, Keep, Oracle, Probe, Sink, eventually, one_at_a_time, within};

use crate::{CATCH_UP, Keys, SOON, counted, expected, form, no_worker_failed, say, spilled, support, tuned, when};

/// Live p99 from the client's write to the aggregate's first emission.
const LIVE_P99: Duration = Duration::from_secs(2);
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(1);
/// No ceiling: more than any machine can do.
const UNLIMITED: u64 = 100_000_000;

const PROBE_RULE: &str = "[[rule]]\nname = \"probe\"\nglob = \"probe.<m>\"\noutput = \"probed.{m}\"\ninterval = \"1s\"\n\
    grace = \"0s\"\nfunctions = [\"last\"]\nto = [\"probes\"]\n\n\
    [[store]]\nname = \"probes\"\naddresses = [\"PROBES\"]\n\n\
    [[route]]\nglob = \"probe.*\"\nto = [\"aggregate\"]\n";

fn done(replayer: &Admin) -> u64 {
    let status = replayer.replay().expect("the replayer answers");
    status.sources.iter().map(|source| source.done_points).sum()
}

/// Sets a ceiling and returns how long until it is in effect.
#[track_caller]
fn set_ceiling(replayer: &Admin, rate: u64, adaptive: bool) -> Duration {
    let change = ReplayChange {
        rate: Some(rate),
        adaptive: Some(adaptive),
        paused: Some(false),
        by: "drill".to_owned(),
        ..ReplayChange::default()
    };
    replayer.change_replay(&change).expect("the replayer takes the change");
    let seen = within(SOON, "the ceiling", || {
        let status = replayer.replay()?;
        when(status.settings.rate == rate && status.ceiling_now <= rate, status)
    });
    seen.unwrap_or_else(|error| panic!("{error}")).1
}

/// Points replayed per second over `hold`, or until no more than `leave` points are left.
fn replayed(fleet: &Fleet, replayer: &Admin, hold: Duration, leave: u64) -> f64 {
    let before = done(replayer);
    let share = within(hold, "the step's share", || {
        let left = spilled(fleet, "relay-1")?;
        when(left <= leave, left)
    });
    let took = share.map_or(hold, |(_, took)| took);
    (done(replayer) - before) as f64 / took.as_secs_f64()
}

#[test]
fn drill_replay_beside_live_does_not_delay_live_points() {
    let _turn = one_at_a_time();
    let (sink, probes) = (Sink::start(Keep::Points), Probe::sink());
    let keys = Keys { replay: "rate = \"20000/s\"\nstart = \"paused\"\nlarge = 100000", ..Keys::default() };
    let rule = PROBE_RULE.replace("PROBES", &probes.address().to_string());
    let cluster = tuned(Cluster::new(1, 2, 1).store("carbon", &[sink.address()]), keys).with(&rule);
    let mut fleet = Fleet::new("replay-beside-live", cluster, support::program).up();
    let to = fleet.cluster.graphite();

    // The backlog: an hour old, while nothing takes it.
    for node in ["partial-1", "partial-2"] {
        fleet.kill(node);
    }
    fleet.kill("replayer-1");
    let points = form(4_000_000, 20_000_000);
    let old = Feed { age: 3600, ..Feed::new(to, 0) }.start();
    old.set_limit(points);
    eventually(Duration::from_secs(form(180, 900)), "the backlog in the spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == points, pending)
    });
    let old = old.finish();
    for node in ["partial-1", "partial-2", "replayer-1"] {
        fleet.restart(node);
    }
    let replayer = fleet.api("replayer-1");
    eventually(SOON, "a paused replayer that knows its backlog", || {
        let status = replayer.replay()?;
        when(status.settings.paused && status.backlog_points == points, status)
    });

    // Live, alone.
    let live = Feed { prefix: "load".to_owned(), ..Feed::new(to, form(10_000, 50_000)) }.start();
    let mut probe = Probe::start(probes, to, Duration::from_millis(20));
    eventually(SOON, "live markers", || {
        let seen = probe.between(0, probe.mark());
        when(seen.count - seen.missing > 20, seen)
    });
    let mark = probe.mark();
    std::thread::sleep(Duration::from_secs(form(5, 30)));
    let until = probe.mark();
    std::thread::sleep(LIVE_P99);
    say(&format!("live alone: {:?}", probe.between(mark, until)));

    // A step ends early when it has had its share of the backlog, so that every one has points to replay.
    let small = form(10_000, 20_000);
    let hold = Duration::from_secs(form(5, 30));
    let steps = [
        (small, true, 0),
        (4 * small, true, 0),
        (UNLIMITED, true, points / 2),
        (UNLIMITED, false, points / 4),
        (small, false, 0),
    ];
    for (ceiling, adaptive, leave) in steps {
        let took = set_ceiling(&replayer, ceiling, adaptive);
        let mark = probe.mark();
        // What was let go under the ceiling before is on its way for a moment. Without a ceiling there is nothing that it could
        // pass, and a second of it may be all that is left.
        if ceiling != UNLIMITED {
            std::thread::sleep(EFFECTIVE_WITHIN);
        }
        let rate = replayed(&fleet, &replayer, hold, leave);
        let until = probe.mark();
        let pause = ReplayChange { paused: Some(true), by: "drill".to_owned(), ..ReplayChange::default() };
        replayer.change_replay(&pause).expect("the replayer takes the change");
        std::thread::sleep(LIVE_P99);
        let seen = probe.between(mark, until);
        let left = spilled(&fleet, "relay-1").expect("books");
        say(&format!(
            "ceiling {ceiling} (adaptive {adaptive}): in effect after {took:?}, {rate:.0} points/s, {left} left, \
             live {seen:?}"
        ));
        assert!(took <= EFFECTIVE_WITHIN, "the ceiling was in effect after {took:?}");
        assert!(rate <= ceiling as f64 * 1.1 + 2_000.0, "{rate:.0} points/s under a ceiling of {ceiling}");
        assert!(seen.count > 0, "no live point was seen in this step");
        assert!(seen.p99 < LIVE_P99, "live points wait for replay: {seen:?}");
        assert!(left > 0, "the backlog is gone: the step shows nothing");
    }
    set_ceiling(&replayer, UNLIMITED, true);
    probe.rest();
    let live = live.finish();
    eventually(Duration::from_secs(form(120, 300)), "the backlog to be replayed", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == 0, pending)
    });
    fleet.settled(CATCH_UP);
    let oracle = Oracle::new(expected()).with(old.points()).with(live.points());
    eventually(CATCH_UP, "the store to hold what the oracle computes", || sink.look(|seen| oracle.agrees(seen)));
    assert_eq!(counted(&sink), old.lines + live.lines);
    no_worker_failed(&fleet);
    fleet.end();
}
