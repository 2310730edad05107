//! The worker against real peers on loopback. Peers are blocking sockets of the test's own thread; the worker runs on the
//! runtime's.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::restart::RestartPolicy;
use engine::store_link::{Block, Phase, Receipts, Settings};
use runtime::{Clock, Supervisor};
use tokio::sync::Notify;

use crate::{OfferError, StoreSender, connection};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    supervisor: Supervisor,
    listener: TcpListener,
    sender: StoreSender,
}

fn settings() -> Settings {
    Settings { rotate: Duration::from_millis(100), linger: Duration::from_millis(400), ..Settings::default() }
}

fn bench(settings: Settings) -> Bench {
    let (listener, addr) = listen();
    let clock = Clock::new();
    let supervisor = Supervisor::new("test", clock, RestartPolicy::default()).unwrap();
    let sender = StoreSender::start(&supervisor, clock, "test.store.0", addr, settings).unwrap();
    Bench { supervisor, listener, sender }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// `lines` numbered lines of 100 bytes.
fn block(first: u32, lines: u32) -> Block {
    let text: String = (first..first + lines).map(|number| format!("{number:0>98} \n")).collect();
    Block { bytes: Bytes::from(text), points: lines }
}

/// A store that reads: one connection at a time, to its end, then the next.
#[derive(Default)]
struct Store {
    open: Option<TcpStream>,
    connections: u32,
    partial: Vec<u8>,
    /// How often each whole line came.
    seen: BTreeMap<Vec<u8>, u32>,
}

impl Store {
    /// Reads on until `done`.
    #[track_caller]
    fn serve(&mut self, listener: &TcpListener, what: &str, done: impl Fn() -> bool) {
        listener.set_nonblocking(true).unwrap();
        wait_until(what, || {
            self.serve_once(listener);
            done()
        });
        listener.set_nonblocking(false).unwrap();
    }

    fn serve_once(&mut self, listener: &TcpListener) {
        if self.open.is_none() {
            match listener.accept() {
                Ok((peer, _)) => {
                    peer.set_nonblocking(true).unwrap();
                    self.open = Some(peer);
                    self.connections += 1;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        let Some(peer) = &mut self.open else { return };
        let mut buffer = [0; 65_536];
        // A reset is the sender's right: its worker may have died.
        for _ in 0..64 {
            match peer.read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(bytes) => self.partial.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.open = None;
        let bytes = std::mem::take(&mut self.partial);
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            *self.seen.entry(line.to_vec()).or_default() += 1;
        }
    }

    #[track_caller]
    fn has_every_line(&self, of: u32) {
        assert_eq!(self.seen.len(), of as usize, "lines that came at least once");
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = Clock::new();
    let began = clock.now();
    while !holds() {
        assert!(clock.now().since(began) < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Bench {
    #[track_caller]
    fn is_delivered(&self) -> bool {
        let books = self.sender.books();
        assert!(books.balance(), "{books:?}");
        books.delivered == books.owed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_confirms_what_the_store_has_read_and_nothing_is_sent_twice() {
    let bench = bench(settings());
    let mut store = Store::default();
    // One larger than what is copied together, and many small ones.
    bench.sender.offer(block(0, 5_000)).await.unwrap();
    for first in 5_000..5_200 {
        bench.sender.offer(block(first, 1)).await.unwrap();
    }
    store.serve(&bench.listener, "receipts", || bench.is_delivered());
    store.has_every_line(5_200);
    assert!(store.seen.values().all(|&times| times == 1), "a line came twice");
    let status = bench.sender.status();
    assert_eq!((status.receipts, status.held_bytes), (Receipts::Supported, 0));
    assert_eq!((status.counters.resets, status.counters.receipts_missed), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_had_not_read_when_it_closed_is_sent_again() {
    let bench = bench(settings());
    for first in (0..5_000).step_by(100) {
        bench.sender.offer(block(first, 100)).await.unwrap();
    }
    let mut peer = accept(&bench.listener);
    peer.read_exact(&mut [0; 1_000]).unwrap();
    // With unread bytes this is a reset.
    drop(peer);
    let mut store = Store::default();
    store.serve(&bench.listener, "receipts", || bench.is_delivered());
    store.has_every_line(5_000);
    assert!(bench.sender.books().resent > 0);
    assert!(bench.sender.status().last_error.is_some());
    // Once more after the linger bound.
    store.serve(&bench.listener, "re-assert", || bench.sender.books().reasserted >= 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_closes_while_idle_is_noticed_at_once() {
    let bench = bench(settings());
    let mut peer = accept(&bench.listener);
    peer.write_all(b"a banner that nobody asked for").unwrap();
    drop(peer);
    let _next = accept(&bench.listener);
    wait_until("count", || bench.sender.status().counters.peer_closes == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_read_never_stops_the_heartbeat_or_a_producer() {
    let retain_bytes = 8 << 20;
    let bench = bench(Settings { retain_bytes, ack_timeout: Duration::from_millis(500), ..settings() });
    let peer = accept(&bench.listener);
    let (clock, mut next, mut full) = (Clock::new(), 0, 0);
    let began = clock.now();
    while clock.now().since(began) < Duration::from_millis(1_500) {
        match bench.sender.try_offer(block(next, 1_000)) {
            Ok(()) => next += 1_000,
            Err(OfferError::Full(_)) => full += 1,
            Err(OfferError::Stopping(_)) => panic!("nobody stops the sender"),
        }
        let worker = &bench.supervisor.workers()[0];
        // 500 ms is what is asked for; the rest is the scheduler of a busy machine.
        assert!(worker.heartbeat_age < Duration::from_millis(1_000), "no beat for {:?}", worker.heartbeat_age);
        assert_eq!(worker.restarts, 0);
        assert!(bench.sender.status().held_bytes <= retain_bytes + 100_000);
        if full > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(full > 0, "no back-pressure while the store took something");
    let books = bench.sender.books();
    assert!(books.balance() && books.dropped_retain_full > 0, "{books:?}");
    // It wakes up: all that was not dropped arrives.
    peer.set_nonblocking(true).unwrap();
    let mut store = Store { open: Some(peer), ..Store::default() };
    store.serve(&bench.listener, "receipts", || {
        let books = bench.sender.books();
        books.delivered + books.dropped_retain_full == books.owed
    });
    let books = bench.sender.books();
    assert_eq!(store.seen.len() as u64, books.delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_loses_nothing_and_counts_nothing_twice() {
    let (listener, addr) = listen();
    let clock = Clock::new();
    let supervisor = Supervisor::new("test", clock, RestartPolicy::default()).unwrap();
    let (sender, shared) = StoreSender::new_without_worker(clock, addr, settings());
    let crash = Arc::new(Notify::new());
    let fuse = Arc::clone(&crash);
    supervisor.spawn_task("test.store.0", move |worker| {
        let (shared, fuse) = (Arc::clone(&shared), Arc::clone(&fuse));
        async move {
            tokio::select! {
                ended = connection::run(worker, shared) => ended,
                () = fuse.notified() => panic!("injected"),
            }
        }
    });
    let bench = Bench { supervisor, listener, sender };
    let mut store = Store::default();
    let mut offered = 0;
    for life in 1..=3 {
        for _ in 0..20 {
            bench.sender.offer(block(offered, 1_000)).await.unwrap();
            offered += 1_000;
        }
        store.serve(&bench.listener, "some of it", || bench.sender.books().in_flight < 20_000);
        crash.notify_one();
        wait_until("restart", || bench.supervisor.workers()[0].restarts == life);
    }
    store.serve(&bench.listener, "receipts", || bench.is_delivered());
    store.has_every_line(offered);
    assert_eq!(bench.sender.books().owed, u64::from(offered));
    assert_eq!(bench.sender.books().dropped_retain_full, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_writes_everything_and_waits_for_the_last_receipt() {
    let bench = bench(Settings { rotate: Duration::from_secs(600), ..settings() });
    bench.sender.offer(block(0, 5_000)).await.unwrap();
    let (supervisor, sender) = (bench.supervisor.clone(), bench.sender.clone());
    supervisor.stop();
    let mut store = Store::default();
    store.serve(&bench.listener, "the end", || sender.status().phase == Phase::Drained);
    store.has_every_line(5_000);
    assert_eq!(bench.sender.books().delivered, 5_000);
    assert!(matches!(bench.sender.offer(block(0, 1)).await, Err(OfferError::Stopping(_))));
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_closes_at_the_moment_of_our_half_close_gives_no_receipt() {
    let (listener, addr) = listen();
    let mut stream = tokio::net::TcpStream::connect(&addr).await.unwrap();
    // The store closes with nothing unread, and what comes after it is lost.
    drop(accept(&listener));
    stream.readable().await.unwrap();
    assert_eq!(stream.try_write(b"lost\n").unwrap(), 5);
    // The reset of these bytes may come before or after our half-close.
    if tokio::io::AsyncWriteExt::shutdown(&mut stream).await.is_ok() {
        assert_eq!(stream.try_read(&mut [0; 10]).unwrap(), 0, "the read shows a plain end");
    }
    connection::fin_is_receipt(&stream, Duration::from_millis(50)).await.unwrap_err();
}
