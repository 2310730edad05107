//! A load for an oracle: line `n` has the value `n`, and series and timestamp that can be computed again afterwards from
//! `n` and a few marks. It can be paused so that every line that was sent is known to have been read, slowed, and let
//! go on against a relay that has been killed meanwhile.
//!
//! It is a client as carbon-relay-ng is one: it looks for the relay's FIN before it writes, ends its connection when it sees
//! one, and goes on with the next address of its list.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{eventually, unix_now};

/// Lines written at once.
const CHUNK_LINES: u64 = 200;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a relay may take to read what is in the kernel and close its side.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);
/// A write that takes longer than this is given up with its connection. Long: back-pressure is no fault.
const WRITE_WITHIN: Duration = Duration::from_secs(120);

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Feed {
    pub target: SocketAddr,
    /// Where it goes when the target takes no connection.
    pub also: Vec<SocketAddr>,
    /// Names are `<prefix>.g<n modulo 10>.s<n modulo series>`.
    pub prefix: String,
    pub series: u64,
    /// So many hexadecimal digits more in each name: what no compression makes smaller where a name comes only once.
    pub digits: u16,
    /// Lines per second; 0 = as fast as they are taken.
    pub rate: u64,
    /// Every so many lines one is late, by up to `late_by` seconds; 0 = none.
    pub late_every: u64,
    pub late_by: u64,
    /// Taken off every timestamp: a feed of old points. Seconds.
    pub age: u64,
}

/// One line, as the oracle wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub series: String,
    pub value: u64,
    pub at: u64,
}

/// From line `first` on, points that are not late carry the timestamp `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    first: u64,
    at: u64,
}

/// What was sent: enough to compute every line again.
#[derive(Clone, Debug)]
pub struct Sent {
    feed: Feed,
    marks: Vec<Mark>,
    /// Lines `0..lines` were written.
    pub lines: u64,
    /// Lines written on connections that were cut later: some may never have been read.
    pub doubtful: Vec<Range<u64>>,
}

impl Feed {
    /// 1,000 series named `load.g<n>.s<n>` at `rate` lines per second; each 47th point up to 25 s late.
    pub fn new(target: SocketAddr, rate: u64) -> Feed {
        Feed {
            target,
            also: Vec::new(),
            prefix: "load".to_owned(),
            series: 1000,
            digits: 0,
            rate,
            late_every: 47,
            late_by: 25,
            age: 0,
        }
    }

    /// Starts to send.
    pub fn start(self) -> Feeding {
        let shared = Arc::new(Shared {
            rate: AtomicU64::new(self.rate),
            run: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            lines: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            waited: AtomicU64::new(0),
            log: Mutex::default(),
            feed: self,
        });
        let for_sender = Arc::clone(&shared);
        let sender = std::thread::spawn(move || for_sender.run());
        Feeding { shared, sender: Some(sender) }
    }

    /// Line `n`, when points of now carry the timestamp `now`.
    fn point(&self, n: u64, now: u64) -> Point {
        let late = n.checked_rem(self.late_every) == Some(0);
        let back = if late { mix(n) % (self.late_by + 1) } else { 0 };
        let number = n % self.series.max(1);
        let mut series = format!("{}.g{}.s{number:05}", self.prefix, n % 10);
        for digit in 0..u64::from(self.digits) {
            series.extend(char::from_digit(u32::from((mix((number << 16) | digit) & 15) as u8), 16));
        }
        Point { series, value: n, at: now - back }
    }
}

/// A feed on its way. Dropped, it stops.
#[derive(Debug)]
pub struct Feeding {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
}

impl Feeding {
    /// Lines written so far.
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::SeqCst)
    }

    /// Changes the rate; 0 = as fast as lines are taken.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    /// The longest time from when lines were due until they were written, since the last question: relays that take no
    /// connection or do not read. Whole milliseconds.
    pub fn take_longest_wait(&self) -> Duration {
        Duration::from_millis(self.shared.waited.swap(0, Ordering::SeqCst))
    }

    /// Stops sending once `lines` lines are written in all.
    pub fn set_limit(&self, lines: u64) {
        self.shared.limit.store(lines, Ordering::SeqCst);
    }

    /// Sends no more, half-closes its connection and waits until the relay has read all of it.
    ///
    /// # Panics
    /// When the relay neither reads nor closes within two minutes.
    #[track_caller]
    pub fn pause(&self) {
        self.shared.run.store(false, Ordering::SeqCst);
        eventually(CLOSE_WITHIN + WRITE_WITHIN, "the feed to be idle", || {
            if self.shared.idle.load(Ordering::SeqCst) { Ok(()) } else { Err(format!("{} lines", self.lines())) }
        });
    }

    /// Goes on after [`Feeding::pause`].
    pub fn resume(&self) {
        self.shared.idle.store(false, Ordering::SeqCst);
        self.shared.run.store(true, Ordering::SeqCst);
    }

    /// What was sent up to now. Exact while paused.
    pub fn sent(&self) -> Sent {
        let log = self.shared.log();
        Sent {
            feed: self.shared.feed.clone(),
            marks: log.marks.clone(),
            lines: self.lines(),
            doubtful: log.doubtful.clone(),
        }
    }

    /// Pauses and ends.
    ///
    /// # Panics
    /// As [`Feeding::pause`].
    #[track_caller]
    pub fn finish(mut self) -> Sent {
        self.pause();
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(sender) = self.sender.take()
            && sender.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the feed's sender panicked");
        }
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.end();
    }
}

impl Sent {
    /// Every point that was sent, in order.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        let mut marks = self.marks.iter().peekable();
        let mut at = 0;
        (0..self.lines).map(move |n| {
            while let Some(mark) = marks.next_if(|mark| mark.first <= n) {
                at = mark.at;
            }
            self.feed.point(n, at)
        })
    }
}

#[derive(Debug)]
struct Shared {
    feed: Feed,
    rate: AtomicU64,
    run: AtomicBool,
    stop: AtomicBool,
    idle: AtomicBool,
    lines: AtomicU64,
    limit: AtomicU64,
    /// Milliseconds.
    waited: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    marks: Vec<Mark>,
    doubtful: Vec<Range<u64>>,
}

/// A connection, and the first line that was written on it.
struct Connection {
    stream: TcpStream,
    first: u64,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut connection: Option<Connection> = None;
        let mut due = Instant::now();
        let mut text = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let lines = self.lines.load(Ordering::SeqCst);
            let left = self.limit.load(Ordering::SeqCst).saturating_sub(lines);
            if !self.run.load(Ordering::SeqCst) || left == 0 {
                self.close(connection.take());
                self.idle.store(true, Ordering::SeqCst);
                std::thread::sleep(LOOK_EVERY);
                due = Instant::now();
                continue;
            }
            let now = Instant::now();
            if due > now {
                std::thread::sleep((due - now).min(LOOK_EVERY));
                continue;
            }
            if let Some(told) = connection.take_if(|open| sees_end(&open.stream)) {
                self.leave(told);
            }
            let Some(open) = connection.take().or_else(|| self.connect(lines)) else {
                std::thread::sleep(LOOK_EVERY);
                continue;
            };
            let count = CHUNK_LINES.min(left);
            connection = self.write(open, lines..lines + count, &mut text);
            if let Some(rate) = Some(self.rate.load(Ordering::SeqCst)).filter(|rate| *rate > 0) {
                let waited = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.waited.fetch_max(waited, Ordering::SeqCst);
                // What a stall has made late is not caught up by a burst of more than a second's worth.
                due = due.max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
                due += Duration::from_secs_f64(count as f64 / rate as f64);
            }
        }
        self.close(connection);
    }

    fn connect(&self, first: u64) -> Option<Connection> {
        let targets = std::iter::once(&self.feed.target).chain(&self.feed.also);
        let mut streams = targets.filter_map(|to| TcpStream::connect_timeout(to, Duration::from_secs(2)).ok());
        let stream = streams.next()?;
        stream.set_write_timeout(Some(WRITE_WITHIN)).ok()?;
        stream.set_read_timeout(Some(CLOSE_WITHIN)).ok()?;
        Some(Connection { stream, first })
    }

    /// Writes one chunk. A connection that fails takes its lines with it: they are doubtful, and not sent again.
    fn write(&self, mut open: Connection, lines: Range<u64>, text: &mut Vec<u8>) -> Option<Connection> {
        let now = whole_seconds().saturating_sub(self.feed.age);
        text.clear();
        for n in lines.clone() {
            let Point { series, value, at } = self.feed.point(n, now);
            if writeln!(text, "{series} {value} {at}").is_err() {
                panic!("BUG: writing to a Vec cannot fail");
            }
        }
        {
            let mut log = self.log();
            if log.marks.last().is_none_or(|last| last.at != now) {
                log.marks.push(Mark { first: lines.start, at: now });
            }
        }
        let written = open.stream.write_all(text);
        self.lines.store(lines.end, Ordering::SeqCst);
        match written {
            Ok(()) => Some(open),
            Err(_) => {
                self.log().doubtful.push(open.first..lines.end);
                None
            }
        }
    }

    /// The relay ends: what was written is whole lines, so this side ends too. That they were read is the relay's promise,
    /// and for the oracle to say; a half-close that fails tells that some were not.
    fn leave(&self, told: Connection) {
        if told.stream.shutdown(Shutdown::Write).is_err() {
            self.log().doubtful.push(told.first..self.lines.load(Ordering::SeqCst));
        }
    }

    /// Half-closes and waits for the other side's end: then everything was read. Else its lines are doubtful.
    fn close(&self, connection: Option<Connection>) {
        let Some(Connection { mut stream, first }) = connection else { return };
        let read = stream.shutdown(Shutdown::Write).is_ok() && matches!(end_of(&mut stream), Ok(0));
        if !read {
            self.log().doubtful.push(first..self.lines.load(Ordering::SeqCst));
        }
    }
}

/// Whether the other side has half-closed. Nothing else is ever read from a relay.
fn sees_end(stream: &TcpStream) -> bool {
    let seen = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0_u8; 1]));
    let back = stream.set_nonblocking(false);
    // An error shows in the write that follows, which makes the lines doubtful.
    matches!((seen, back), (Ok(0), Ok(())))
}

fn end_of(stream: &mut TcpStream) -> io::Result<usize> {
    stream.read(&mut [0_u8; 1])
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
fn whole_seconds() -> u64 {
    unix_now() as u64
}

/// A number that looks random, the same for the same `n` (the finaliser of splitmix64).
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Feed;
    use crate::{Keep, Sink, eventually};

    #[test]
    fn what_was_sent_can_be_computed_again_line_by_line() {
        let sink = Sink::start(Keep::Points);
        let feed = Feed { late_every: 7, late_by: 5, ..Feed::new(sink.address(), 0) }.start();
        eventually(Duration::from_secs(5), "some lines", || if feed.lines() > 5_000 { Ok(()) } else { Err("few") });
        feed.pause();
        let first = feed.lines();
        feed.resume();
        eventually(Duration::from_secs(5), "more", || if feed.lines() > first { Ok(()) } else { Err("none") });
        let sent = feed.finish();
        assert!(sent.doubtful.is_empty(), "{:?}", sent.doubtful);
        assert_eq!(sink.lines(), sent.lines);
        sink.look(|seen| {
            let mut count = 0;
            for point in sent.points() {
                let values = seen.points.get(&(point.series.clone(), point.at)).expect("a point that was sent");
                assert!(values.contains(&(point.value as f64)), "{point:?}");
                count += 1;
            }
            assert_eq!(count, sent.lines);
        });
    }
}
