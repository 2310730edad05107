//! Sockets that find a dead peer, and a listener that says who holds its port.
//!
//! Keepalive finds a dead peer on an idle connection, `TCP_USER_TIMEOUT` on one with data in flight; neither covers the
//! other's case (FAULTS B7), so every profile sets both. Neither sees a stopped process: that takes an application ping.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

mod accepting;
pub mod handed;
mod holder;

pub use accepting::accept_all;

/// What a socket is for, and with it its time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketProfile {
    /// A link between our own nodes: dead after about 10 s by the kernel alone; the ping finds it in 5 s.
    Internal,
    /// A connection to a store: a store that lives but does not read for a while must not be cut, so 60 s of unacknowledged
    /// data; at most `notsent_lowat` unsent bytes in our kernel, so that little is in doubt after a reset.
    Store { notsent_lowat: u32 },
    /// A connection of a client or of an admin: patient, but never for ever.
    Client,
}

struct Options {
    keepalive: Duration,
    interval: Duration,
    retries: u32,
    user_timeout: Duration,
    notsent_lowat: Option<u32>,
}

impl SocketProfile {
    // The numbers are FAULTS A11's.
    const fn options(self) -> Options {
        let secs = Duration::from_secs;
        match self {
            SocketProfile::Internal => Options {
                keepalive: secs(5),
                interval: secs(2),
                retries: 3,
                user_timeout: secs(10),
                notsent_lowat: None,
            },
            SocketProfile::Store { notsent_lowat } => Options {
                keepalive: secs(10),
                interval: secs(5),
                retries: 3,
                user_timeout: secs(60),
                notsent_lowat: Some(notsent_lowat),
            },
            SocketProfile::Client => Options {
                keepalive: secs(60),
                interval: secs(20),
                retries: 3,
                user_timeout: secs(120),
                notsent_lowat: None,
            },
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
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
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

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("resolve {addr}")]
    Resolve {
        addr: String,
        #[source]
        source: io::Error,
    },
    #[error("{addr} resolves to no address")]
    NoAddress { addr: String },
    #[error("no answer from {addr} within {within:?}")]
    Timeout { addr: String, within: Duration },
    #[error("connect to {addr}")]
    Refused {
        addr: String,
        #[source]
        source: io::Error,
    },
}

/// Connects to the first address of `addr` (`host:port`) that answers.
///
/// `within`: for everything together, resolving included; 2 s is right inside a data centre.
///
/// # Errors
/// By what went wrong; the last address's error when there are several.
pub async fn connect(addr: &str, profile: SocketProfile, within: Duration) -> Result<TcpStream, ConnectError> {
    match tokio::time::timeout(within, connect_any(addr, profile)).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(ConnectError::Timeout { addr: addr.to_owned(), within }),
    }
}

async fn connect_any(addr: &str, profile: SocketProfile) -> Result<TcpStream, ConnectError> {
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

/// Why there is no listener.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The process should exit with 69.
    #[error("{addr} is taken{}; stop what holds it or choose another port", by(holder.as_deref()))]
    Taken { addr: SocketAddr, holder: Option<String> },
    #[error("listen on {addr}")]
    Other {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
}

fn by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
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

/// Raises the limit of open files as far as this user may, and says what it is now.
///
/// # Errors
/// When the kernel refuses to set a limit that it says is allowed.
pub fn raise_nofile_limit() -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    // `None` is "no limit".
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
