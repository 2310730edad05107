//! How long a point takes from the client's write to where it can be seen: marker lines, each of a series of its own, at a
//! steady rate on a connection of their own, and a sink that notes when each came.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Keep, Sink, unix_now};

/// Markers carry timestamps from here on, one second each, seconds before the start: every marker then has a window of
/// its own that is long due, so that an aggregate of it is emitted as soon as it is applied.
const AGE: u64 = 3 * 3600;

/// A stream of markers on its way.
#[derive(Debug)]
pub struct Probe {
    sink: Sink,
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// When marker `index` was written.
    written: Mutex<Vec<Instant>>,
}

/// What the markers took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    pub count: usize,
    pub median: Duration,
    pub p99: Duration,
    pub longest: Duration,
    /// Written and not seen; in the others at their age so far.
    pub missing: usize,
}

impl Probe {
    /// The sink of markers, before there is a relay. Route `probe.*` to it, or the output of a rule that keeps the marker's
    /// name `m<n>` as second element.
    ///
    /// # Panics
    /// When it cannot listen.
    #[track_caller]
    pub fn sink() -> Sink {
        Sink::start(Keep::Arrivals)
    }

    /// Writes `probe.m<n>` to `relay` every `period`.
    pub fn start(sink: Sink, relay: SocketAddr, period: Duration) -> Probe {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), written: Mutex::default() });
        let for_sender = Arc::clone(&shared);
        let sender = std::thread::spawn(move || for_sender.send(relay, period));
        Probe { sink, shared, sender: Some(sender) }
    }

    /// Markers written so far: a place in time for [`Probe::between`].
    pub fn mark(&self) -> usize {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What the markers took that were written after the mark `from` and before `until`.
    pub fn between(&self, from: usize, until: usize) -> Latencies {
        let written = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        let mut missing = 0;
        let mut took: Vec<Duration> = self.sink.look(|seen| {
            let written = written.iter().enumerate().take(until).skip(from);
            written
                .map(|(index, at)| match seen.arrivals.get(&format!("m{index:07}")) {
                    Some(seen) => seen.duration_since(*at),
                    None => {
                        missing += 1;
                        now.duration_since(*at)
                    }
                })
                .collect()
        });
        took.sort();
        let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
        Latencies {
            count: took.len(),
            median: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
            longest: took.last().copied().unwrap_or_default(),
            missing,
        }
    }

    /// Stops to write; what was written can still arrive.
    ///
    /// # Panics
    /// When its thread has panicked.
    pub fn rest(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(sender) = self.sender.take()
            && sender.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the probe's sender panicked");
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Shared {
    fn send(&self, relay: SocketAddr, period: Duration) {
        let mut stream: Option<TcpStream> = None;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
        let first = unix_now() as u64 - AGE;
        let mut due = Instant::now();
        let mut index = 0_u64;
        while !self.stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            if due > now {
                std::thread::sleep((due - now).min(Duration::from_millis(20)));
                continue;
            }
            due = now + period;
            let Some(mut open) = stream.take().or_else(|| TcpStream::connect(relay).ok()) else { continue };
            let line = format!("probe.m{index:07} 1 {}\n", first + index);
            let at = Instant::now();
            if open.write_all(line.as_bytes()).is_ok() {
                self.written.lock().unwrap_or_else(PoisonError::into_inner).push(at);
                index += 1;
                stream = Some(open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Probe;
    use crate::eventually;

    #[test]
    fn markers_are_timed_and_missing_ones_counted() {
        let sink = Probe::sink();
        let address = sink.address();
        let mut probe = Probe::start(sink, address, Duration::from_millis(5));
        eventually(Duration::from_secs(5), "markers", || (probe.mark() >= 20).then_some(()).ok_or(probe.mark()));
        probe.rest();
        eventually(Duration::from_secs(5), "all of them", || {
            let seen = probe.between(0, probe.mark());
            if seen.missing == 0 { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        let seen = probe.between(0, probe.mark());
        assert!(seen.count >= 20 && seen.median <= seen.p99 && seen.p99 <= seen.longest, "{seen:?}");
        assert!(seen.median < Duration::from_secs(1), "{seen:?}");
    }
}
