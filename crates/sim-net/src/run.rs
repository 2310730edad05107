//! One run of a seed: hosts, weather, and a trace of what happened.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use runtime::Clock;
use runtime::simulated::{self, Rng};
use turmoil::Sim;

use crate::weather::{Down, Weather};

/// The network moves in steps of this; timers are finer.
pub const TICK: Duration = Duration::from_millis(5);
/// Segments that a connection holds.
const TCP_CAPACITY: usize = 1024;
/// Lines of the trace that a failure shows.
const SHOWN: usize = 60;
/// When all runs begin, by their calendar.
const BEGINNING: Duration = Duration::from_secs(1_800_000_000);

/// What happened, in its order: as one number, and the end of it for people. Clones are the same trace.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    hash: u64,
    lines: Vec<String>,
}

impl Trace {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened now, on the host that runs.
    pub fn say(&self, what: impl AsRef<str>) {
        let now = Clock::new().now();
        self.say_at(Duration::from_nanos(now.as_nanos()), what.as_ref());
    }

    /// Something happened at `now`.
    pub fn say_at(&self, now: Duration, what: &str) {
        let line = format!("{:>9.3} s  {what}", now.as_secs_f64());
        let mut told = self.told();
        // FNV-1a: no cryptography is needed against ourselves.
        for byte in format!("{now:?} {what}").bytes() {
            told.hash = (told.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        told.lines.push(line);
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.told().hash
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.told().lines.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last lines, so many at most.
    pub fn end(&self, most: usize) -> String {
        let told = self.told();
        told.lines.iter().skip(told.lines.len().saturating_sub(most)).fold(String::new(), |mut text, line| {
            writeln!(text, "{line}").unwrap_or_default();
            text
        })
    }
}

/// See the module.
pub struct Run {
    pub seed: u64,
    pub sim: Sim<'static>,
    pub weather: Weather,
    pub trace: Trace,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Run {
    /// A network without hosts. `latency`: of every message, at least and at most.
    pub fn new(seed: u64, latency: (Duration, Duration)) -> Run {
        simulated::begin(seed);
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + BEGINNING)
            .simulation_duration(Duration::from_secs(3600))
            .tick_duration(TICK)
            .min_message_latency(latency.0)
            .max_message_latency(latency.1)
            .tcp_capacity(TCP_CAPACITY)
            .enable_random_order()
            .build();
        let trace = Trace::default();
        Run { seed, sim, weather: Weather::calm(Rng::new(!seed), trace.clone()), trace }
    }

    /// How long it has been running.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// One tick: first the weather, then everybody.
    ///
    /// # Panics
    /// When a host's own future ends, which none should.
    #[track_caller]
    pub fn step(&mut self) {
        self.weather.step(&mut self.sim);
        if let Err(error) = self.sim.step() {
            self.fail(&format!("a host ended: {error}"));
        }
    }

    /// Steps for `span`, and looks after each.
    #[track_caller]
    pub fn go(&mut self, span: Duration, mut look: impl FnMut(&mut Run)) {
        let end = self.now() + span;
        while self.now() < end {
            self.step();
            look(self);
        }
    }

    /// Ends the test with the end of the trace.
    ///
    /// # Panics
    /// That is what it is for.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        panic!("seed {} at {:?}: {what}\n{}", self.seed, self.now(), self.trace.end(SHOWN));
    }

    /// Ends the test unless it holds.
    #[track_caller]
    pub fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }
}

/// Runs every seed: `TURMOIL_SEEDS` of them (50), or `TURMOIL_SEED` alone, with its whole trace.
///
/// # Panics
/// When a run does.
#[allow(clippy::print_stderr, reason = "the trace that was asked for")]
pub fn check_seeds(run: impl Fn(u64) -> Trace) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("TURMOIL_SEED") {
        let trace = run(seed);
        eprintln!("seed {seed}: {} events, trace {:016x}\n{}", trace.len(), trace.hash(), trace.end(usize::MAX));
        return;
    }
    for seed in 0..number("TURMOIL_SEEDS").unwrap_or(50) {
        run(seed);
    }
}

/// What the future of a host begins with: a killed process is away for a while, and its kernel refuses connections meanwhile.
pub async fn until_back(down: &Down, host: &str) {
    loop {
        let until = down.borrow().get(host).copied();
        let now = Duration::from_nanos(Clock::new().now().as_nanos());
        match until {
            Some(until) if until > now => tokio::time::sleep(TICK).await,
            Some(_) | None => return,
        }
    }
}
