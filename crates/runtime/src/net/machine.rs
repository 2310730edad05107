//! Sockets of the machine.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpSocket;
pub use tokio::net::{TcpListener, TcpStream};

use super::{ConnectError, ListenError, SocketProfile, handed, holder};

struct Options {
    keepalive: Duration,
    interval: Duration,
    retries: u32,
    notsent_lowat: Option<u32>,
}

impl SocketProfile {
    // The numbers are FAULTS A11's.
    const fn options(self) -> Options {
        let secs = Duration::from_secs;
        match self {
            SocketProfile::Internal => {
                Options { keepalive: secs(5), interval: secs(2), retries: 3, notsent_lowat: None }
            }
            SocketProfile::Store { notsent_lowat } => {
                Options { keepalive: secs(10), interval: secs(5), retries: 3, notsent_lowat: Some(notsent_lowat) }
            }
            SocketProfile::Client => {
                Options { keepalive: secs(60), interval: secs(20), retries: 3, notsent_lowat: None }
            }
        }
    }
}

/// Sets the profile's options on an open socket, such as one that was accepted.
///
/// # Errors
/// When the kernel refuses one; on Linux that means that the socket is gone.
pub fn apply(socket: &impl AsFd, profile: SocketProfile) -> io::Result<()> {
    let options = profile.options();
    let socket = SockRef::from(socket);
    let keepalive =
        TcpKeepalive::new().with_time(options.keepalive).with_interval(options.interval).with_retries(options.retries);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(profile.user_timeout()))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = options.notsent_lowat {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    Ok(())
}

/// Makes the kernel throw away what the peer has not acknowledged when the socket is closed. Otherwise it goes on sending
/// for minutes, and bytes of a connection that was given up reach the peer after those of the next one.
///
/// # Errors
/// When the socket is gone.
pub fn abort_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Says that nothing more will be written, at once; what the peer writes can still be read.
///
/// # Errors
/// When the connection is over already.
pub fn half_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).shutdown(std::net::Shutdown::Write)
}

pub(super) async fn connect_any(addr: &str, profile: SocketProfile) -> Result<TcpStream, ConnectError> {
    let found = tokio::net::lookup_host(addr)
        .await
        .map_err(|source| ConnectError::Resolve { addr: addr.to_owned(), source })?;
    let mut error = ConnectError::NoAddress { addr: addr.to_owned() };
    for address in found {
        match connect_one(address, profile).await {
            Ok(stream) => return Ok(stream),
            Err(source) => error = ConnectError::Refused { addr: addr.to_owned(), source },
        }
    }
    Err(error)
}

async fn connect_one(address: SocketAddr, profile: SocketProfile) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    apply(&socket, profile)?;
    socket.connect(address).await
}

/// Listens on `addr`, with `SO_REUSEADDR`, so that a restart does not wait for old connections; or takes the socket that
/// the service manager has opened there ([`handed`]). Call inside a tokio runtime.
///
/// `backlog`: connections that wait for accept; the kernel's `somaxconn` caps it. Of a socket that was handed over it is the
/// manager's affair.
///
/// # Errors
/// [`ListenError::Taken`] when another socket listens there, with the process that holds it where that can be seen.
pub fn listen(addr: SocketAddr, backlog: u32) -> Result<TcpListener, ListenError> {
    if let Some(listener) = handed::take(addr) {
        return TcpListener::from_std(listener).map_err(|source| ListenError::Other { addr, source });
    }
    open_listener(addr, backlog).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::Taken { addr, holder: holder::of(addr) }
        } else {
            ListenError::Other { addr, source }
        }
    })
}

fn open_listener(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}
