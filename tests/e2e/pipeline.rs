//! A line in by TCP comes out as it is and as part of its aggregates, and the books say so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use testkit::{Cluster, Keep, Layer, Load, Node, Process, Sink, TempDir, eventually, one_at_a_time, unix_now};

use crate::{SOON, small_cluster, support, when};

/// Sends `text`, half-closes and waits for the relay to close: then all of it was read.
#[track_caller]
fn send(to: SocketAddr, text: &str) {
    let mut stream = TcpStream::connect(to).expect("the relay listens");
    stream.write_all(text.as_bytes()).expect("the relay reads");
    stream.shutdown(Shutdown::Write).expect("half-close");
    assert_eq!(stream.read(&mut [0; 1]).expect("the relay closes in order"), 0, "a relay says nothing");
}

fn now() -> u64 {
    unix_now().to_string().split('.').next().and_then(|text| text.parse().ok()).expect("a clock after 1970")
}

/// The nodes of the example file, which has fixed addresses.
fn example_nodes() -> Vec<Node> {
    let node = |name: &str, layer, admin: &str| Node {
        name: name.to_owned(),
        layer,
        graphite: (layer == Layer::Relay).then(|| "127.0.0.1:2003".parse().expect("an address")),
        link: None,
        admin: admin.parse().expect("an address"),
    };
    vec![
        node("relay-1", Layer::Relay, "127.0.0.1:8641"),
        node("partial-1", Layer::Partial, "127.0.0.1:8642"),
        node("final-1", Layer::Final, "127.0.0.1:8643"),
        node("replayer-1", Layer::Replayer, "127.0.0.1:8644"),
    ]
}

#[test]
fn the_example_file_works_as_it_stands() {
    let _turn = one_at_a_time();
    let dir = TempDir::new("example");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/example.toml");
    let cluster = Cluster { nodes: example_nodes(), stores: Vec::new(), rest: String::new() };
    // Its ports are fixed: `ops/down` first if `ops/up` runs.
    let sink = Sink::start_on("127.0.0.1:2103".parse().expect("an address"), Keep::Points);
    let mut spillway = Process::up_with_file(&support::spillway(), &file, dir.path(), None);
    spillway.wait_ready(&cluster);

    let at = now();
    send(cluster.graphite(), &format!("web.a.requests 3 {at}\nsecret.token 1 {at}\n"));
    let window = at - at % 10;
    eventually(SOON, "web.all.requests.sum = 3", || {
        sink.look(|seen| when(seen.series("web.all.requests.sum").get(&window) == Some(&3.0), seen.names()))
    });
    sink.look(|seen| {
        assert_eq!(seen.series("web.a.requests").get(&at), Some(&3.0), "the raw point");
        assert!(!seen.names().iter().any(|name| name.starts_with("secret.")), "a dropped series: {:?}", seen.names());
        for (function, value) in [("count", 1.0), ("avg", 3.0), ("min", 3.0), ("max", 3.0)] {
            let series = seen.series(&format!("web.all.requests.{function}"));
            assert_eq!(series.get(&window), Some(&value), "{function}");
        }
    });
    let [relay, ..] = &cluster.settled(SOON)[..] else { panic!("a relay's books") };
    assert_eq!((relay.received, relay.accepted, relay.routed), (2, 2, 1));

    let ledger = Command::new(support::spillway())
        .args(["ledger", "--json", "--config"])
        .arg(&file)
        .output()
        .expect("spillway ledger runs");
    let said = String::from_utf8_lossy(&ledger.stdout);
    assert!(ledger.status.success(), "spillway ledger: {}: {said}", ledger.status);
    assert!(said.contains("\"balanced\":true") || said.contains("\"balanced\": true"), "{said}");
    spillway.stop(&[]);
}

#[test]
fn aggregates_are_those_of_the_points_sent() {
    let _turn = one_at_a_time();
    let dir = TempDir::new("pipeline");
    let sink = Sink::start(Keep::Points);
    let cluster = small_cluster(&sink).with(
        "[[rule]]\nname = \"cpu\"\nglob = \"servers.<group>.*.cpu\"\noutput = \"groups.{group}.cpu.{function}\"\n\
         interval = \"10s\"\ngrace = \"1s\"\nfunctions = [\"sum\", \"count\", \"avg\", \"min\", \"max\"]\nto = [\"carbon\"]\n",
    );
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    let window = now() / 10 * 10 - 20;
    let mut text = String::new();
    for (group, host, value, at) in [
        ("a", "x", "1", window),
        ("a", "y", "2.5", window + 9),
        ("a", "x", "-4", window + 3),
        ("a", "x", "7", window + 10),
        ("b", "z", "0.1", window),
    ] {
        text.push_str(&format!("servers.{group}.{host}.cpu {value} {at}\n"));
    }
    send(cluster.graphite(), &text);
    let expected = [
        ("groups.a.cpu.sum", window, -0.5),
        ("groups.a.cpu.count", window, 3.0),
        ("groups.a.cpu.avg", window, -0.5 / 3.0),
        ("groups.a.cpu.min", window, -4.0),
        ("groups.a.cpu.max", window, 2.5),
        ("groups.a.cpu.sum", window + 10, 7.0),
        ("groups.b.cpu.avg", window, 0.1),
        ("servers.a.y.cpu", window + 9, 2.5),
    ];
    for (name, at, value) in expected {
        eventually(SOON, name, || {
            sink.look(|seen| when(seen.series(name).get(&at) == Some(&value), (at, value, seen.series(name))))
        });
    }

    // A late point corrects a window that was emitted.
    send(cluster.graphite(), &format!("servers.b.late.cpu 0.2 {window}\n"));
    eventually(SOON, "the correction", || {
        sink.look(|seen| {
            let count = seen.series("groups.b.cpu.count").get(&window).copied();
            when(count == Some(2.0), count)
        })
    });
    cluster.settled(SOON);
    spillway.stop(&[]);
}

#[test]
fn what_was_read_before_sigterm_is_delivered() {
    const LINES: u64 = 50_000;
    let _turn = one_at_a_time();
    let dir = TempDir::new("drain");
    let sink = Sink::start(Keep::Numbers { prefix: "load.".to_owned(), limit: LINES });
    let cluster = small_cluster(&sink);
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    let report = Load::new(cluster.graphite(), 4, LINES).start().finish();
    assert_eq!((report.taken, report.cut), (LINES, 0));
    spillway.stop(&[]);
    sink.look(|seen| assert_eq!((seen.lost(LINES), seen.duplicated()), (0, 0)));
}

#[test]
fn every_nodes_own_metrics_arrive_as_graphite_lines() {
    let _turn = one_at_a_time();
    let dir = TempDir::new("own-metrics");
    let sink = Sink::start(Keep::Points);
    let cluster =
        small_cluster(&sink).with("[telemetry]\ngraphite = \"route\"\ninterval = \"1s\"\nprefix = \"dc1.\"\n");
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    send(cluster.graphite(), "some.series 1 1700000000\n");
    for name in ["dc1.carbon.relays.relay-1.metricsReceived", "dc1.carbon.relays.relay-1.destinations.carbon.sent"] {
        eventually(SOON, name, || {
            sink.look(|seen| when(seen.series(name).values().any(|value| *value >= 1.0), seen.names()))
        });
    }
    for node in ["partial-1", "final-1"] {
        eventually(SOON, node, || {
            sink.look(|seen| when(seen.names().iter().any(|name| name.contains(&format!(".{node}."))), seen.names()))
        });
    }
    spillway.stop(&[]);
}
