//! A TCP proxy that misbehaves on demand, each direction on its own: for faults between two of our nodes, or between a
//! node and a store, that a process cannot be made to show.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 64 * 1024;

/// What happens to the bytes of one direction from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Each piece of at most 64 KiB is held back for so long: latency and a low rate in one.
    Delay(Duration),
    /// Nothing is read any more: the sender's kernel fills up.
    Stop,
    /// Everything is read and nothing is passed on.
    BlackHole,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// From the side that connected.
    up: Fault,
    down: Fault,
    refuse: bool,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    faults: Mutex<Faults>,
    stop: AtomicBool,
    /// Connections made before a change of this number are reset.
    generation: AtomicU64,
    connections: AtomicU64,
}

/// A running proxy. Dropped, it resets what is connected.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on a free loopback port.
    ///
    /// # Panics
    /// When it cannot listen.
    #[track_caller]
    pub fn to(target: SocketAddr) -> Proxy {
        let made = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            listener.local_addr().map(|address| (listener, address))
        });
        let (listener, address) = match made {
            Ok(made) => made,
            Err(error) => panic!("proxy: listen: {error}"),
        };
        let shared = Arc::new(Shared {
            target,
            faults: Mutex::default(),
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &for_acceptor));
        Proxy { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes both directions: `up` from the side that connects, `down` towards it.
    pub fn faults(&self, up: Fault, down: Fault) {
        let mut faults = self.shared.faults();
        (faults.up, faults.down) = (up, down);
    }

    /// Resets each new connection at once (true), or lets them through.
    pub fn refuse(&self, refuse: bool) {
        self.shared.faults().refuse = refuse;
    }

    /// Resets every connection there is.
    pub fn reset_all(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Connections that were let through so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy's acceptor panicked");
        }
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        if shared.faults().refuse {
            reset(&client);
            continue;
        }
        let Ok(server) = TcpStream::connect_timeout(&shared.target, Duration::from_secs(2)) else {
            reset(&client);
            continue;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let generation = shared.generation.load(Ordering::SeqCst);
        // Both pumps of a connection share whether it is to be cut.
        let cut = Arc::new(AtomicBool::new(false));
        for (from, to, up) in [(&client, &server, true), (&server, &client, false)] {
            if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                let pump = Pump { from, to, up, generation, cut: Arc::clone(&cut), shared: Arc::clone(shared) };
                pumps.push(std::thread::spawn(move || pump.run()));
            }
        }
        pumps.retain(|pump| !pump.is_finished());
    }
    for pump in pumps {
        assert!(pump.join().is_ok(), "a pump of the proxy panicked");
    }
}

/// One direction of one connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    up: bool,
    generation: u64,
    cut: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Pump {
    fn run(mut self) {
        let ready = self.from.set_nonblocking(false).and_then(|()| self.from.set_read_timeout(Some(LOOK_EVERY)));
        let ready = ready.and_then(|()| self.to.set_nonblocking(false));
        // So that a peer that does not read cannot hold the pump for ever.
        let ready = ready.and_then(|()| self.to.set_write_timeout(Some(LOOK_EVERY)));
        if ready.is_err() {
            return self.abort();
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if self.over() {
                return self.abort();
            }
            let fault = self.fault();
            if fault == Fault::Stop {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            match self.from.read(&mut buffer) {
                Ok(0) => {
                    // The end of one direction; a peer that is gone already needs none.
                    drop(self.to.shutdown(Shutdown::Write));
                    return;
                }
                Ok(_) if fault == Fault::BlackHole => {}
                Ok(bytes) => {
                    if let Fault::Delay(delay) = fault {
                        std::thread::sleep(delay);
                    }
                    if !self.pass_on(&buffer[..bytes]) {
                        return self.abort();
                    }
                }
                Err(error) if passing(error.kind()) => {}
                Err(_) => return self.abort(),
            }
        }
    }

    fn pass_on(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                Err(error) if passing(error.kind()) => {}
                Err(_) => return false,
            }
            if self.over() {
                return false;
            }
        }
        true
    }

    fn fault(&self) -> Fault {
        let faults = self.shared.faults();
        if self.up { faults.up } else { faults.down }
    }

    fn over(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
            || self.cut.load(Ordering::SeqCst)
            || self.generation != self.shared.generation.load(Ordering::SeqCst)
    }

    fn abort(&self) {
        self.cut.store(true, Ordering::SeqCst);
        // The other pump has clones of both sockets; when it has seen the cut, the last ones go, and that is the reset.
        reset(&self.from);
        reset(&self.to);
    }
}

fn passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Lets the close become a RST. Where the option is refused the socket is gone already.
fn reset(stream: &TcpStream) {
    drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::{Fault, Proxy};
    use crate::{Keep, Sink, eventually};

    const LONG: Duration = Duration::from_secs(5);

    fn lines(sink: &Sink, count: u64) -> Result<(), u64> {
        if sink.lines() == count { Ok(()) } else { Err(sink.lines()) }
    }

    #[test]
    fn bytes_pass_vanish_wait_and_pass_again() -> std::io::Result<()> {
        let sink = Sink::start(Keep::Count);
        let proxy = Proxy::to(sink.address());
        let mut client = TcpStream::connect(proxy.address())?;
        client.write_all(b"a 1 1\n")?;
        eventually(LONG, "one line", || lines(&sink, 1));
        proxy.faults(Fault::Stop, Fault::None);
        // A read that was under way may still take what comes.
        std::thread::sleep(Duration::from_millis(50));
        client.write_all(b"b 1 1\n")?;
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(sink.lines(), 1);
        proxy.faults(Fault::None, Fault::None);
        eventually(LONG, "two lines", || lines(&sink, 2));
        proxy.reset_all();
        eventually(LONG, "the reset", || match client.read(&mut [0; 1]) {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => Err("a byte"),
        });
        let mut client = TcpStream::connect(proxy.address())?;
        client.write_all(b"c 1 1\n")?;
        eventually(LONG, "three lines", || lines(&sink, 3));
        assert_eq!(proxy.connections(), 2);
        Ok(())
    }
}
