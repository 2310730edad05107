//! Lets points through at a rate that may change at any moment, also for who is already waiting.
//!
//! A token bucket (GCRA, by `governor`) that holds the points of [`WINDOW`] at the most: after a rest no more than that
//! goes at once. Work comes in batches larger than that, so [`Pacer::acquire`] lets a batch go as soon as the bucket has
//! half of what it can hold, or all of the batch, and books the rest as a debt that later batches wait for. Hence over
//! any span at most `rate x (span + WINDOW)` points go, and one batch.
//!
//! A change carries the credit, or the debt, over in points: nothing is released because of it, nothing is lost, however
//! often it happens. A pause keeps it as well; "unlimited" forgets it. Waiters are not served in any order: let one worker
//! wait for all.
//!
//! What `governor` does not do, and is done here: it cannot change a rate, its clock is not tokio's, it never lets through
//! more than the bucket holds, and it counts periods in whole nanoseconds, which is 11 % off at 300 million a second.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use tokio::sync::watch;
use tokio::time::Instant;

/// How much time's worth of points may go at once after a rest: tokio's timers are good to a millisecond or two.
pub const WINDOW: Duration = Duration::from_millis(20);
/// A tick is this part of a nanosecond: `governor` counts whole ticks. A limiter can count nine years of them.
const TICKS_PER_NANO: u64 = 64;
const TICKS_PER_SECOND: u64 = TICKS_PER_NANO * 1_000_000_000;
/// No debt is longer than this (two years), so that sums of ticks do not wrap.
const DEBT_MAX: u64 = u64::MAX / 4;

/// How fast points may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Paused,
    /// So many points in each second.
    PerSecond(NonZeroU64),
    Unlimited,
}

impl Pace {
    /// `points` a second; zero is a pause.
    pub fn per_second(points: u64) -> Pace {
        NonZeroU64::new(points).map_or(Pace::Paused, Pace::PerSecond)
    }
}

/// See the module's head. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct Pacer {
    clock: Ticks,
    bucket: Mutex<Bucket>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Bucket {
    pace: Pace,
    /// While the pace is a rate.
    limiter: Option<Limiter>,
    /// Points that may go, negative for a debt, as of the last change.
    credit: f64,
}

/// What a look at the bucket gives.
enum Look {
    Taken,
    /// Look again then, or when the pace has changed; `None`: only then.
    Wait(Option<Duration>),
}

impl Pacer {
    /// Begins with an empty bucket.
    pub fn new(pace: Pace) -> Pacer {
        let clock = Ticks { origin: Instant::now() };
        let mut bucket = Bucket { pace: Pace::Paused, limiter: None, credit: 0.0 };
        bucket.set(pace, &clock);
        Pacer { clock, bucket: Mutex::new(bucket), changed: watch::channel(()).0 }
    }

    /// Changes the pace; who waits looks again at once.
    pub fn set(&self, pace: Pace) {
        self.bucket().set(pace, &self.clock);
        self.changed.send_replace(());
    }

    /// The pace now.
    pub fn pace(&self) -> Pace {
        self.bucket().pace
    }

    /// Waits until `points` may go. Dropped before it is ready, it has taken nothing.
    pub async fn acquire(&self, points: u32) {
        let Some(points) = NonZeroU32::new(points) else { return };
        let mut changed = None;
        loop {
            let wait = match self.bucket().take(points, &self.clock) {
                Look::Taken => return,
                Look::Wait(wait) => wait,
            };
            // Subscribed before the second look, so that no change between look and wait is missed.
            let Some(changed) = &mut changed else {
                changed = Some(self.changed.subscribe());
                continue;
            };
            let change = async { changed.changed().await.is_ok() };
            // The sender lives as long as `self`, so the wait for a change cannot fail.
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, change).await),
                None => drop(change.await),
            }
        }
    }

    // A bucket is whole between its calls, so a lock poisoned by a panic elsewhere is as good as any.
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn set(&mut self, pace: Pace, clock: &Ticks) {
        let credit = self.limiter.as_ref().map_or(self.credit, |limiter| limiter.credit(clock));
        self.pace = pace;
        (self.limiter, self.credit) = match pace {
            Pace::Paused => (None, credit),
            Pace::PerSecond(rate) => (Some(Limiter::new(rate, credit, clock)), credit),
            Pace::Unlimited => (None, 0.0),
        };
    }

    fn take(&mut self, points: NonZeroU32, clock: &Ticks) -> Look {
        match (&self.limiter, self.pace) {
            (Some(limiter), _) => limiter.take(points, clock),
            (None, Pace::Unlimited) => Look::Taken,
            (None, Pace::Paused | Pace::PerSecond(_)) => Look::Wait(None),
        }
    }
}

/// One rate's bucket.
#[derive(Debug)]
struct Limiter {
    cells: RateLimiter<NotKeyed, Arrival, Ticks, NoOpMiddleware<Duration>>,
    arrival: Arrival,
    /// Ticks of the clock at which `arrival` counts from zero.
    start: u64,
    /// Ticks a point.
    period: u64,
    /// Points that the bucket holds.
    burst: NonZeroU32,
}

impl Limiter {
    fn new(rate: NonZeroU64, credit: f64, clock: &Ticks) -> Limiter {
        // Rounded up: never above the rate that was asked for.
        let period = TICKS_PER_SECOND.div_ceil(rate.get()).max(1);
        let burst = rate.get().saturating_mul(millis(WINDOW)) / 1000;
        let burst = NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let full = period.saturating_mul(u64::from(burst.get()));
        let arrival = Arrival(Arc::new(AtomicU64::new(until_conforming(full, period, credit))));
        // A period of zero is not possible here, and is the only one that `governor` does not take.
        let quota = Quota::with_period(Duration::from_nanos(period)).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let cells = RateLimiter::new(quota.allow_burst(burst), arrival.clone(), clock.clone());
        Limiter { cells, arrival, start: clock.ticks(), period, burst }
    }

    /// Points that may go now; negative: a debt.
    #[allow(clippy::cast_precision_loss, reason = "off by less than a tick a year")]
    fn credit(&self, clock: &Ticks) -> f64 {
        let burst = f64::from(self.burst.get());
        let now = clock.ticks().saturating_sub(self.start);
        let arrival = self.arrival.0.load(Ordering::Acquire);
        let ahead =
            if arrival >= now { (arrival - now) as f64 } else { -((now - arrival) as f64) } / self.period as f64;
        (burst - ahead).min(burst)
    }

    fn take(&self, points: NonZeroU32, clock: &Ticks) -> Look {
        // Half a window: a timer that fires late lets nothing run over the bucket's brim.
        let at_once = points.min(self.burst).min(NonZeroU32::new(self.burst.get() / 2).unwrap_or(NonZeroU32::MIN));
        match self.cells.check_n(at_once) {
            Ok(Ok(())) => {
                let debt = u64::from(points.get() - at_once.get()).saturating_mul(self.period);
                self.arrival.push_back(debt);
                Look::Taken
            }
            Ok(Err(not_until)) => {
                let ticks = u64::try_from(not_until.wait_time_from(clock.now()).as_nanos()).unwrap_or(u64::MAX);
                Look::Wait(Some(Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO).max(1))))
            }
            // More than the bucket holds was asked for, which the lines above rule out; the wait ends nevertheless.
            Err(_more_than_it_holds) => Look::Wait(Some(WINDOW)),
        }
    }
}

/// The theoretical arrival time (ticks from the limiter's start) at which the bucket has `credit` points at its start.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded below by zero and above by DEBT_MAX; a float's 53 bits hold it to a tick in a day"
)]
fn until_conforming(full: u64, period: u64, credit: f64) -> u64 {
    let ticks = full as f64 - credit * period as f64;
    ticks.ceil().clamp(0.0, DEBT_MAX as f64) as u64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The state of one limiter: readable and pre-settable, unlike `governor`'s own.
#[derive(Clone, Debug)]
struct Arrival(Arc<AtomicU64>);

impl Arrival {
    fn push_back(&self, ticks: u64) {
        let later = |arrival: u64| Some(arrival.saturating_add(ticks).min(DEBT_MAX));
        // Only its own bucket's lock holder changes it, and the closure always gives a value.
        if let Err(same) = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, later) {
            debug_assert_eq!(same, ticks, "BUG: an update that always has a value had none");
        }
    }
}

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (outcome, after) = decide(Some(Nanos::new(before)))?;
            match self.0.compare_exchange_weak(before, after.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(changed) => before = changed,
            }
        }
    }
}

/// Tokio's clock (which tests can stop) in ticks, which `governor` takes for nanoseconds.
#[derive(Clone, Debug)]
struct Ticks {
    origin: Instant,
}

impl Ticks {
    fn ticks(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_mul(TICKS_PER_NANO)
    }
}

impl GovernorClock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.ticks())
    }
}

#[cfg(test)]
mod tests;
