//! A plain Graphite store that counts: lines in, books out, and every way in which a store can misbehave.
//!
//! A client that half-closes gets its receipt: the sink reads to the end of the stream and only then closes its side.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread of the sink may be deaf to a change of behaviour.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 256 * 1024;

/// What the sink does to its clients from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behaviour {
    /// Accepts and reads.
    Read = 0,
    /// Resets what is connected and refuses what comes: nothing listens.
    Refuse = 1,
    /// Accepts, and resets each connection at once.
    Reset = 2,
    /// Accepts, and reads nothing.
    Stall = 3,
    /// Reads, but never answers a half-close with its own.
    HoldOpen = 4,
}

impl Behaviour {
    fn of(code: u8) -> Behaviour {
        match code {
            1 => Behaviour::Refuse,
            2 => Behaviour::Reset,
            3 => Behaviour::Stall,
            4 => Behaviour::HoldOpen,
            _ => Behaviour::Read,
        }
    }
}

/// What the sink remembers of each line.
#[derive(Clone, Debug)]
pub enum Keep {
    /// The count only.
    Count,
    /// Lines whose name starts with `prefix` carry a number below `limit` as value: how often each number came. All
    /// other lines as in [`Keep::Points`].
    Numbers { prefix: String, limit: u64 },
    /// Every value of every (name, timestamp), in order of arrival.
    Points,
    /// When a line came first, by the second element of its name: what [`crate::Probe`] looks for.
    Arrivals,
}

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// All lines.
    pub lines: u64,
    /// Numbered lines: index is the number, value how often it came (up to 255).
    pub numbers: Vec<u8>,
    /// Other lines: values in order of arrival.
    pub points: BTreeMap<(String, u64), Vec<f64>>,
    /// With [`Keep::Arrivals`].
    pub arrivals: BTreeMap<String, Instant>,
    /// Lines that are no Graphite line, or numbers out of range; the first few.
    pub strange: Vec<String>,
}

impl Seen {
    /// Numbers below `sent` that never came.
    pub fn lost(&self, sent: u64) -> u64 {
        self.numbers.iter().zip(0..sent).filter(|(count, _)| **count == 0).map(|_| 1_u64).sum()
    }

    /// Numbered lines beyond the first of each number.
    pub fn duplicated(&self) -> u64 {
        self.numbers.iter().map(|count| u64::from(count.saturating_sub(1))).sum()
    }

    /// Different numbers that came.
    pub fn distinct(&self) -> u64 {
        self.numbers.iter().filter(|count| **count > 0).map(|_| 1_u64).sum()
    }

    /// The latest value of each timestamp of `name`: what a store holds in the end.
    pub fn series(&self, name: &str) -> BTreeMap<u64, f64> {
        let from = (name.to_owned(), 0);
        self.points
            .range(from..)
            .take_while(|((at_name, _), _)| at_name == name)
            .filter_map(|((_, at), values)| values.last().map(|value| (*at, *value)))
            .collect()
    }

    /// What a store holds of `name` at `at`: the value that came last.
    pub fn last(&self, name: &str, at: u64) -> Option<f64> {
        self.points.get(&(name.to_owned(), at)).and_then(|values| values.last().copied())
    }

    /// All names among the points.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.points.keys().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    }

    fn take(&mut self, line: &[u8], keep: &Keep) {
        self.lines += 1;
        if matches!(keep, Keep::Count) {
            return;
        }
        let Some((name, value, at)) = split(line) else {
            self.strange(line);
            return;
        };
        if matches!(keep, Keep::Arrivals) {
            let element = name.split('.').nth(1).unwrap_or(name);
            self.arrivals.entry(element.to_owned()).or_insert_with(Instant::now);
            return;
        }
        if let Keep::Numbers { prefix, limit } = keep
            && name.starts_with(prefix.as_str())
        {
            if value.fract() != 0.0 || value < 0.0 || value >= *limit as f64 {
                self.strange(line);
                return;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
            let number = value as usize;
            if let Some(count) = self.numbers.get_mut(number) {
                *count = count.saturating_add(1);
            }
            return;
        }
        self.points.entry((name.to_owned(), at)).or_default().push(value);
    }

    fn strange(&mut self, line: &[u8]) {
        if self.strange.len() < 20 {
            self.strange.push(String::from_utf8_lossy(line).into_owned());
        }
    }
}

fn split(line: &[u8]) -> Option<(&str, f64, u64)> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let (name, value, at) = (fields.next()?, fields.next()?, fields.next()?);
    fields.next().is_none().then_some(())?;
    Some((name, value.parse().ok()?, at.parse().ok()?))
}

struct Shared {
    behaviour: AtomicU8,
    stop: AtomicBool,
    /// Also in `Seen`; here so that asking for it does not wait for a reader.
    lines: AtomicU64,
    connections: AtomicU64,
    receipts: AtomicU64,
    keep: Keep,
    seen: Mutex<Seen>,
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        Behaviour::of(self.behaviour.load(Ordering::SeqCst))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running sink. Dropped, it stops and resets what is connected.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sink").field("address", &self.address).field("lines", &self.lines()).finish_non_exhaustive()
    }
}

impl Sink {
    /// A sink on a free loopback port.
    ///
    /// # Panics
    /// When it cannot listen.
    #[track_caller]
    pub fn start(keep: Keep) -> Sink {
        Sink::start_on((Ipv4Addr::LOCALHOST, 0).into(), keep)
    }

    /// A sink on `address`.
    ///
    /// # Panics
    /// When it cannot listen there.
    #[track_caller]
    pub fn start_on(address: SocketAddr, keep: Keep) -> Sink {
        let listener = match TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
            Ok(listener) => listener,
            Err(error) => panic!("sink: listen on {address}: {error}"),
        };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => panic!("sink: own address: {error}"),
        };
        let mut seen = Seen::default();
        if let Keep::Numbers { limit, .. } = &keep {
            seen.numbers = vec![0; usize::try_from(*limit).unwrap_or(0)];
        }
        let shared = Arc::new(Shared {
            behaviour: AtomicU8::new(Behaviour::Read as u8),
            stop: AtomicBool::new(false),
            lines: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            receipts: AtomicU64::new(0),
            keep,
            seen: Mutex::new(seen),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(listener, address, &for_acceptor));
        Sink { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does; takes effect within some milliseconds.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.behaviour.store(behaviour as u8, Ordering::SeqCst);
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Half-closes answered so far.
    pub fn receipts(&self) -> u64 {
        self.shared.receipts.load(Ordering::SeqCst)
    }

    /// Forgets the values that have arrived: what is looked at from now on came after this.
    pub fn forget_points(&self) {
        self.shared.seen().points.clear();
    }

    /// A look at what has arrived.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.seen())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the sink's acceptor panicked");
        }
    }
}

fn accept(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let behaviour = shared.behaviour();
        if behaviour == Behaviour::Refuse {
            listener = None;
        } else if listener.is_none() {
            // The port may be busy for a moment longer; the next round tries again.
            listener = TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l)).ok();
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                if behaviour == Behaviour::Reset {
                    reset(stream);
                } else {
                    let for_reader = Arc::clone(shared);
                    readers.push(std::thread::spawn(move || read(stream, &for_reader)));
                }
                readers.retain(|reader| !reader.is_finished());
            }
            Some(Err(_)) | None => std::thread::sleep(LOOK_EVERY),
        }
    }
    for reader in readers {
        assert!(reader.join().is_ok(), "a reader of the sink panicked");
    }
}

fn read(mut stream: TcpStream, shared: &Shared) {
    if stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY))).is_err() {
        return reset(stream);
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut held: Vec<u8> = Vec::new();
    let mut ended = false;
    loop {
        let behaviour = shared.behaviour();
        if shared.stop.load(Ordering::SeqCst) || matches!(behaviour, Behaviour::Refuse | Behaviour::Reset) {
            return reset(stream);
        }
        if behaviour == Behaviour::Stall || (ended && behaviour == Behaviour::HoldOpen) {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        if ended {
            shared.receipts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                ended = true;
                if !held.is_empty() {
                    shared.seen().strange(&held);
                }
            }
            Ok(bytes) => take(&buffer[..bytes], &mut held, shared),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => return, // reset by the client: what was read counts
        }
    }
}

fn take(mut bytes: &[u8], held: &mut Vec<u8>, shared: &Shared) {
    let mut seen = shared.seen();
    if matches!(shared.keep, Keep::Count) {
        seen.lines += memchr::memchr_iter(b'\n', bytes).map(|_| 1_u64).sum::<u64>();
    } else {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if held.is_empty() {
                seen.take(line, &shared.keep);
            } else {
                held.extend_from_slice(line);
                seen.take(held, &shared.keep);
                held.clear();
            }
            bytes = rest;
        }
        held.extend_from_slice(bytes);
    }
    shared.lines.store(seen.lines, Ordering::SeqCst);
}

/// Closes with a RST instead of a FIN.
fn reset(stream: TcpStream) {
    // Where the option is refused the socket is gone already, which is what was asked for.
    drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
    drop(stream);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpStream};
    use std::time::Duration;

    use super::{Behaviour, Keep, Sink};
    use crate::eventually;

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn losses_and_duplicates_among_numbers_are_told_apart() -> std::io::Result<()> {
        let sink = Sink::start(Keep::Numbers { prefix: "n.".to_owned(), limit: 4 });
        let mut client = TcpStream::connect(sink.address())?;
        client.write_all(b"n.a 0 10\nn.b 2 10\nn.a 2 1")?;
        client.write_all(b"0\nother 1.5 10\nother 2.5 10\nnonsense\n")?;
        client.shutdown(Shutdown::Write)?;
        eventually(LONG, "the receipt", || (sink.receipts() == 1).then_some(()).ok_or("none"));
        sink.look(|seen| {
            assert_eq!((seen.lines, seen.lost(4), seen.duplicated(), seen.distinct()), (6, 2, 1, 2));
            assert_eq!(seen.series("other").get(&10), Some(&2.5));
            assert_eq!(seen.strange, ["nonsense"]);
        });
        Ok(())
    }

    #[test]
    fn a_refusing_sink_resets_clients_and_comes_back_on_the_same_port() -> std::io::Result<()> {
        let sink = Sink::start(Keep::Count);
        let mut client = TcpStream::connect(sink.address())?;
        sink.behave(Behaviour::Refuse);
        eventually(LONG, "the reset", || client.write_all(b"a 1 1\n").err().map(|_| ()).ok_or("written"));
        eventually(LONG, "the refusal", || TcpStream::connect(sink.address()).err().map(|_| ()).ok_or("connected"));
        sink.behave(Behaviour::Read);
        let mut client = eventually(LONG, "the come-back", || TcpStream::connect(sink.address()));
        let before = sink.lines();
        client.write_all(b"a 1 1\nb 2")?;
        eventually(LONG, "the line", || (sink.lines() == before + 1).then_some(()).ok_or("none"));
        Ok(())
    }
}
