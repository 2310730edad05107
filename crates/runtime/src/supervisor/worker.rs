//! What a worker is given: its name, its heartbeat, its stop token and its generation.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::time::Mono;
use tokio_util::sync::CancellationToken;

use crate::Clock;

/// Why a worker ended. Any error turns into one with `?`, its sources joined by `: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerError(String);

impl WorkerError {
    /// An error of the worker's own words.
    pub fn new(message: impl Into<String>) -> WorkerError {
        WorkerError(message.into())
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Like `anyhow::Error`: it is no `std::error::Error` itself, so that this does not overlap `From<T> for T`.
impl<E: std::error::Error> From<E> for WorkerError {
    fn from(error: E) -> WorkerError {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        WorkerError(message)
    }
}

/// One life of a worker. Clone it freely; clones share the heartbeat.
///
/// **Beat at least every [`Worker::beat_interval`]** (a quarter of the watchdog), also while idle: wait with
/// `recv_timeout`, or put a wait of any length into [`Worker::idle`]. A worker that does not beat for the watchdog's
/// time is given up: a task is aborted, a thread is left behind, and a new life starts beside it. From then on
/// [`Worker::is_current`] is false in the old life, which must then change nothing outside itself and return.
#[derive(Clone, Debug)]
pub struct Worker {
    pub(super) node: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) generation: u64,
    pub(super) current: Arc<AtomicU64>,
    // One per life, so that a zombie's beat does not hide that its successor hangs.
    pub(super) heartbeat: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
    pub(super) clock: Clock,
    pub(super) watchdog: Duration,
}

impl Worker {
    /// The dotted name, such as `relay.router.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says "alive and making progress". Costs a clock reading and a store.
    pub fn beat(&self) {
        self.heartbeat.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    /// How often to beat at least: a quarter of the watchdog.
    pub fn beat_interval(&self) -> Duration {
        self.watchdog / 4
    }

    /// Waits for `wait` and beats meanwhile. For waits that may rightly take for ever (accept, an empty queue), never
    /// for work. Dropping it drops `wait`.
    pub async fn idle<F: Future>(&self, wait: F) -> F::Output {
        let mut wait = std::pin::pin!(wait);
        loop {
            self.beat();
            if let Ok(output) = tokio::time::timeout(self.beat_interval(), wait.as_mut()).await {
                self.beat();
                return output;
            }
        }
    }

    /// Which life this is: 1 for the first, one more with each restart.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// False once another life has taken this one's place.
    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire) == self.generation
    }

    /// Cancelled when this worker is asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Whether this life should return: a stop was asked, or another life has taken over.
    pub fn should_stop(&self) -> bool {
        self.stop.is_cancelled() || !self.is_current()
    }

    /// The node whose worker this is.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The clock the supervisor measures heartbeats with.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// A place in a *thread* where a test may inject a fault; nothing in an ordinary build.
    ///
    /// # Errors
    /// The injected error.
    ///
    /// # Panics
    /// The injected panic.
    #[inline]
    pub fn failpoint(&self, site: &'static str) -> Result<(), WorkerError> {
        #[cfg(any(test, failpoints))]
        match self.injected(site)? {
            Some(Delay::Hang) => self.hang_until_fenced(),
            Some(Delay::Slow) => std::thread::sleep(SLOW),
            None => {}
        }
        #[cfg(not(any(test, failpoints)))]
        let _ = site;
        Ok(())
    }

    /// A place in a *task* where a test may inject a fault; nothing in an ordinary build.
    ///
    /// # Errors
    /// The injected error.
    ///
    /// # Panics
    /// The injected panic.
    #[inline]
    #[cfg_attr(
        not(any(test, failpoints)),
        allow(clippy::unused_async, reason = "waits only where faults are injected")
    )]
    pub async fn failpoint_async(&self, site: &'static str) -> Result<(), WorkerError> {
        #[cfg(any(test, failpoints))]
        match self.injected(site)? {
            Some(Delay::Hang) => std::future::pending::<()>().await,
            Some(Delay::Slow) => tokio::time::sleep(SLOW).await,
            None => {}
        }
        #[cfg(not(any(test, failpoints)))]
        let _ = site;
        Ok(())
    }

    /// Carries out a panic or an error; to wait is left to the caller, who knows how.
    #[cfg(any(test, failpoints))]
    fn injected(&self, site: &'static str) -> Result<Option<Delay>, WorkerError> {
        use crate::failpoints::{Action, armed};
        match armed::take(&self.node, &self.name) {
            None => Ok(None),
            Some(Action::Panic) => panic!("failpoint {site} in {}", self.name),
            Some(Action::Error) => Err(WorkerError(format!("failpoint {site} in {}", self.name))),
            Some(Action::Hang) => Ok(Some(Delay::Hang)),
            Some(Action::Slow) => Ok(Some(Delay::Slow)),
        }
    }

    /// Sleeps without a beat until fenced, then returns as a zombie that wakes up: that is what fencing is for.
    #[cfg(any(test, failpoints))]
    fn hang_until_fenced(&self) {
        let end = self.clock.now() + Duration::from_secs(60);
        while self.is_current() && self.clock.now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn beat_at(&self) -> Mono {
        Mono::from_nanos(self.heartbeat.load(Ordering::Relaxed))
    }
}

/// How a worker is kept from its work.
#[cfg(any(test, failpoints))]
enum Delay {
    Hang,
    Slow,
}

/// An eighth of the watchdog's usual limit: slow is not hung.
#[cfg(any(test, failpoints))]
const SLOW: Duration = Duration::from_millis(250);
