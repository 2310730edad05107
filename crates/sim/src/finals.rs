//! A final node's shell: its partitions, the log with its disk, and the senders to plain stores ([`crate::sender`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use engine::final_node::emit::{self, Outlet, Outlets, Times};
use engine::final_node::{Partition, record};
use engine::rule::RuleSet;
use engine::time::{Mono, UnixSeconds};
use engine::verdict::Verdict;
use engine::watermarks::Watermarks;
use engine::window::{BlockId, Due};
use engine::wire::{Flush, FlushReply, Frame, GroupReply, Hello, HelloOk, Lane, RefuseReason, Role};
use final_log::journal::{Append, Journal, appends, decode_marks, encode_marks};
use final_log::recover;
use store::{Disposition, MemStore, Store, StoreError};

use crate::node::{Cx, Node, Port};
use crate::records::{found, in_pieces, note_record};
use crate::sender::Senders;
use crate::setup::LinkId;

const SECOND: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(100);
const HORIZON: u32 = 24 * 3600;
const SYNCED: u32 = 1;

struct Owned {
    partition: Partition,
    checkpointed: Mono,
    checkpoint_token: u64,
    durable: Option<u64>,
}

struct Waiting {
    token: u64,
    partition: u16,
    after: u64,
    to: u64,
    reply: FlushReply,
}

/// See the module's head.
pub struct FinalNode {
    mine: Vec<u16>,
    owned: Vec<Owned>,
    store: Option<MemStore>,
    journal: Option<Journal>,
    token: u64,
    synced: u64,
    queue: VecDeque<Append>,
    in_hand: Vec<Append>,
    /// The sync of what is in hand is on its way.
    syncing: bool,
    retry_at: Mono,
    waiting: VecDeque<Waiting>,
    requested: BTreeSet<(u16, BlockId)>,
    loaded: Vec<(u16, BlockId, Option<bytes::Bytes>)>,
    inputs: [VecDeque<(u64, Flush)>; 2],
    answers: Vec<(u64, FlushReply)>,
    conns: BTreeMap<u64, Option<Mono>>,
    watermarks: Watermarks,
    kept: Mono,
    pub senders: Senders,
    /// Something is wrong with the disk: answers are withheld.
    ill: bool,
}

impl FinalNode {
    /// A process begins; the store is read at the first tick.
    pub fn start(cx: &mut Cx<'_>, index: usize) -> FinalNode {
        let mine = cx.setup.owners.iter().zip(0..).filter(|(owner, _)| **owner == index).map(|(_, number)| number);
        FinalNode {
            mine: mine.collect(),
            owned: Vec::new(),
            store: None,
            journal: None,
            token: 0,
            synced: 0,
            queue: VecDeque::new(),
            in_hand: Vec::new(),
            syncing: false,
            retry_at: Mono::ZERO,
            waiting: VecDeque::new(),
            requested: BTreeSet::new(),
            loaded: Vec::new(),
            inputs: [VecDeque::new(), VecDeque::new()],
            answers: Vec::new(),
            conns: BTreeMap::new(),
            watermarks: Watermarks::default(),
            kept: cx.now,
            senders: Senders::new(cx),
            ill: false,
        }
    }

    /// The highest epoch of a sender that is known here.
    pub fn epoch_of(&self, sender: u64) -> u32 {
        let known = self.owned.iter().filter_map(|owned| owned.partition.senders().get(&sender).copied());
        known.map(|known| known.epoch.max(known.floor)).max().unwrap_or(0)
    }

    /// Whether everything that came is decided, durable and emitted.
    pub fn is_quiet(&mut self, rules: &RuleSet) -> bool {
        let quiet = |owned: &mut Owned| {
            let waits = (0..self.senders.count()).any(|target| owned.partition.cursor().newest(target).is_some());
            // A window that is open, or a correction that waits for its turn.
            let due = owned.partition.windows().next_due(rules);
            !waits && owned.partition.books().pending == 0 && due == Due::default()
        };
        self.owned.len() == self.mine.len() && self.owned.iter_mut().all(quiet) && self.senders.is_quiet()
    }

    /// A shard's thread dies: its partitions are read from the store again, once the log has settled.
    pub fn shard_panics(&mut self, cx: &mut Cx<'_>) {
        cx.truth.visit("final shard died");
        self.owned.clear();
        self.waiting.clear();
        self.requested.clear();
        self.loaded.clear();
        // The log refuses what a former life has put into its queue; what it has in hand it finishes.
        self.queue.clear();
    }

    fn open(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        let mut store = cx.disk.store.open();
        if self.journal.is_none() {
            let marks = cx.disk.witness.as_deref().map(decode_marks).unwrap_or_default();
            self.journal = Some(Journal::open(&mut store, marks)?);
        }
        self.store = Some(store);
        Ok(())
    }

    fn recover(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        let (Some(store), Some(journal)) = (&self.store, &self.journal) else { return Ok(()) };
        let names: Vec<String> = (0..self.senders.count()).map(|target| format!("carbon-{target}")).collect();
        let mark = |number: u16| journal.marks().get(&number).copied();
        let recovered = recover::partitions(&self.mine, &names, store, &mark, &|| ())?;
        let recovered = recovered.unwrap_or_else(|error| panic!("a store of our own format: {error}"));
        for (partition, findings) in recovered {
            found(cx, partition.number(), &findings);
            cx.truth.recovered(partition.number(), partition.mark().next);
            let owned = Owned { partition, checkpointed: cx.now, checkpoint_token: 0, durable: None };
            self.owned.push(owned);
        }
        self.say_what_is_covered();
        cx.truth.visit("final recovered");
        Ok(())
    }

    fn say_what_is_covered(&mut self) {
        for index in 0..self.owned.len() {
            let partition = &mut self.owned[index].partition;
            let covers = Some((partition.number(), partition.log_from(), partition.windows().sealed_before()));
            let mark = Some((partition.number(), partition.mark()));
            self.append(Append { covers, mark, ..Append::default() });
        }
    }

    fn append(&mut self, append: Append) -> u64 {
        self.token += 1;
        self.queue.push_back(Append { token: self.token, ..append });
        self.token
    }

    fn on_flush(&mut self, cx: &mut Cx<'_>, to: u64, flush: Flush) {
        let number = flush.partition;
        let may = !self.ill && self.queue.len() < 4096;
        let Some(owned) = self.owned.iter_mut().find(|owned| owned.partition.number() == number) else { return };
        if !may {
            cx.truth.visit("flush put off");
            return;
        }
        let outcome = owned.partition.flush(flush);
        for group in &outcome.reply.groups {
            cx.truth.visit(match group {
                GroupReply::Merged => "group merged",
                GroupReply::Refused { .. } => "group refused",
                GroupReply::TooManyHoles { .. } => "group with too many holes",
                GroupReply::DuplicateSender { .. } => "group of a duplicate sender",
                GroupReply::Retired { .. } => "group of a retired epoch",
                GroupReply::Malformed => "group malformed",
            });
        }
        let mark = owned.partition.mark();
        if let Some(record) = outcome.record {
            note_record(cx, &record);
            let loads = self.not_requested(number, outcome.loads);
            self.append(Append { record: Some(record), mark: Some((number, mark)), loads, ..Append::default() });
        }
        let (token, after) = (self.token, outcome.after);
        self.waiting.push_back(Waiting { token, partition: number, after, to, reply: outcome.reply });
    }

    fn not_requested(&mut self, partition: u16, ids: Vec<BlockId>) -> Vec<(u16, BlockId)> {
        let requested = &mut self.requested;
        ids.into_iter().map(|id| (partition, id)).filter(|block| requested.insert(*block)).collect()
    }

    fn request(&mut self, partition: u16, ids: Vec<BlockId>) {
        let loads = self.not_requested(partition, ids);
        if !loads.is_empty() {
            self.append(Append { loads, ..Append::default() });
        }
    }

    /// The log thread: takes what has come, writes it, and has it synced after a while.
    fn log(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        if self.syncing || cx.now < self.retry_at {
            return Ok(());
        }
        if self.store.is_none() {
            self.open(cx)?;
        }
        if self.owned.is_empty() && self.in_hand.is_empty() && !self.mine.is_empty() {
            self.recover(cx)?;
        }
        if self.in_hand.is_empty() {
            self.in_hand = self.queue.drain(..).collect();
        }
        if self.in_hand.is_empty() {
            return Ok(());
        }
        let (Some(store), Some(journal)) = (&mut self.store, &mut self.journal) else { return Ok(()) };
        self.in_hand.iter_mut().for_each(|append| journal.take(append));
        // A power cut may come between any two writes: as for much larger ones, in some runs each append is one.
        let alone = cx.setup.tunables.evicts;
        for appends in self.in_hand.chunks(if alone { 1 } else { self.in_hand.len() }) {
            for batch in journal.batches(appends) {
                store.write(&batch)?;
            }
        }
        for append in &mut self.in_hand {
            let mut blocks = Vec::new();
            for (partition, id) in &append.loads {
                blocks.push((*partition, *id, recover::load(store, *partition, *id)?));
            }
            append.loads.clear();
            self.loaded.append(&mut blocks);
        }
        self.syncing = true;
        let (low, high) = cx.setup.tunables.final_sync_ms;
        cx.wakes.push((cx.now + Duration::from_millis(cx.rng.range(low, high)), SYNCED));
        Ok(())
    }

    fn sync(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        let (Some(store), Some(journal)) = (&mut self.store, &mut self.journal) else { return Ok(()) };
        store.sync()?;
        for record in self.in_hand.iter().filter_map(|append| append.record.as_deref()) {
            if let Some((partition, number)) = record::place(record) {
                cx.truth.synced(partition, number);
            }
        }
        journal.done(&self.in_hand);
        journal.forget(store, self.mine.len())?;
        cx.disk.witness = Some(encode_marks(journal.marks()));
        self.ill = false;
        let done = std::mem::take(&mut self.in_hand);
        self.synced = done.iter().map(|append| append.token).max().unwrap_or(0).max(self.synced);
        Ok(())
    }

    fn failed(&mut self, cx: &mut Cx<'_>, error: &StoreError) {
        cx.truth.visit("log failed");
        cx.trace.say(cx.now, || format!("log of node {} failed: {error}", cx.me));
        self.ill = true;
        self.retry_at = cx.now + RETRY;
        if !matches!(error.disposition(), Disposition::FreeSpace | Disposition::RetrySoon) {
            self.store = None;
        }
    }

    /// What is durable is answered and becomes part of the windows.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        for (number, id, bytes) in std::mem::take(&mut self.loaded) {
            self.requested.remove(&(number, id));
            if let Some(owned) = self.owned.iter_mut().find(|owned| owned.partition.number() == number)
                && let Some(finding) = owned.partition.loaded(id, bytes.as_deref())
            {
                found(cx, number, &[finding]);
            }
        }
        while let Some(done) = self.waiting.pop_front_if(|waiting| waiting.token <= self.synced) {
            if let Some(owned) = self.owned.iter_mut().find(|owned| owned.partition.number() == done.partition) {
                owned.durable = owned.durable.max(Some(done.after));
            }
            crate::check::reply(cx, &done.reply);
            self.answers.push((done.to, done.reply));
        }
        for index in 0..self.owned.len() {
            let owned = &mut self.owned[index];
            let missing = owned.durable.map(|durable| owned.partition.synced(durable)).unwrap_or_default();
            let number = owned.partition.number();
            if !missing.is_empty() {
                cx.truth.visit("window read back");
            }
            self.request(number, missing);
        }
    }

    fn emit(&mut self, cx: &mut Cx<'_>) {
        let views = self.senders.views(cx.now);
        let stores: Vec<Outlet<'_>> =
            cx.setup.rings.iter().enumerate().map(|(first, ring)| Outlet { ring, first, addresses: 1 }).collect();
        let outlets = Outlets { rules: &cx.setup.rules, stores: &stores, views: &views };
        let watermark = self.watermarks.latest(cx.now).iter().map(|watermark| watermark.at).min();
        let times = Times { now: cx.unix, watermark, mono: cx.now };
        for index in 0..self.owned.len() {
            let partition = &mut self.owned[index].partition;
            let emitted = emit::emit(partition, outlets, times, &mut self.senders);
            if emitted.corrections > 0 {
                cx.truth.visit("window corrected");
            }
            let mut missing = emit::catch_up(partition, outlets, &mut self.senders);
            missing.extend(partition.windows().wanted());
            let number = partition.number();
            self.request(number, missing);
        }
    }

    /// Once a second: retire, seal, checkpoint, evict.
    fn keep(&mut self, cx: &mut Cx<'_>) {
        let floor = UnixSeconds(cx.unix.0.saturating_sub(HORIZON));
        for index in 0..self.owned.len() {
            self.owned[index].partition.seal_before(floor);
            if self.ill {
                continue;
            }
            for watermark in self.watermarks.latest(cx.now) {
                let partition = &mut self.owned[index].partition;
                if watermark.retired > 0
                    && let Some((_, record)) = partition.retire(watermark.sender, watermark.retired)
                {
                    cx.truth.visit("epoch retired");
                    let mark = Some((partition.number(), partition.mark()));
                    note_record(cx, &record);
                    self.append(Append { record: Some(record), mark, ..Append::default() });
                }
            }
            self.checkpoint(cx, index);
        }
        if cx.setup.tunables.evicts {
            self.evict(cx);
        }
        self.books(cx);
    }

    fn checkpoint(&mut self, cx: &mut Cx<'_>, index: usize) {
        let owned = &mut self.owned[index];
        let is_old = cx.now.since(owned.checkpointed) >= cx.setup.tunables.checkpoint_every;
        if !is_old || !owned.partition.has_changed() || owned.checkpoint_token > self.synced {
            return;
        }
        cx.truth.visit("checkpoint");
        owned.checkpointed = cx.now;
        let (number, made, mark) = (owned.partition.number(), owned.partition.checkpoint(), owned.partition.mark());
        let mut token = 0;
        for append in appends(number, made, mark).into_iter().flat_map(in_pieces) {
            token = self.append(append);
        }
        self.owned[index].checkpoint_token = token;
    }

    fn evict(&mut self, cx: &mut Cx<'_>) {
        for owned in &mut self.owned {
            if owned.checkpoint_token > 0 && owned.checkpoint_token <= self.synced {
                let all = cx.rng.percent(50);
                let windows = owned.partition.windows();
                for id in windows.evictable(16, all) {
                    cx.truth.visit("window evicted");
                    windows.evict(id);
                }
            }
        }
    }

    fn books(&self, cx: &mut Cx<'_>) {
        for owned in &self.owned {
            let books = owned.partition.books();
            if books.received != books.merged + books.too_old + books.corrupt + books.pending {
                cx.truth.violated("INV-1", || format!("books of partition {}: {books:?}", owned.partition.number()));
            }
        }
    }

    /// INV-1 in the end: the points that each partition says it has are those of the log.
    pub fn compare_books(&self, cx: &mut Cx<'_>) {
        self.books(cx);
        for owned in &self.owned {
            let (number, books) = (owned.partition.number(), owned.partition.books());
            let Some(log) = cx.truth.logs.get(&number).filter(|log| !log.damaged) else { continue };
            let points: u64 = log.records.values().flatten().map(|included| u64::from(included.points)).sum();
            if books.received != points || books.merged != points {
                cx.truth.violated("INV-1", || format!("partition {number} was sent {points} points: {books:?}"));
            }
        }
    }

    fn work(&mut self, cx: &mut Cx<'_>) {
        if let Err(error) = self.log(cx) {
            self.failed(cx, &error);
        }
        // First sends before re-sends (INV-5).
        if !self.owned.is_empty() {
            while let Some((to, flush)) = self.inputs[0].pop_front().or_else(|| self.inputs[1].pop_front()) {
                self.on_flush(cx, to, flush);
            }
        }
        self.settle(cx);
    }
}

impl Node for FinalNode {
    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.work(cx);
        self.emit(cx);
        if cx.now.since(self.kept) >= SECOND {
            self.kept = cx.now;
            self.keep(cx);
        }
        self.senders.tick(cx);
    }

    fn wake(&mut self, cx: &mut Cx<'_>, tag: u32) {
        if tag == SYNCED && self.syncing {
            self.syncing = false;
            if let Err(error) = self.sync(cx) {
                self.failed(cx, &error);
            }
            self.work(cx);
        }
    }

    fn accept(&mut self, _cx: &mut Cx<'_>, conn: u64, hello: &Hello) -> Result<HelloOk, RefuseReason> {
        if hello.role != Role::Partial {
            return Err(RefuseReason::Role);
        }
        self.conns.insert(conn, None);
        Ok(HelloOk { node: "final".to_owned(), window_bytes: 0, known_epoch: 0, retired: 0 })
    }

    fn closed(&mut self, _cx: &mut Cx<'_>, conn: u64) {
        self.conns.remove(&conn);
    }

    fn frame(&mut self, cx: &mut Cx<'_>, from: Port, frame: Frame) -> Result<(), &'static str> {
        match (from, frame) {
            (Port::Conn(conn), Frame::Flush(flush)) => {
                if !self.mine.contains(&flush.partition) {
                    return Err("flush for a partition that this node does not own");
                }
                let lane = usize::from(flush.lane == Lane::Suspect);
                self.inputs[lane].push_back((conn, flush));
                self.work(cx);
            }
            (Port::Conn(_), Frame::Watermark(watermark)) => self.watermarks.note(cx.now, watermark),
            _ => return Err("frame that a final node does not take"),
        }
        Ok(())
    }

    fn plain(&mut self, cx: &mut Cx<'_>, link: LinkId, event: engine::store_link::Event) {
        self.senders.event(cx, link, event);
    }

    fn pump(&mut self, cx: &mut Cx<'_>) {
        for (to, reply) in std::mem::take(&mut self.answers) {
            if self.conns.contains_key(&to) {
                cx.say(Port::Conn(to), Frame::FlushReply(reply));
            }
        }
        let verdict = if self.ill || self.owned.is_empty() {
            Verdict::Degraded { worker: "final.log".to_owned(), restarts: 0, error: "disk".to_owned() }
        } else {
            Verdict::Ready
        };
        for (conn, at) in &mut self.conns {
            if at.is_none_or(|at| cx.now.since(at) >= SECOND) {
                *at = Some(cx.now);
                cx.out.push((Port::Conn(*conn), Frame::Verdict(verdict.clone())));
            }
        }
        self.senders.pump(cx);
    }
}
