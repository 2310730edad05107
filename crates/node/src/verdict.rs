//! A node's verdict on itself, from its workers and its fullest queue. The decision is `engine::verdict`'s.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use admin_api::Verdict;
use engine::verdict::{self, Lateness, QueueSeen, Stage, WorkerSeen};
use runtime::{Clock, Supervisor, WorkerPhase};

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

/// Remembers how far the node is and since when its queue has been late.
#[derive(Debug)]
pub struct VerdictKeeper {
    supervisor: Supervisor,
    clock: Clock,
    watchdog: Duration,
    /// A [`Stage`] as its number; it only grows.
    stage: AtomicU8,
    lateness: Mutex<Lateness>,
}

impl VerdictKeeper {
    /// A node that is starting.
    pub fn new(supervisor: Supervisor, clock: Clock, watchdog: Duration) -> VerdictKeeper {
        VerdictKeeper { supervisor, clock, watchdog, stage: AtomicU8::new(STARTING), lateness: Mutex::default() }
    }

    /// It serves. Nothing, where it was asked to stop already.
    pub fn serving(&self) {
        self.stage.fetch_max(SERVING, Ordering::Relaxed);
    }

    /// It was asked to stop.
    pub fn draining(&self) {
        self.stage.fetch_max(DRAINING, Ordering::Relaxed);
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            STARTING => Stage::Starting,
            SERVING => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// The verdict now, for the admin API.
    pub fn verdict(&self, queue_bytes: u64, queue_delay: Duration) -> Verdict {
        for_api(self.judge(queue_bytes, queue_delay))
    }

    /// The verdict now. To be asked about once a second, so that lateness is noticed when it begins.
    pub fn judge(&self, queue_bytes: u64, queue_delay: Duration) -> verdict::Verdict {
        let now = self.clock.now();
        let late = self.lateness.lock().unwrap_or_else(PoisonError::into_inner).observe(now, queue_delay);
        let workers = self.supervisor.workers();
        let seen: Vec<WorkerSeen<'_>> = workers
            .iter()
            .map(|worker| WorkerSeen {
                name: &worker.name,
                running: worker.phase == WorkerPhase::Running,
                heartbeat_age: worker.heartbeat_age,
                restarts: worker.restarts,
                last_failure: worker.last_failure,
                last_error: worker.last_error.as_deref().unwrap_or("unknown"),
            })
            .collect();
        let queue = QueueSeen { bytes: queue_bytes, delay: queue_delay };
        verdict::classify(now, self.stage(), &seen, self.watchdog, queue, late)
    }
}

/// The same in the API's words.
pub fn for_api(verdict: verdict::Verdict) -> Verdict {
    match verdict {
        verdict::Verdict::Starting => Verdict::Starting,
        verdict::Verdict::Ready => Verdict::Ready,
        verdict::Verdict::Overloaded { queue_bytes, lag_ms } => Verdict::Overloaded { queue_bytes, lag_ms },
        verdict::Verdict::Degraded { worker, restarts, error } => Verdict::Degraded { worker, restarts, error },
        verdict::Verdict::Draining => Verdict::Draining,
    }
}

#[cfg(test)]
mod tests {
    use engine::restart::RestartPolicy;

    use super::*;

    #[tokio::test]
    async fn a_node_that_was_asked_to_stop_does_not_serve_again() {
        let clock = Clock::new();
        let supervisor = Supervisor::new("n", clock, RestartPolicy::default()).unwrap();
        let keeper = VerdictKeeper::new(supervisor, clock, Duration::from_secs(2));
        let mut said = vec![keeper.verdict(0, Duration::ZERO)];
        for next in [VerdictKeeper::serving, VerdictKeeper::draining, VerdictKeeper::serving] {
            next(&keeper);
            said.push(keeper.verdict(0, Duration::ZERO));
        }
        assert_eq!(said, [Verdict::Starting, Verdict::Ready, Verdict::Draining, Verdict::Draining]);
    }
}
