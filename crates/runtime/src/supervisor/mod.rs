//! Every task and thread has a name, an owner and a restart rule.
//!
//! A worker that panics, returns an error, ends unasked or gives no heartbeat for the watchdog's time is started again,
//! alone, after the wait that `engine::restart` decides. Too many failures in the window escalate: [`Supervisor::failed`]
//! resolves and the process should exit with 70.
//!
//! A hung task is aborted; a hung thread (and a task that blocks its thread) cannot be killed: its generation is fenced
//! and a new life starts beside it. A few may be left behind so; more escalate.
//!
//! One thread, the monitor, is the only place where a worker's state changes. If it dies, the process aborts.

mod connection;
mod monitor;
mod run;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::restart::{RestartPolicy, RestartState};
use engine::time::Mono;
use tokio::runtime::Handle;
use tokio::sync::{Notify, SetOnce};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

pub use connection::ConnectionCount;
use connection::Group;
use run::{Body, Report};
pub use worker::{Worker, WorkerError};

use crate::Clock;

/// Why the supervisor gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// The worker that failed once too often.
    pub worker: String,
    /// Its last failure.
    pub error: String,
    /// The first failure of any worker of this supervisor in the window: often what made the others fail.
    pub root_cause: String,
}

impl std::fmt::Display for Escalation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} failed too often: {}; first failure: {}", self.worker, self.error, self.root_cause)
    }
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPhase {
    Running,
    /// Failed; waits for its restart.
    Restarting,
    /// No heartbeat for the watchdog's time, and not replaced yet.
    Hung,
    Stopped,
    /// Failed too often; will not run again.
    Escalated,
}

impl WorkerPhase {
    /// The word for the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            WorkerPhase::Running => "running",
            WorkerPhase::Restarting => "restarting",
            WorkerPhase::Hung => "hung",
            WorkerPhase::Stopped => "stopped",
            WorkerPhase::Escalated => "escalated",
        }
    }
}

/// A worker as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerState {
    pub name: String,
    pub phase: WorkerPhase,
    pub restarts: u64,
    /// How often it was given up as hung; part of `restarts`.
    pub hangs: u64,
    /// Lives given up as hung whose thread has not come back yet.
    pub abandoned: usize,
    pub heartbeat_age: Duration,
    pub last_error: Option<String>,
    /// When it last failed.
    pub last_failure: Option<Mono>,
}

/// Starts, watches, restarts and stops the workers of one node. Clones are the same supervisor; when the last one is
/// dropped, everything is asked to stop.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Shared {
    node: Arc<str>,
    clock: Clock,
    policy: RestartPolicy,
    handle: Handle,
    stop: CancellationToken,
    escalation: SetOnce<Escalation>,
    /// Its own lock, so that a life may end while the state is locked.
    inbox: Arc<Inbox>,
    state: Mutex<State>,
}

struct State {
    slots: Vec<Slot>,
    groups: BTreeMap<String, Group>,
    /// Failures of any worker in the policy's window, oldest first.
    faults: VecDeque<(Mono, String)>,
}

struct Slot {
    name: Arc<str>,
    body: Body,
    stop: CancellationToken,
    current: Arc<AtomicU64>,
    phase: Phase,
    restart: RestartState,
    restarts: u64,
    hangs: u64,
    /// Generations that were given up and have not ended yet.
    abandoned: Vec<u64>,
    last_error: Option<String>,
    last_failure: Option<Mono>,
}

enum Phase {
    Running { worker: Worker, abort: Option<AbortHandle> },
    Waiting { due: Mono },
    Stopped,
    Escalated,
}

/// How ends of lives reach the monitor.
#[derive(Default)]
pub(crate) struct Inbox {
    reports: Mutex<Vec<Report>>,
    wake: Condvar,
    /// The monitor has nothing left to do.
    closed: AtomicBool,
    /// Something that `shutdown` waits for has changed.
    changed: Notify,
}

impl Inbox {
    fn push(&self, report: Report) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        self.wake.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group<T>(&self, name: &str, read: impl FnOnce(&Group) -> T) -> T {
        let mut state = self.state();
        if let Some(group) = state.groups.get(name) {
            return read(group);
        }
        read(state.groups.entry(name.to_owned()).or_insert_with(|| Group::new(self)))
    }

    fn close(&self) {
        self.stop.cancel();
        for group in self.state().groups.values() {
            group.abort.cancel();
        }
        self.inbox.closed.store(true, Ordering::Release);
        self.inbox.wake.notify_one();
    }
}

impl Supervisor {
    /// A supervisor whose tasks run on the current tokio runtime.
    ///
    /// # Errors
    /// Outside a tokio runtime, or when the kernel gives no thread for the monitor.
    pub fn new(node: &str, clock: Clock, policy: RestartPolicy) -> io::Result<Supervisor> {
        let handle = Handle::try_current().map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            node: Arc::from(node),
            clock,
            policy,
            handle,
            stop: CancellationToken::new(),
            escalation: SetOnce::new(),
            inbox: Arc::default(),
            state: Mutex::new(State { slots: Vec::new(), groups: BTreeMap::new(), faults: VecDeque::new() }),
        });
        monitor::begin(&shared)?;
        Ok(Supervisor { _owner: Arc::new(Owner(Arc::clone(&shared))), shared })
    }

    /// The node whose workers these are.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Starts a task, and starts it again whenever it fails. `make` is called once for each life, in the task itself.
    ///
    /// The task ends with `Ok(())` only once it was asked to stop; before that it counts as an error. When it hangs it
    /// is dropped where it waits.
    pub fn spawn_task<F, Fut>(&self, name: impl Into<String>, make: F)
    where
        F: FnMut(Worker) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        self.add(name.into(), Body::task(make));
    }

    /// Starts a thread, and starts it again whenever it fails. `body` is called once for each life, in its own thread;
    /// while a hung life is left behind, two may run at once, of which only one is [`Worker::is_current`].
    pub fn spawn_thread<F>(&self, name: impl Into<String>, body: F)
    where
        F: Fn(Worker) -> Result<(), WorkerError> + Send + Sync + 'static,
    {
        self.add(name.into(), Body::Thread(Arc::new(body)));
    }

    /// Starts a thread with a tokio runtime of its own, in which `make`'s future runs: for what must answer while the
    /// main runtime is saturated. Otherwise as [`Supervisor::spawn_thread`]; use [`Worker::failpoint`] in it, not
    /// `failpoint_async`, because the thread is what hangs.
    pub fn spawn_isolated<F, Fut>(&self, name: impl Into<String>, make: F)
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), WorkerError>>,
    {
        self.spawn_thread(name, move |worker| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Called inside the runtime too, so that it may make sockets.
            runtime.block_on(async { make(worker).await })
        });
    }

    /// Resolves when a worker has failed too often; the process should then stop and exit with 70.
    pub async fn failed(&self) -> Escalation {
        self.shared.escalation.wait().await.clone()
    }

    /// The escalation, if there was one.
    pub fn escalation(&self) -> Option<Escalation> {
        self.shared.escalation.get().cloned()
    }

    /// Whether it does its work: nothing has escalated, and no heart stands still that it should have replaced.
    pub fn is_healthy(&self) -> bool {
        self.escalation().is_none() && self.workers().iter().all(|worker| worker.phase != WorkerPhase::Hung)
    }

    /// Every worker, in the order they were started.
    pub fn workers(&self) -> Vec<WorkerState> {
        let now = self.shared.clock.now();
        self.shared.state().slots.iter().map(|slot| slot.seen(now, self.shared.policy.watchdog)).collect()
    }

    /// Cancelled when everything is asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Asks every worker and connection to stop, and waits for nothing.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Asks the workers and connections whose names start with `prefix` to stop, and waits for them. What is late at the
    /// deadline is aborted or, a thread, fenced; its names come back (`relay.connection x3` for three connections).
    ///
    /// The empty prefix means all. A worker that fails while it stops starts again as usual, so that what its queue
    /// holds is still drained. When the future is dropped, the stop has been asked, but nothing is aborted.
    pub async fn stop_some(&self, prefix: &str, deadline: Duration) -> Vec<String> {
        {
            let state = self.shared.state();
            for slot in state.slots.iter().filter(|slot| slot.name.starts_with(prefix)) {
                slot.stop.cancel();
            }
            for (_, group) in state.groups.iter().filter(|(name, _)| name.starts_with(prefix)) {
                group.stop.cancel();
            }
        }
        let end = self.shared.clock.now() + deadline;
        loop {
            let mut changed = std::pin::pin!(self.shared.inbox.changed.notified());
            changed.as_mut().enable();
            let late = self.shared.state().late(prefix);
            let left = end.since(self.shared.clock.now());
            if late.is_empty() {
                return late;
            }
            if left.is_zero() {
                self.shared.state().abort(prefix);
                return late;
            }
            // Whether it changed or the time is up, the loop looks again.
            if tokio::time::timeout(left, changed).await.is_err() {
                continue;
            }
        }
    }

    /// Asks everything to stop and waits until the deadline. Names who was late; then the supervisor is at its end.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<String> {
        self.shared.stop.cancel();
        let late = self.stop_some("", deadline).await;
        self.shared.close();
        late
    }

    fn add(&self, name: String, body: Body) {
        let mut state = self.shared.state();
        let slot = Slot {
            name: Arc::from(name),
            body,
            stop: self.shared.stop.child_token(),
            current: Arc::new(AtomicU64::new(0)),
            phase: Phase::Stopped,
            restart: RestartState::new(self.shared.policy),
            restarts: 0,
            hangs: 0,
            abandoned: Vec::new(),
            last_error: None,
            last_failure: None,
        };
        state.slots.push(slot);
        let index = state.slots.len() - 1;
        monitor::start(&self.shared, &mut state, index);
    }
}

impl State {
    /// Who has not stopped yet.
    fn late(&self, prefix: &str) -> Vec<String> {
        let workers = self.slots.iter().filter(|slot| slot.name.starts_with(prefix) && !slot.ended());
        let groups = self.groups.iter().filter(|(name, group)| name.starts_with(prefix) && group.live() > 0);
        workers
            .map(|slot| slot.name.to_string())
            .chain(groups.map(|(name, group)| format!("{name} x{}", group.live())))
            .collect()
    }

    /// Ends by force what has not stopped.
    fn abort(&mut self, prefix: &str) {
        for slot in self.slots.iter_mut().filter(|slot| slot.name.starts_with(prefix) && !slot.ended()) {
            slot.fence();
            slot.phase = Phase::Stopped;
        }
        for (_, group) in self.groups.iter().filter(|(name, _)| name.starts_with(prefix)) {
            group.abort.cancel();
        }
    }
}

impl Slot {
    fn ended(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Escalated)
    }

    /// Takes the current life's place away, and aborts it if it can be.
    fn fence(&mut self) {
        if let Phase::Running { worker, abort } = &self.phase {
            self.abandoned.push(worker.generation());
            self.current.store(worker.generation() + 1, Ordering::Release);
            if let Some(abort) = abort {
                abort.abort();
            }
        }
    }

    fn seen(&self, now: Mono, watchdog: Duration) -> WorkerState {
        let (phase, heartbeat_age) = match &self.phase {
            Phase::Running { worker, .. } => {
                let age = now.since(worker.beat_at());
                (if age > watchdog { WorkerPhase::Hung } else { WorkerPhase::Running }, age)
            }
            Phase::Waiting { .. } => (WorkerPhase::Restarting, Duration::ZERO),
            Phase::Stopped => (WorkerPhase::Stopped, Duration::ZERO),
            Phase::Escalated => (WorkerPhase::Escalated, Duration::ZERO),
        };
        WorkerState {
            name: self.name.to_string(),
            phase,
            restarts: self.restarts,
            hangs: self.hangs,
            abandoned: self.abandoned.len(),
            heartbeat_age,
            last_error: self.last_error.clone(),
            last_failure: self.last_failure,
        }
    }
}

#[cfg(test)]
mod tests;
