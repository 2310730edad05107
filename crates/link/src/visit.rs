//! Asking nodes what they know of a sender, before that sender begins. The one place where a link is spoken without a
//! task: a node has no identity yet, so it has no workers either.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use engine::wire::{self, Frame, Hello, HelloOk};
use runtime::Clock;
use tls::Caller;

use crate::connection::Ended;

/// Greets each node of `peers` (name and address) as a visitor and gives what answered within `within`, all together. Who does not answer in its
/// share of the time is passed over: a node must start also when it is alone. Blocks.
pub fn visit(
    peers: &[(String, SocketAddr)],
    caller: &Caller,
    hello: &Hello,
    within: Duration,
    clock: Clock,
) -> Vec<HelloOk> {
    let end = clock.now() + within;
    let mut answers = Vec::new();
    for (index, (name, addr)) in peers.iter().enumerate() {
        let waiting = u32::try_from(peers.len() - index).unwrap_or(u32::MAX);
        let share = end.since(clock.now()) / waiting;
        if share.is_zero() {
            break;
        }
        answers.extend(one((name, *addr), caller, hello, (share, clock)).ok());
    }
    answers
}

fn one(
    (name, addr): (&str, SocketAddr),
    caller: &Caller,
    hello: &Hello,
    (within, clock): (Duration, Clock),
) -> Result<HelloOk, Ended> {
    let end = clock.now() + within;
    let stream = TcpStream::connect_timeout(&addr, within)?;
    stream.set_write_timeout(Some(within))?;
    stream.set_read_timeout(Some(within))?;
    let mut stream = caller.call_blocking(stream, name)?;
    let mut bytes = Vec::new();
    wire::encode(&Frame::Hello(hello.clone()), &mut bytes);
    stream.write_all(&bytes)?;
    stream.flush()?;
    let (mut buffer, mut chunk) = (BytesMut::new(), [0; 4096]);
    loop {
        let left = end.since(clock.now());
        if left.is_zero() {
            return Err(Ended::NoHello(within));
        }
        stream.tcp().set_read_timeout(Some(left))?;
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(Ended::Closed);
        }
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if let Some(raw) = wire::next_raw(&mut buffer)? {
            let answer = wire::decode(raw)?;
            let Frame::HelloOk(welcome) = answer else {
                return Err(Ended::Unexpected("the answer to a visit is no welcome"));
            };
            return Ok(welcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use engine::batch::{Incarnation, Versions};
    use engine::wire::{PROTOCOL, Role};

    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            role: Role::Visitor,
            cluster: "c".into(),
            node: "relay-1".into(),
            incarnation: Incarnation { sender: 1, epoch: 0, nonce: 0 },
            versions: Versions::default(),
            partitions: 4,
        }
    }

    /// A node that answers the first greeting with `answer`, or with nothing.
    #[allow(clippy::disallowed_methods, reason = "the peer of a test that blocks has no supervisor")]
    fn node(answer: Option<Frame>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            match answer {
                Some(frame) => wire::encode(&frame, &mut bytes),
                // Until the visitor has lost its patience.
                None => {
                    stream.read_to_end(&mut bytes).unwrap();
                    return;
                }
            }
            stream.write_all(&bytes).unwrap();
        });
        addr
    }

    #[test]
    fn who_is_away_silent_or_refuses_is_passed_over_in_bounded_time() {
        let welcome = HelloOk { node: "final-1".into(), window_bytes: 0, known_epoch: 7, retired: 6 };
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refuses = node(Some(Frame::Refuse(wire::RefuseReason::Cluster)));
        let addrs = [nobody, node(None), refuses, node(Some(Frame::HelloOk(welcome.clone())))];
        let peers = addrs.map(|addr| ("final-1".to_owned(), addr));
        let clock = Clock::new();
        let began = clock.now();
        assert_eq!(visit(&peers, &Caller::plain(), &hello(), Duration::from_secs(2), clock), [welcome]);
        assert!(clock.now().since(began) < Duration::from_secs(3));
    }
}
