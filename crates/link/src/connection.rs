//! The loop of one connection, the same on both sides.

use std::io;
use std::io::IoSlice;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use engine::recv::{HandshakeFault, begins_tls};
use engine::time::Mono;
use engine::wire::{self, Frame, FrameError, Hello};
use runtime::Clock;
use runtime::net::TcpStream;
use tls::{Door, Failed, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// How often each side proves that it lives.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// A peer whose workers have not answered for so long is gone. With a ping each second and a check four times a second
/// a black hole is noticed within 4.8 s.
pub const DEAD_AFTER: Duration = Duration::from_millis(4_500);
/// How long a greeting may take.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// How long an encrypted connection may take to say that it ends.
const CLOSE_WITHIN: Duration = Duration::from_millis(100);
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
    Io(io::Error),
    #[error("{0}")]
    Tls(#[from] Failed),
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
            Ended::Tls(failed) => failed.fault.as_str(),
            Ended::Silent(_) => "silent",
            Ended::NoHello(_) => "no_hello",
            Ended::Refused(_) => "refused",
            Ended::Unexpected(_) => "unexpected_frame",
            Ended::Stopping => "stopping",
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        match Failed::of_tls(&error) {
            Some(failed) => Ended::Tls(failed),
            // An encrypted stream that ends without saying so. Frames have lengths, so nothing is taken for whole that is not.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Ended::Closed,
            None => Ended::Io(error),
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
pub async fn run(stream: Stream, early: BytesMut, handler: &dyn Handler, clock: Clock) -> Ended {
    match stream {
        Stream::Plain(stream) => {
            let (mut reader, mut writer) = stream.into_split();
            drive(&mut reader, &mut writer, early, handler, clock).await
        }
        // Boxed: a plain connection must not pay for its size.
        Stream::Tls(stream) => Box::pin(run_tls(stream, early, handler, clock)).await,
    }
}

async fn run_tls(stream: Box<tls::Encrypted>, early: BytesMut, handler: &dyn Handler, clock: Clock) -> Ended {
    let (mut reader, mut writer) = tokio::io::split(*stream);
    let ended = drive(&mut reader, &mut writer, early, handler, clock).await;
    // A courtesy: the peer takes an end without it just as well.
    if let Err(elapsed) = tokio::time::timeout(CLOSE_WITHIN, writer.shutdown()).await {
        tracing::trace!(%elapsed, "the end of a link was not said");
    }
    ended
}

/// The same for both, each compiled for itself.
async fn drive(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    early: BytesMut,
    handler: &dyn Handler,
    clock: Clock,
) -> Ended {
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
    reader: &mut (impl AsyncRead + Unpin),
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

async fn write_frames(writer: &mut (impl AsyncWrite + Unpin), handler: &dyn Handler, clock: Clock) -> Ended {
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
        } else if let Err(error) = write_all(writer, &mut out.parts).await {
            return error.into();
        }
    }
}

/// Writes every part in few system calls, and what an encrypted stream has kept of it.
async fn write_all(writer: &mut (impl AsyncWrite + Unpin), parts: &mut [Bytes]) -> io::Result<()> {
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
    writer.flush().await
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

/// A connection that was accepted and has greeted.
#[derive(Debug)]
pub struct Greeted {
    pub stream: Stream,
    pub hello: Hello,
    /// What came behind the greeting.
    pub early: BytesMut,
}

/// Makes a connection that was accepted ready and reads its greeting.
///
/// # Errors
/// When no greeting comes in time, something else does, or the greeting is not that of the certificate's owner.
pub(crate) async fn accept(stream: TcpStream, door: &Door) -> Result<Greeted, Ended> {
    let mut refusal = Vec::new();
    wire::encode(&Frame::Refuse(wire::RefuseReason::Tls), &mut refusal);
    let mut stream = door.open_or(stream, &refusal).await?;
    let mut early = BytesMut::new();
    let Frame::Hello(hello) = first_frame(&mut stream, &mut early).await? else {
        return Err(Ended::Unexpected("the first frame of a link must be a greeting"));
    };
    if door.is_mutual() && !stream.peer_is(&hello.node) {
        let detail = format!("it greets as {}, its certificate is for {}", hello.node, stream.peer_names().join(", "));
        send(&mut stream, &Frame::Refuse(wire::RefuseReason::Certificate)).await?;
        return Err(Ended::Tls(Failed { fault: HandshakeFault::WrongName, detail }));
    }
    Ok(Greeted { stream, hello, early })
}

/// Reads one frame within the time that a greeting may take.
pub(crate) async fn first_frame(stream: &mut Stream, buffer: &mut BytesMut) -> Result<Frame, Ended> {
    let read = async {
        loop {
            match wire::next_raw(buffer) {
                Ok(Some(raw)) => return Ok(wire::decode(raw)?),
                // No greeting is so long that its length would look like this.
                _ if begins_tls(buffer) => return Err(Failed::of(HandshakeFault::Unexpected).into()),
                Ok(None) => {}
                Err(error) => return Err(error.into()),
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
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), Ended> {
    let mut bytes = Vec::new();
    wire::encode(frame, &mut bytes);
    let written = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    tokio::time::timeout(HELLO_WITHIN, written).await.map_err(|_| Ended::NoHello(HELLO_WITHIN))?.map_err(Ended::from)
}
