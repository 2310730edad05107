//! The final layer's disk and its stores: a final node that is killed outright under load, again and again, loses no window
//! and counts nothing twice; a store that was away gets what it missed, newest first, at the replay rate, also when the node
//! was restarted meanwhile.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Cluster, Keep, Layer, Load, Process, Sink, TempDir, eventually, one_at_a_time, unix_now};

use crate::million::RULE;
use crate::{SOON, support, when};

/// For catching up afterwards: unacknowledged batches go again after 3 s, windows are corrected every 5 s.
const LONG: Duration = Duration::from_secs(90);
const RATE: u64 = 20_000;
const NUMBERS: u64 = 5_000_000;
const KILLS: usize = 3;

fn start(name: &str, config: &Path, dir: &Path) -> Process {
    let mut command = Command::new(support::spillway());
    command.args(["up", "--node", name, "--config"]).arg(config).current_dir(dir);
    Process::start(name, command, &log_of(dir, name))
}

fn log_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
fn a_final_node_killed_under_load_loses_no_window_and_counts_nothing_twice() {
    let _turn = one_at_a_time();
    let dir = TempDir::new("final-killed");
    let sink = Sink::start(Keep::Points);
    let cluster = Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]).with(RULE);
    let config = dir.write("cluster.toml", &cluster.toml());
    let mut processes: Vec<(String, Process)> =
        cluster.nodes.iter().map(|node| (node.name.clone(), start(&node.name, &config, dir.path()))).collect();
    for node in &cluster.nodes {
        eventually(SOON, &node.name, || node.api().health().map(|_| ()));
    }
    let last = cluster.first(Layer::Final);
    let load = Load {
        rate: Some(RATE),
        first_timestamp: unix_now() as u64,
        lines_per_timestamp: RATE,
        ..Load::new(cluster.graphite(), 4, NUMBERS)
    };
    let load = load.start();
    for kill in 0..KILLS {
        // It must have taken up some of this life's points, so that there is something to lose.
        let before = last.api().ledger().map_or(0, |ledger| ledger.received);
        eventually(LONG, "points at the final node", || {
            let received = last.api().ledger()?.received;
            when(received > before + RATE, received)
        });
        let (_, process) = processes.iter_mut().find(|(name, _)| *name == last.name).expect("the final node");
        process.signal(Signal::KILL);
        process.wait_end(SOON);
        *process = start(&last.name, &config, dir.path());
        eventually(LONG, &format!("the final node after kill {kill}"), || last.api().health().map(|_| ()));
    }
    let report = load.stop();
    assert_eq!(report.doubtful, 0, "no client was cut: {report:?}");
    let relay = cluster.first(Layer::Relay).api();
    let accepted = eventually(LONG, "the relay to be rid of everything", || {
        let ledger = relay.ledger()?;
        let open: u64 = ledger.destinations.iter().map(|to| to.in_flight + to.spill_pending).sum();
        let dropped: u64 = ledger.destinations.iter().flat_map(|to| to.dropped.values()).sum();
        when(ledger.balanced && open == 0 && dropped == 0 && ledger.received == report.taken, &ledger)?;
        Ok::<u64, String>(ledger.accepted)
    });
    let books = eventually(LONG, "the final node's books", || {
        let ledger = last.api().ledger()?;
        when(ledger.balanced && ledger.received == accepted && ledger.dropped.is_empty(), &ledger)?;
        Ok::<_, String>(ledger)
    });
    assert_eq!(books.routed, accepted, "its books survived all its lives");
    let total = |name: &str| sink.look(|seen| seen.series(name).values().sum::<f64>());
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let expected = accepted as f64;
    eventually(LONG, "the counts of all windows", || {
        when(total("all.count") == expected, (total("all.count"), accepted))
    });
    for (_, process) in processes {
        process.stop(&[]);
    }
}

#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
fn a_store_that_was_away_gets_what_it_missed_newest_first_at_the_replay_rate() {
    const WINDOWS: u64 = 6;
    let _turn = one_at_a_time();
    let dir = TempDir::new("store-away");
    // Nobody listens there until later.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    // Three lines a window: the six take some nine seconds.
    let cluster = Cluster::new(1, 1, 1)
        .store("carbon", &[free])
        .route_all(&["aggregate"])
        .with(RULE)
        .with("[replay]\nrate = \"2/s\"\nfloor = \"1/s\"\n");
    let mut spillway = Process::up(&support::spillway(), &cluster, dir.path());
    let last = unix_now() as u64 / 10 * 10 - 20;
    let windows: Vec<u64> = (0..WINDOWS).map(|n| last - n * 10).collect();
    let mut stream = std::net::TcpStream::connect(cluster.graphite()).expect("the relay listens");
    for window in &windows {
        stream.write_all(format!("load.a 1 {window}\n").as_bytes()).expect("the relay reads");
    }
    drop(stream);
    let node = cluster.first(Layer::Final);
    let waiting = || node.api().status().map(|status| status.figures.get("windows_waiting").copied().unwrap_or(0));
    eventually(SOON, "points at the final node", || {
        let routed = node.api().ledger()?.routed;
        when(routed == WINDOWS, routed)
    });
    spillway.signal(Signal::KILL);
    spillway.wait_end(SOON);
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    eventually(SOON, "all windows to wait", || waiting().and_then(|n| when(n == WINDOWS, n)));

    let sink = Sink::start_on(free, Keep::Points);
    let has = |window: &u64| sink.look(|seen| seen.series("all.count").get(window) == Some(&1.0));
    eventually(SOON, "the newest window", || when(has(&windows[0]), ()));
    assert!(!has(&windows[windows.len() - 1]), "the oldest waits for its turn at two lines a second");
    eventually(LONG, "all windows", || when(windows.iter().all(has), waiting()));
    eventually(SOON, "nothing to wait", || waiting().and_then(|n| when(n == 0, n)));
    spillway.stop(&[]);
}
