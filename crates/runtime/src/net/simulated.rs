//! Sockets of a simulated network (`--cfg sim_net`): turmoil's, with what they lack of tokio's.
//!
//! * Writes are cut short at random, and wait while [`BUFFER`] bytes are unread at the other end: a kernel takes what it has room
//!   for. turmoil counts segments of any size, and loses a FIN that finds no room.
//! * A socket has no options, and `abort_on_close` is a FIN: what is under way arrives still.
//! * Nothing is sent again: a connection that has lost bytes takes no more when the buffer is full, and ends by its
//!   `TCP_USER_TIMEOUT` as a real one would.
//! * A handshake takes a round trip; turmoil's takes half of one.
//! * `take_error` after the peer's FIN: turmoil keeps no error behind an EOF, only the number of a host's connections that
//!   were not reset. So it is right only on a host that has one connection at a time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

use super::{ConnectError, ListenError, SocketProfile};
use crate::simulated::elapsed;

/// The largest piece that one write takes.
const PIECE_MAX: u64 = 64 << 10;
/// What both kernels hold of one direction.
const BUFFER: usize = 512 << 10;

/// From where to where bytes go.
type Way = (SocketAddr, SocketAddr);

/// What was written and not read yet, and who waits for it.
#[derive(Debug, Default)]
struct Unread {
    bytes: usize,
    /// When something was read last, or written first.
    moved: Duration,
    waits: Option<Waker>,
}

thread_local! {
    static UNREAD: RefCell<BTreeMap<Way, Unread>> = const { RefCell::new(BTreeMap::new()) };
}

/// A simulated connection.
#[derive(Debug)]
pub struct TcpStream {
    inner: Mutex<turmoil::net::TcpStream>,
    /// From here to the peer.
    way: Way,
    user_timeout: Duration,
    /// Connections that this host had beside it when it was made.
    others: usize,
}

impl TcpStream {
    fn new(inner: turmoil::net::TcpStream, profile: SocketProfile) -> io::Result<TcpStream> {
        let way = (inner.local_addr()?, inner.peer_addr()?);
        UNREAD.with_borrow_mut(|unread| unread.insert(way, Unread::default()));
        let others = turmoil::established_tcp_stream_count().saturating_sub(1);
        Ok(TcpStream { inner: Mutex::new(inner), way, user_timeout: profile.user_timeout(), others })
    }

    fn inner(&self) -> MutexGuard<'_, turmoil::net::TcpStream> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As tokio's; the halves are closed together.
    pub fn into_split(self) -> (ReadHalf<TcpStream>, WriteHalf<TcpStream>) {
        tokio::io::split(self)
    }

    /// As tokio's.
    ///
    /// # Errors
    /// Never.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.way.0)
    }

    /// As tokio's.
    ///
    /// # Errors
    /// Never.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.way.1)
    }

    /// As tokio's: an EOF and an error are readable.
    ///
    /// # Errors
    /// Never.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.inner().poll_peek(cx, &mut ReadBuf::new(&mut [0])).map(|_| Ok(()))).await
    }

    /// As tokio's.
    ///
    /// # Errors
    /// After a reset.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.inner().poll_peek(cx, &mut ReadBuf::new(buf))).await
    }

    /// As tokio's.
    ///
    /// # Errors
    /// `WouldBlock`, or after a reset.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut read = ReadBuf::new(buf);
        match Pin::new(&mut *self.inner()).poll_read(&mut Context::from_waker(Waker::noop()), &mut read) {
            Poll::Ready(Ok(())) => {
                self.was_read(read.filled().len());
                Ok(read.filled().len())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// As tokio's.
    ///
    /// # Errors
    /// After a half-close.
    pub async fn writable(&self) -> io::Result<()> {
        // Not turmoil's own future: that keeps its connection borrowed while it waits.
        let poll = |cx: &mut Context<'_>| {
            if self.is_full(Some(cx))? {
                return Poll::Pending;
            }
            let inner = self.inner();
            let mut writable = pin!(inner.writable());
            writable.as_mut().poll(cx)
        };
        poll_fn(poll).await
    }

    /// As tokio's.
    ///
    /// # Errors
    /// `WouldBlock`, or when the connection is over.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        if self.is_full(None)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.inner().try_write(piece(buf)?)?;
        self.was_written(written);
        Ok(written)
    }

    /// As tokio's, one slice at a time.
    ///
    /// # Errors
    /// As [`TcpStream::try_write`].
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().find(|slice| !slice.is_empty()).map_or(Ok(0), |slice| self.try_write(slice))
    }

    /// See the module.
    ///
    /// # Errors
    /// Never.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let is_reset = turmoil::established_tcp_stream_count() <= self.others;
        Ok(is_reset.then(|| io::ErrorKind::ConnectionReset.into()))
    }
}

impl TcpStream {
    /// Whether nothing can be written now; `cx` is woken when that changes.
    fn is_full(&self, cx: Option<&mut Context<'_>>) -> io::Result<bool> {
        UNREAD.with_borrow_mut(|unread| {
            let unread = unread.entry(self.way).or_default();
            let is_full = unread.bytes >= BUFFER;
            if is_full && elapsed().saturating_sub(unread.moved) > self.user_timeout {
                return Err(io::ErrorKind::TimedOut.into());
            }
            unread.waits = cx.filter(|_| is_full).map(|cx| cx.waker().clone()).or(unread.waits.take());
            Ok(is_full)
        })
    }

    fn was_written(&self, bytes: usize) {
        UNREAD.with_borrow_mut(|unread| {
            let unread = unread.entry(self.way).or_default();
            if unread.bytes == 0 {
                unread.moved = elapsed();
            }
            unread.bytes += bytes;
        });
    }

    fn was_read(&self, bytes: usize) {
        let (local, peer) = self.way;
        let waits = UNREAD.with_borrow_mut(|unread| {
            // The peer may have dropped its end.
            let unread = unread.get_mut(&(peer, local))?;
            unread.bytes = unread.bytes.saturating_sub(bytes);
            unread.moved = elapsed();
            unread.waits.take()
        });
        waits.into_iter().for_each(Waker::wake);
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        UNREAD.with_borrow_mut(|unread| unread.remove(&self.way));
    }
}

/// What one write takes of it.
fn piece(buf: &[u8]) -> io::Result<&[u8]> {
    let limit = usize::try_from(1 + crate::random_u64()? % PIECE_MAX).unwrap_or(usize::MAX);
    Ok(buf.get(..limit).unwrap_or(buf))
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.inner()).poll_read(cx, buf);
        self.was_read(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_full(Some(cx))? {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut *self.inner()).poll_write(cx, piece(buf)?);
        if let Poll::Ready(Ok(written)) = &polled {
            self.was_written(*written);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner()).poll_shutdown(cx)
    }
}

/// A simulated listener.
pub struct TcpListener {
    inner: turmoil::net::TcpListener,
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.inner.local_addr()).finish()
    }
}

impl TcpListener {
    /// As tokio's.
    ///
    /// # Errors
    /// Never, but the type is tokio's.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.inner.accept().await?;
        Ok((TcpStream::new(stream, SocketProfile::Client)?, peer))
    }

    /// As tokio's.
    ///
    /// # Errors
    /// Never, but the type is tokio's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Nothing: a simulated socket has no options.
///
/// # Errors
/// Never.
pub fn apply<T>(_socket: &T, _profile: SocketProfile) -> io::Result<()> {
    Ok(())
}

/// Nothing, see the module.
///
/// # Errors
/// Never.
pub fn abort_on_close<T>(_socket: &T) -> io::Result<()> {
    Ok(())
}

/// Says that nothing more will be written, at once; what the peer writes can still be read.
///
/// # Errors
/// When the connection is over already.
pub fn half_close(socket: &TcpStream) -> io::Result<()> {
    match Pin::new(&mut *socket.inner()).poll_shutdown(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Ok(()),
    }
}

pub(super) async fn connect_any(addr: &str, profile: SocketProfile) -> Result<TcpStream, ConnectError> {
    let began = tokio::time::Instant::now();
    let connected = turmoil::net::TcpStream::connect(addr).await;
    let connected = connected.and_then(|stream| TcpStream::new(stream, profile));
    tokio::time::sleep(began.elapsed()).await;
    connected.map_err(|source| ConnectError::Refused { addr: addr.to_owned(), source })
}

/// Listens on a port of the host that runs; only for all of its addresses. `backlog` is the simulation's affair.
///
/// # Errors
/// [`ListenError::Taken`] when another socket listens there.
pub fn listen(addr: SocketAddr, _backlog: u32) -> Result<TcpListener, ListenError> {
    let mut bound = pin!(turmoil::net::TcpListener::bind(addr));
    match bound.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(inner)) => Ok(TcpListener { inner }),
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(ListenError::Taken { addr, holder: None })
        }
        Poll::Ready(Err(source)) => Err(ListenError::Other { addr, source }),
        Poll::Pending => Err(ListenError::Other { addr, source: io::ErrorKind::WouldBlock.into() }),
    }
}
