//! Sockets that find a dead peer, and a listener that says who holds its port.
//!
//! Keepalive finds a dead peer on an idle connection, `TCP_USER_TIMEOUT` on one with data in flight; neither covers the
//! other's case (FAULTS B7), so every profile sets both. Neither sees a stopped process: that takes an application ping.

//!
//! The one way by which the shells reach sockets: those of the machine, or under `--cfg sim_net` those of a simulated network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

mod accepting;
#[cfg_attr(sim_net, allow(dead_code, reason = "nobody hands over simulated sockets"))]
pub mod handed;
#[cfg(not(sim_net))]
mod holder;
#[cfg(not(sim_net))]
mod machine;
#[cfg(sim_net)]
mod simulated;
#[cfg(sim_net)]
use simulated as machine;

pub use accepting::accept_all;
pub use machine::{TcpListener, TcpStream, abort_on_close, apply, half_close, listen};

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

impl SocketProfile {
    /// How long data may go unacknowledged (FAULTS A11).
    const fn user_timeout(self) -> Duration {
        match self {
            SocketProfile::Internal => Duration::from_secs(10),
            SocketProfile::Store { .. } => Duration::from_secs(60),
            SocketProfile::Client => Duration::from_secs(120),
        }
    }
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
    match tokio::time::timeout(within, machine::connect_any(addr, profile)).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(ConnectError::Timeout { addr: addr.to_owned(), within }),
    }
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
