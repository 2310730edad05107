//! Points per second, as the mean of the last five seconds.

use std::time::Duration;

use crate::time::Mono;

const SLOT: Duration = Duration::from_millis(500);
const SLOTS: usize = 10;

/// Counts in slots of half a second; the one that is not full yet is left out of the mean.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    slots: [u64; SLOTS + 1],
    /// Number of the slot that `slots[0]` is.
    current: u64,
    total: u64,
}

impl Meter {
    pub(super) fn add(&mut self, now: Mono, points: u64) {
        self.turn_to(now);
        self.slots[0] += points;
        self.total += points;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn per_second(&self, now: Mono) -> u64 {
        let mut meter = self.clone();
        meter.turn_to(now);
        meter.slots[1..].iter().sum::<u64>() / (SLOTS as u64 / 2)
    }

    fn turn_to(&mut self, now: Mono) {
        let slot = now.as_nanos() / u64::try_from(SLOT.as_nanos()).unwrap_or(u64::MAX);
        let passed = usize::try_from(slot.saturating_sub(self.current)).unwrap_or(usize::MAX).min(self.slots.len());
        self.slots.rotate_right(passed % (SLOTS + 1));
        self.slots[..passed].fill(0);
        self.current = self.current.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_shown_as_it_is_and_a_stop_within_five_seconds() {
        let mut meter = Meter::default();
        for tenth in 0..100 {
            meter.add(Mono::from_millis(tenth * 100), 100);
        }
        assert_eq!(meter.per_second(Mono::from_millis(10_000)), 1_000);
        assert_eq!(meter.per_second(Mono::from_millis(12_500)), 500);
        assert_eq!(meter.per_second(Mono::from_millis(16_000)), 0);
        assert_eq!(meter.per_second(Mono::from_millis(3_600_000)), 0);
        assert_eq!(meter.total(), 10_000);
    }
}
