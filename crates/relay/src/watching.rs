//! What the relay tells the pool of its peers, and hears from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::health::{Outcome, Pool};
use engine::time::Mono;
use node::desk::Observed;

use crate::shared::Shared;

/// A round of canaries, and a sample of each peer's pace.
const ROUND_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Watching {
    shared: Arc<Shared>,
    round_at: AtomicU64,
}

impl Watching {
    pub(crate) fn new(shared: Arc<Shared>) -> Watching {
        Watching { shared, round_at: AtomicU64::new(0) }
    }

    fn round_is_due(&self, now: Mono) -> bool {
        let due = now.since(Mono::from_nanos(self.round_at.load(Ordering::Relaxed))) >= ROUND_EVERY;
        if due {
            self.round_at.store(now.as_nanos(), Ordering::Relaxed);
        }
        due
    }
}

impl Observed for Watching {
    fn look(&self, now: Mono, pool: &mut Pool) {
        let mut machine = self.shared.machine();
        for canary in machine.take_canaries() {
            if canary.acked {
                pool.canary_acked(now, canary.peer, canary.round);
            } else {
                pool.canary_void(canary.peer, canary.round);
            }
        }
        if !self.round_is_due(now) {
            return;
        }
        for (peer, pace) in machine.take_pace().into_iter().enumerate() {
            if let Some(took) = pace.took {
                pool.latency(peer, took);
            }
            pool.queue_delay(peer, pace.queue_delay);
        }
        machine.begin_round();
        drop(machine);
        self.shared.wake_links();
    }

    fn decided(&self, now: Mono, outcome: &Outcome) {
        self.shared.machine().set_eligible(now, &outcome.eligible());
        self.shared.wake_links();
    }
}
