//! The retry budget: re-sends are a share of what is sent first, so that retries never become the load (FAULTS A8).

use crate::time::Mono;

/// One byte of retry for ten bytes of fresh batches.
const SHARE: u64 = 10;
/// What accrues without fresh traffic, bytes per second.
const FLOOR_PER_SECOND: u64 = 1 << 20;
/// What can be saved up: half a second of a million points per second.
const SAVED_MAX: u64 = 32 << 20;

/// A bucket of bytes.
#[derive(Debug)]
pub(super) struct RetryBudget {
    saved: u64,
    counted_at: Mono,
}

impl RetryBudget {
    pub(super) fn new(now: Mono) -> RetryBudget {
        RetryBudget { saved: SAVED_MAX, counted_at: now }
    }

    /// Fresh bytes went out.
    pub(super) fn earn(&mut self, bytes: u64) {
        self.saved = (self.saved + bytes / SHARE).min(SAVED_MAX);
    }

    fn at(&self, now: Mono) -> u64 {
        let millis = u64::try_from(now.since(self.counted_at).as_millis()).unwrap_or(u64::MAX);
        self.saved.saturating_add(millis.saturating_mul(FLOOR_PER_SECOND) / 1000).min(SAVED_MAX)
    }

    /// Whether `bytes` may be sent again now. A batch larger than all that can be saved goes when the bucket is full.
    pub(super) fn allows(&self, now: Mono, bytes: u64) -> bool {
        self.at(now) >= bytes.min(SAVED_MAX)
    }

    /// `bytes` are sent again.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.saved = self.saved.saturating_sub(bytes);
    }

    /// Lets what accrues with time arrive.
    pub(super) fn settle(&mut self, now: Mono) {
        self.saved = self.at(now);
        self.counted_at = now;
    }
}
