//! How long batches take from sealing to `Durable`, counted in steps of 25 ms: enough to see whether p99 keeps its
//! promise of 1.2 s, and cheap enough for every batch.

use std::time::Duration;

const STEP_MS: u64 = 25;
/// Steps up to 10 s; the last one has everything above.
const STEPS: usize = 400;

/// Counts since the relay's start. Batches that went to the spill are not in it: their way is the replay's.
#[derive(Clone, Debug)]
pub struct Latency {
    steps: Vec<u64>,
    count: u64,
}

impl Latency {
    pub(super) fn new() -> Latency {
        Latency { steps: vec![0; STEPS], count: 0 }
    }

    pub(super) fn note(&mut self, took: Duration) {
        let step = usize::try_from(took.as_millis() / u128::from(STEP_MS)).unwrap_or(usize::MAX).min(STEPS - 1);
        self.steps[step] += 1;
        self.count += 1;
    }

    /// Batches counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The time within which `percent` of the batches were durable, in milliseconds, rounded up to a step; 0 when there
    /// were none.
    pub fn within_ms(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (step, n) in self.steps.iter().enumerate() {
            seen += n;
            if *n > 0 && seen >= wanted {
                return (step as u64 + 1) * STEP_MS;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(took_ms: &[u64], expected: (u64, u64)) {
        let mut latency = Latency::new();
        took_ms.iter().for_each(|ms| latency.note(Duration::from_millis(*ms)));
        assert_eq!((latency.within_ms(50), latency.within_ms(99)), expected, "{took_ms:?}");
        assert_eq!(latency.count(), took_ms.len() as u64);
    }

    #[test]
    fn shares_of_the_batches_are_durable_within_a_time() {
        check(&[], (0, 0));
        check(&[0], (25, 25));
        check(&[24, 25, 26], (50, 50));
        check(&[100; 98].iter().copied().chain([700, 900]).collect::<Vec<_>>(), (125, 725));
        check(&[60_000], (10_000, 10_000));
    }
}
