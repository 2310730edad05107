//! What sending costs: CPU of this process per 62-byte line, 64 KiB blocks over loopback into a sink in its own process.
//!
//! `cargo run --release -p output --example store_throughput`

#![allow(clippy::print_stdout, reason = "a measurement prints its numbers")]

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use engine::restart::RestartPolicy;
use engine::store_link::{Block, Settings};
use output::StoreSender;
use runtime::{Clock, Supervisor};

const LINE_BYTES: usize = 62;
const LINES_PER_BLOCK: u32 = 1057;
const BLOCKS: u64 = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("sink") {
        return sink();
    }
    let mut child = Command::new(std::env::current_exe()?).arg("sink").stdout(Stdio::piped()).spawn()?;
    let mut addr = String::new();
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut addr)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    floor(addr.trim())?;
    let measured = runtime.block_on(send(addr.trim().to_owned()));
    child.kill()?;
    child.wait()?;
    measured
}

/// The same bytes by plain blocking writes: what the kernel takes for itself.
fn floor(addr: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(addr)?;
    let (block, clock) = (block(), Clock::new());
    let (cpu, began) = (cpu_ticks()?, clock.now());
    for _ in 0..BLOCKS {
        stream.write_all(&block)?;
    }
    print("plain write_all", cpu_ticks()? - cpu, clock.now().since(began));
    Ok(())
}

fn block() -> Bytes {
    let mut line = b"collectd.host-0001.cpu-0.cpu-idle 97.123456 1767225600".to_vec();
    line.resize(LINE_BYTES - 1, b'0');
    line.push(b'\n');
    Bytes::from(line.repeat(LINES_PER_BLOCK as usize))
}

fn print(what: &str, cpu: u64, wall: Duration) {
    let lines = (BLOCKS * u64::from(LINES_PER_BLOCK)) as f64;
    let (rate, nanos) = (lines / wall.as_secs_f64() / 1e6, cpu as f64 * 1e7 / lines);
    println!("{what}: {rate:.1} million lines/s, {nanos:.2} ns of CPU a line (user + system, sender only)");
}

async fn send(addr: String) -> Result<(), Box<dyn Error>> {
    let clock = Clock::new();
    let supervisor = Supervisor::new("bench", clock, RestartPolicy::default())?;
    let sender = StoreSender::start(&supervisor, clock, "bench.store.0", addr, Settings::default())?;
    let bytes = block();
    let (cpu, began) = (cpu_ticks()?, clock.now());
    for _ in 0..BLOCKS {
        sender.offer(Block { bytes: bytes.clone(), points: LINES_PER_BLOCK }).await?;
    }
    let late = supervisor.shutdown(Duration::from_secs(20)).await;
    let (cpu, wall) = (cpu_ticks()? - cpu, clock.now().since(began));
    let books = sender.books();
    print("store sender", cpu, wall);
    println!("{books:?}\n{:?}\nlate: {late:?}", sender.status().counters);
    Ok(())
}

/// User and system time of this process in hundredths of a second (Linux's fixed USER_HZ).
fn cpu_ticks() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn sink() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let (mut peer, _) = listener.accept()?;
        while peer.read(&mut buffer)? > 0 {}
    }
}
