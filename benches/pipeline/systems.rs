//! The systems that are compared, and how each is started for each shape.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Authority, Cluster, Layer, Process, eventually, reserve};

use crate::children::{SinkChild, child};

/// What stands between load and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Lines go to the stores as they are.
    Stores,
    /// Lines go over acknowledged links to so many partial nodes.
    Links { partials: usize },
    /// Lines are aggregated, 8 inputs an output, 10 s windows, 5 functions; none goes to the store as it is.
    Aggregate,
    /// No aggregator runs: every line goes to the spill.
    Spill,
    /// As `Spill`; then the aggregators and a replayer without a ceiling start, and the clock with them.
    Replay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Forwarder,
    Spillway,
    /// With `send.journal = true`.
    Journal,
    /// With `tls.links = "mutual"`.
    Tls,
    CarbonCRelay,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Forwarder => "plain forwarder",
            System::Spillway => "spillway",
            System::Journal => "spillway, journal",
            System::Tls => "spillway, TLS",
            System::CarbonCRelay => "carbon-c-relay",
        }
    }
}

/// The part of a system that a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Relay,
    Aggregator,
    Replayer,
}

/// A system at work.
pub(crate) struct Running {
    system: System,
    shape: Shape,
    address: SocketAddr,
    processes: Vec<(Role, Process)>,
    cluster: Option<Cluster>,
    /// Of the nodes that are not started yet.
    waiting: Vec<(Role, Command, PathBuf)>,
}

impl Running {
    pub(crate) fn start(system: System, shape: Shape, sinks: &[SocketAddr], dir: &Path) -> Result<Running, String> {
        match system {
            System::Forwarder => Ok(forwarder(shape, sinks, dir)),
            System::Spillway | System::Journal | System::Tls => spillway(system, shape, sinks, dir),
            System::CarbonCRelay => Ok(carbon_c_relay(shape, sinks, dir)),
        }
    }

    /// Where it takes Graphite lines.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts what the shape starts later.
    pub(crate) fn start_the_rest(&mut self) {
        for (role, command, log) in self.waiting.drain(..) {
            self.processes.push((role, Process::start(role_name(role), command, &log)));
        }
    }

    /// Points in the relay's spill.
    pub(crate) fn spilled(&self) -> Result<u64, String> {
        let Some(cluster) = &self.cluster else { return Ok(0) };
        let ledger = cluster.first(Layer::Relay).api().ledger()?;
        Ok(ledger.destinations.iter().map(|destination| destination.spill_pending).sum())
    }

    pub(crate) fn processes(&self) -> &[(Role, Process)] {
        &self.processes
    }

    /// Lines that have arrived, wherever this shape makes them arrive.
    pub(crate) fn count(&self, sink: &SinkChild) -> Result<u64, String> {
        match (&self.cluster, self.shape, self.system) {
            (_, Shape::Stores, _) | (_, _, System::Forwarder) => sink.lines(),
            (Some(_), Shape::Spill, _) => self.spilled(),
            (Some(cluster), Shape::Links { .. } | Shape::Aggregate | Shape::Replay, _) => {
                let ledger = cluster.first(Layer::Relay).api().ledger()?;
                Ok(ledger.destinations.iter().map(|destination| destination.delivered).sum())
            }
            // It has no books: what it read it has aggregated, as far as anybody can know.
            (None, Shape::Links { .. } | Shape::Aggregate | Shape::Spill | Shape::Replay, _) => Ok(u64::MAX),
        }
    }

    /// Whether all of `lines` have arrived.
    pub(crate) fn arrived(&self, sink: &SinkChild, lines: u64) -> Result<(), String> {
        let count = self.count(sink)?;
        if count >= lines { Ok(()) } else { Err(format!("{count} of {lines}")) }
    }
}

fn listening(address: SocketAddr) {
    drop(eventually(Duration::from_secs(10), "a listener", || TcpStream::connect(address)));
}

fn one_port() -> SocketAddr {
    match reserve(1).first() {
        Some(address) => *address,
        None => panic!("BUG: one port was asked for"),
    }
}

fn forwarder(shape: Shape, sinks: &[SocketAddr], dir: &Path) -> Running {
    let address = one_port();
    let target = sinks.first().unwrap_or_else(|| panic!("BUG: a case without a sink"));
    let arguments = ["forward".to_owned(), address.to_string(), target.to_string()];
    let process = Process::start("forwarder", child(&arguments), &dir.join("forwarder.log"));
    listening(address);
    let processes = vec![(Role::Relay, process)];
    Running { system: System::Forwarder, shape, address, processes, cluster: None, waiting: Vec::new() }
}

const RULE: &str = "[[route]]\nglob = \"**\"\nto = [\"aggregate\"]\n\n[[rule]]\nname = \"by-rack\"\n\
    glob = \"servers.*.<dc>.<rack>.<cpu>.time.user\"\noutput = \"racks.{dc}.{rack}.{cpu}.user.{function}\"\ninterval = \"10s\"\ngrace = \"2s\"\n\
    functions = [\"sum\", \"count\", \"avg\", \"min\", \"max\"]\nto = [\"sink\"]\n";

/// Spills and replays as soon and as fast as it can.
const QUICK: &str =
    "[send]\nack_timeout = \"1s\"\n\n[replay]\nrate = \"100000000/s\"\nstart = \"rate\"\nadaptive = false\n";

fn spillway(system: System, shape: Shape, sinks: &[SocketAddr], dir: &Path) -> Result<Running, String> {
    let mut cluster = match shape {
        Shape::Stores => Cluster::new(1, 0, 0).store("sink", sinks).route_all(&["sink"]),
        Shape::Links { partials } => Cluster::new(1, partials, 1).store("sink", sinks).with(RULE),
        Shape::Aggregate => Cluster::new(1, 1, 1).store("sink", sinks).with(RULE),
        Shape::Spill | Shape::Replay => Cluster::new(1, 1, 1).store("sink", sinks).with(RULE).with(QUICK),
    };
    if system == System::Tls {
        cluster = cluster.with(&format!("{}links = \"mutual\"\n", Authority::FILES));
        Authority::new().equip(dir, cluster.nodes.iter().map(|node| node.name.as_str()));
    }
    if system == System::Journal {
        cluster = cluster.with("[send]\njournal = true\n");
    }
    if shape != Shape::Replay {
        cluster.nodes.retain(|node| node.layer != Layer::Replayer);
    }
    let file = dir.join("cluster.toml");
    std::fs::write(&file, cluster.toml()).map_err(|error| format!("write {}: {error}", file.display()))?;
    let (mut processes, mut waiting) = (Vec::new(), Vec::new());
    for node in cluster.nodes.iter().rev() {
        let (role, binary) = match node.layer {
            Layer::Relay => (Role::Relay, binary("spillway-relay")?),
            Layer::Partial | Layer::Final => (Role::Aggregator, binary("spillway-aggregator")?),
            Layer::Replayer => (Role::Replayer, binary("spillway-replayer")?),
        };
        let mut command = Command::new(binary);
        command.arg("--config").arg(&file).args(["--node", &node.name]).current_dir(dir);
        let log = dir.join(format!("{}.log", node.name));
        if role != Role::Relay && matches!(shape, Shape::Spill | Shape::Replay) {
            waiting.push((role, command, log));
            continue;
        }
        processes.push((role, Process::start(&node.name, command, &log)));
    }
    for node in &cluster.nodes {
        if node.layer != Layer::Relay && !waiting.is_empty() {
            continue;
        }
        eventually(Duration::from_secs(30), &node.name, || match node.api().health() {
            Ok((_, true)) => Ok(()),
            Ok((health, false)) => Err(format!("{health:?}")),
            Err(error) => Err(error),
        });
    }
    let address = cluster.graphite();
    Ok(Running { system: System::Spillway, shape, address, processes, cluster: Some(cluster), waiting })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Relay => "relay",
        Role::Aggregator => "aggregator",
        Role::Replayer => "replayer",
    }
}

/// The release binary of that name, which cargo has built for this benchmark.
fn binary(name: &str) -> Result<PathBuf, String> {
    let built = match name {
        "spillway-relay" => option_env!("CARGO_BIN_EXE_spillway-relay"),
        "spillway-aggregator" => option_env!("CARGO_BIN_EXE_spillway-aggregator"),
        "spillway-replayer" => option_env!("CARGO_BIN_EXE_spillway-replayer"),
        _ => None,
    };
    built.map(PathBuf::from).ok_or_else(|| format!("the root package has no [[bin]] {name}"))
}

fn carbon_c_relay(shape: Shape, sinks: &[SocketAddr], dir: &Path) -> Running {
    let address = one_port();
    let members: Vec<String> = sinks.iter().zip('a'..='z').map(|(sink, letter)| format!("{sink}={letter}")).collect();
    let mut conf = format!("cluster sink carbon_ch {};\n", members.join(" "));
    conf.push_str(match shape {
        Shape::Stores | Shape::Links { .. } | Shape::Spill | Shape::Replay => "match * send to sink stop;\n",
        Shape::Aggregate => {
            "aggregate ^servers\\.[^.]+\\.dc([0-9])\\.rack([0-9]+)\\.cpu([0-9])\\. every 10 seconds expire after 12 seconds\n\
             compute sum write to racks.\\1.\\2.\\3.user.sum\ncompute count write to racks.\\1.\\2.\\3.user.count\n\
             compute average write to racks.\\1.\\2.\\3.user.avg\ncompute min write to racks.\\1.\\2.\\3.user.min\n\
             compute max write to racks.\\1.\\2.\\3.user.max\nsend to sink stop;\nmatch * send to blackhole stop;\n"
        }
    });
    let file = dir.join("relay.conf");
    if let Err(error) = std::fs::write(&file, conf) {
        panic!("write {}: {error}", file.display());
    }
    let mut command = Command::new("carbon-c-relay");
    // -q: room for the whole run, so that CPU is compared and not losses.
    command.arg("-f").arg(&file).args(["-p", &address.port().to_string()]);
    command.args(["-w", "2", "-q", "8000000", "-l"]).arg(dir.join("relay.log"));
    let process = Process::start("carbon-c-relay", command, &dir.join("relay.out"));
    listening(address);
    let processes = vec![(Role::Relay, process)];
    Running { system: System::CarbonCRelay, shape, address, processes, cluster: None, waiting: Vec::new() }
}

/// The release binary of a layer.
pub(crate) fn program(layer: Layer) -> PathBuf {
    let name = match layer {
        Layer::Relay => "spillway-relay",
        Layer::Partial | Layer::Final => "spillway-aggregator",
        Layer::Replayer => "spillway-replayer",
    };
    binary(name).unwrap_or_else(|error| panic!("{error}"))
}
