//! The monitor: the one thread that sees lives end, hearts stop and waits pass, and acts on it.
//!
//! It never runs a worker's code and never waits for anything but its own inbox, so nothing can hang it.

#[cfg(sim_net)]
mod task;
#[cfg(not(sim_net))]
mod thread;

use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::restart::{Failure, Restart};
use engine::time::Mono;

use super::run::{self, Outcome, Report};
use super::worker::{Worker, WorkerError};
use super::{Escalation, Phase, Shared, Slot, State};

#[cfg(sim_net)]
pub(super) use task::begin;
#[cfg(not(sim_net))]
pub(super) use thread::begin;
#[cfg(all(test, not(sim_net)))]
pub(super) use thread::die;

// A thread left behind keeps its stack and whatever it holds; four hung ones say that the process itself is ill.
const ABANDONED_MAX: usize = 4;

/// What the monitor knows from one look to the next.
struct Watch {
    tick: Duration,
    looked_at: Mono,
    awake_since: Mono,
}

impl Watch {
    fn new(shared: &Shared) -> Watch {
        let tick = (shared.policy.watchdog / 8).clamp(Duration::from_millis(1), Duration::from_millis(50));
        let now = shared.clock.now();
        Watch { tick, looked_at: now, awake_since: now }
    }

    /// Acts on what was reported, and on what time has done.
    fn round(&mut self, shared: &Shared, reports: Vec<Report>) {
        let now = shared.clock.now();
        // The whole process slept (SIGSTOP, a suspended machine): everyone's heart stood still, and nobody hangs.
        if now.since(self.looked_at) > shared.policy.watchdog / 2 {
            self.awake_since = now;
        }
        self.looked_at = now;
        let mut state = shared.state();
        for report in reports {
            ended(shared, &mut state, report, now);
        }
        for index in 0..state.slots.len() {
            look(shared, &mut state, index, now, self.awake_since);
        }
    }
}

/// Acts on the end of a life.
fn ended(shared: &Shared, state: &mut State, report: Report, now: Mono) {
    let Some(slot) = state.slots.get_mut(report.slot) else { return };
    if let Some(at) = slot.abandoned.iter().position(|&generation| generation == report.generation) {
        slot.abandoned.swap_remove(at);
        tracing::info!(worker = %slot.name, generation = report.generation, "life given up as hung has ended");
        return;
    }
    if !matches!(&slot.phase, Phase::Running { worker, .. } if worker.generation() == report.generation) {
        return;
    }
    let (kind, error) = match report.outcome {
        Outcome::Done | Outcome::Aborted if slot.stop.is_cancelled() => {
            slot.phase = Phase::Stopped;
            shared.inbox.changed.notify_waiters();
            return;
        }
        Outcome::Done => (Failure::Error, "ended before it was asked to stop".to_owned()),
        Outcome::Aborted => (Failure::Error, "aborted by its runtime".to_owned()),
        Outcome::Error(error) => (Failure::Error, error.to_string()),
        Outcome::Panic(message) => (Failure::Panic, message),
    };
    failed(shared, state, report.slot, now, kind, error);
}

/// Acts on what time has done to a worker.
fn look(shared: &Shared, state: &mut State, index: usize, now: Mono, awake_since: Mono) {
    let Some(slot) = state.slots.get_mut(index) else { return };
    match &slot.phase {
        Phase::Running { worker, .. } => {
            let age = now.since(worker.beat_at().max(awake_since));
            if age > shared.policy.watchdog {
                slot.fence();
                failed(shared, state, index, now, Failure::Hang, format!("no heartbeat for {} ms", age.as_millis()));
            }
        }
        Phase::Waiting { due } if *due <= now => start(shared, state, index),
        Phase::Waiting { .. } | Phase::Stopped | Phase::Escalated => {}
    }
}

/// Counts a failure and does what the policy says.
fn failed(shared: &Shared, state: &mut State, index: usize, now: Mono, kind: Failure, error: String) {
    let abandoned: usize = state.slots.iter().map(|slot| slot.abandoned.len()).sum();
    let Some(slot) = state.slots.get_mut(index) else { return };
    let fault = format!("{} {}: {error}", slot.name, kind.as_str());
    slot.last_error = Some(format!("{}: {error}", kind.as_str()));
    slot.last_failure = Some(now);
    if kind == Failure::Hang {
        slot.hangs += 1;
    }
    let decision = match slot.restart.on_failure(now, kind) {
        Restart::After(wait) if abandoned <= ABANDONED_MAX => Restart::After(wait),
        Restart::After(_) | Restart::Escalate => Restart::Escalate,
    };
    while state.faults.front().is_some_and(|(at, _)| now.since(*at) >= shared.policy.within) {
        state.faults.pop_front();
    }
    state.faults.push_back((now, fault));
    let root_cause = state.faults.front().map(|(_, fault)| fault.clone()).unwrap_or_default();
    let Some(slot) = state.slots.get_mut(index) else { return };
    match decision {
        Restart::After(wait) => {
            tracing::warn!(worker = %slot.name, kind = kind.as_str(), error, ?wait, "worker failed; starts again");
            slot.restarts += 1;
            slot.phase = Phase::Waiting { due: now + wait };
            if wait.is_zero() {
                start(shared, state, index);
            }
        }
        Restart::Escalate => {
            tracing::error!(worker = %slot.name, kind = kind.as_str(), error, root_cause, "worker failed too often");
            slot.phase = Phase::Escalated;
            let escalation = Escalation { worker: slot.name.to_string(), error, root_cause };
            // Only the first escalation is kept: it is the reason for the exit.
            if shared.escalation.set(escalation).is_err() {
                tracing::error!(worker = %slot.name, "escalated after another worker had");
            }
            shared.inbox.changed.notify_waiters();
        }
    }
}

/// Starts the next life of a worker.
pub(super) fn start(shared: &Shared, state: &mut State, index: usize) {
    let Some(slot) = state.slots.get_mut(index) else { return };
    let now = shared.clock.now();
    match begin_life(shared, slot, index, now) {
        Ok(phase) => slot.phase = phase,
        Err(error) => failed(shared, state, index, now, Failure::Error, format!("start: {error}")),
    }
}

fn begin_life(shared: &Shared, slot: &Slot, index: usize, now: Mono) -> Result<Phase, WorkerError> {
    let generation = slot.restarts + 1;
    slot.current.store(generation, Ordering::Release);
    let worker = Worker {
        node: shared.node.clone(),
        name: slot.name.clone(),
        generation,
        current: slot.current.clone(),
        heartbeat: std::sync::Arc::new(now.as_nanos().into()),
        stop: slot.stop.clone(),
        clock: shared.clock,
        watchdog: shared.policy.watchdog,
    };
    let abort = run::start(shared, index, &slot.body, worker.clone())?;
    Ok(Phase::Running { worker, abort })
}
