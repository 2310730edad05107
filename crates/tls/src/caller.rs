//! The dialling side.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use config::TlsMode;
use engine::recv::HandshakeFault;
use runtime::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::io::BufReader;
use tokio_rustls::TlsConnector;

use crate::failed::Failed;
use crate::keys::{Keys, TlsError};
use crate::stream::Stream;
use crate::tally::{Port, Side};

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// What comes back on a link are answers; a replayer gets batches.
const BUFFER: usize = 64 << 10;

/// Makes dialled connections ready. Clones are the same caller.
#[derive(Clone, Debug)]
pub struct Caller {
    guarded: Option<Arc<Guarded>>,
}

#[derive(Debug)]
struct Guarded {
    keys: Arc<Keys>,
    is_mutual: bool,
    port: Port,
}

impl Caller {
    /// Without TLS.
    pub const fn plain() -> Caller {
        Caller { guarded: None }
    }

    /// A caller of this mode. `keys`: there wherever a mode is on.
    ///
    /// # Errors
    /// When the mode needs keys that are not there.
    pub fn new(keys: Option<&Arc<Keys>>, mode: TlsMode, port: Port) -> Result<Caller, TlsError> {
        if !mode.is_on() {
            return Ok(Caller::plain());
        }
        let is_mutual = mode == TlsMode::Mutual;
        let needs = if is_mutual { "an authority, a certificate and its key" } else { "an authority" };
        let keys = Keys::for_port(keys, |keys| config_of(keys, is_mutual).is_some(), (port, mode), needs)?;
        Ok(Caller { guarded: Some(Arc::new(Guarded { keys, is_mutual, port })) })
    }

    /// Whether connections are encrypted.
    pub fn is_guarded(&self) -> bool {
        self.guarded.is_some()
    }

    /// Makes a connection to the node `name` ready, in bounded time; its certificate must be for that name.
    ///
    /// # Errors
    /// Why it is not to be used; counted.
    pub async fn call(&self, stream: TcpStream, name: &str) -> Result<Stream, Failed> {
        let Some(guarded) = &self.guarded else { return Ok(Stream::Plain(stream)) };
        let called = Box::pin(guarded.call(stream, name)).await;
        guarded.keys.tally.count(guarded.port, Side::Dialled, called.as_ref().err().map(|failed| failed.fault));
        called
    }

    /// The same for a thread. The handshake is part of the first write or read, within the time-outs of the socket, and
    /// is not counted.
    ///
    /// # Errors
    /// When `name` can be in no certificate.
    pub fn call_blocking(&self, stream: std::net::TcpStream, name: &str) -> Result<BlockingStream, Failed> {
        let Some(guarded) = &self.guarded else { return Ok(BlockingStream::Plain(stream)) };
        let (config, name) = guarded.config(name)?;
        let session = ClientConnection::new(config, name)
            .map_err(|error| Failed { fault: HandshakeFault::Protocol, detail: error.to_string() })?;
        Ok(BlockingStream::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

fn config_of(keys: &Keys, is_mutual: bool) -> Option<Arc<ClientConfig>> {
    let current = keys.current();
    if is_mutual { current.client_mutual.clone() } else { current.client.clone() }
}

impl Guarded {
    fn config(&self, name: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), Failed> {
        let config = config_of(&self.keys, self.is_mutual)
            .ok_or_else(|| Failed { fault: HandshakeFault::Io, detail: "no authority".into() })?;
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Failed { fault: HandshakeFault::WrongName, detail: error.to_string() })?;
        Ok((config, name))
    }

    async fn call(&self, stream: TcpStream, name: &str) -> Result<Stream, Failed> {
        let (config, name) = self.config(name)?;
        let connect = TlsConnector::from(config).connect(name, BufReader::with_capacity(BUFFER, stream));
        match tokio::time::timeout(HANDSHAKE_WITHIN, connect).await {
            Err(_) => Err(Failed::of(HandshakeFault::Timeout)),
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream.into()))),
            Ok(Err(error)) => Err(Failed::in_handshake(&error)),
        }
    }
}

/// A connection of a thread that may be encrypted.
#[derive(Debug)]
pub enum BlockingStream {
    Plain(std::net::TcpStream),
    Tls(Box<StreamOwned<ClientConnection, std::net::TcpStream>>),
}

impl BlockingStream {
    /// The socket, for its time-outs.
    pub fn tcp(&self) -> &std::net::TcpStream {
        match self {
            BlockingStream::Plain(stream) => stream,
            BlockingStream::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for BlockingStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            BlockingStream::Plain(stream) => stream.read(buf),
            BlockingStream::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for BlockingStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            BlockingStream::Plain(stream) => stream.write(buf),
            BlockingStream::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            BlockingStream::Plain(stream) => stream.flush(),
            BlockingStream::Tls(stream) => stream.flush(),
        }
    }
}
