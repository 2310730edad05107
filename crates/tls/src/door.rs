//! The accepting side.

use std::sync::Arc;
use std::time::Duration;

use config::TlsMode;
use engine::recv::{HandshakeFault, may_begin_tls};
use runtime::net::TcpStream;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::failed::Failed;
use crate::keys::{Keys, TlsError};
use crate::stream::{Stream, Wire};
use crate::tally::{Port, Side};

/// From the first byte to the end of the handshake, and as long until the first byte.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Handshakes in progress at a door. One costs about a millisecond of a core; what comes beyond waits its turn ...
const AT_ONCE: usize = 64;
/// ... so long. A fleet that comes back at once gets in, if not with its first attempt.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// A peer that is sent away hears why: its bytes are taken for so long at most, for a socket that is closed with bytes
/// unread takes back what was written last.
const FAREWELL_WITHIN: Duration = Duration::from_millis(500);
const FAREWELL_BYTES: u64 = 256 << 10;
/// See [`Wire`]. A link carries megabytes; of clients there may be 20,000.
const LINK_BUFFER: usize = 64 << 10;
const CLIENT_BUFFER: usize = 4 << 10;

/// Takes connections that were accepted. Clones are the same door.
#[derive(Clone, Debug)]
pub struct Door {
    guarded: Option<Arc<Guarded>>,
}

#[derive(Debug)]
struct Guarded {
    keys: Arc<Keys>,
    is_mutual: bool,
    port: Port,
    turns: Semaphore,
}

impl Door {
    /// Without TLS.
    pub const fn plain() -> Door {
        Door { guarded: None }
    }

    /// A door of this mode. `keys`: there wherever a mode is on.
    ///
    /// # Errors
    /// When the mode needs keys that are not there.
    pub fn new(keys: Option<&Arc<Keys>>, mode: TlsMode, port: Port) -> Result<Door, TlsError> {
        if !mode.is_on() {
            return Ok(Door::plain());
        }
        let is_mutual = mode == TlsMode::Mutual;
        let needs = "a certificate and its key";
        let keys = Keys::for_port(keys, |keys| config_of(keys, is_mutual).is_some(), (port, mode), needs)?;
        let guarded = Guarded { keys, is_mutual, port, turns: Semaphore::new(AT_ONCE) };
        Ok(Door { guarded: Some(Arc::new(guarded)) })
    }

    /// Whether connections are encrypted.
    pub fn is_guarded(&self) -> bool {
        self.guarded.is_some()
    }

    /// Whether a peer must have shown a certificate.
    pub fn is_mutual(&self) -> bool {
        self.guarded.as_ref().is_some_and(|guarded| guarded.is_mutual)
    }

    /// Makes a connection ready to be read, in bounded time. A plain door asks nothing.
    ///
    /// # Errors
    /// Why the peer was sent away; counted.
    pub async fn open(&self, stream: TcpStream) -> Result<Stream, Failed> {
        self.open_or(stream, &[]).await
    }

    /// As [`Door::open`]; a peer that speaks no TLS gets `answer`, in its own language.
    ///
    /// # Errors
    /// Why the peer was sent away; counted.
    pub async fn open_or(&self, stream: TcpStream, answer: &[u8]) -> Result<Stream, Failed> {
        let Some(guarded) = &self.guarded else { return Ok(Stream::Plain(stream)) };
        // Boxed: a plain connection must not pay for its size.
        let opened = Box::pin(guarded.open(stream, answer)).await;
        guarded.keys.tally.count(guarded.port, Side::Accepted, opened.as_ref().err().map(|failed| failed.fault));
        opened
    }
}

fn config_of(keys: &Keys, is_mutual: bool) -> Option<Arc<ServerConfig>> {
    let current = keys.current();
    if is_mutual { current.server_mutual.clone() } else { current.server.clone() }
}

impl Guarded {
    async fn open(&self, mut stream: TcpStream, answer: &[u8]) -> Result<Stream, Failed> {
        let mut first = [0; 1];
        // Who says nothing takes nobody's turn.
        match tokio::time::timeout(HANDSHAKE_WITHIN, stream.peek(&mut first)).await {
            Err(_) => return Err(Failed::of(HandshakeFault::Timeout)),
            Ok(Err(error)) => return Err(Failed::in_handshake(&error)),
            Ok(Ok(0)) => return Err(Failed::of(HandshakeFault::Closed)),
            Ok(Ok(_)) if !may_begin_tls(first[0]) => {
                farewell(&mut stream, answer).await;
                return Err(Failed::of(HandshakeFault::Plain));
            }
            Ok(Ok(_)) => {}
        }
        let turn = tokio::time::timeout(TURN_WITHIN, self.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else { return Err(Failed::of(HandshakeFault::Busy)) };
        let Some(config) = config_of(&self.keys, self.is_mutual) else {
            return Err(Failed { fault: HandshakeFault::Io, detail: "no certificate".into() });
        };
        let buffer = match self.port {
            Port::Links => LINK_BUFFER,
            Port::Admin | Port::Graphite => CLIENT_BUFFER,
        };
        let accept = TlsAcceptor::from(config).accept(BufReader::with_capacity(buffer, stream)).into_fallible();
        let accepted = tokio::time::timeout(HANDSHAKE_WITHIN, accept).await;
        drop(turn);
        match accepted {
            Err(_) => Err(Failed::of(HandshakeFault::Timeout)),
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream.into()))),
            Ok(Err((error, wire))) => {
                let mut wire: Wire = wire;
                farewell(wire.get_mut(), &[]).await;
                Err(Failed::in_handshake(&error))
            }
        }
    }
}

/// Says the last words and lets them arrive. How that turns out changes nothing.
async fn farewell(stream: &mut TcpStream, answer: &[u8]) {
    let said = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(FAREWELL_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(FAREWELL_WITHIN, said).await {
        tracing::trace!(%error, "a peer that is sent away is gone");
    }
}
