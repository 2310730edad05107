//! Bounded waiting: a condition is asked again and again until it holds or the time is up.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long between two looks. Short enough for a 2 s bound, long enough to leave the two cores to the product.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks `look` until it answers `Ok`, at most for `limit`; the error is the last answer, with what was waited for.
///
/// # Errors
/// When `limit` passes first.
pub fn within<T, E: Display>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<(T, Duration), String> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(error) if start.elapsed() >= limit => {
                return Err(format!("waited {limit:?} for {what}; last seen: {error}"));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// [`within`], as an assertion.
///
/// # Panics
/// When `limit` passes before `look` answers `Ok`.
#[track_caller]
pub fn eventually<T, E: Display>(limit: Duration, what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    match within(limit, what, look) {
        Ok((value, _)) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Seconds since 1970 by the wall clock, with fraction.
pub fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// How much `count` grows per second, measured over `time`.
///
/// # Errors
/// What `count` says when it cannot tell.
pub fn growth<E>(time: Duration, mut count: impl FnMut() -> Result<u64, E>) -> Result<f64, E> {
    let (before, start) = (count()?, Instant::now());
    std::thread::sleep(time);
    Ok((count()?.saturating_sub(before)) as f64 / start.elapsed().as_secs_f64())
}
