//! Time and randomness under `--cfg sim_net`: those of the simulation that this thread runs.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// What was read last: for destructors, which run when a host's runtime is gone already.
    static READ: Cell<(Duration, Duration)> = const { Cell::new((Duration::ZERO, Duration::ZERO)) };
    static RANDOM: Cell<Rng> = const { Cell::new(Rng(0)) };
}

/// Begins a run on this thread: from here on its random numbers are those of `seed`, and its time is zero.
pub fn begin(seed: u64) {
    RANDOM.set(Rng::new(seed));
    READ.set((Duration::ZERO, Duration::ZERO));
}

fn read() -> (Duration, Duration) {
    if tokio::runtime::Handle::try_current().is_ok()
        && let (Some(elapsed), Some(since_1970)) = (turmoil::sim_elapsed(), turmoil::since_epoch())
    {
        READ.set((elapsed, since_1970));
    }
    READ.get()
}

/// Since the simulation began, whatever host asks, and however often it was restarted.
pub(crate) fn elapsed() -> Duration {
    read().0
}

/// By the simulation's calendar.
pub(crate) fn since_1970() -> Duration {
    read().1
}

/// The next number of the thread's seed.
pub(crate) fn random_u64() -> u64 {
    let mut rng = RANDOM.get();
    let number = rng.number();
    RANDOM.set(rng);
    number
}

/// Numbers of a seed: splitmix64.
#[derive(Clone, Copy, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// `low..=high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.range(low, high))
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    /// One of them; there must be one.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.number() % of.len() as u64).unwrap_or(0)]
    }
}
