//! The two services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use engine::batch::{Incarnation, Versions};
use engine::restart::RestartPolicy;
use engine::wire::{Class, Durable, Frame, Hello, HelloOk, PROTOCOL, Range, RefuseReason, Role};
use link::{Dialer, Ended, Greeted, Handler, Outgoing, Standing};
use runtime::net::{self, TcpStream};
use runtime::simulated::Rng;
use runtime::{Clock, Supervisor, WorkerError};
use tls::{Caller, Door};
use tokio::sync::Notify;

use crate::{Run, Trace};

pub(super) const PORT: u16 = 4004;
const WRITE_BYTES: usize = 1 << 20;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Duration {
    Duration::from_nanos(Clock::new().now().as_nanos())
}

/// The batch of that number: mostly small, sometimes larger than a write.
fn batch(number: u32) -> Bytes {
    let mut rng = Rng::new(u64::from(number));
    let length = if rng.percent(10) { rng.range(4, 150_000) } else { rng.range(4, 3_000) };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(usize::try_from(length).unwrap(), number.to_le_bytes()[0]);
    Bytes::from(bytes)
}

fn number_of(bytes: &Bytes) -> u32 {
    u32::from_le_bytes(bytes.get(..4).unwrap().try_into().unwrap())
}

pub(super) fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        role: Role::Relay,
        cluster: "c".into(),
        node: "feeder".into(),
        incarnation: Incarnation { sender: 1, epoch: 2, nonce: 3 },
        versions: Versions::default(),
        partitions: 4,
    }
}

/// What of a process outlives it, for the test: its supervisors, of which all but the last are dead.
#[derive(Default)]
struct Lives(Mutex<Vec<Supervisor>>);

impl Lives {
    fn begin(&self, node: &str) -> Supervisor {
        let supervisor = Supervisor::new(node, Clock::new(), RestartPolicy::default()).unwrap();
        locked(&self.0).push(supervisor.clone());
        supervisor
    }

    /// No life has seen a worker fail or a connection panic: a network that fails is no reason for it.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for supervisor in locked(&self.0).iter() {
            let workers = supervisor.workers().into_iter().filter(|worker| worker.last_error.is_some());
            problems.extend(workers.map(|worker| format!("{}: {:?}", worker.name, worker.last_error)));
            let panicked = supervisor.connections().into_iter().filter(|count| count.panics > 0);
            problems.extend(panicked.map(|count| format!("{} panicked {} times", count.name, count.panics)));
        }
        problems
    }
}

/// The test's view of the dialling side.
pub(super) struct Feeder {
    shelf: Arc<Shelf>,
    lives: Arc<Lives>,
}

/// What the dialling side keeps, as if on disk.
#[derive(Default)]
struct Shelf {
    pending: Mutex<BTreeMap<u32, Bytes>>,
    made: AtomicU32,
    is_over: AtomicBool,
    up_since: Mutex<Option<Duration>>,
}

impl Feeder {
    pub(super) fn host(run: &mut Run) -> Feeder {
        let shelf = Arc::new(Shelf::default());
        let lives = Arc::new(Lives::default());
        let (down, trace) = (run.weather.down(), run.trace.clone());
        let (kept, begun) = (Arc::clone(&shelf), Arc::clone(&lives));
        run.sim.host("feeder", move || {
            let (down, trace) = (Rc::clone(&down), trace.clone());
            let (shelf, lives) = (Arc::clone(&kept), Arc::clone(&begun));
            async move {
                crate::run::until_back(&down, "feeder").await;
                let supervisor = lives.begin("feeder");
                let _process = Process(Arc::clone(&shelf));
                let service = Arc::new(Dialling::new(shelf, trace));
                let dialled = Arc::clone(&service);
                supervisor.spawn_task("feeder.link.taker", move |worker| {
                    let to = (format!("taker:{PORT}"), "taker".to_owned());
                    link::dial(worker, to, Caller::plain(), Arc::clone(&dialled) as Arc<dyn Dialer>)
                });
                service.make().await
            }
        });
        Feeder { shelf, lives }
    }

    pub(super) fn up_since(&self) -> Option<Duration> {
        *locked(&self.shelf.up_since)
    }

    pub(super) fn stop_making(&self) {
        self.shelf.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn undelivered(&self) -> Vec<u32> {
        locked(&self.shelf.pending).keys().copied().collect()
    }

    pub(super) fn made(&self) -> u32 {
        self.shelf.made.load(Ordering::Relaxed)
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.lives.problems()
    }
}

/// A process that is gone has no link.
struct Process(Arc<Shelf>);

impl Drop for Process {
    fn drop(&mut self) {
        *locked(&self.0.up_since) = None;
    }
}

/// The dialling service.
struct Dialling {
    shelf: Arc<Shelf>,
    trace: Trace,
    standing: Standing,
    wake: Notify,
    /// To be sent on this connection, from this number on.
    next: AtomicU32,
}

impl Dialling {
    fn new(shelf: Arc<Shelf>, trace: Trace) -> Dialling {
        Dialling { shelf, trace, standing: Standing::default(), wake: Notify::new(), next: AtomicU32::new(u32::MAX) }
    }

    /// Makes batches, for ever.
    async fn make(&self) -> turmoil::Result {
        loop {
            let pause = 10 + runtime::random_u64()? % 200;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if !self.shelf.is_over.load(Ordering::Relaxed) {
                let number = self.shelf.made.fetch_add(1, Ordering::Relaxed);
                locked(&self.shelf.pending).insert(number, batch(number));
                self.wake.notify_one();
            }
        }
    }
}

impl Handler for Dialling {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let Frame::Durable(durable) = frame else { return Err(Ended::Unexpected("no answer to a batch")) };
        let mut pending = locked(&self.shelf.pending);
        for range in &durable.ranges {
            (range.first..=range.last).for_each(|number| drop(pending.remove(&number)));
        }
        self.standing.progress();
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        let pending = locked(&self.shelf.pending);
        for (number, bytes) in pending.range(self.next.load(Ordering::Relaxed)..) {
            if out.len() >= WRITE_BYTES {
                break;
            }
            out.batch(bytes.clone(), false, Class::Live);
            self.next.store(number + 1, Ordering::Relaxed);
        }
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }
}

impl Dialer for Dialling {
    fn hello(&self) -> Hello {
        hello()
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn up(&self, welcome: &HelloOk) {
        self.next.store(0, Ordering::Relaxed);
        *locked(&self.shelf.up_since) = Some(now());
        self.trace.say(format!("up to {}", welcome.node));
    }

    fn down(&self, why: &Ended, was_up: bool) {
        self.next.store(u32::MAX, Ordering::Relaxed);
        *locked(&self.shelf.up_since) = None;
        self.trace.say(format!("down: {why}; it was {}", if was_up { "up" } else { "not up" }));
    }

    fn refused(&self, _node: &str, peer: &str, reason: RefuseReason) {
        self.trace.say(format!("refused by {peer}: {reason:?}"));
    }
}

/// The test's view of the accepting side.
pub(super) struct Taker {
    book: Arc<Book>,
    lives: Arc<Lives>,
}

/// What the accepting side keeps, as if on disk, and what the weather does to it.
#[derive(Default)]
struct Book {
    taken: Mutex<BTreeSet<u32>>,
    hangs: AtomicBool,
    refuses: AtomicBool,
    /// Links that are served, by when they were welcomed.
    open: Mutex<BTreeMap<u64, Duration>>,
    opened: AtomicU64,
    /// Connections that have not greeted yet, by when they were accepted.
    greeting: Mutex<BTreeMap<u64, Duration>>,
}

impl Taker {
    pub(super) fn host(run: &mut Run) -> Taker {
        let book = Arc::new(Book::default());
        let lives = Arc::new(Lives::default());
        let (down, trace) = (run.weather.down(), run.trace.clone());
        let (kept, begun) = (Arc::clone(&book), Arc::clone(&lives));
        run.sim.host("taker", move || {
            let (down, trace) = (Rc::clone(&down), trace.clone());
            let (book, lives) = (Arc::clone(&kept), Arc::clone(&begun));
            async move {
                crate::run::until_back(&down, "taker").await;
                let supervisor = lives.begin("taker");
                let listener = Arc::new(net::listen(SocketAddr::from(([0, 0, 0, 0], PORT)), 16)?);
                // Closed with the host's future: the test keeps the supervisor, and with it this closure.
                let kept = Arc::downgrade(&listener);
                let connections = supervisor.clone();
                supervisor.spawn_task("taker.listen", move |worker| {
                    let (book, trace) = (Arc::clone(&book), trace.clone());
                    let (listener, connections) = (kept.upgrade(), connections.clone());
                    async move {
                        let listener = listener.ok_or(WorkerError::new("the host is gone"))?;
                        let serve = move |stream| serve(stream, Arc::clone(&book), trace.clone());
                        link::listen(worker, listener, connections, "taker.link", serve).await
                    }
                });
                let escalation = supervisor.failed().await;
                drop(listener);
                Err(escalation.to_string().into())
            }
        });
        Taker { book, lives }
    }

    pub(super) fn weather(&self, hangs: bool, refuses: bool) {
        self.book.hangs.store(hangs, Ordering::Relaxed);
        self.book.refuses.store(refuses, Ordering::Relaxed);
    }

    /// When the oldest link that is served was welcomed.
    pub(super) fn oldest(&self) -> Option<Duration> {
        locked(&self.book.open).values().min().copied()
    }

    /// When the oldest connection that has not greeted yet was accepted.
    pub(super) fn oldest_ungreeted(&self) -> Option<Duration> {
        locked(&self.book.greeting).values().min().copied()
    }

    pub(super) fn taken(&self) -> u32 {
        u32::try_from(locked(&self.book.taken).len()).unwrap()
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.lives.problems()
    }
}

async fn serve(stream: TcpStream, book: Arc<Book>, trace: Trace) -> Ended {
    let ungreeted = Ungreeted::new(Arc::clone(&book));
    let greeted = link::greeted(stream, &Door::plain()).await;
    drop(ungreeted);
    let ended = match greeted {
        Ok(greeted) => welcome(greeted, &book, &trace).await,
        Err(ended) => ended,
    };
    trace.say(format!("taker: link closed: {ended}"));
    ended
}

/// A connection that has not greeted yet.
struct Ungreeted {
    book: Arc<Book>,
    number: u64,
}

impl Ungreeted {
    fn new(book: Arc<Book>) -> Ungreeted {
        let number = book.opened.fetch_add(1, Ordering::Relaxed);
        locked(&book.greeting).insert(number, now());
        Ungreeted { book, number }
    }
}

impl Drop for Ungreeted {
    fn drop(&mut self) {
        locked(&self.book.greeting).remove(&self.number);
    }
}

async fn welcome(greeted: Greeted, book: &Arc<Book>, trace: &Trace) -> Ended {
    let Greeted { mut stream, hello, early } = greeted;
    if book.refuses.load(Ordering::Relaxed) {
        return link::refuse(&mut stream, RefuseReason::Draining).await;
    }
    let welcome = HelloOk { node: "taker".into(), window_bytes: 1 << 20, known_epoch: 0, retired: 0 };
    if let Err(ended) = link::send(&mut stream, &Frame::HelloOk(welcome)).await {
        return ended;
    }
    trace.say(format!("taker: link with {}", hello.node));
    let accepted = Accepted::new(Arc::clone(book));
    link::run(stream, early, &accepted, Clock::new()).await
}

/// The accepting service's end of one connection.
struct Accepted {
    book: Arc<Book>,
    number: u64,
    wake: Notify,
    answers: Mutex<Vec<Frame>>,
}

impl Accepted {
    fn new(book: Arc<Book>) -> Accepted {
        let number = book.opened.fetch_add(1, Ordering::Relaxed);
        locked(&book.open).insert(number, now());
        Accepted { book, number, wake: Notify::new(), answers: Mutex::default() }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        locked(&self.book.open).remove(&self.number);
    }
}

impl Handler for Accepted {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let answer = if let Frame::Ping { echo } = frame {
            Frame::Pong { echo }
        } else {
            let Frame::Batch { bytes, .. } = frame else { panic!("neither a batch nor a ping: {frame:?}") };
            let number = number_of(&bytes);
            assert_eq!(bytes, batch(number), "a batch has changed on its way");
            locked(&self.book.taken).insert(number);
            let range = Range { sender: 1, epoch: 2, first: number, last: number };
            Frame::Durable(Durable { ranges: vec![range], queue_delay_ms: 0, window_bytes: 1 << 20 })
        };
        locked(&self.answers).push(answer);
        self.wake.notify_one();
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        if !self.book.hangs.load(Ordering::Relaxed) {
            std::mem::take(&mut *locked(&self.answers)).iter().for_each(|answer| out.frame(answer));
        }
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }

    fn tick(&self) {
        self.wake.notify_one();
    }
}
