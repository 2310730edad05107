//! The loop of one connection, the same on both sides.

use std::io;
use std::io::IoSlice;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use engine::time::Mono;
use engine::wire::{self, Frame, FrameError, Hello};
use runtime::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// How often each side proves that it lives.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// A peer whose workers have not answered for so long is gone. With a ping each second and a check four times a second
/// a black hole is noticed within 4.8 s.
pub const DEAD_AFTER: Duration = Duration::from_millis(4_500);
/// How long a greeting may take.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(250);
const READ_CHUNK: usize = 256 << 10;
/// Written in one system call at the most.
const SLICES_MAX: usize = 64;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("closed by the peer")]
    Closed,
    #[error("not a frame: {0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer to a ping for {0:?}")]
    Silent(Duration),
    #[error("no greeting within {0:?}")]
    NoHello(Duration),
    #[error("refused: {}", .0.explain())]
    Refused(wire::RefuseReason),
    #[error("{0}")]
    Unexpected(&'static str),
    #[error("stopping")]
    Stopping,
}

impl Ended {
    /// The counted reason.
    pub fn as_str(&self) -> &'static str {
        match self {
            Ended::Closed => "closed",
            Ended::Frame(error) => error.as_str(),
            Ended::Io(_) => "io",
            Ended::Silent(_) => "silent",
            Ended::NoHello(_) => "no_hello",
            Ended::Refused(_) => "refused",
            Ended::Unexpected(_) => "unexpected_frame",
            Ended::Stopping => "stopping",
        }
    }
}

/// What a connection is about to write: whole frames, batches by reference.
#[derive(Debug, Default)]
pub struct Outgoing {
    parts: Vec<Bytes>,
}

impl Outgoing {
    /// Adds a frame of any kind; its bytes are copied.
    pub fn frame(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        wire::encode(frame, &mut bytes);
        self.parts.push(Bytes::from(bytes));
    }

    /// Adds a batch without copying it.
    pub fn batch(&mut self, batch: Bytes, attempt: bool, class: wire::Class) {
        self.parts.push(Bytes::copy_from_slice(&wire::batch_head(batch.len(), attempt, class)));
        self.parts.push(batch);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Everything in one piece.
    pub fn concat(&self) -> Vec<u8> {
        self.parts.concat()
    }

    /// Bytes to write.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// What a service does with a connection. Methods are short and never wait.
pub trait Handler: Send + Sync {
    /// A frame came in. Where links are accepted the service answers pings, with [`Frame::Pong`], from its workers.
    ///
    /// # Errors
    /// When the frame has no place on this link; the connection ends.
    fn frame(&self, frame: Frame) -> Result<(), Ended>;

    /// Puts what may be written now into `out`, up to a few hundred KiB; called again after it is written.
    fn next(&self, out: &mut Outgoing);

    /// Notified whenever [`Handler::next`] may have something.
    fn wake(&self) -> &Notify;

    /// Called four times a second: a heartbeat for who owns the connection.
    fn tick(&self) {}
}

/// Runs a connection that has been greeted until it ends.
pub async fn run(stream: TcpStream, early: BytesMut, handler: &dyn Handler, clock: Clock) -> Ended {
    let (reader, writer) = stream.into_split();
    let alive = Mutex::new(clock.now());
    let reading = read_frames(reader, early, handler, &alive, clock);
    let writing = write_frames(writer, handler, clock);
    let watching = watch(handler, &alive, clock);
    tokio::select! {
        biased;
        ended = reading => ended,
        ended = writing => ended,
        ended = watching => ended,
    }
}

async fn read_frames(
    mut reader: OwnedReadHalf,
    mut buffer: BytesMut,
    handler: &dyn Handler,
    alive: &Mutex<Mono>,
    clock: Clock,
) -> Ended {
    loop {
        loop {
            let frame = match wire::next_raw(&mut buffer).and_then(|raw| raw.map(wire::decode).transpose()) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return error.into(),
            };
            if let Frame::Pong { .. } = frame {
                *alive.lock().unwrap_or_else(PoisonError::into_inner) = clock.now();
            } else if let Err(ended) = handler.frame(frame) {
                return ended;
            }
        }
        buffer.reserve(READ_CHUNK);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return Ended::Closed,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.into(),
        }
    }
}

async fn write_frames(mut writer: OwnedWriteHalf, handler: &dyn Handler, clock: Clock) -> Ended {
    let mut pinged = clock.now();
    let mut echo = 0u64;
    loop {
        let mut out = Outgoing::default();
        handler.next(&mut out);
        if clock.now().since(pinged) >= PING_EVERY {
            pinged = clock.now();
            echo += 1;
            out.frame(&Frame::Ping { echo });
        }
        if out.is_empty() {
            let wait = PING_EVERY.saturating_sub(clock.now().since(pinged));
            // Either something is to be written or a ping is due; both are looked at above.
            if tokio::time::timeout(wait, handler.wake().notified()).await.is_err() {
                continue;
            }
        } else if let Err(error) = write_all(&mut writer, &mut out.parts).await {
            return error.into();
        }
    }
}

/// Writes every part in few system calls.
async fn write_all(writer: &mut OwnedWriteHalf, parts: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while first < parts.len() {
        let slices: Vec<IoSlice<'_>> = parts[first..].iter().take(SLICES_MAX).map(|part| IoSlice::new(part)).collect();
        let mut written = writer.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(part) = parts.get_mut(first) {
            let taken = written.min(part.len());
            part.advance(taken);
            written -= taken;
            if !part.is_empty() {
                break;
            }
            first += 1;
        }
    }
    Ok(())
}

async fn watch(handler: &dyn Handler, alive: &Mutex<Mono>, clock: Clock) -> Ended {
    loop {
        tokio::time::sleep(TICK).await;
        handler.tick();
        let silence = clock.now().since(*alive.lock().unwrap_or_else(PoisonError::into_inner));
        if silence > DEAD_AFTER {
            return Ended::Silent(silence);
        }
    }
}

/// Reads the greeting of a connection that was accepted; what came behind it is given back, too.
///
/// # Errors
/// When no greeting comes in time, or something else does.
pub(crate) async fn accept(stream: &mut TcpStream) -> Result<(Hello, BytesMut), Ended> {
    let mut buffer = BytesMut::new();
    let Frame::Hello(hello) = first_frame(stream, &mut buffer).await? else {
        return Err(Ended::Unexpected("the first frame of a link must be a greeting"));
    };
    Ok((hello, buffer))
}

/// Reads one frame within the time that a greeting may take.
pub(crate) async fn first_frame(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Frame, Ended> {
    let read = async {
        loop {
            if let Some(raw) = wire::next_raw(buffer)? {
                return Ok(wire::decode(raw)?);
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(Ended::Closed);
            }
        }
    };
    tokio::time::timeout(HELLO_WITHIN, read).await.unwrap_or(Err(Ended::NoHello(HELLO_WITHIN)))
}

/// Writes one frame; for greetings and refusals.
///
/// # Errors
/// When the socket fails.
pub async fn send(stream: &mut TcpStream, frame: &Frame) -> Result<(), Ended> {
    let mut bytes = Vec::new();
    wire::encode(frame, &mut bytes);
    tokio::time::timeout(HELLO_WITHIN, stream.write_all(&bytes))
        .await
        .map_err(|_| Ended::NoHello(HELLO_WITHIN))?
        .map_err(Ended::from)
}
