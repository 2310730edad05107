//! A load whose every line is different and can be told from every other: line `n` carries the value `n`.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines written at once, and the unit in which connections take numbers. Small, so that many connections share a load
/// evenly and a rate is smooth.
const CHUNK_LINES: u64 = 200;
/// How long a connection that was cut waits before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_millis(20);

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Load {
    pub target: SocketAddr,
    pub connections: usize,
    /// In all; the numbers are `0..lines`.
    pub lines: u64,
    /// Names are `<prefix><n modulo series>`.
    pub prefix: String,
    pub series: u64,
    /// Of line 0, seconds since 1970.
    pub first_timestamp: u64,
    /// How many lines carry one timestamp before the next second's begin; 0 = all the first.
    pub lines_per_timestamp: u64,
    /// Lines per second over all connections; `None` = as fast as they are taken.
    pub rate: Option<u64>,
}

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Numbers handed out: `0..taken`.
    pub taken: u64,
    /// Connections that were cut while they were used.
    pub cut: u64,
    /// Lines written on connections that were cut later: some of them may never have been read.
    pub doubtful: u64,
}

struct Shared {
    load: Load,
    next: AtomicU64,
    stop: AtomicBool,
    cut: AtomicU64,
    doubtful: AtomicU64,
    start: Instant,
}

/// A load on its way.
pub struct Running {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<io::Result<()>>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Running").field("taken", &self.taken()).finish_non_exhaustive()
    }
}

impl Load {
    /// `lines` lines over `connections` connections at full speed, 1,000 series named `load.s<n>`, one timestamp.
    pub fn new(target: SocketAddr, connections: usize, lines: u64) -> Load {
        Load {
            target,
            connections,
            lines,
            prefix: "load.s".to_owned(),
            series: 1000,
            first_timestamp: 1_700_000_000,
            lines_per_timestamp: 0,
            rate: None,
        }
    }

    /// Starts one thread a connection.
    pub fn start(self) -> Running {
        let connections = self.connections;
        let shared = Arc::new(Shared {
            load: self,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            cut: AtomicU64::new(0),
            doubtful: AtomicU64::new(0),
            start: Instant::now(),
        });
        let senders = (0..connections)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.send())
            })
            .collect();
        Running { shared, senders }
    }

    /// Appends the text of line `number`.
    ///
    /// # Errors
    /// None for a `Vec`; the signature is `write!`'s.
    pub fn write_line(&self, number: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let seconds = number.checked_div(self.lines_per_timestamp).unwrap_or(0);
        let at = self.first_timestamp + seconds;
        writeln!(into, "{}{:05} {number} {at}", self.prefix, number % self.series.max(1))
    }
}

impl Running {
    /// Numbers handed out so far.
    pub fn taken(&self) -> u64 {
        self.shared.next.load(Ordering::SeqCst).min(self.shared.load.lines)
    }

    /// Ends the load after the chunks that are being written, or returns what it was when it has ended by itself.
    ///
    /// # Panics
    /// As [`Running::finish`].
    #[track_caller]
    pub fn stop(self) -> LoadReport {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.finish()
    }

    /// Waits until every line is written and each connection half-closed and closed by the other side.
    ///
    /// # Panics
    /// When a connection could not be made.
    #[track_caller]
    pub fn finish(mut self) -> LoadReport {
        for sender in self.senders.drain(..) {
            match sender.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => panic!("load on {}: {error}", self.shared.load.target),
                Err(_) => panic!("a sender of the load panicked"),
            }
        }
        LoadReport {
            taken: self.taken(),
            cut: self.shared.cut.load(Ordering::SeqCst),
            doubtful: self.shared.doubtful.load(Ordering::SeqCst),
        }
    }
}

impl Shared {
    fn send(&self) -> io::Result<()> {
        let mut stream = connect(self.load.target)?;
        let mut on_this_connection = 0;
        let mut text = Vec::with_capacity(64 * 1024);
        while let Some((first, end)) = self.take_chunk() {
            text.clear();
            for number in first..end {
                self.load.write_line(number, &mut text)?;
            }
            on_this_connection += end - first;
            if stream.write_all(&text).is_err() {
                self.cut.fetch_add(1, Ordering::SeqCst);
                self.doubtful.fetch_add(on_this_connection, Ordering::SeqCst);
                on_this_connection = 0;
                std::thread::sleep(RECONNECT_AFTER);
                stream = connect(self.load.target)?;
            }
        }
        if !close(stream) {
            self.cut.fetch_add(1, Ordering::SeqCst);
            self.doubtful.fetch_add(on_this_connection, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The next numbers, when it is their time.
    fn take_chunk(&self) -> Option<(u64, u64)> {
        if self.stop.load(Ordering::SeqCst) {
            return None;
        }
        let first = self.next.fetch_add(CHUNK_LINES, Ordering::SeqCst);
        if first >= self.load.lines {
            return None;
        }
        if let Some(rate) = self.load.rate {
            let due = Duration::from_secs_f64(first as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
        Some((first, (first + CHUNK_LINES).min(self.load.lines)))
    }
}

/// A few attempts: a listener that is being restarted refuses for a moment.
fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let mut last = None;
    for _ in 0..100 {
        match TcpStream::connect(target) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(RECONNECT_AFTER);
    }
    Err(last.unwrap_or_else(|| io::Error::other("no attempt was made")))
}

/// Half-closes and waits for the other side's end: then everything was read. False when it was cut instead.
fn close(mut stream: TcpStream) -> bool {
    use std::io::Read;
    stream.set_read_timeout(Some(Duration::from_secs(30))).is_ok()
        && stream.shutdown(Shutdown::Write).is_ok()
        && matches!(stream.read(&mut [0_u8; 1]), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::Load;
    use crate::{Keep, Sink, eventually};
    use std::time::{Duration, Instant};

    #[test]
    fn every_line_arrives_once_over_many_connections() {
        let sink = Sink::start(Keep::Numbers { prefix: "load.s".to_owned(), limit: 10_050 });
        let report = Load::new(sink.address(), 7, 10_050).start().finish();
        assert_eq!((report.taken, report.cut, report.doubtful), (10_050, 0, 0));
        eventually(Duration::from_secs(5), "all lines", || (sink.lines() == 10_050).then_some(()).ok_or(sink.lines()));
        sink.look(|seen| {
            assert_eq!((seen.lost(10_050), seen.duplicated(), seen.strange.len()), (0, 0, 0));
        });
    }

    #[test]
    fn a_rate_is_a_ceiling() {
        let sink = Sink::start(Keep::Count);
        let start = Instant::now();
        Load { rate: Some(10_000), ..Load::new(sink.address(), 2, 3_000) }.start().finish();
        assert!(start.elapsed() >= Duration::from_millis(280), "{:?}", start.elapsed());
    }
}
