//! The one reading of time: monotonic for what elapses, Unix for what a line carries.

#[cfg(not(sim_net))]
mod machine {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    // One origin for the whole process, so that `Mono`s of different clocks compare.
    static ORIGIN: OnceLock<Instant> = OnceLock::new();

    pub(super) fn elapsed() -> Duration {
        ORIGIN.get_or_init(Instant::now).elapsed()
    }

    pub(super) fn since_1970() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
#[cfg(sim_net)]
use crate::simulated as machine;

use engine::time::{Mono, UnixSeconds};

/// Reads the machine's clocks; under `--cfg sim_net` those of the simulation. All clocks of a process agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(());

impl Clock {
    /// The machine's clocks.
    pub fn new() -> Clock {
        let clock = Clock(());
        // The origin is the first reading.
        clock.now();
        clock
    }

    /// Monotonic time since the process's first clock was made.
    pub fn now(&self) -> Mono {
        Mono::ZERO + machine::elapsed()
    }

    /// Seconds since 1970; zero for a clock set before that, the last second of 2106 for one set after it.
    pub fn unix(&self) -> UnixSeconds {
        UnixSeconds(u32::try_from(self.unix_millis() / 1000).unwrap_or(u32::MAX))
    }

    /// Milliseconds since 1970; zero for a clock set before that.
    pub fn unix_millis(&self) -> u64 {
        u64::try_from(machine::since_1970().as_millis()).unwrap_or(u64::MAX)
    }
}
