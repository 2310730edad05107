//! Clients: accept, read, cut into whole lines. Every outcome of `accept` and `recv` is decided in `engine::recv`.
//!
//! An idle client costs its socket and a task: reads go through one buffer a thread, and only an unfinished line is
//! kept between them. A full queue stops the reading (the clients' kernels wait), never the accepting.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use engine::line::{Framer, Reject};
use engine::recv::{AcceptOutcome, CloseReason, Disposition, HandshakeFault, ReadOutcome, begins_tls};
use engine::time::Mono;
use runtime::net::{self, SocketProfile};
use runtime::queue::Sender;
use runtime::{Supervisor, Worker, WorkerError};
use telemetry::LogSite;
use tls::{Door, Encrypted, Failed, Stream};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::router::Input;
use crate::shared::{Shared, add, get, locked};

const READ_BYTES: usize = 64 << 10;
/// A client that is told of the end gets this long to finish its line and close.
const LEAVE_WITHIN: Duration = Duration::from_millis(1_500);
/// When nothing has come for this long after the end was told, nothing is on its way: above any round trip.
const QUIET: Duration = Duration::from_millis(500);
static PAUSED: LogSite = LogSite::new(Duration::from_secs(10));
static NO_TLS: LogSite = LogSite::new(Duration::from_secs(10));

thread_local! {
    /// Read into by every connection of a thread, never across an await.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Bounds of receiving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) line_timeout: Duration,
}

/// Accepts clients until the worker is asked to stop. The listener outlives the worker.
pub(crate) async fn listen(
    worker: Worker,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    queue: Sender<Input>,
    supervisor: Supervisor,
    (door, limits): (Door, Limits),
) -> Result<(), WorkerError> {
    let opened = |stream, peer| welcome((stream, peer), &shared, &queue, &supervisor, (&door, limits));
    let rests = |error: &io::Error, outcome: AcceptOutcome, _| {
        let reason = outcome.as_str();
        *locked(&shared.counters.accept_pauses).entry(reason).or_default() += 1;
        if let Some(swallowed) = PAUSED.admit(shared.clock.now()) {
            warn!(%error, reason, swallowed, "accept rests: raise the limit of open files, or look who leaves connections open");
        }
    };
    net::accept_all(&worker, &listener, opened, rests).await
}

fn welcome(
    (stream, peer): (TcpStream, SocketAddr),
    shared: &Arc<Shared>,
    queue: &Sender<Input>,
    supervisor: &Supervisor,
    (door, limits): (&Door, Limits),
) {
    let counters = &shared.counters;
    add(&counters.opened, 1);
    if get(&counters.open) >= limits.max_connections as u64 {
        close(shared, CloseReason::TooManyConnections);
        return;
    }
    if let Err(error) = net::apply(&stream, SocketProfile::Client) {
        debug!(%error, %peer, "set socket options of a client");
    }
    let client = Client {
        open: Opened::new(shared),
        peer: peer.to_string().into(),
        framer: Framer::new(shared.policy.max_line_bytes),
        queue: queue.clone(),
        limits,
        last_byte: shared.clock.now(),
        line_since: None,
        is_new: true,
    };
    let door = door.clone();
    supervisor.spawn_draining_connection("relay.client", move |stop| async move {
        let shared = Arc::clone(&client.open.shared);
        let reason = client.enter(stream, &door, stop).await;
        close(&shared, reason);
    });
}

fn close(shared: &Shared, reason: CloseReason) {
    let index = CloseReason::ALL.iter().position(|each| *each == reason).unwrap_or(0);
    add(&shared.counters.closed[index], 1);
}

/// Counts a connection as open for as long as it lives, however it ends.
struct Opened {
    shared: Arc<Shared>,
}

impl Opened {
    fn new(shared: &Arc<Shared>) -> Opened {
        add(&shared.counters.open, 1);
        Opened { shared: Arc::clone(shared) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shared.counters.open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Client {
    open: Opened,
    peer: Arc<str>,
    framer: Framer,
    queue: Sender<Input>,
    limits: Limits,
    last_byte: Mono,
    /// When the unfinished line that is held began.
    line_since: Option<Mono>,
    /// Nothing was read yet.
    is_new: bool,
}

impl Client {
    /// Through the door, and served until the end.
    async fn enter(mut self, stream: TcpStream, door: &Door, stop: runtime::CancellationToken) -> CloseReason {
        // A plain client is in at once, also while the relay stops: what it has written by then is read (`leave`).
        let opened = tokio::select! {
            biased;
            opened = door.open(stream) => opened,
            () = stop.cancelled() => return CloseReason::Shutdown,
        };
        let reason = match opened {
            Ok(Stream::Plain(mut stream)) => self.serve(&mut stream, stop).await,
            // Boxed: a plain client must not pay for its size.
            Ok(Stream::Tls(mut stream)) => Box::pin(self.serve_tls(&mut stream, stop)).await,
            Err(failed) => CloseReason::Tls(self.complain(&failed)),
        };
        self.end(reason)
    }

    async fn serve(&mut self, stream: &mut TcpStream, stop: runtime::CancellationToken) -> CloseReason {
        loop {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave(stream).await,
                ready = stream.readable() => ready.map_or_else(|error| of_error(&error), |()| ReadOutcome::WouldBlock),
                () = tokio::time::sleep(self.patience()) => self.out_of_patience(),
            };
            if outcome == ReadOutcome::WouldBlock {
                if let Some(reason) = self.read(stream).await {
                    return reason;
                }
                continue;
            }
            match outcome.disposition() {
                Disposition::Close { reason } => return reason,
                Disposition::Continue | Disposition::Retry | Disposition::PauseAccept(_) => {}
            }
        }
    }

    /// The relay stops. The client is told by a FIN of ours, and read on: until it closes, which loses nothing, or until
    /// nothing comes any more. One that does not look and goes on writing is cut off in the end; what it writes after that its
    /// own kernel tells it of.
    async fn leave(&mut self, stream: &mut TcpStream) -> CloseReason {
        if let Err(error) = net::half_close(stream) {
            debug!(%error, peer = %self.peer, "a client left before it was told of the end");
        }
        let clock = self.open.shared.clock;
        let end = clock.now() + LEAVE_WITHIN;
        while let left = end.since(clock.now())
            && !left.is_zero()
            && let Ok(Ok(())) = tokio::time::timeout(QUIET.min(left), stream.readable()).await
        {
            if let Some(reason) = self.read(stream).await {
                return if reason == CloseReason::Eof { CloseReason::Shutdown } else { reason };
            }
        }
        CloseReason::Shutdown
    }

    /// The same over TLS: its own end goes out before the FIN.
    async fn leave_tls(&mut self, stream: &mut Encrypted) -> CloseReason {
        let clock = self.open.shared.clock;
        let end = clock.now() + LEAVE_WITHIN;
        if !matches!(tokio::time::timeout(QUIET, stream.shutdown()).await, Ok(Ok(()))) {
            debug!(peer = %self.peer, "a client left, or did not read, before it was told of the end");
        }
        while let left = end.since(clock.now())
            && !left.is_zero()
            && let Ok(taken) = tokio::time::timeout(QUIET.min(left), self.take(stream)).await
        {
            if let Some(reason) = self.took_tls(taken).await {
                return if reason == CloseReason::Eof { CloseReason::Shutdown } else { reason };
            }
        }
        CloseReason::Shutdown
    }

    /// Reads what is there, at most a queue's fair share, and hands whole lines on. The reason, if that was the end.
    async fn read(&mut self, stream: &mut TcpStream) -> Option<CloseReason> {
        loop {
            let mut lines = self.open.shared.buffers.take();
            let (outcome, overlong) = self.read_once(stream, &mut lines);
            if let Some(reason) = self.hand_on(lines, overlong).await {
                return Some(reason);
            }
            match outcome.disposition() {
                Disposition::Close { reason } => return Some(reason),
                Disposition::Continue if matches!(outcome, ReadOutcome::Data(n) if n == READ_BYTES) => {}
                Disposition::Continue | Disposition::PauseAccept(_) => return None,
                Disposition::Retry if outcome == ReadOutcome::Interrupted => {}
                Disposition::Retry => return None,
            }
        }
    }

    /// Whole lines to the queue, those that are too long to the books. The reason, if that was the end.
    async fn hand_on(&mut self, lines: Vec<u8>, overlong: u64) -> Option<CloseReason> {
        for _ in 0..overlong {
            self.open.shared.reject(&self.peer, Reject::LineTooLong, self.framer.overlong_sample());
        }
        if lines.is_empty() {
            self.open.shared.buffers.give_back(lines);
            return None;
        }
        let bytes = lines.len() as u64;
        let input = Input { lines, peer: Arc::clone(&self.peer) };
        self.queue.send(input, bytes).await.is_err().then_some(CloseReason::Shutdown)
    }

    /// One system call, and the cutting.
    fn read_once(&mut self, stream: &TcpStream, lines: &mut Vec<u8>) -> (ReadOutcome, u64) {
        BUFFER.with_borrow_mut(|buffer| {
            let outcome = match stream.try_read(buffer) {
                Ok(count) => ReadOutcome::of_count(count, self.framer.held()),
                Err(error) => of_error(&error),
            };
            let ReadOutcome::Data(count) = outcome else { return (outcome, 0) };
            if std::mem::take(&mut self.is_new) && begins_tls(buffer) {
                return (ReadOutcome::Tls(self.complain(&Failed::of(HandshakeFault::Unexpected))), 0);
            }
            (outcome, self.took(&buffer[..count], lines))
        })
    }

    /// The cutting. How many lines were too long.
    fn took(&mut self, bytes: &[u8], lines: &mut Vec<u8>) -> u64 {
        let shared = &self.open.shared;
        add(&shared.counters.received_bytes, bytes.len() as u64);
        self.last_byte = shared.clock.now();
        lines.reserve(self.framer.held() + bytes.len());
        let overlong = self.framer.push(bytes, lines);
        let whole_lines = !lines.is_empty() || overlong > 0;
        self.line_since = match (self.framer.held(), self.line_since) {
            (0, _) => None,
            (_, Some(since)) if !whole_lines => Some(since),
            (_, _) => Some(self.last_byte),
        };
        overlong
    }

    async fn serve_tls(&mut self, stream: &mut Encrypted, stop: runtime::CancellationToken) -> CloseReason {
        loop {
            let patience = self.patience();
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave_tls(stream).await,
                taken = self.take(stream) => taken,
                () = tokio::time::sleep(patience) => (self.out_of_patience(), Vec::new(), 0),
            };
            if let Some(reason) = self.took_tls(taken).await {
                return reason;
            }
        }
    }

    /// The reason, if that was the end.
    async fn took_tls(&mut self, (outcome, lines, overlong): (ReadOutcome, Vec<u8>, u64)) -> Option<CloseReason> {
        if let ReadOutcome::Data(_) = outcome
            && let Some(reason) = self.hand_on(lines, overlong).await
        {
            return Some(reason);
        }
        match outcome.disposition() {
            Disposition::Close { reason } => Some(reason),
            Disposition::Continue | Disposition::Retry | Disposition::PauseAccept(_) => None,
        }
    }

    /// Waits for bytes and takes them in the same step, so that the thread's buffer serves here, too.
    async fn take(&mut self, stream: &mut Encrypted) -> (ReadOutcome, Vec<u8>, u64) {
        std::future::poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                let polled = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read));
                let held = self.framer.held();
                let outcome = match polled {
                    Ok(()) => ReadOutcome::of_count(read.filled().len(), held),
                    // Lines end by themselves: an end that TLS was not told of is an end like any other.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ReadOutcome::of_count(0, held),
                    Err(error) => match Failed::of_tls(&error) {
                        Some(failed) => ReadOutcome::Tls(self.complain(&failed)),
                        None => of_error(&error),
                    },
                };
                let ReadOutcome::Data(_) = outcome else { return Poll::Ready((outcome, Vec::new(), 0)) };
                let mut lines = self.open.shared.buffers.take();
                let overlong = self.took(read.filled(), &mut lines);
                Poll::Ready((outcome, lines, overlong))
            })
        })
        .await
    }

    /// Says what is wrong where a person can set it right. Gives the fault.
    fn complain(&self, failed: &Failed) -> HandshakeFault {
        if failed.fault.wants_a_person()
            && let Some(swallowed) = NO_TLS.admit(self.open.shared.clock.now())
        {
            warn!(peer = %self.peer, why = %failed, swallowed, "no TLS with a client");
        }
        failed.fault
    }

    /// How long to wait for the next byte.
    fn patience(&self) -> Duration {
        let now = self.open.shared.clock.now();
        let idle = self.limits.idle_timeout.map(|idle| idle.saturating_sub(now.since(self.last_byte)));
        let line = self.line_since.map(|since| self.limits.line_timeout.saturating_sub(now.since(since)));
        [idle, line].into_iter().flatten().min().unwrap_or(Duration::from_secs(3600))
    }

    fn out_of_patience(&self) -> ReadOutcome {
        let now = self.open.shared.clock.now();
        if self.line_since.is_some_and(|since| now.since(since) >= self.limits.line_timeout) {
            return ReadOutcome::SlowLine { held_bytes: self.framer.held() };
        }
        match self.limits.idle_timeout {
            Some(idle) if now.since(self.last_byte) >= idle => ReadOutcome::Idle,
            Some(_) | None => ReadOutcome::Interrupted,
        }
    }

    /// The end of a connection: an unfinished line is counted.
    fn end(mut self, reason: CloseReason) -> CloseReason {
        if let Some(line) = self.framer.end() {
            self.open.shared.reject(&self.peer, Reject::Truncated, &line);
        }
        if reason == CloseReason::Io {
            warn!(peer = %self.peer, "client connection failed for an unusual reason");
        }
        reason
    }
}

fn of_error(error: &io::Error) -> ReadOutcome {
    ReadOutcome::of_error(error.kind(), error.raw_os_error())
}
