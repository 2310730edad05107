//! The processes around the system: a load, a sink and a plain forwarder, each this program run again as `child ...`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use testkit::{Process, eventually, reserve, unix_now};

const BUFFER: usize = 256 * 1024;
const SERIES: u64 = 10_000;

/// Which timestamps the lines carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timestamps {
    /// All the same: nothing aggregates them.
    Fixed,
    /// The second in which they are made, as a collector does.
    Now,
}

/// Runs this program again.
pub(crate) fn child(arguments: &[String]) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|error| panic!("this program's path: {error}"));
    let mut command = Command::new(program);
    command.arg("child").args(arguments);
    command
}

/// What a child does.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["forward", listen, target] => forward(address(listen), address(target)),
        ["sink", control, listen @ ..] => sink(address(control), listen),
        ["load", target, connections, lines, timestamps] => {
            load(address(target), number(connections), number(lines), *timestamps == "now")
        }
        _ => panic!("unknown child {words:?}"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => panic!("{words:?}: {error}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("address {text}: {error}"))
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|error| panic!("number {text}: {error}"))
}

/// recv + send: what any relay pays at least.
fn forward(listen: SocketAddr, target: SocketAddr) -> std::io::Result<()> {
    for client in TcpListener::bind(listen)?.incoming() {
        let (mut client, mut target) = (client?, TcpStream::connect(target)?);
        std::thread::spawn(move || {
            let mut buffer = vec![0; BUFFER];
            loop {
                match client.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) if target.write_all(&buffer[..bytes]).is_err() => break,
                    Ok(_) => {}
                }
            }
        });
    }
    Ok(())
}

/// Counts newlines on all of `listen`; says the count to whoever connects to `control`.
fn sink(control: SocketAddr, listen: &[&str]) -> std::io::Result<()> {
    let count = Arc::new(AtomicU64::new(0));
    for text in listen {
        let listener = TcpListener::bind(address(text))?;
        let count = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || read_all(stream, &count));
            }
        });
    }
    for stream in TcpListener::bind(control)?.incoming() {
        stream?.write_all(count.load(Ordering::Relaxed).to_string().as_bytes())?;
    }
    Ok(())
}

fn read_all(mut stream: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(bytes) = stream.read(&mut buffer) {
        if bytes == 0 {
            break;
        }
        let lines = memchr::memchr_iter(b'\n', &buffer[..bytes]).count();
        count.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

/// Each connection sends its share as fast as it is taken, then half-closes and waits for the other side's end.
fn load(target: SocketAddr, connections: u64, lines: u64, now: bool) -> std::io::Result<()> {
    let senders: Vec<_> = (0..connections)
        .map(|connection| {
            let share = lines / connections + u64::from(connection < lines % connections);
            std::thread::spawn(move || send(target, connection * SERIES / connections, share, now))
        })
        .collect();
    for sender in senders {
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => return Err(std::io::Error::other("a sender panicked")),
        }
    }
    Ok(())
}

fn send(target: SocketAddr, first: u64, lines: u64, now: bool) -> std::io::Result<()> {
    const BLOCK: u64 = 4_000;
    let mut stream = TcpStream::connect(target)?;
    let mut sent = 0;
    while sent < lines {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
        let at = if now { unix_now() as u64 } else { 1_700_000_000 };
        let count = BLOCK.min(lines - sent);
        let mut block = Vec::with_capacity(BUFFER);
        for n in sent..sent + count {
            let series = (first + n) % SERIES;
            write_line(&mut block, series, at)?;
        }
        stream.write_all(&block)?;
        sent += count;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    // The end, or a reset by a forwarder that is gone: either way nothing more is to be sent.
    drop(stream.read(&mut [0; 1]));
    Ok(())
}

/// 63 bytes. Eight series share what stands behind the host: the inputs of one output.
fn write_line(block: &mut Vec<u8>, series: u64, at: u64) -> std::io::Result<()> {
    let group = series / 8;
    let (dc, rack, cpu) = (group / 250, group % 250 / 10, group % 10);
    let value = 1_000_000 + series;
    writeln!(block, "servers.web{series:06}.dc{dc}.rack{rack:02}.cpu{cpu}.time.user {value} {at}")
}

/// A sink in a process of its own.
pub(crate) struct SinkChild {
    pub(crate) addresses: Vec<SocketAddr>,
    control: SocketAddr,
    _process: Process,
}

impl SinkChild {
    pub(crate) fn start(count: usize, dir: &Path) -> SinkChild {
        let mut free = reserve(count + 1);
        let control = free.pop().unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let mut arguments = vec!["sink".to_owned(), control.to_string()];
        arguments.extend(free.iter().map(SocketAddr::to_string));
        let process = Process::start("sink", child(&arguments), &dir.join("sink.log"));
        eventually(Duration::from_secs(10), "the sink", || TcpStream::connect(control));
        SinkChild { addresses: free, control, _process: process }
    }

    /// Lines so far.
    pub(crate) fn lines(&self) -> Result<u64, String> {
        let mut text = String::new();
        TcpStream::connect(self.control)
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .map_err(|error| format!("the sink: {error}"))?;
        text.parse().map_err(|error| format!("the sink says {text:?}: {error}"))
    }
}

/// A load in a process of its own.
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) lines: u64,
    pub(crate) timestamps: Timestamps,
}

impl Load {
    /// Runs it to its end.
    pub(crate) fn run(&self, dir: &Path) -> Result<(), String> {
        let timestamps = match self.timestamps {
            Timestamps::Fixed => "fixed",
            Timestamps::Now => "now",
        };
        let arguments = [
            "load".to_owned(),
            self.target.to_string(),
            self.connections.to_string(),
            self.lines.to_string(),
            timestamps.to_owned(),
        ];
        let log = dir.join("load.log");
        let mut process = Process::start("load", child(&arguments), &log);
        let status = process.wait_end(Duration::from_secs(300));
        if status.success() { Ok(()) } else { Err(format!("load: {status}: {}", process.log_text())) }
    }
}
