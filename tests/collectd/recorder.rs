//! A TCP forwarder that remembers what went through it: the only witness of what collectd really sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A forwarder on a port of its own.
pub(crate) struct Recorder {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: JoinHandle<Vec<Vec<u8>>>,
}

impl Recorder {
    #[track_caller]
    pub(crate) fn start(target: SocketAddr) -> Recorder {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("non-blocking accept");
        let stop = Arc::new(AtomicBool::new(false));
        let stop_seen = Arc::clone(&stop);
        #[allow(clippy::disallowed_methods, reason = "a test's own thread, joined in stop()")]
        let acceptor = std::thread::spawn(move || accept(&listener, target, &stop_seen));
        Recorder { address, stop, acceptor }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until every connection has ended and tells what was sent.
    #[track_caller]
    pub(crate) fn stop(self) -> Sent {
        self.stop.store(true, Ordering::SeqCst);
        let streams = self.acceptor.join().expect("the recorder's threads do not panic");
        let mut sent = Sent::default();
        for stream in &streams {
            sent.read(std::str::from_utf8(stream).expect("collectd sends text"));
        }
        sent
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, stop: &AtomicBool) -> Vec<Vec<u8>> {
    let done = Arc::new(Mutex::new(Vec::new()));
    let mut copies = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((client, _)) => {
                let done = Arc::clone(&done);
                #[allow(clippy::disallowed_methods, reason = "a test's own thread, joined below")]
                copies.push(std::thread::spawn(move || {
                    let bytes = forward(client, target);
                    done.lock().expect("no panic while held").push(bytes);
                }));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    for copy in copies {
        copy.join().expect("a copying thread does not panic");
    }
    std::mem::take(&mut *done.lock().expect("no panic while held"))
}

/// Copies until the client ends, then half-closes and waits for the target's end: what is returned was read there.
fn forward(mut client: TcpStream, target: SocketAddr) -> Vec<u8> {
    client.set_nonblocking(false).expect("blocking reads");
    let mut target = TcpStream::connect(target).expect("the target listens");
    let mut all = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let bytes = client.read(&mut buffer).expect("collectd closes in order");
        if bytes == 0 {
            break;
        }
        target.write_all(&buffer[..bytes]).expect("the target reads on");
        all.extend_from_slice(&buffer[..bytes]);
    }
    target.shutdown(Shutdown::Write).expect("half-close");
    target.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    assert_eq!(target.read(&mut buffer).expect("the target's end"), 0, "a Graphite listener says nothing");
    all
}

/// What went through, by series and second; the last value of a second counts, as in the store.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    series: BTreeMap<String, BTreeMap<u64, f64>>,
    /// (name, second) with more than one point.
    twice: BTreeSet<(String, u64)>,
    points: u64,
    /// Lines whose value was `nan`: collectd has no rate yet in its first interval.
    pub(crate) not_a_number: u64,
}

impl Sent {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [name, value, at] = fields[..] else { panic!("collectd sent {line:?}") };
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("collectd sent {line:?}: {error}"));
            let at = at.parse().unwrap_or_else(|error| panic!("collectd sent {line:?}: {error}"));
            if value.is_nan() {
                self.not_a_number += 1;
                continue;
            }
            self.points += 1;
            if self.series.entry(name.to_owned()).or_default().insert(at, value).is_some() {
                self.twice.insert((name.to_owned(), at));
            }
        }
    }

    pub(crate) fn series(&self) -> &BTreeMap<String, BTreeMap<u64, f64>> {
        &self.series
    }

    pub(crate) fn points(&self) -> u64 {
        self.points
    }

    pub(crate) fn first_second(&self) -> u64 {
        self.series.values().filter_map(|points| points.keys().next()).min().copied().unwrap_or(0)
    }

    pub(crate) fn last_second(&self) -> u64 {
        self.series.values().filter_map(|points| points.keys().next_back()).max().copied().unwrap_or(0)
    }

    /// Starts of windows of `seconds` in which a chosen series has two points in one second.
    pub(crate) fn blurred(&self, seconds: u64, choose: impl Fn(&str) -> bool) -> BTreeSet<u64> {
        self.twice.iter().filter(|(name, _)| choose(name)).map(|(_, at)| at - at % seconds).collect()
    }
}
