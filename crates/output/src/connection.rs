//! The worker: carries out the link's commands on a socket, and tells it what came of them.
//!
//! It never waits on anything without a beat, and never holds the lock over a wait. Reads go on as long as the connection
//! does: they are how EOF and resets are noticed at once; what a store sends is ignored.
//!
//! A FIN after our half-close is a receipt only if the store did not close by itself just then: its kernel answers what
//! we sent into its closed socket with RST, which comes up to a round trip after the FIN and which `read` does not show.
//! So the socket's error is asked for, a little later than the FIN.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::store_link::{Command, Event, Phase, Receipts};
use engine::time::Mono;
use runtime::net::{self, SocketProfile, TcpStream};
use runtime::{Worker, WorkerError};
use tokio::io::AsyncWriteExt;
use tracing::{debug, info, warn};

use crate::hand::Hand;
use crate::sender::Shared;

/// Inside a data centre a store that does not answer in 2 s is away (FAULTS A11).
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Bytes and blocks pulled at a time: a few large writes, and little that is neither sent nor droppable.
const HAND_BYTES: usize = 1 << 20;
const HAND_BLOCKS: usize = 1024;
/// The longest wait without looking at the link again: half of the 500 ms that a beat may take.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Bounds of the wait between a FIN and the question for the socket's error; between them two round trips.
const FIN_WAIT_MIN: Duration = Duration::from_millis(5);
const FIN_WAIT_MAX: Duration = Duration::from_millis(500);

/// One life of the worker.
struct Connection {
    worker: Worker,
    shared: Arc<Shared>,
    stream: Option<TcpStream>,
    /// How long the handshake took: about a round trip, whatever the store's process does.
    round_trip: Duration,
    half_closed: bool,
    /// The store has read everything.
    receipted: bool,
    hand: Hand,
    pulled: Vec<Bytes>,
    /// One INFO for each end of a connection, not for every attempt after it.
    said_down: bool,
    said_unsupported: bool,
}

/// What the link wants next.
enum Next {
    Do(Command),
    Write,
    Wait { until: Mono },
    Ended,
}

pub(crate) async fn run(worker: Worker, shared: Arc<Shared>) -> Result<(), WorkerError> {
    // The connection of an earlier life is gone.
    shared.handle(Event::Reset);
    let mut connection = Connection {
        worker,
        shared,
        stream: None,
        round_trip: Duration::ZERO,
        half_closed: false,
        receipted: false,
        hand: Hand::default(),
        pulled: Vec::new(),
        said_down: false,
        said_unsupported: false,
    };
    loop {
        connection.worker.beat();
        connection.worker.failpoint_async("store").await?;
        if !connection.worker.is_current() {
            return Err(WorkerError::new("another life has taken over"));
        }
        match connection.next() {
            Next::Do(Command::Connect) => connection.connect().await,
            Next::Do(Command::HalfClose) => connection.half_close().await,
            Next::Do(Command::Close) => connection.close(),
            Next::Write => connection.write().await,
            Next::Wait { until } => connection.wait(until).await,
            Next::Ended => return Ok(()),
        }
    }
}

impl Connection {
    fn next(&mut self) -> Next {
        let now = self.shared.now();
        let is_stopping = self.worker.should_stop();
        let mut held = self.shared.held();
        let is_news = is_stopping && !held.link.is_draining();
        held.link.handle(now, if is_news { Event::Drain } else { Event::Tick });
        if is_news || held.link.accepts(now) {
            self.shared.room.notify_waiters();
        }
        if let Some(command) = held.link.next_command() {
            return Next::Do(command);
        }
        if held.link.phase() == Phase::Drained {
            // Drained to the spill before the worker itself was asked to stop: it ends only then, or it would be restarted.
            return if is_stopping { Next::Ended } else { Next::Wait { until: now + LOOK_INTERVAL } };
        }
        if self.hand.is_empty() {
            held.link.next_to_write(now, HAND_BYTES, HAND_BLOCKS, &mut self.pulled);
        }
        let until = held.link.next_deadline().unwrap_or(now + LOOK_INTERVAL).min(now + LOOK_INTERVAL);
        let is_unsupported = held.link.receipts() == Receipts::Unsupported;
        drop(held);
        if is_unsupported && !self.said_unsupported {
            warn!(addr = %self.shared.addr, "store gives no receipts, its points stay unconfirmed");
        }
        self.said_unsupported = is_unsupported;
        self.hand.fill(&mut self.pulled);
        if self.hand.is_empty() { Next::Wait { until } } else { Next::Write }
    }

    async fn connect(&mut self) {
        let began = self.shared.now();
        let profile = SocketProfile::Store { notsent_lowat: self.shared.notsent_lowat };
        let attempt = net::connect(&self.shared.addr, profile, CONNECT_WITHIN);
        match self.worker.idle(attempt).await {
            Ok(stream) => {
                self.round_trip = self.shared.now().since(began);
                self.stream = Some(stream);
                self.half_closed = false;
                if std::mem::take(&mut self.said_down) {
                    info!(addr = %self.shared.addr, "connected to store again");
                }
                self.shared.handle(Event::Connected);
            }
            Err(error) => {
                let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                self.say_down(&format!("{error}{cause}"));
                self.shared.handle(Event::ConnectFailed);
            }
        }
    }

    async fn half_close(&mut self) {
        // The store may have closed already, and nobody has looked yet.
        self.read();
        let Some(stream) = self.stream.as_mut() else { return };
        match stream.shutdown().await {
            Ok(()) => self.half_closed = true,
            Err(error) => self.lost(Event::Reset, &error.to_string()),
        }
    }

    fn close(&mut self) {
        // All that was unconfirmed is sent again: what the kernel still has of it must not come after that.
        if let Some(stream) = self.stream.take()
            && !std::mem::take(&mut self.receipted)
            && let Err(error) = net::abort_on_close(&stream)
        {
            debug!(addr = %self.shared.addr, %error, "connection to store was gone before it was given up");
        }
        self.half_closed = false;
        self.hand.clear();
    }

    /// Writes once, and waits for the kernel when it takes nothing.
    async fn write(&mut self) {
        self.read();
        let Some(stream) = &self.stream else { return };
        match self.hand.try_write(stream) {
            Ok(blocks) => {
                self.shared.handle(Event::Written { blocks });
                // The socket never tells a fast writer to wait; others shall have their turn, and so shall the reactor
                // that tells of an EOF.
                if self.hand.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let until = self.shared.now() + LOOK_INTERVAL;
                self.wait(until).await;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.lost(Event::Reset, &error.to_string()),
        }
    }

    /// Waits until `until`, or until there is something to read, to write, to send or to stop for.
    async fn wait(&mut self, until: Mono) {
        let left = until.since(self.shared.now());
        let is_writing = !self.hand.is_empty();
        let is_stopping = self.worker.should_stop();
        let stopping = self.worker.stopping();
        let has_input = tokio::select! {
            biased;
            ready = readable(self.stream.as_ref()) => ready,
            () = writable(self.stream.as_ref()), if is_writing => false,
            () = self.shared.work.notified(), if !is_writing => false,
            () = stopping.cancelled(), if !is_stopping => false,
            () = tokio::time::sleep(left) => false,
        };
        if has_input && self.read() == Read::End && self.half_closed {
            self.finish().await;
        }
    }

    /// Reads what there is and forgets it. The end of a connection that is not half-closed is told to the link.
    fn read(&mut self) -> Read {
        let mut scratch = [0; 4096];
        let Some(stream) = &self.stream else { return Read::Nothing };
        match stream.try_read(&mut scratch) {
            Ok(0) if self.half_closed => Read::End,
            Ok(0) => {
                self.lost(Event::PeerClosed, "closed by the store");
                Read::End
            }
            Ok(_) => Read::Nothing,
            Err(error) if is_momentary(&error) => Read::Nothing,
            Err(error) => {
                self.lost(Event::Reset, &error.to_string());
                Read::End
            }
        }
    }

    /// EOF after our half-close: a receipt, unless a reset follows. See the module.
    async fn finish(&mut self) {
        let wait = (self.round_trip * 2).clamp(FIN_WAIT_MIN, FIN_WAIT_MAX);
        let Some(stream) = &self.stream else { return };
        match self.worker.idle(fin_is_receipt(stream, wait)).await {
            Ok(()) => {
                self.receipted = true;
                self.shared.handle(Event::Fin);
            }
            Err(error) => self.lost(Event::Reset, &error.to_string()),
        }
    }

    fn lost(&mut self, event: Event, why: &str) {
        self.close();
        self.say_down(why);
        self.shared.handle(event);
    }

    fn say_down(&mut self, why: &str) {
        self.shared.held().last_error = Some(why.to_owned());
        if !std::mem::replace(&mut self.said_down, true) {
            info!(addr = %self.shared.addr, why, "no connection to store");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Nothing,
    End,
}

/// Whether a FIN stays the last word for as long as `wait`; an error is the reset that followed it.
pub(crate) async fn fin_is_receipt(stream: &TcpStream, wait: Duration) -> io::Result<()> {
    tokio::time::sleep(wait).await;
    match stream.take_error()? {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// True when there is something to read, an EOF or an error included. Never resolves without a connection.
async fn readable(stream: Option<&TcpStream>) -> bool {
    match stream {
        Some(stream) => stream.readable().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn writable(stream: Option<&TcpStream>) {
    match stream {
        // An error shows in the write that follows.
        Some(stream) => drop(stream.writable().await),
        None => std::future::pending().await,
    }
}
