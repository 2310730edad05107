//! Every worker may panic or hang at any time (INV-7): it is restarted alone and soon, the service stays up, and no point
//! that was accepted is lost or counted twice.
//!
//! The binary is one of its own, built here with `--cfg failpoints` into `target/failpoints`: what ships has no
//! failpoints in it.

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use testkit::{
    Admin, Cluster, Keep, Layer, Load, LoadReport, Node, Process, Sink, TempDir, eventually, unix_now, within,
};

/// A panic is seen at once; what takes time is the restart.
const BACK_AFTER_PANIC: Duration = Duration::from_secs(2);
/// The watchdog's limit (`supervise.watchdog`), then a restart.
const BACK_AFTER_HANG: Duration = Duration::from_secs(4);
const SETTLE: Duration = Duration::from_secs(60);
/// More than the test sends; the sink has a byte for each.
const NUMBERS: u64 = 20_000_000;
const RATE: u64 = 5_000;

const RULE: &str = "[[rule]]\nname = \"all\"\nglob = \"load.*\"\noutput = \"all.{function}\"\ninterval = \"10s\"\n\
                    grace = \"1s\"\nfunctions = [\"sum\", \"count\"]\nto = [\"carbon\"]\n";

/// Injects `action` and tells what did not go as promised.
fn injure(node: &Node, worker: &str, action: &str, limit: Duration) -> Result<Duration, String> {
    let api = node.api();
    let before = restarts(&api, worker)?.0;
    api.fail(worker, action, 1)?;
    let what = format!("{}/{worker} to be back after a {action}", node.name);
    let ((), took) = within(limit, &what, || {
        let (restarts, state) = restarts(&api, worker)?;
        if restarts > before && state == "running" { Ok(()) } else { Err(format!("{state}, {restarts} restarts")) }
    })?;
    Ok(took)
}

fn restarts(api: &Admin, worker: &str) -> Result<(u64, String), String> {
    let workers = api.workers()?;
    let found = workers.into_iter().find(|status| status.name == worker);
    found.map(|status| (status.restarts, status.state)).ok_or_else(|| format!("{worker} is not listed any more"))
}

/// The relay takes lines: the count goes up.
fn takes_lines(relay: &Admin) -> Result<(), String> {
    let before = relay.ledger()?.received;
    within(Duration::from_secs(2), "the relay to take lines", || {
        let now = relay.ledger()?.received;
        if now > before { Ok(()) } else { Err(format!("{now} received, as before")) }
    })
    .map(|_| ())
}

#[test]
fn each_worker_heals_from_a_panic_and_from_a_hang_under_load() {
    let binary = support::spillway_with_failpoints();
    let dir = TempDir::new("faults");
    let sink = Sink::start(Keep::Numbers { prefix: "load.".to_owned(), limit: NUMBERS });
    let cluster =
        Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate", "carbon"]).with(RULE);
    let mut spillway = Process::up(&binary, &cluster, dir.path());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
    let first_timestamp = unix_now() as u64;
    let load = Load {
        rate: Some(RATE),
        first_timestamp,
        lines_per_timestamp: RATE,
        ..Load::new(cluster.graphite(), 8, NUMBERS)
    };
    let load = load.start();
    let relay = cluster.first(Layer::Relay).api();
    eventually(SETTLE, "the load to arrive", || if sink.lines() > 0 { Ok(()) } else { Err("no line") });

    let mut broken = Vec::new();
    let mut injured = 0;
    for node in &cluster.nodes {
        let workers = node.api().workers().expect("the list of workers");
        assert!(!workers.is_empty(), "{} has no workers", node.name);
        for worker in workers {
            for (action, limit) in [("panic", BACK_AFTER_PANIC), ("hang", BACK_AFTER_HANG)] {
                injured += 1;
                broken.extend(injure(node, &worker.name, action, limit).err());
                broken.extend(
                    takes_lines(&relay)
                        .err()
                        .map(|error| format!("after {action} of {}/{}: {error}", node.name, worker.name)),
                );
                assert_eq!(spillway.ended(), None, "ended after {action} of {}; {}", worker.name, spillway.log_text());
            }
        }
    }
    assert!(broken.is_empty(), "{} of {injured} injections:\n{}", broken.len(), broken.join("\n"));

    let report = load.stop();
    check_books(&cluster, &sink, &report);
    spillway.stop(&[""]); // what a fault test's log says is announced: all of it
}

#[track_caller]
fn check_books(cluster: &Cluster, sink: &Sink, report: &LoadReport) {
    // What a client's kernel had taken may still be in the relay's: on a busy machine it is read a moment later.
    let relay = cluster.first(Layer::Relay).api();
    eventually(SETTLE, "everything that was taken to be read", || {
        let received = relay.ledger()?.received;
        let least = report.taken.saturating_sub(report.doubtful);
        if received >= least { Ok(()) } else { Err(format!("{report:?} but {received} received")) }
    });
    let books = cluster.settled(SETTLE);
    let relay = books.iter().find(|ledger| ledger.layer == "relay").expect("a relay's books");
    // A client whose connection is cut cannot know what was read; that is the one loss there may be (README, limits).
    let least = report.taken.saturating_sub(report.doubtful);
    assert!((least..=report.taken).contains(&relay.received), "{report:?} but {} received", relay.received);

    eventually(SETTLE, "every accepted line in the sink", || {
        let distinct = sink.look(testkit::Seen::distinct);
        if distinct == relay.accepted { Ok(()) } else { Err(format!("{distinct} of {}", relay.accepted)) }
    });
    // Re-sending to a store that gave no receipt may repeat raw lines there (same series, second and value: harmless to
    // a store). The aggregates must not notice.
    let count = || sink.look(|seen| seen.series("all.count").values().sum::<f64>());
    eventually(SETTLE, "every accepted line once in the aggregates", || {
        if count() == relay.accepted as f64 { Ok(()) } else { Err(format!("{} of {}", count(), relay.accepted)) }
    });
    sink.look(|seen| assert!(seen.strange.is_empty(), "torn lines: {:?}", seen.strange));
}

/// One failure is mended; a worker that cannot be mended must not be restarted for ever (INV-7's other half).
#[test]
fn a_worker_that_fails_too_often_ends_the_process_with_70() {
    let binary = support::spillway_with_failpoints();
    let dir = TempDir::new("escalation");
    let sink = Sink::start(Keep::Count);
    let cluster =
        Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate", "carbon"]).with(RULE);
    let mut spillway = Process::up(&binary, &cluster, dir.path());
    cluster.first(Layer::Relay).api().fail("relay.keeper", "panic", 100).expect("the failpoint is armed");
    let status = spillway.wait_end(SETTLE);
    assert_eq!(status.code(), Some(70), "{status}; {}", spillway.log_text());
    assert!(spillway.log_text().contains("relay.keeper"), "the log names the worker: {}", spillway.log_text());
}
