//! How long to wait before the next attempt to reach a peer.
//!
//! Full jitter: a random time up to `min(cap, base * 2^attempts)`, so that a thousand peers do not come back at once.
//! A connection that opens proves nothing (a peer may accept and die): only progress that the peer has acknowledged,
//! for ten seconds, starts the count again.

use std::time::Duration;

use crate::time::Mono;

/// The first attempt waits up to this.
pub const BASE: Duration = Duration::from_millis(50);
/// No attempt waits longer than this.
pub const CAP: Duration = Duration::from_secs(5);
/// How long a peer must acknowledge before its failures are forgotten.
pub const PROOF: Duration = Duration::from_secs(10);
// Acknowledgements further apart than this are not one stretch of progress.
const GAP: Duration = Duration::from_secs(5);

/// The attempts on one peer.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
    /// First and latest acknowledgement of the stretch of progress that goes on.
    progress: Option<(Mono, Mono)>,
}

impl Backoff {
    /// A peer that was never tried.
    pub fn new() -> Backoff {
        Backoff::from(BASE)
    }

    /// The same with another first wait.
    pub fn from(base: Duration) -> Backoff {
        Backoff::within(base, CAP)
    }

    /// The same with another first and another longest wait.
    pub fn within(base: Duration, cap: Duration) -> Backoff {
        Backoff { base, cap, attempts: 0, progress: None }
    }

    /// Forgets the failures: the peer has proved itself in another way, such as by a receipt.
    pub fn forget(&mut self) {
        self.attempts = 0;
    }

    /// Counts a failed attempt, or a connection that broke, and gives the wait before the next.
    ///
    /// `random`: uniform over all of u64.
    pub fn on_failure(&mut self, random: u64) -> Duration {
        self.progress = None;
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        // Scales without the bias of a remainder; the product's upper half fits.
        let scaled = (u128::from(random) * (u128::from(nanos) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
    }

    /// Notes that the peer acknowledged something at `now`.
    pub fn on_progress(&mut self, now: Mono) {
        let first = match self.progress {
            Some((first, latest)) if now.since(latest) <= GAP => first,
            Some(_) | None => now,
        };
        self.progress = Some((first, now));
        if now.since(first) >= PROOF {
            self.attempts = 0;
        }
    }

    /// Failures since the last proven progress.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The longest the next wait can be.
    fn ceiling(&self) -> Duration {
        self.base.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.cap)
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failures: u32, random: u64, millis: u64) {
        let mut backoff = Backoff::new();
        for _ in 1..failures {
            backoff.on_failure(7);
        }
        assert_eq!(backoff.on_failure(random).as_millis(), u128::from(millis), "failure {failures}");
    }

    #[test]
    fn ceiling_doubles_up_to_the_cap() {
        for (failures, millis) in [(1, 50), (2, 100), (3, 200), (7, 3200), (8, 5000), (33, 5000), (100, 5000)] {
            check(failures, u64::MAX, millis);
        }
    }

    #[test]
    fn jitter_is_full() {
        for failures in [1, 4, 40] {
            check(failures, 0, 0);
        }
        check(1, u64::MAX / 2, 25);
        check(2, u64::MAX / 4 * 3, 75);
    }

    fn backoff_after(acknowledged_ms: &[u64]) -> u32 {
        let mut backoff = Backoff::new();
        for _ in 0..4 {
            backoff.on_failure(1);
        }
        for &at in acknowledged_ms {
            backoff.on_progress(Mono::from_millis(at));
        }
        backoff.on_failure(1);
        backoff.attempts()
    }

    #[test]
    fn only_ten_seconds_of_acknowledged_progress_forget_failures() {
        assert_eq!(backoff_after(&[]), 5);
        assert_eq!(backoff_after(&[1_000]), 5, "one acknowledgement");
        assert_eq!(backoff_after(&[0, 4_000, 8_000, 9_999]), 5, "not long enough");
        assert_eq!(backoff_after(&[0, 4_000, 8_000, 10_000]), 1, "long enough");
        assert_eq!(backoff_after(&[0, 30_000]), 5, "a silence of 30 s is no progress");
    }

    #[test]
    fn a_proof_of_another_kind_forgets_failures_and_another_base_scales_the_wait() {
        let mut backoff = Backoff::from(Duration::from_millis(8));
        assert_eq!(backoff.on_failure(u64::MAX).as_millis(), 8);
        assert_eq!(backoff.on_failure(u64::MAX).as_millis(), 16);
        backoff.forget();
        assert_eq!(backoff.on_failure(u64::MAX).as_millis(), 8);
    }

    #[test]
    fn a_failure_breaks_the_stretch_of_progress() {
        let mut backoff = Backoff::new();
        backoff.on_failure(1);
        backoff.on_progress(Mono::from_millis(0));
        backoff.on_progress(Mono::from_millis(5_000));
        backoff.on_failure(1);
        backoff.on_progress(Mono::from_millis(6_000));
        backoff.on_progress(Mono::from_millis(11_000));
        assert_eq!(backoff.attempts(), 2);
    }
}
