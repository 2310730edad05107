//! The replayer's shell. Relays have no spill yet, so there is nothing to lease: the node runs, keeps its identity and
//! its place in the cluster, and answers its admin API with empty books.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use admin::Controls;
use admin_api::{BadLine, Failpoint, Health, Ledger, Status, Verdict, WorkerStatus};
use config::{Cluster, Node};
use engine::time::Mono;
use node::{StartError, VerdictKeeper, io_error};
use runtime::identity::DataDir;
use runtime::{Clock, Supervisor, net};
use telemetry::Telemetry;

/// A replayer that runs.
#[derive(Debug)]
pub struct Running {
    supervisor: Supervisor,
    keeper: Arc<VerdictKeeper>,
    _data: DataDir,
}

impl Running {
    /// The supervisor: `failed()` resolves when the process must end.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Stops; names of late workers come back.
    pub async fn stop(self, deadline: Duration) -> Vec<String> {
        self.keeper.draining();
        self.supervisor.shutdown(deadline).await
    }
}

/// Starts the replayer `me` of `cluster` on the current tokio runtime.
///
/// # Errors
/// When a port is taken, the data directory is not usable, or the machine gives no thread.
pub fn start(cluster: &Cluster, me: &Node, clock: Clock) -> Result<Running, StartError> {
    let admin_listener = net::listen(me.admin, 128)?;
    let data = DataDir::open(&me.data)?;
    data.identity(clock.unix())?;
    let supervisor = Supervisor::new(&me.name, clock, node::restart_policy(&cluster.supervise))
        .map_err(io_error("the supervisor"))?;
    let keeper = Arc::new(VerdictKeeper::new(supervisor.clone(), clock, cluster.supervise.watchdog));
    let controls = ReplayerControls {
        node: me.name.clone(),
        supervisor: supervisor.clone(),
        telemetry: Telemetry::new(&me.name, "replayer"),
        keeper: Arc::clone(&keeper),
        clock,
        started: clock.now(),
    };
    admin::serve(admin_listener, Arc::new(controls) as Arc<dyn Controls>, &supervisor)
        .map_err(io_error("the admin server"))?;
    keeper.serving();
    Ok(Running { supervisor, keeper, _data: data })
}

#[derive(Debug)]
struct ReplayerControls {
    node: String,
    supervisor: Supervisor,
    telemetry: Telemetry,
    keeper: Arc<VerdictKeeper>,
    clock: Clock,
    started: Mono,
}

impl ReplayerControls {
    fn verdict(&self) -> Verdict {
        self.keeper.verdict(0, Duration::ZERO)
    }
}

impl Controls for ReplayerControls {
    fn health(&self) -> Health {
        Health { node: self.node.clone(), layer: "replayer".into(), verdict: self.verdict() }
    }

    fn status(&self) -> Status {
        Status {
            node: self.node.clone(),
            layer: "replayer".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.clock.now().since(self.started).as_secs(),
            verdict: self.verdict(),
            workers: self.workers(),
            peers: Vec::new(),
            figures: BTreeMap::new(),
            ledger: self.ledger(),
        }
    }

    fn ledger(&self) -> Ledger {
        node::close_books(Ledger { node: self.node.clone(), layer: "replayer".into(), ..Ledger::default() })
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        admin::worker_statuses(&self.supervisor)
    }

    fn badlines(&self) -> Vec<BadLine> {
        Vec::new()
    }

    fn metrics(&self) -> String {
        node::record_workers(&self.telemetry, &self.supervisor);
        self.telemetry.render_prometheus()
    }

    fn failpoint(&self, failpoint: Failpoint) -> Result<(), String> {
        admin::arm_failpoint(&self.supervisor, &failpoint)
    }
}
