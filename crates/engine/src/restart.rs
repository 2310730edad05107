//! When a failed worker starts again, and when it is given up.
//!
//! Pure policy: the supervisor tells it of each failure and obeys the answer. A worker may fail `restarts` times in any
//! `within`; the next failure escalates, which ends the process (exit 70) so that its own supervisor takes over.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Mono;

/// How often and how soon one worker may start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts allowed in any `within`; one failure more escalates.
    pub restarts: u32,
    /// The window in which failures count.
    pub within: Duration,
    /// Wait before the first restart; it doubles with each failure still in the window.
    pub backoff_min: Duration,
    /// The longest wait before a restart.
    pub backoff_max: Duration,
    /// A worker without a heartbeat for this long is hung.
    pub watchdog: Duration,
}

impl Default for RestartPolicy {
    /// 5 in 30 s (the advice of Erlang/OTP), 10 ms to 1 s, hung after 2 s.
    fn default() -> RestartPolicy {
        RestartPolicy {
            restarts: 5,
            within: Duration::from_secs(30),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            watchdog: Duration::from_secs(2),
        }
    }
}

/// How a worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It panicked.
    Panic,
    /// It returned an error, or ended before it was asked to.
    Error,
    /// It gave no heartbeat for the policy's `watchdog`.
    Hang,
}

impl Failure {
    /// Every kind, in the order of the enum.
    pub const ALL: [Failure; 3] = [Failure::Panic, Failure::Error, Failure::Hang];

    /// The word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Failure::Panic => "panic",
            Failure::Error => "error",
            Failure::Hang => "hang",
        }
    }
}

/// What the supervisor must do with a failed worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start it again after this wait.
    After(Duration),
    /// Give up: the whole service is unhealthy.
    Escalate,
}

/// The failures of one worker that still count.
#[derive(Clone, Debug)]
pub struct RestartState {
    policy: RestartPolicy,
    failures: VecDeque<Mono>,
}

impl RestartState {
    /// A worker that has not failed yet.
    pub fn new(policy: RestartPolicy) -> RestartState {
        RestartState { policy, failures: VecDeque::new() }
    }

    /// Counts a failure at `now` (never before an earlier call's) and decides.
    ///
    /// A hang starts again without a wait: the watchdog's limit has been the wait.
    pub fn on_failure(&mut self, now: Mono, kind: Failure) -> Restart {
        while self.failures.front().is_some_and(|&at| now.since(at) >= self.policy.within) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let failures = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        if failures > self.policy.restarts {
            return Restart::Escalate;
        }
        match kind {
            Failure::Hang => Restart::After(Duration::ZERO),
            Failure::Panic | Failure::Error => {
                let doubled =
                    self.policy.backoff_min.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
                Restart::After(doubled.min(self.policy.backoff_max))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `failures`: (milliseconds, kind, milliseconds to wait or `None` for escalation).
    #[track_caller]
    fn check(failures: &[(u64, Failure, Option<u64>)]) {
        let mut state = RestartState::new(RestartPolicy::default());
        for (step, &(at, kind, expected)) in failures.iter().enumerate() {
            let expected = expected.map_or(Restart::Escalate, |wait| Restart::After(Duration::from_millis(wait)));
            assert_eq!(state.on_failure(Mono::from_millis(at), kind), expected, "failure {step} at {at} ms");
        }
    }

    #[test]
    fn waits_double_and_the_sixth_failure_in_the_window_escalates() {
        use Failure::{Error, Panic};
        check(&[
            (0, Panic, Some(10)),
            (1_000, Error, Some(20)),
            (2_000, Panic, Some(40)),
            (3_000, Panic, Some(80)),
            (4_000, Panic, Some(160)),
            (29_999, Panic, None),
        ]);
    }

    #[test]
    fn failures_leave_the_window_one_by_one() {
        use Failure::Panic;
        check(&[
            (0, Panic, Some(10)),
            (1_000, Panic, Some(20)),
            (2_000, Panic, Some(40)),
            (3_000, Panic, Some(80)),
            (4_000, Panic, Some(160)),
            (30_000, Panic, Some(160)),
            (30_500, Panic, None),
        ]);
        check(&[(0, Panic, Some(10)), (40_000, Panic, Some(10)), (80_000, Panic, Some(10))]);
    }

    #[test]
    fn hang_starts_again_at_once_but_counts() {
        use Failure::{Hang, Panic};
        check(&[
            (0, Hang, Some(0)),
            (2_000, Panic, Some(20)),
            (4_000, Hang, Some(0)),
            (6_000, Hang, Some(0)),
            (8_000, Hang, Some(0)),
            (10_000, Hang, None),
        ]);
    }

    #[test]
    fn wait_never_exceeds_the_maximum() {
        let policy = RestartPolicy { restarts: 200, ..RestartPolicy::default() };
        let mut state = RestartState::new(policy);
        let waits: Vec<Restart> = (0..150).map(|_| state.on_failure(Mono::ZERO, Failure::Error)).collect();
        assert_eq!(waits.last(), Some(&Restart::After(Duration::from_secs(1))));
    }

    #[test]
    fn policy_without_restarts_escalates_at_once() {
        let mut state = RestartState::new(RestartPolicy { restarts: 0, ..RestartPolicy::default() });
        assert_eq!(state.on_failure(Mono::ZERO, Failure::Error), Restart::Escalate);
    }
}
