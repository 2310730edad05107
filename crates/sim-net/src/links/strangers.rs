//! Who knocks and is no peer: bytes that are no frames, half of one, nothing at all. Each must be sent away in bounded time.

use std::time::Duration;

use engine::wire::{self, Frame};
use runtime::net::{self, SocketProfile, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ends::{PORT, hello};
use crate::{Run, Trace};

/// For a greeting two seconds, for noticing the silence of who has greeted less than five; and the way.
const SENT_AWAY_WITHIN: Duration = Duration::from_millis(5_500);

pub(super) fn host(run: &mut Run) {
    let trace = run.trace.clone();
    run.sim.host("stranger", move || knock(trace.clone()));
}

async fn knock(trace: Trace) -> turmoil::Result {
    loop {
        tokio::time::sleep(Duration::from_millis(runtime::random_u64()? % 5_000)).await;
        let port = format!("taker:{PORT}");
        let Ok(stream) = net::connect(&port, SocketProfile::Internal, Duration::from_secs(2)).await else { continue };
        let (what, bytes) = words(runtime::random_u64()?);
        trace.say(format!("stranger: {what}"));
        let stayed = tokio::time::timeout(SENT_AWAY_WITHIN, stay(stream, &bytes)).await;
        trace.say(format!("stranger: {what}: {}", if stayed.is_ok() { "sent away" } else { "left" }));
    }
}

/// Says it, and reads until the end.
async fn stay(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn words(random: u64) -> (&'static str, Vec<u8>) {
    let mut greeting = Vec::new();
    wire::encode(&Frame::Hello(hello()), &mut greeting);
    let mut other = Vec::new();
    wire::encode(&Frame::Ping { echo: 1 }, &mut other);
    match random % 8 {
        0 => ("silence", Vec::new()),
        1 => ("metrics", b"servers.web1.load 1 1800000000\n".repeat(50)),
        2 => ("TLS", vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
        3 => {
            greeting.truncate(greeting.len() / 2);
            ("half a greeting", greeting)
        }
        4 => ("a frame that is too long", vec![0xff; 64]),
        5 => ("a ping instead of a greeting", other),
        6 => {
            let last = greeting.len() - 1;
            greeting[last] ^= 1;
            ("a greeting that is damaged", greeting)
        }
        _ => {
            greeting.extend_from_slice(&[0; 32]);
            ("a greeting, and then no frames", greeting)
        }
    }
}
