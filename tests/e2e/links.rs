//! Links between processes: a peer that stops answering is noticed in five seconds, one that is gone for ever loses
//! nothing, one that comes back as a ghost counts nothing twice, and bytes that are no frame end their link only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use testkit::{
    Cluster, Keep, Layer, Load, Process, Running, Sink, TempDir, eventually, one_at_a_time, unix_now, within,
};

use rustix::process::Signal;

use crate::million::RULE;
use crate::{SOON, small_cluster, support, when};

/// The promise: a peer that does not answer is noticed in so long.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// For catching up afterwards: unacknowledged batches go again after 3 s, windows are corrected every 5 s.
const LONG: Duration = Duration::from_secs(60);
const RATE: u64 = 20_000;
const NUMBERS: u64 = 5_000_000;

/// A relay, two partial nodes and a final node, each in a process of its own, under load.
struct Fleet {
    sink: Sink,
    cluster: Cluster,
    processes: Vec<(String, Process)>,
    load: Running,
    _dir: TempDir,
}

impl Fleet {
    #[track_caller]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
    fn start(name: &str) -> Fleet {
        let dir = TempDir::new(name);
        let sink = Sink::start(Keep::Points);
        let cluster = Cluster::new(1, 2, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]).with(RULE);
        let config = dir.write("cluster.toml", &cluster.toml());
        let mut processes = Vec::new();
        for node in &cluster.nodes {
            let mut command = Command::new(support::spillway());
            command.args(["up", "--node", &node.name, "--config"]).arg(&config).current_dir(dir.path());
            let log = dir.path().join(format!("{}.log", node.name));
            processes.push((node.name.clone(), Process::start(&node.name, command, &log)));
        }
        for node in &cluster.nodes {
            eventually(SOON, &node.name, || node.api().health().map(|_| ()));
        }
        let relay = cluster.first(Layer::Relay).api();
        eventually(SOON, "both links", || {
            let status = relay.status()?;
            when(status.peers.iter().filter(|peer| peer.state == "up").count() >= 2, status.peers)
        });
        let first_timestamp = unix_now() as u64;
        let load = Load {
            rate: Some(RATE),
            first_timestamp,
            lines_per_timestamp: RATE,
            ..Load::new(cluster.graphite(), 4, NUMBERS)
        };
        Fleet { sink, cluster, processes, load: load.start(), _dir: dir }
    }

    fn process(&self, name: &str) -> &Process {
        &self.processes.iter().find(|(node, _)| node == name).expect("a node of the fleet").1
    }

    /// How long until the relay shows `peer` as down.
    #[track_caller]
    fn noticed(&self, peer: &str) -> Duration {
        let relay = self.cluster.first(Layer::Relay).api();
        let seen = within(SOON, "the relay to notice", || {
            let status = relay.status()?;
            let state = status.peers.iter().find(|each| each.peer == peer).map(|each| each.state.clone());
            when(state.as_deref() == Some("down"), state)
        });
        match seen {
            Ok(((), took)) => took,
            Err(error) => panic!("{error}"),
        }
    }

    /// Ends the load and checks that the aggregates count every accepted point, exactly once.
    #[track_caller]
    fn every_point_counts_once(self, announced: &[&str]) {
        let report = self.load.stop();
        assert_eq!(report.doubtful, 0, "no client was cut: {report:?}");
        let relay = self.cluster.first(Layer::Relay).api();
        let accepted = eventually(LONG, "the relay to be rid of everything", || {
            let ledger = relay.ledger()?;
            let open: u64 = ledger.destinations.iter().map(|to| to.in_flight).sum();
            when(ledger.balanced && open == 0 && ledger.received == report.taken, &ledger)?;
            Ok::<u64, String>(ledger.accepted)
        });
        let total = |name: &str| self.sink.look(|seen| seen.series(name).values().sum::<f64>());
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        let expected = accepted as f64;
        eventually(LONG, "the counts of all windows", || {
            when(total("all.count") == expected, (total("all.count"), accepted))
        });
        for (name, process) in self.processes {
            if name != "partial-1" {
                process.stop(announced);
            }
        }
    }
}

#[test]
fn a_peer_that_stops_answering_is_noticed_in_five_seconds_and_its_ghost_counts_nothing_twice() {
    let _turn = one_at_a_time();
    let fleet = Fleet::start("stopped-peer");
    eventually(SOON, "aggregates", || when(fleet.sink.lines() > 0, ()));
    // A stopped process keeps its sockets: no reset, no keepalive failure, only silence.
    fleet.process("partial-1").signal(Signal::STOP);
    let took = fleet.noticed("partial-1");
    assert!(took <= NOTICED_WITHIN, "noticed after {took:?}");
    // The ghost wakes up with batches that the other partial node has got meanwhile.
    fleet.process("partial-1").signal(Signal::CONT);
    fleet.every_point_counts_once(&[]);
}

#[test]
fn a_peer_that_is_killed_for_ever_loses_nothing() {
    let _turn = one_at_a_time();
    let fleet = Fleet::start("killed-peer");
    eventually(SOON, "aggregates", || when(fleet.sink.lines() > 0, ()));
    fleet.process("partial-1").signal(Signal::KILL);
    fleet.noticed("partial-1");
    fleet.every_point_counts_once(&[]);
}

#[test]
fn bytes_that_are_no_frame_end_their_link_only_and_are_counted() {
    let _turn = one_at_a_time();
    let dir = TempDir::new("no-frame");
    let sink = Sink::start(Keep::Points);
    let cluster = small_cluster(&sink);
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    for layer in [Layer::Partial, Layer::Final] {
        let node = cluster.first(layer);
        let mut stranger = TcpStream::connect(node.link.expect("it takes links")).expect("it listens");
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
        let mut answer = Vec::new();
        // Closed with our bytes unread, it may be a reset.
        let _ended = stranger.read_to_end(&mut answer).is_ok();
        assert!(answer.is_empty(), "{answer:?}");
        eventually(SOON, "the reason", || {
            let closed = node.api().metric("spillway_links_closed_total", "reason=\"frame_too_long\"")?;
            when(closed >= 1.0, closed)
        });
        let workers = node.api().workers().expect("workers");
        assert!(workers.iter().all(|worker| worker.restarts == 0), "{workers:?}");
    }
    let relay = cluster.first(Layer::Relay).api().status().expect("status");
    assert!(relay.peers.iter().all(|peer| peer.state != "down"), "{:?}", relay.peers);
    spillway.stop(&["link closed"]);
}
