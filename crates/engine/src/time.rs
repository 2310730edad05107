//! Two kinds of time that never convert into each other.
//!
//! [`Mono`] is what elapses: deadlines, back-off, heartbeats. [`UnixSeconds`] is what a line carries: event time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the monotonic clock of one process (or of the simulator), in nanoseconds since an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The origin of the clock.
    pub const ZERO: Mono = Mono(0);

    /// `nanos`: nanoseconds since the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Mono {
        Mono(nanos)
    }

    /// `millis`: milliseconds since the clock's origin.
    pub const fn from_millis(millis: u64) -> Mono {
        Mono(millis * 1_000_000)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, by: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, by: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Event time: whole seconds since 1970 (UTC), as a Graphite line carries it. Good until the year 2106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u32);

impl UnixSeconds {
    /// The start of the window of `interval` seconds that this second falls into.
    ///
    /// `interval`: seconds, not zero (a zero is taken as one).
    pub const fn window(self, interval: u32) -> UnixSeconds {
        let interval = if interval == 0 { 1 } else { interval };
        UnixSeconds(self.0 - self.0 % interval)
    }
}
