//! From a checked cluster file to nodes that run in this process, and back to an exit code.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use config::{Cluster, Layer, Loaded, Node};
use node::StartError;
use runtime::net::handed;
use runtime::notify::Notifier;
use runtime::signals::StopSignals;
use runtime::{Clock, Supervisor};
use tracing::{error, info, warn};

use crate::cluster_file;
use crate::exit::{Exit, Failure};
use crate::screen::Screen;
use crate::up::UpOptions;

/// How long all nodes together may take to stop. `TimeoutStopSec` of the systemd unit and the grace period of the pods under
/// `ops/` are above this.
pub const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A node of any layer that runs.
enum Running {
    Relay(relay::Running),
    Aggregator(aggregator::Running),
    Replayer(replayer::Running),
}

impl Running {
    fn start(cluster: &Cluster, me: &Node, clock: Clock, cores: usize) -> Result<Running, StartError> {
        match me.layer {
            Layer::Relay => relay::start(cluster, me, clock, cores).map(Running::Relay),
            Layer::Partial | Layer::Final => aggregator::start(cluster, me, clock, cores).map(Running::Aggregator),
            Layer::Replayer => replayer::start(cluster, me, clock).map(Running::Replayer),
        }
    }

    fn supervisor(&self) -> &Supervisor {
        match self {
            Running::Relay(running) => running.supervisor(),
            Running::Aggregator(running) => running.supervisor(),
            Running::Replayer(running) => running.supervisor(),
        }
    }

    fn stop(self, deadline: Duration) -> Pin<Box<dyn Future<Output = Vec<String>>>> {
        match self {
            Running::Relay(running) => Box::pin(running.stop(deadline)),
            Running::Aggregator(running) => Box::pin(running.stop(deadline)),
            Running::Replayer(running) => Box::pin(running.stop(deadline)),
        }
    }
}

/// Runs the chosen nodes until a signal comes or a node gives up.
///
/// # Errors
/// When a node does not start; nothing runs then.
pub fn up(loaded: Loaded, options: UpOptions) -> Result<Exit, Failure> {
    telemetry::init_logging(options.json).context("set up the log")?;
    let clock = Clock::new();
    // Before any thread is there: it takes the variables that name them out of the environment.
    for address in handed::receive().context("take over the sockets of the service manager ($LISTEN_FDS)")? {
        info!(%address, "a listener was handed over");
    }
    if let Err(error) = runtime::net::raise_nofile_limit() {
        warn!(%error, "the limit of open files stays as it is");
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .enable_all()
        .build()
        .context("start the runtime")?;
    let exit = runtime.block_on(run(&loaded.cluster, &options.nodes, clock, cores));
    // A worker that was given up as hung may still block a thread; the process does not wait for it.
    runtime.shutdown_background();
    exit
}

async fn run(cluster: &Cluster, names: &[String], clock: Clock, cores: usize) -> Result<Exit, Failure> {
    let mut signals = StopSignals::new().context("listen for signals")?;
    let manager = Notifier::from_environment().context("reach the service manager ($NOTIFY_SOCKET)")?;
    let who = names.join(", ");
    manager.status(&format!("starting {who}"));
    let mut nodes = Vec::new();
    // From the back of the pipeline to its front: who receives is there before who sends.
    for layer in [Layer::Final, Layer::Partial, Layer::Replayer, Layer::Relay] {
        for me in cluster.layer(layer).filter(|node| names.contains(&node.name)) {
            let node = Running::start(cluster, me, clock, cores).map_err(|error| failure(&me.name, error))?;
            info!(node = %me.name, layer = layer.as_str(), admin = %me.admin, "started");
            nodes.push((me.name.clone(), node));
        }
    }
    if let Some(address) = handed::left().first() {
        let error = anyhow!(
            "the service manager handed over a listener on {address}, and {who} has none there: write the same address and port into \
             the socket unit (ListenStream=) and the cluster file"
        );
        return Err(Failure::usage(error));
    }
    info!(nodes = nodes.len(), cluster = %cluster.name, "ready");
    manager.ready(&format!("serving as {who}"));
    let escalation = tokio::select! {
        signal = signals.next() => {
            info!(signal, "stopping");
            manager.stopping(&format!("{signal}: finishes what it holds"));
            None
        }
        escalation = first_escalation(&nodes) => Some(escalation),
        never = manager.keep_alive(|| nodes.iter().all(|(_, node)| node.supervisor().is_healthy())) => match never {},
    };
    if let Some((node, escalation)) = &escalation {
        error!(%node, %escalation, "giving up: the service manager is to start this process again");
        manager.stopping(&format!("giving up: {node}: worker {} failed too often", escalation.worker));
    }
    // A stop has a deadline of its own; that workers end in it is no illness.
    tokio::select! {
        () = stop(nodes, clock) => {}
        never = manager.keep_alive(|| true) => match never {},
    }
    Ok(if escalation.is_some() { Exit::Internal } else { Exit::Ok })
}

fn failure(node: &str, error: StartError) -> Failure {
    let taken = error.is_taken();
    let error = anyhow!(error).context(format!("start node {node}"));
    if taken { Failure::unavailable(error) } else { Failure::from(error) }
}

async fn first_escalation(nodes: &[(String, Running)]) -> (String, runtime::Escalation) {
    loop {
        for (name, node) in nodes {
            if let Some(escalation) = node.supervisor().escalation() {
                return (name.clone(), escalation);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Front first, so that what is on its way still finds its receivers.
async fn stop(nodes: Vec<(String, Running)>, clock: Clock) {
    let end = clock.now() + STOP_WITHIN;
    for (name, node) in nodes.into_iter().rev() {
        let late = node.stop(end.since(clock.now())).await;
        if late.is_empty() {
            info!(node = %name, "stopped");
        } else {
            warn!(node = %name, late = %late.join(", "), "stopped; these were late and were cut off");
        }
    }
}

/// Runs one node of the cluster file. See the module's head for the options.
#[derive(Debug, clap::Parser)]
#[command(version, about = "Runs one node of a Spillway cluster file")]
struct OneNode {
    /// The cluster file; else $SPILLWAY_CONFIG, ./spillway.toml, /etc/spillway/spillway.toml
    #[arg(long, value_name = "FILE", env = "SPILLWAY_CONFIG")]
    config: Option<PathBuf>,
    /// The node's name in the cluster file
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Listen on this address instead of those of the cluster file, which stay what other nodes dial (containers, NAT)
    #[arg(long, value_name = "IP", env = "SPILLWAY_BIND")]
    bind: Option<IpAddr>,
    /// Write logs and problems as JSON
    #[arg(long)]
    json: bool,
}

/// The whole program of a binary that runs one node of the layers it is for.
pub fn one_node(binary: &str, layers: &[Layer]) -> ExitCode {
    let options = match OneNode::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // Help that nobody reads is no failure.
            let _printed = error.print().is_ok();
            return code.into();
        }
    };
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut screen = Screen {
        out: &mut out,
        err: &mut err,
        json: options.json,
        out_colour: false,
        err_colour: false,
        out_is_terminal: false,
        err_is_terminal: false,
        closed: false,
    };
    let exit = load_and_run(binary, layers, options, &mut screen);
    let exit = exit.unwrap_or_else(|failure| screen.fail(&failure));
    exit.into()
}

fn load_and_run(binary: &str, layers: &[Layer], options: OneNode, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let (path, _) = cluster_file::locate(options.config, None)?;
    let mut loaded = match cluster_file::read(&path, screen)? {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let fitting: Vec<&str> = loaded
        .cluster
        .nodes
        .iter()
        .filter(|node| layers.contains(&node.layer))
        .map(|node| node.name.as_str())
        .collect();
    if !fitting.contains(&options.node.as_str()) {
        let known = fitting.join(", ");
        return Err(Failure::usage(anyhow!(
            "{binary} runs no node \"{}\"; those of its layer are {known}",
            options.node
        )));
    }
    if let Some(ip) = options.bind {
        loaded.cluster.nodes.iter_mut().filter(|node| node.name == options.node).for_each(|node| bind(node, ip));
        // The file was checked with the addresses that it has.
        let exposed = loaded.cluster.node(&options.node).and_then(|node| loaded.cluster.exposure(node.admin));
        if let Some(problem) = exposed {
            return Err(Failure::usage(anyhow!("--bind {ip}: {problem}")));
        }
    }
    up(loaded, UpOptions { nodes: vec![options.node], json: options.json })
}

/// Only this process sees it: the others read the addresses that the file has.
fn bind(node: &mut Node, ip: IpAddr) {
    let listeners = [node.graphite.as_mut(), node.link.as_mut(), Some(&mut node.admin)];
    listeners.into_iter().flatten().for_each(|address| address.set_ip(ip));
}
