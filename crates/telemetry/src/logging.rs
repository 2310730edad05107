//! Logs: to stderr, as text or JSON, at the level that `SPILLWAY_LOG` says.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::time::Mono;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const VARIABLE: &str = "SPILLWAY_LOG";

/// Why there are no logs.
#[derive(Debug, Error)]
pub enum LoggingError {
    #[error("{VARIABLE}=\"{value}\" is no log filter: {reason}; write for example `debug` or `info,relay=debug`")]
    Filter { value: String, reason: String },
    #[error("logs were set up before")]
    Twice,
}

/// Sends logs to stderr, from `info` up unless `SPILLWAY_LOG` says otherwise. Once in a process.
///
/// # Errors
/// On a `SPILLWAY_LOG` that is no filter, or the second time.
pub fn init_logging(json: bool) -> Result<(), LoggingError> {
    let value = std::env::var(VARIABLE).unwrap_or_default();
    let filter = filter(&value)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if json { logs.json().try_init() } else { logs.with_ansi(std::io::stderr().is_terminal()).try_init() };
    set.map_err(|_| LoggingError::Twice)
}

fn filter(value: &str) -> Result<EnvFilter, LoggingError> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(value).map_err(|error| LoggingError::Filter { value: value.to_owned(), reason: error.to_string() })
}

/// A place in the code that may want to log often, and may so once in a while.
///
/// ```
/// use engine::time::Mono;
/// use std::time::Duration;
/// use telemetry::LogSite;
///
/// static BAD_LINE: LogSite = LogSite::new(Duration::from_secs(10));
/// # let now = Mono::ZERO;
/// if let Some(swallowed) = BAD_LINE.admit(now) {
///     tracing::info!(swallowed, "line rejected");
/// }
/// ```
#[derive(Debug)]
pub struct LogSite {
    every: Duration,
    /// Nanoseconds before which nothing is admitted; zero before the first.
    closed_until: AtomicU64,
    swallowed: AtomicU64,
}

impl LogSite {
    /// Admits one line in each `every`.
    pub const fn new(every: Duration) -> LogSite {
        LogSite { every, closed_until: AtomicU64::new(0), swallowed: AtomicU64::new(0) }
    }

    /// Whether to log at `now`: if so, with how many lines it swallowed since the last one.
    pub fn admit(&self, now: Mono) -> Option<u64> {
        let until = self.closed_until.load(Ordering::Relaxed);
        let open = now.as_nanos() >= until;
        let next = (now + self.every).as_nanos();
        // Of several threads at an open site, one logs.
        if open && self.closed_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.swallowed.swap(0, Ordering::Relaxed));
        }
        self.swallowed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeating_site_says_how_many_it_swallowed() {
        let site = LogSite::new(Duration::from_secs(10));
        let at = |seconds: u64| site.admit(Mono::from_millis(seconds * 1000));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), None);
        assert_eq!(at(9), None);
        assert_eq!(at(10), Some(2));
        assert_eq!(at(30), Some(0));
    }

    #[test]
    fn filter_that_is_none_is_refused_with_an_example() {
        assert!(filter("").is_ok());
        assert!(filter("info,relay=debug").is_ok());
        let refused = filter("relay=loud").map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("relay=loud") && refused.contains("for example"), "{refused}");
    }
}
