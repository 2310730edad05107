//! Who offers, and the store.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use engine::restart::RestartPolicy;
use engine::store_link::{Block, Phase, Receipts, Settings};
use output::{StoreSender, StoreStatus};
use runtime::net::{self, TcpListener, TcpStream};
use runtime::simulated::Rng;
use runtime::{Clock, ConnectionSet, Supervisor};
use tokio::io::AsyncReadExt;

use crate::{Run, Trace, until_back};

const PORT: u16 = 2003;
const SERIES: u64 = 40;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The test's view of the sender.
pub(super) struct Offerer {
    made: Arc<Made>,
    supervisor: Arc<Mutex<Option<(Supervisor, StoreSender)>>>,
}

#[derive(Default)]
struct Made {
    newest: Mutex<BTreeMap<String, u64>>,
    points: AtomicU64,
    is_over: AtomicBool,
}

impl Offerer {
    pub(super) fn host(run: &mut Run, settings: Settings) -> Offerer {
        let offerer = Offerer { made: Arc::default(), supervisor: Arc::default() };
        let (made, kept) = (Arc::clone(&offerer.made), Arc::clone(&offerer.supervisor));
        run.sim.host("sender", move || {
            let (made, kept) = (Arc::clone(&made), Arc::clone(&kept));
            async move {
                let clock = Clock::new();
                let supervisor = Supervisor::new("sender", clock, RestartPolicy::default())?;
                let addr = format!("store:{PORT}");
                let sender = StoreSender::start(&supervisor, clock, "sender.store.0", addr, settings)?;
                *locked(&kept) = Some((supervisor, sender.clone()));
                offer(&sender, &made).await
            }
        });
        offerer
    }

    fn with<T>(&self, read: impl FnOnce(&Supervisor, &StoreSender) -> T, otherwise: T) -> T {
        locked(&self.supervisor).as_ref().map_or(otherwise, |(supervisor, sender)| read(supervisor, sender))
    }

    pub(super) fn status(&self) -> StoreStatus {
        let nothing = StoreStatus {
            addr: String::new(),
            phase: Phase::Disconnected,
            receipts: Receipts::Unknown,
            held_bytes: 0,
            accepts: true,
            books: Default::default(),
            counters: Default::default(),
            last_error: None,
        };
        self.with(|_, sender| sender.status(), nothing)
    }

    pub(super) fn stop_offering(&self) {
        self.made.is_over.store(true, Ordering::Relaxed);
    }

    /// Nothing of what was offered will be sent again.
    pub(super) fn is_quiet(&self) -> bool {
        self.with(|_, sender| sender.progress().released == sender.progress().offered, false)
    }

    pub(super) fn newest(&self) -> BTreeMap<String, u64> {
        locked(&self.made.newest).clone()
    }

    pub(super) fn offered(&self) -> u64 {
        self.made.points.load(Ordering::Relaxed)
    }

    /// The worker never failed: a store that dies is no reason for it.
    pub(super) fn problems(&self) -> Vec<String> {
        let failed = |supervisor: &Supervisor, _: &StoreSender| {
            let workers = supervisor.workers().into_iter().filter(|worker| worker.last_error.is_some());
            workers.map(|worker| format!("{}: {:?}", worker.name, worker.last_error)).collect()
        };
        self.with(failed, Vec::new())
    }
}

/// Offers blocks, for ever: few series, so that newer values meet older ones.
async fn offer(sender: &StoreSender, made: &Made) -> turmoil::Result {
    let mut rng = Rng::new(runtime::random_u64()?);
    let mut value = 0;
    loop {
        tokio::time::sleep(rng.millis(1, 150)).await;
        if made.is_over.load(Ordering::Relaxed) {
            continue;
        }
        let points = if rng.percent(10) { rng.range(500, 2_000) } else { rng.range(1, 60) };
        let (mut text, mut newest) = (String::new(), BTreeMap::new());
        for _ in 0..points {
            value += 1;
            let series = format!("series.{}", rng.range(1, SERIES));
            writeln!(text, "{series} {value} 1800000000")?;
            newest.insert(series, value);
        }
        let block = Block { bytes: Bytes::from(text), points: u32::try_from(points)? };
        let mut block = Some(block);
        // Books are compared between two steps: a point is in both, or in neither.
        while let Some(again) = block.take() {
            match sender.try_offer(again) {
                Ok(()) => {
                    made.points.fetch_add(points, Ordering::Relaxed);
                    locked(&made.newest).append(&mut newest);
                }
                Err(output::OfferError::Full(back)) => {
                    block = Some(back);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(output::OfferError::Stopping(_)) => return Err("the sender stops".into()),
            }
        }
    }
}

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// Answers a half-close by closing.
    gives_receipts: bool,
    /// Waits up to so long between two reads.
    pause: Duration,
    /// Of a hundred reads so many are followed by closing the connection, with or without having read everything.
    closes_percent: u64,
}

impl Manners {
    pub(super) fn good() -> Manners {
        Manners { gives_receipts: true, pause: Duration::from_millis(10), closes_percent: 0 }
    }

    pub(super) fn drawn(rng: &mut Rng) -> Manners {
        Manners {
            gives_receipts: rng.percent(75),
            pause: Duration::from_millis(rng.pick(&[1, 30, 100])),
            closes_percent: rng.pick(&[0, 1, 5]),
        }
    }
}

/// The test's view of the store.
pub(super) struct Store {
    disk: Arc<Disk>,
}

/// What it has read, as if on disk.
#[derive(Default)]
struct Disk {
    held: Mutex<BTreeMap<String, u64>>,
    behaves: AtomicBool,
}

impl Store {
    pub(super) fn host(run: &mut Run, manners: Manners) -> Store {
        let disk = Arc::new(Disk::default());
        let (down, trace, kept) = (run.weather.down(), run.trace.clone(), Arc::clone(&disk));
        run.sim.host("store", move || {
            let (down, trace, disk) = (Rc::clone(&down), trace.clone(), Arc::clone(&kept));
            async move {
                until_back(&down, "store").await;
                let listener = net::listen(SocketAddr::from(([0, 0, 0, 0], PORT)), 16)?;
                accept(&listener, manners, &disk, &trace).await
            }
        });
        Store { disk }
    }

    /// From here on it closes nothing by itself.
    pub(super) fn behave(&self) {
        self.disk.behaves.store(true, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> BTreeMap<String, u64> {
        locked(&self.disk.held).clone()
    }
}

async fn accept(listener: &TcpListener, manners: Manners, disk: &Arc<Disk>, trace: &Trace) -> turmoil::Result {
    let mut connections = ConnectionSet::new(1_000);
    loop {
        let (stream, _) = listener.accept().await?;
        let (disk, trace) = (Arc::clone(disk), trace.clone());
        connections.spawn(async move {
            let ended = serve(stream, manners, &disk, &trace).await;
            trace.say(format!("store: connection ended: {ended:?}"));
        });
    }
}

async fn serve(mut stream: TcpStream, manners: Manners, disk: &Disk, trace: &Trace) -> std::io::Result<()> {
    let mut rng = Rng::new(runtime::random_u64()?);
    let mut unread = Vec::new();
    trace.say("store: connection");
    loop {
        unread.reserve(64 << 10);
        if (&mut stream).take(rng.range(1, 64 << 10)).read_buf(&mut unread).await? == 0 {
            if manners.gives_receipts {
                return Ok(());
            }
            // It never closes; the peer does.
            std::future::pending::<()>().await;
        }
        take_lines(&mut unread, disk);
        let is_rude = !disk.behaves.load(Ordering::Relaxed);
        if is_rude && rng.percent(manners.closes_percent) {
            trace.say("store: closes");
            return Ok(());
        }
        tokio::time::sleep(manners.pause.mul_f64(f64::from(u8::try_from(rng.range(0, 100)).unwrap()) / 100.0)).await;
    }
}

/// Every whole line is a value; what is left stays.
fn take_lines(unread: &mut Vec<u8>, disk: &Disk) {
    let Some(end) = unread.iter().rposition(|byte| *byte == b'\n') else { return };
    let lines: Vec<u8> = unread.drain(..=end).collect();
    let mut held = locked(&disk.held);
    for line in std::str::from_utf8(&lines).unwrap().lines() {
        let mut words = line.split(' ');
        let (series, value) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        held.insert(series.to_owned(), value);
    }
}
