//! The one reading of time: monotonic for what elapses, Unix for what a line carries.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::time::{Mono, UnixSeconds};

// One origin for the whole process, so that `Mono`s of different clocks compare.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Reads the machine's clocks. All clocks of a process agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(());

impl Clock {
    /// The machine's clocks.
    pub fn new() -> Clock {
        ORIGIN.get_or_init(Instant::now);
        Clock(())
    }

    /// Monotonic time since the process's first clock was made.
    pub fn now(&self) -> Mono {
        let origin = *ORIGIN.get_or_init(Instant::now);
        Mono::ZERO + origin.elapsed()
    }

    /// Seconds since 1970; zero for a clock set before that, the last second of 2106 for one set after it.
    pub fn unix(&self) -> UnixSeconds {
        UnixSeconds(u32::try_from(self.unix_millis() / 1000).unwrap_or(u32::MAX))
    }

    /// Milliseconds since 1970; zero for a clock set before that.
    pub fn unix_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
