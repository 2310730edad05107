//! The thread over a store in memory and over RocksDB, with a live path that is a table, and a life that ends at every
//! step it takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::Duration;

use admin::{Page, SpillAnswer, SpillRequest};
use admin_api::{CursorAdvance, SpillDiscard, SpillLoss, SpillStatus};
use bytes::Bytes;
use engine::batch::{Batch, BatchId, Builder, Claim, Incarnation, PartitionSet, Versions};
use engine::restart::RestartPolicy;
use engine::spill::{self, AGGREGATE, Origin, Why};
use engine::store_link::{Block, Overflow, StoreLink};
use engine::time::{Mono, UnixSeconds};
use engine::wire::{Done, Frame, LeaseRequest, Outcome, Ticket};
use runtime::{Clock, Supervisor};
use store::{Fault, FaultPlan, Hole, MemDisk, Store, StoreError, Visit, WriteBatch};

use super::handle::FromLink;
use super::live::{Content, Due, Told};
use super::mode::Mode;
use super::thread::{Opened, Witness};
use super::*;
use crate::shared::locked;

mod admin_requests;
mod journal;
mod links;
mod lives;
mod on_disk;

const SENDER: u64 = 7;
const EPOCH: u32 = 3;

/// A batch of `points` points at `at`.
fn batch(seq: u32, points: u32, at: u32) -> Batch {
    let mut builder = Builder::new(PartitionSet(1), 0);
    for n in 0..points {
        let line = format!("web.host{n}.requests {seq} {at}\n");
        builder.append(line.as_bytes(), 1, UnixSeconds(at), UnixSeconds(at));
    }
    let me = Incarnation { sender: SENDER, epoch: EPOCH, nonce: 1 };
    builder.seal(me, seq, Versions::default(), &[Claim { partition: 0, from: seq }])
}

fn due(seq: u32, points: u32, why: Why) -> Due {
    Due { destination: AGGREGATE.into(), why, content: Content::Batch(batch(seq, points, 1_000 + seq)) }
}

fn block(number: u64, points: u32) -> Due {
    let lines: String = (0..points).map(|n| format!("raw.{n} 1 {}\n", 2_000 + number)).collect();
    let content = Content::Block { lines: Bytes::from(lines), points, number };
    Due { destination: "carbon/h:2003".into(), why: Why::Memory, content }
}

#[derive(Debug, Default)]
struct Table {
    due: VecDeque<Due>,
    in_hand: VecDeque<Due>,
    /// Points that the spill answers for, by destination: what the live path's books call spilled.
    spilled: BTreeMap<String, u64>,
    told: Vec<(Told, Ticket)>,
    settled: Vec<Ticket>,
    held: BTreeSet<BatchId>,
    able: bool,
    oldest: Option<(Option<u32>, Option<UnixSeconds>)>,
    /// Became durable while the spill had it in hand.
    durable: BTreeSet<BatchId>,
    /// Points of what the spill answers for.
    handed_over: BTreeMap<BatchId, u64>,
    /// Points that have a ticket and are not called spilled: durable meanwhile, or told twice.
    answered_here: u64,
}

impl Table {
    fn put_back(&mut self) {
        while let Some(due) = self.in_hand.pop_back() {
            self.due.push_front(due);
        }
    }
}

/// The destination of the sender that journals.
const RAW: &str = "raw/h:2003";

/// The live path as a table, and perhaps with a real sender that journals.
#[derive(Debug, Default)]
struct Fake {
    table: Mutex<Table>,
    sender: Mutex<Option<StoreLink>>,
    gate: RwLock<()>,
    steps: Steps,
}

/// Ends the life of the thread at its nth step; and what happens to its store besides.
#[derive(Clone, Debug, Default)]
struct Steps {
    left: Arc<AtomicU64>,
    /// Bytes of the largest batch that was written.
    largest: Arc<AtomicU64>,
    /// Keys of records that nobody finds any more.
    hidden: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl Steps {
    /// 0: never.
    fn arm(&self, nth: u64) {
        self.left.store(nth, Ordering::SeqCst);
    }

    fn armed(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }

    fn hides(&self, key: &[u8]) -> bool {
        locked(&self.hidden).contains(key)
    }

    fn step(&self) {
        let left = self.left.load(Ordering::SeqCst);
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
            assert!(left > 1, "this life ends here");
        }
    }
}

impl Fake {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        locked(&self.table)
    }

    fn give(&self, due: impl IntoIterator<Item = Due>) {
        self.table().due.extend(due);
    }

    fn spilled_points(&self, destination: &str) -> u64 {
        self.table().spilled.get(destination).copied().unwrap_or(0)
    }

    /// A store's sender that journals what it is offered and holds it for as long as the store says nothing.
    fn with_sender() -> Fake {
        let settings = engine::store_link::Settings {
            rotate: Duration::ZERO,
            receipt_timeout: Duration::from_secs(3_600),
            ack_timeout: Duration::from_secs(3_600),
            overflow: Overflow::Spill,
            journal: true,
            ..engine::store_link::Settings::default()
        };
        Fake { sender: Mutex::new(Some(StoreLink::new(settings, 1))), ..Fake::default() }
    }

    /// Something of the sender, if there is one.
    fn of_sender<T: Default>(&self, get: impl FnOnce(&mut StoreLink) -> T) -> T {
        locked(&self.sender).as_mut().map(get).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        let table = self.table();
        table.due.is_empty() && table.in_hand.is_empty()
    }
}

impl Live for Fake {
    fn due(&self, now: Mono, max_bytes: u64, is_current: &dyn Fn() -> bool) -> Vec<Due> {
        let mut table = self.table();
        if !is_current() {
            return Vec::new();
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while table.able && bytes < max_bytes {
            let Some(due) = table.due.pop_front() else { break };
            bytes += due.points() * 40;
            table.in_hand.push_back(due.clone());
            taken.push(due);
        }
        let of_sender = self.of_sender(|sender| sender.take_due(now, max_bytes));
        taken.extend(of_sender.into_iter().map(|due| {
            let content = Content::Block { lines: due.block.bytes, points: due.block.points, number: due.number };
            Due { destination: RAW.into(), why: due.why, content }
        }));
        taken
    }

    fn spilled(&self, now: Mono, told: &Told, ticket: Ticket) -> bool {
        self.steps.step();
        if let Told::Journalled { number, .. } = told {
            let keeps = self.of_sender(|sender| sender.journalled(now, *number, ticket));
            self.steps.step();
            return keeps;
        }
        let mut table = self.table();
        table.told.push((told.clone(), ticket));
        let known: Vec<Due> =
            table.in_hand.iter().chain(&table.due).filter(|due| due.told() == *told).cloned().collect();
        table.in_hand.retain(|due| due.told() != *told);
        table.due.retain(|due| due.told() != *told);
        let Some(due) = known.first() else {
            // A former life has told it already.
            let Told::Batch(id) = told else { return true };
            let points = table.handed_over.get(id).copied().unwrap_or(0);
            table.answered_here += points;
            return false;
        };
        if let Told::Batch(id) = told
            && table.durable.remove(id)
        {
            table.answered_here += due.points();
            return false;
        }
        if let Told::Batch(id) = told {
            table.handed_over.insert(*id, due.points());
        }
        *table.spilled.entry(due.destination.clone()).or_default() += due.points();
        true
    }

    fn settled(&self) -> Vec<Ticket> {
        let mut settled = std::mem::take(&mut self.table().settled);
        settled.extend(self.of_sender(StoreLink::take_settled));
        settled
    }

    fn dead(&self) -> Vec<(Batch, &'static str)> {
        Vec::new()
    }

    fn holds(&self, origin: Origin<'_>) -> bool {
        let id = match origin.content {
            spill::Content::Batch(id) => id,
            spill::Content::Block { epoch, number } => {
                let may_be = (origin.why, origin.destination, epoch) == (Why::Journal, RAW, EPOCH);
                return may_be && self.of_sender(|sender| sender.holds(number));
            }
        };
        let table = self.table();
        let in_hand = table.due.iter().chain(&table.in_hand).any(|due| due.told() == Told::Batch(id));
        in_hand || table.held.contains(&id)
    }

    fn restarted(&self, _: Mono) {
        self.steps.step();
        self.table().put_back();
        self.of_sender(StoreLink::spill_restarted);
    }

    fn set_able(&self, _: Mono, able: bool) {
        if !able {
            self.steps.step();
            self.table().put_back();
        }
        self.of_sender(|sender| sender.set_spill(able));
        self.table().able = able;
    }

    fn set_spilled(&self, oldest_epoch: Option<u32>, oldest: Option<UnixSeconds>) {
        self.steps.step();
        self.table().oldest = Some((oldest_epoch, oldest));
    }

    fn moving(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A store whose every use is a step, before and after.
#[derive(Debug)]
struct Stepping<S> {
    inner: S,
    steps: Steps,
}

impl<S: Store> Store for Stepping<S> {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.steps.step();
        self.steps.largest.fetch_max(batch.bytes(), Ordering::SeqCst);
        let done = self.inner.write(batch);
        self.steps.step();
        done
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.steps.step();
        let done = self.inner.sync();
        self.steps.step();
        done
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.steps.step();
        if self.steps.hides(key) { Ok(None) } else { self.inner.get(key) }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.steps.step();
        self.inner.scan(from, to, visit)
    }

    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
        self.steps.step();
        let hides = |key: &[u8]| self.steps.hides(key);
        self.inner.salvage(from, to, &mut |key, value| {
            if hides(key) { ControlFlow::Continue(()) } else { visit(key, value) }
        })
    }

    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.steps.step();
        self.inner.forget(from, to)
    }

    fn give_back(&mut self) -> Result<(), StoreError> {
        self.steps.step();
        self.inner.give_back()
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

#[derive(Clone, Debug, Default)]
struct MemWitness(Arc<Mutex<Option<Vec<u8>>>>);

impl Witness for MemWitness {
    fn read(&self) -> Option<Vec<u8>> {
        locked(&self.0).clone()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        *locked(&self.0) = Some(bytes.to_vec());
        Ok(())
    }
}

/// Each way in which one write or one sync fails, with its name.
fn store_faults() -> Vec<(String, FaultPlan)> {
    let faults = [(1, Fault::Io { applied: true }), (1, Fault::Io { applied: false }), (2, Fault::Busy)];
    let both = faults.into_iter().flat_map(|(nth, fault)| {
        let plan = FaultPlan::new();
        [
            (format!("write {nth}: {fault:?}"), plan.clone().fail_write(nth, fault)),
            (format!("sync {nth}: {fault:?}"), plan.fail_sync(nth, fault)),
        ]
    });
    both.collect()
}

/// A relay with nothing but its spill.
struct World {
    supervisor: Supervisor,
    handle: Arc<Handle>,
    live: Arc<Fake>,
}

impl World {
    fn start(live: Arc<Fake>, disk: Disk, quota_bytes: u64) -> World {
        World::start_in(std::env::temp_dir(), live, disk, quota_bytes)
    }

    fn start_in(path: std::path::PathBuf, live: Arc<Fake>, disk: Disk, quota_bytes: u64) -> World {
        let clock = Clock::new();
        let policy = RestartPolicy {
            restarts: 10_000,
            within: Duration::from_secs(60),
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(2),
            // No test here is about hanging; on a loaded machine a thread may well stand still for seconds.
            watchdog: Duration::from_secs(60),
        };
        let supervisor = Supervisor::new("relay-1", clock, policy).expect("a supervisor");
        let handle = Arc::new(Handle::new(clock.unix()));
        let settings = Settings {
            node: "relay-1".into(),
            sender: SENDER,
            epoch: EPOCH,
            path,
            quota_bytes,
            sync_every: Some(Duration::from_millis(5)),
            journal: false,
        };
        let as_live = Arc::clone(&live) as Arc<dyn Live>;
        start(&supervisor, settings, Arc::clone(&handle), as_live, disk, clock).expect("a spill");
        World { supervisor, handle, live }
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..4_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}; {:?} {:?} {:#?}", self.handle.mode(), self.live.table(), self.supervisor.workers());
    }

    async fn until_told(&self) {
        self.until("everything due is told", || self.live.is_empty()).await;
    }

    /// Stops in order, as a relay does.
    async fn stop(self) {
        assert_eq!(self.supervisor.shutdown(Duration::from_secs(10)).await, Vec::<String>::new());
    }

    async fn ask(&self, request: SpillRequest) -> Result<SpillAnswer, admin::Refusal> {
        for _ in 0..100 {
            if let Ok(answer) = self.handle.request(request.clone()).await {
                return answer;
            }
        }
        panic!("the spill does not answer {request:?}");
    }

    async fn status(&self) -> SpillStatus {
        match self.ask(SpillRequest::Status).await {
            Ok(SpillAnswer::Status(status)) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// The books of the spill and those of the live path fit.
    #[track_caller]
    fn balance(&self, destination: &str, lane: &str) {
        let (have, owed) = self.sums(destination, lane);
        assert_eq!(have, owed, "{destination}: {:?}", self.handle.ledger_of(destination));
    }

    fn sums(&self, destination: &str, lane: &str) -> (u64, u64) {
        // As the ledger does: not while points change their class.
        let _still = self.live.gate.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let books = self.handle.ledger_of(destination);
        let sum = books.pending + books.settled + books.dropped.values().sum::<u64>();
        if lane == RAW {
            let memory = self.live.of_sender(|sender| sender.books());
            return (sum, books.carried + memory.spilled + memory.journalled + memory.answered_here);
        }
        let live =
            self.live.spilled_points(lane) + if destination == AGGREGATE { self.live.table().answered_here } else { 0 };
        (sum, books.carried + live)
    }
}

/// A disk in memory.
fn memory(disk: &MemDisk, witness: &MemWitness, steps: &Steps) -> Disk {
    let (disk, witness, steps) = (disk.clone(), witness.clone(), steps.clone());
    Disk {
        open: Box::new(move |_, _| {
            steps.step();
            let store = Stepping { inner: disk.open(), steps: steps.clone() };
            Ok(Opened { store: Box::new(store), quarantined: Vec::new() })
        }),
        witness: Box::new(move |_| Ok(Box::new(witness.clone()))),
    }
}

fn link(world: &World) -> Borrower<'_> {
    let (link, _wake) = world.handle.link_up();
    Borrower { world, link }
}

/// A replayer's link without a socket.
struct Borrower<'w> {
    world: &'w World,
    link: u64,
}

impl Borrower<'_> {
    /// Everything lent for one request.
    async fn lease(&self, lane: u16, max_points: u32) -> Vec<(Ticket, Bytes)> {
        let request = LeaseRequest {
            number: 1,
            lane,
            max_bytes: 1 << 20,
            max_points,
            from: UnixSeconds(0),
            to: UnixSeconds(u32::MAX),
            matching: String::new(),
        };
        assert!(self.world.handle.said(self.link, FromLink::Lease(request)));
        let mut lent = Vec::new();
        for _ in 0..2_000 {
            for frame in self.world.handle.to_write(self.link, 1 << 20) {
                if let Frame::Leased(leased) = frame {
                    lent.push((leased.ticket, leased.bytes));
                } else if let Frame::LeaseEnd(end) = frame {
                    assert_eq!(end.granted as usize, lent.len());
                    return lent;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the request was not answered");
    }

    fn done(&self, outcome: Outcome, tickets: Vec<Ticket>) {
        assert!(self.world.handle.said(self.link, FromLink::Done(Done { outcome, tickets })));
    }
}
