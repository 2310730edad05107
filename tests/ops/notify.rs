//! The service manager is told what is true: ready once clients and operators are served, alive while it runs, stopping
//! when it was asked to.

use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Cluster, Keep, Layer, Process, Sink, TempDir};

use crate::support;

const PATIENCE: Duration = Duration::from_secs(30);

fn next(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let n = manager.recv(&mut bytes).unwrap_or_else(|error| panic!("the manager was told nothing: {error}"));
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

/// What comes until `wanted` does; it must come.
fn until(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut said = Vec::new();
    while !said.last().is_some_and(|last: &String| last.lines().any(|line| line == wanted)) {
        assert!(said.len() < 1_000, "no {wanted} among {said:?}");
        said.push(next(manager));
    }
    said
}

fn cluster(dir: &TempDir, store: &Sink) -> (Cluster, Command) {
    let cluster = Cluster::new(1, 1, 1).store("carbon", &[store.address()]).route_all(&["aggregate", "carbon"]);
    let file = dir.write("cluster.toml", &cluster.toml());
    let mut command = Command::new(support::program(Layer::Relay));
    command.arg("--config").arg(file).args(["--node", "relay-1"]).current_dir(dir.path());
    (cluster, command)
}

#[test]
fn ready_means_served_and_pings_go_on_until_a_stop_is_announced() {
    let (dir, store) = (TempDir::new("notify"), Sink::start(Keep::Count));
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let (cluster, mut command) = cluster(&dir, &store);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut relay = Process::start("relay-1", command, &dir.path().join("log"));

    assert_eq!(until(&manager, "READY=1"), ["STATUS=starting relay-1", "READY=1\nSTATUS=serving as relay-1"]);
    // At once, without another try: that is what "ready" promises.
    TcpStream::connect(cluster.graphite()).unwrap();
    let (health, is_well) = cluster.first(Layer::Relay).api().health().unwrap();
    assert!(is_well, "{health:?}");

    for _ in 0..10 {
        assert_eq!(next(&manager), "WATCHDOG=1");
    }
    relay.signal(Signal::TERM);
    let said = until(&manager, "STOPPING=1");
    assert!(said.iter().rev().skip(1).all(|word| word == "WATCHDOG=1"), "{said:?}");
    assert!(relay.wait_end(PATIENCE).success());
}

#[test]
fn an_abstract_socket_is_told_and_a_watchdog_of_another_process_is_not() {
    let (dir, store) = (TempDir::new("notify-abstract"), Sink::start(Keep::Count));
    let name = format!("spillway-ops-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_cluster, mut command) = cluster(&dir, &store);
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "40000").env("WATCHDOG_PID", "1");
    let mut relay = Process::start("relay-1", command, &dir.path().join("log"));

    until(&manager, "READY=1");
    // Longer than many pings would take; the next word is the stop's, so none came.
    std::thread::sleep(Duration::from_millis(400));
    relay.signal(Signal::TERM);
    assert!(next(&manager).starts_with("STOPPING=1\n"));
    assert!(relay.wait_end(PATIENCE).success());
}

/// A process that stands still says nothing: after `WatchdogSec` the manager starts it anew.
#[test]
fn a_process_that_stands_still_does_not_ping() {
    let (dir, store) = (TempDir::new("notify-still"), Sink::start(Keep::Count));
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_cluster, mut command) = cluster(&dir, &store);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let relay = Process::start("relay-1", command, &dir.path().join("log"));
    until(&manager, "WATCHDOG=1");
    relay.signal(Signal::STOP);
    manager.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
    let mut bytes = [0; 64];
    // What was on its way when it stopped.
    let later = std::iter::from_fn(|| manager.recv(&mut bytes).ok()).take(20).count();
    assert!(later < 20, "it goes on pinging");
    relay.signal(Signal::CONT);
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(next(&manager), "WATCHDOG=1", "and it comes back by itself");
}

/// In a container a node listens on its own address, and others dial the one in the file.
#[test]
fn bind_replaces_the_addresses_that_a_node_listens_on() {
    let (dir, store) = (TempDir::new("bind"), Sink::start(Keep::Count));
    let cluster = Cluster::new(1, 1, 1).store("carbon", &[store.address()]).route_all(&["aggregate", "carbon"]);
    // The addresses in the file are not on loopback, whatever it then listens on.
    let mut cluster = cluster.with("[auth]\nopen = true\n");
    let graphite = cluster.graphite();
    let admin = cluster.first(Layer::Relay).api();
    for node in cluster.nodes.iter_mut().filter(|node| node.name == "relay-1") {
        // TEST-NET-1: no machine has it, so nobody can listen there.
        let elsewhere = std::net::IpAddr::from([192, 0, 2, 1]);
        [node.graphite.as_mut(), node.link.as_mut(), Some(&mut node.admin)]
            .into_iter()
            .flatten()
            .for_each(|address| address.set_ip(elsewhere));
    }
    let file = dir.write("cluster.toml", &cluster.toml());
    let mut command = Command::new(support::program(Layer::Relay));
    command.arg("--config").arg(file).args(["--node", "relay-1", "--bind", "127.0.0.1"]).current_dir(dir.path());
    let mut relay = Process::start("relay-1", command, &dir.path().join("log"));
    testkit::eventually(PATIENCE, "the relay to answer where it was told to listen", || match relay.ended() {
        Some(status) => panic!("it ended with {status}"),
        None => admin.health().map(drop),
    });
    TcpStream::connect(graphite).unwrap();
}
