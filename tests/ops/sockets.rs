//! Socket activation: the service manager holds the Graphite port, and a relay that is replaced refuses nobody. The test plays
//! systemd where the socket has to outlive the process; `systemd-socket-activate` does for the first start.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Cluster, Keep, Layer, Process, Sink, TempDir, eventually};

use crate::support;

const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    dir: TempDir,
    store: Sink,
    cluster: Cluster,
}

impl World {
    fn new(name: &str) -> World {
        let (dir, store) = (TempDir::new(name), Sink::start(Keep::Points));
        let cluster = Cluster::new(1, 1, 1).store("carbon", &[store.address()]).route_all(&["carbon"]);
        dir.write("cluster.toml", &cluster.toml());
        World { dir, store, cluster }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(support::program(Layer::Relay));
        let file = self.dir.path().join("cluster.toml");
        command.arg("--config").arg(file).args(["--node", "relay-1"]).current_dir(self.dir.path());
        command
    }

    fn start(&self, listener: &TcpListener) -> Process {
        let mut relay = Process::start_listening("relay-1", &self.command(), &self.dir.path().join("log"), listener);
        let api = self.cluster.first(Layer::Relay).api();
        eventually(PATIENCE, "the relay to be ready", || match relay.ended() {
            Some(status) => panic!("it ended with {status}: {}", relay.log_text()),
            None => api.health().map(drop),
        });
        relay
    }

    fn has(&self, name: &str) {
        eventually(PATIENCE, &format!("{name} in the store"), || {
            let names = self.store.look(|seen| seen.names());
            if names.iter().any(|seen| seen == name) { Ok(()) } else { Err(format!("{names:?}")) }
        });
    }
}

fn say(to: SocketAddr, line: &str) {
    let mut client = TcpStream::connect(to).unwrap_or_else(|error| panic!("connect for {line}: {error}"));
    client.write_all(line.as_bytes()).expect("the line is written");
}

#[test]
fn who_connects_while_a_relay_is_replaced_waits_and_is_heard() {
    let world = World::new("sockets");
    let graphite = world.cluster.graphite();
    let manager = TcpListener::bind(graphite).unwrap();
    let mut relay = world.start(&manager);
    say(graphite, "before 1 1700000000\n");
    world.has("before");
    relay.signal(Signal::TERM);
    assert!(relay.wait_end(PATIENCE).success());
    // Nobody runs, and nobody is refused.
    let mut patient = TcpStream::connect(graphite).unwrap();
    patient.write_all(b"first.half 1 17000").unwrap();
    say(graphite, "between 1 1700000000\n");
    let mut relay = world.start(&manager);
    world.has("between");
    patient.write_all(b"00000\n").unwrap();
    world.has("first.half");
    relay.signal(Signal::TERM);
    assert!(relay.wait_end(PATIENCE).success());
}

#[test]
fn no_connection_is_refused_over_five_restarts_one_of_them_by_force() {
    let world = World::new("sockets-restarts");
    let graphite = world.cluster.graphite();
    let manager = TcpListener::bind(graphite).unwrap();
    let over = AtomicBool::new(false);
    let tried = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut tried = 0;
            while !over.load(Ordering::Relaxed) {
                TcpStream::connect(graphite).unwrap_or_else(|error| panic!("connection {tried}: {error}"));
                tried += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            tried
        });
        for signal in [Signal::TERM, Signal::TERM, Signal::KILL, Signal::TERM, Signal::TERM] {
            let mut relay = world.start(&manager);
            relay.signal(signal);
            relay.wait_end(PATIENCE);
        }
        over.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert!(tried > 50, "only {tried} connections");
}

#[test]
fn a_socket_that_no_listener_of_the_node_is_for_is_a_wrong_unit() {
    let world = World::new("sockets-wrong");
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = world.dir.path().join("log");
    let mut relay = Process::start_listening("relay-1", &world.command(), &log, &elsewhere);
    let status = relay.wait_end(PATIENCE);
    assert_eq!(status.code(), Some(i32::from(cli::Exit::Usage.code())), "{}", relay.log_text());
    let address = elsewhere.local_addr().unwrap().to_string();
    assert!(relay.log_text().contains(&format!("a listener on {address}")), "{}", relay.log_text());
}

#[test]
fn a_connection_to_systemds_own_socket_starts_the_relay_and_is_its_first_client() {
    let world = World::new("sockets-systemd");
    let graphite = world.cluster.graphite();
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(graphite.to_string());
    let relay = world.command();
    command.arg(relay.get_program()).args(relay.get_args()).current_dir(world.dir.path());
    let mut relay = Process::start("systemd-socket-activate", command, &world.dir.path().join("log"));
    let mut first = eventually(PATIENCE, "the socket to be there", || match relay.ended() {
        Some(status) => panic!("it ended with {status}: {}", relay.log_text()),
        None => TcpStream::connect(graphite).map_err(|error| error.to_string()),
    });
    first.write_all(b"first 1 1700000000\n").unwrap();
    world.has("first");
    relay.signal(Signal::TERM);
    assert!(relay.wait_end(PATIENCE).success());
}
