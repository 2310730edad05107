//! Listeners that the service manager opened and handed over: sd_listen_fds(3).
//!
//! A socket that outlives the process refuses nobody while the process is replaced: who connects meanwhile waits in the
//! kernel's backlog, and what it writes in its socket's buffer, until the next process accepts.
//!
//! Which listener is which is told by the address: same port, and the same IP or the manager's for all interfaces. So one way
//! fits every listener of a node, and names are not needed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

/// What was handed over to this process and has not been taken: file descriptors are the process's, like these.
static HANDED: Mutex<Vec<(SocketAddr, TcpListener)>> = Mutex::new(Vec::new());

fn handed() -> MutexGuard<'static, Vec<(SocketAddr, TcpListener)>> {
    HANDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes over what `$LISTEN_FDS` says, if it is meant for this process (`$LISTEN_PID`), and gives their addresses. To be called
/// once, before any other thread runs: the variables are removed, so that no child takes them for its own.
///
/// # Errors
/// When one of them is no listening TCP socket.
pub fn receive() -> io::Result<Vec<SocketAddr>> {
    let mut from_manager = ListenFd::from_env();
    let mut received = Vec::new();
    for index in 0..from_manager.len() {
        let Some(listener) = from_manager.take_tcp_listener(index)? else { continue };
        if !SockRef::from(&listener).is_listener()? {
            let error = format!("number {} is no listening socket: it needs ListenStream=", index + 1);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        listener.set_nonblocking(true)?;
        received.push((listener.local_addr()?, listener));
    }
    let addresses = received.iter().map(|(address, _)| *address).collect();
    handed().extend(received);
    Ok(addresses)
}

/// The listener for `addr`, if one was handed over.
pub(super) fn take(addr: SocketAddr) -> Option<TcpListener> {
    let mut handed = handed();
    let place = handed.iter().position(|(opened, _)| serves(*opened, addr))?;
    Some(handed.swap_remove(place).1)
}

/// Addresses of what nobody has taken.
pub fn left() -> Vec<SocketAddr> {
    handed().iter().map(|(address, _)| *address).collect()
}

/// `[::]` takes IPv4 as well, unless a manager was told otherwise.
fn serves(opened: SocketAddr, wanted: SocketAddr) -> bool {
    let is_same_ip = opened.ip().to_canonical() == wanted.ip().to_canonical();
    let is_everywhere = opened.ip().is_unspecified() && (opened.is_ipv6() || wanted.is_ipv4());
    opened.port() == wanted.port() && (is_same_ip || is_everywhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(opened: &str, wanted: &str, expected: bool) {
        assert_eq!(serves(opened.parse().unwrap(), wanted.parse().unwrap()), expected, "{opened} for {wanted}");
    }

    #[test]
    fn a_socket_is_for_its_address_or_for_any_when_it_is_open_to_all() {
        check("10.0.0.1:2003", "10.0.0.1:2003", true);
        check("10.0.0.1:2003", "10.0.0.1:2004", false);
        check("10.0.0.1:2003", "10.0.0.2:2003", false);
        check("[::]:2003", "10.0.0.1:2003", true);
        check("[::]:2003", "[fd00::1]:2003", true);
        check("[::]:2003", "0.0.0.0:2003", true);
        check("0.0.0.0:2003", "10.0.0.1:2003", true);
        check("0.0.0.0:2003", "[fd00::1]:2003", false);
        check("[::ffff:10.0.0.1]:2003", "10.0.0.1:2003", true);
        check("127.0.0.1:2003", "0.0.0.0:2003", false);
    }

    #[tokio::test]
    async fn what_was_handed_over_is_listened_on_once() {
        let opened = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = opened.local_addr().unwrap();
        opened.set_nonblocking(true).unwrap();
        handed().push((address, opened));
        // In use, so that only the socket itself can serve it.
        let listener = super::super::listen(address, 1).unwrap();
        assert!(!left().contains(&address));
        assert!(super::super::listen(address, 1).is_err());
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(listener.accept().await.unwrap().1, client.local_addr().unwrap());
    }
}
