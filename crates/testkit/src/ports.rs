//! Free ports that stay free until the process under test binds them.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// `count` loopback addresses with ports that nobody else gets for about a minute.
///
/// A port that was only bound and let go can be handed to the next `connect` of any process. So one connection is made
/// to each and closed by the listening side first: the port is then in TIME_WAIT, the kernel does not hand it out, and
/// a listener with SO_REUSEADDR (ours, tokio's, twisted's) may still bind it.
///
/// # Panics
/// When loopback sockets do not work.
#[track_caller]
pub fn reserve(count: usize) -> Vec<SocketAddr> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        match reserve_one() {
            Ok(pair) => held.push(pair),
            Err(error) => panic!("reserve a loopback port: {error}"),
        }
    }
    held.into_iter().map(|(_listener, address)| address).collect()
}

fn reserve_one() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    drop(server); // first to close: the TIME_WAIT is on the port to be kept
    let _end = client.read(&mut [0_u8; 1])?;
    Ok((listener, address))
}
