//! Clients: accept, read, cut into whole lines. Every outcome of `accept` and `recv` is decided in `engine::recv`.
//!
//! An idle client costs its socket and a task: reads go through one buffer a thread, and only an unfinished line is
//! kept between them. A full queue stops the reading (the clients' kernels wait), never the accepting.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::line::{Framer, Reject};
use engine::recv::{AcceptOutcome, CloseReason, Disposition, ReadOutcome};
use engine::time::Mono;
use runtime::net::{self, SocketProfile};
use runtime::queue::Sender;
use runtime::{Supervisor, Worker, WorkerError};
use telemetry::LogSite;
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
    limits: Limits,
) -> Result<(), WorkerError> {
    let opened = |stream, peer| welcome(stream, peer, &shared, &queue, &supervisor, limits);
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
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    queue: &Sender<Input>,
    supervisor: &Supervisor,
    limits: Limits,
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
        stream,
        peer: peer.to_string().into(),
        framer: Framer::new(shared.policy.max_line_bytes),
        queue: queue.clone(),
        limits,
        last_byte: shared.clock.now(),
        line_since: None,
    };
    supervisor.spawn_draining_connection("relay.client", move |stop| async move {
        let shared = Arc::clone(&client.open.shared);
        let reason = client.serve(stop).await;
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
    stream: TcpStream,
    peer: Arc<str>,
    framer: Framer,
    queue: Sender<Input>,
    limits: Limits,
    last_byte: Mono,
    /// When the unfinished line that is held began.
    line_since: Option<Mono>,
}

impl Client {
    async fn serve(mut self, stop: runtime::CancellationToken) -> CloseReason {
        loop {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave().await,
                ready = self.stream.readable() => ready.map_or_else(|error| of_error(&error), |()| ReadOutcome::WouldBlock),
                () = tokio::time::sleep(self.patience()) => self.out_of_patience(),
            };
            if outcome == ReadOutcome::WouldBlock {
                if let Some(reason) = self.read().await {
                    return self.end(reason);
                }
                continue;
            }
            match outcome.disposition() {
                Disposition::Close { reason } => return self.end(reason),
                Disposition::Continue | Disposition::Retry | Disposition::PauseAccept(_) => {}
            }
        }
    }

    /// The relay stops. The client is told by a FIN of ours, and read on: until it closes, which loses nothing, or until
    /// nothing comes any more. One that does not look and goes on writing is cut off in the end; what it writes after that its
    /// own kernel tells it of.
    async fn leave(mut self) -> CloseReason {
        if let Err(error) = net::half_close(&self.stream) {
            debug!(%error, peer = %self.peer, "a client left before it was told of the end");
        }
        let clock = self.open.shared.clock;
        let end = clock.now() + LEAVE_WITHIN;
        loop {
            let left = end.since(clock.now());
            if left.is_zero() {
                return self.end(CloseReason::Shutdown);
            }
            match tokio::time::timeout(QUIET.min(left), self.stream.readable()).await {
                Ok(Ok(())) => match self.read().await {
                    None => {}
                    Some(CloseReason::Eof) => return self.end(CloseReason::Shutdown),
                    Some(reason) => return self.end(reason),
                },
                Ok(Err(_)) | Err(_) => return self.end(CloseReason::Shutdown),
            }
        }
    }

    /// Reads what is there, at most a queue's fair share, and hands whole lines on. The reason, if that was the end.
    async fn read(&mut self) -> Option<CloseReason> {
        loop {
            let mut lines = self.open.shared.buffers.take();
            let (outcome, overlong) = self.read_once(&mut lines);
            for _ in 0..overlong {
                self.open.shared.reject(&self.peer, Reject::LineTooLong, self.framer.overlong_sample());
            }
            if lines.is_empty() {
                self.open.shared.buffers.give_back(lines);
            } else {
                let bytes = lines.len() as u64;
                let input = Input { lines, peer: Arc::clone(&self.peer) };
                if self.queue.send(input, bytes).await.is_err() {
                    return Some(CloseReason::Shutdown);
                }
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

    /// One system call, and the cutting.
    fn read_once(&mut self, lines: &mut Vec<u8>) -> (ReadOutcome, u64) {
        BUFFER.with_borrow_mut(|buffer| {
            let held = self.framer.held();
            let outcome = match self.stream.try_read(buffer) {
                Ok(count) => ReadOutcome::of_count(count, held),
                Err(error) => of_error(&error),
            };
            let ReadOutcome::Data(count) = outcome else { return (outcome, 0) };
            let shared = &self.open.shared;
            add(&shared.counters.received_bytes, count as u64);
            self.last_byte = shared.clock.now();
            lines.reserve(held + count);
            let overlong = self.framer.push(&buffer[..count], lines);
            let whole_lines = !lines.is_empty() || overlong > 0;
            self.line_since = match (self.framer.held(), self.line_since) {
                (0, _) => None,
                (_, Some(since)) if !whole_lines => Some(since),
                (_, _) => Some(self.last_byte),
            };
            (outcome, overlong)
        })
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
