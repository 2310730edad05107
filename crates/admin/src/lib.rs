//! The admin API of a node: HTTP with JSON answers.
//!
//! It runs in a thread with a runtime of its own, so that it answers while the data path is saturated. Its answers come
//! from [`Controls`], whose functions must not wait for the data path either. A [`Door`] says who is let in.

mod door;
mod handlers;
mod known;
mod orders;
mod places;
mod replay;
mod server;
mod spill;

use admin_api::{
    AuditEntry, BadLine, Failpoint, Health, Ledger, NodeKnown, ReplayChange, ReplayStatus, Status, WorkerStatus,
};
use telemetry::Telemetry;
use tokio::sync::oneshot;

pub use door::Door;
pub use orders::{NodeOrder, Orders};
pub use server::{Limits, Server, serve};
pub use spill::{Page, Refusal, SpillAnswer, SpillRequest};

/// What the admin API needs of a node. Called in the admin thread: answer from what is at hand, and do not wait.
pub trait Controls: Send + Sync + 'static {
    /// For `/v1/health`.
    fn health(&self) -> Health;
    /// For `/v1/status`.
    fn status(&self) -> Status;
    /// For `/v1/ledger`.
    fn ledger(&self) -> Ledger;
    /// For `/v1/workers`.
    fn workers(&self) -> Vec<WorkerStatus>;
    /// For `/v1/badlines`, latest first.
    fn badlines(&self) -> Vec<BadLine>;
    /// For `/metrics`, in Prometheus' text format.
    fn metrics(&self) -> String;
    /// The node's metrics, for those of the API itself.
    fn telemetry(&self) -> &Telemetry;
    /// Arms a failpoint; asked only in a build with failpoints.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn failpoint(&self, failpoint: Failpoint) -> Result<(), String>;

    /// For `GET /v1/nodes/NAME`.
    fn known(&self, name: &str) -> NodeKnown {
        NodeKnown { node: self.health().node, about: name.to_owned(), ..NodeKnown::default() }
    }

    /// For `GET /v1/replay`; nodes that replay nothing leave it as it is.
    ///
    /// # Errors
    /// [`Refusal::not_here`] where there is nothing to replay.
    fn replay(&self) -> Result<ReplayStatus, Refusal> {
        Err(Refusal::not_here("this node replays nothing; ask a replayer, or a final node for its catch-up"))
    }

    /// For `PUT /v1/replay`. Done, and kept for the next start, when it returns.
    ///
    /// # Errors
    /// Says what is wrong with it and what is in force.
    fn change_replay(&self, _change: ReplayChange) -> Result<ReplayStatus, Refusal> {
        self.replay()
    }

    /// For `GET /v1/replay/audit`, latest first: what operators changed here.
    fn audit(&self) -> Vec<AuditEntry> {
        Vec::new()
    }

    /// Who keeps this node's orders; `None` where nobody does.
    fn orders(&self) -> Option<&dyn Orders> {
        None
    }

    /// For `/v1/spill/...`: hands the request to who owns the spill. A dropped sender means that it is being restarted.
    fn spill(&self, _request: SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>> {
        let (answer, receiver) = oneshot::channel();
        // Who asked is there: the receiver is in our hand.
        answer.send(Err(Refusal::not_here("this node has no spill; relays have"))).ok();
        receiver
    }
}

/// The supervisor's workers as the API shows them.
pub fn worker_statuses(supervisor: &runtime::Supervisor) -> Vec<WorkerStatus> {
    let status = |worker: runtime::WorkerState| WorkerStatus {
        state: worker.phase.as_str().to_owned(),
        restarts: worker.restarts,
        hangs: worker.hangs,
        heartbeat_age_ms: u64::try_from(worker.heartbeat_age.as_millis()).unwrap_or(u64::MAX),
        last_error: worker.last_error,
        name: worker.name,
    };
    supervisor.workers().into_iter().map(status).collect()
}

/// Arms a failpoint as [`Controls::failpoint`] is asked to.
///
/// # Errors
/// On an unknown worker or action, or in a build without failpoints.
pub fn arm_failpoint(supervisor: &runtime::Supervisor, failpoint: &Failpoint) -> Result<(), String> {
    let names: Vec<String> = supervisor.workers().into_iter().map(|worker| worker.name).collect();
    if !names.contains(&failpoint.worker) {
        return Err(format!("no worker {}; there are {}", failpoint.worker, names.join(", ")));
    }
    let action = runtime::failpoints::Action::parse(&failpoint.action)
        .ok_or_else(|| format!("no action {}; there are panic, error, hang, slow", failpoint.action))?;
    // With the node's name, because several nodes of one process have workers of the same name.
    let worker = format!("{}/{}", supervisor.node(), failpoint.worker);
    runtime::failpoints::set(&worker, action, failpoint.times)
}

#[cfg(test)]
mod tests;
