//! A final node's shell: its partitions, the log with its disk, and the senders to plain stores ([`crate::sender`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::final_node::emit::{self, Outlet, Outlets, Times};
use engine::final_node::{Partition, record};
use engine::rule::RuleSet;
use engine::time::{Mono, UnixSeconds};
use engine::verdict::Verdict;
use engine::watermarks::Watermarks;
use engine::window::{BlockId, Due};
use engine::wire::{
    FORGOTTEN, Flush, FlushReply, Frame, GroupReply, Hello, HelloOk, Lane, RefuseReason, Role, Watermark,
};
use final_log::journal::{Append, Journal, appends, decode_marks, encode_marks};
use final_log::recover;
use store::{Disposition, MemStore, Store, StoreError};

use crate::book::Book;
use crate::file;
use crate::node::{Cx, Node, Port};
use crate::records::{found, in_pieces, note_record};
use crate::sender::Senders;
use crate::setup::LinkId;

mod disk;

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
    pub book: Book,
    /// How much of it each peer was told.
    told: BTreeMap<u64, usize>,
    rules: Arc<RuleSet>,
}

impl FinalNode {
    /// A process begins; the store is read at the first tick.
    pub fn start(cx: &mut Cx<'_>, index: usize) -> FinalNode {
        let book = Book::open(cx);
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
            rules: file::remembering(&cx.setup.files, book.file, book.former()),
            book,
            told: BTreeMap::new(),
        }
    }

    /// The highest epoch of a sender that is known here.
    pub fn epoch_of(&self, sender: u64) -> u32 {
        let known = self.owned.iter().filter_map(|owned| owned.partition.senders().get(&sender).copied());
        known.map(|known| known.epoch.max(known.floor)).max().unwrap_or(0)
    }

    /// Whether everything that came is decided, durable and emitted.
    pub fn is_quiet(&mut self) -> bool {
        let quiet = |owned: &mut Owned| {
            let waits = (0..self.senders.count()).any(|target| owned.partition.cursor().newest(target).is_some());
            // A window that is open, or a correction that waits for its turn.
            let due = owned.partition.windows().next_due(&self.rules);
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
        let rules = Arc::clone(&self.rules);
        let outlets = Outlets { rules: &rules, stores: &stores, views: &views };
        let watermark = self.latest(cx).iter().map(|watermark| watermark.at).min();
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

    /// The latest word of every sender that is neither silent nor forgotten.
    fn latest(&mut self, cx: &Cx<'_>) -> Vec<Watermark> {
        let mut latest = self.watermarks.latest(cx.now);
        latest.retain(|watermark| !cx.forgotten.contains(&watermark.sender));
        latest
    }

    /// Once a second: retire, seal, checkpoint, evict.
    fn keep(&mut self, cx: &mut Cx<'_>) {
        let floor = UnixSeconds(cx.unix.0.saturating_sub(HORIZON));
        for index in 0..self.owned.len() {
            self.owned[index].partition.seal_before(floor);
            if self.ill {
                continue;
            }
            let latest = self.latest(cx).into_iter().map(|watermark| (watermark.sender, watermark.retired));
            let forgotten = cx.forgotten.iter().map(|sender| (*sender, FORGOTTEN));
            for (sender, floor) in latest.chain(forgotten).filter(|(_, floor)| *floor > 0) {
                let partition = &mut self.owned[index].partition;
                if let Some((_, record)) = partition.retire(sender, floor) {
                    cx.truth.visit(if floor == FORGOTTEN { "sender forgotten" } else { "epoch retired" });
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

    fn accept(&mut self, cx: &mut Cx<'_>, conn: u64, hello: &Hello) -> Result<HelloOk, RefuseReason> {
        if hello.role != Role::Partial {
            return Err(RefuseReason::Role);
        }
        if !self.book.knows(&cx.setup.files, hello.versions.rules) {
            cx.truth.visit("newer rules refused");
            return Err(RefuseReason::Versions);
        }
        self.conns.insert(conn, None);
        self.told.insert(conn, 0);
        Ok(HelloOk { node: "final".to_owned(), window_bytes: 0, known_epoch: 0, retired: 0 })
    }

    fn closed(&mut self, _cx: &mut Cx<'_>, conn: u64) {
        self.conns.remove(&conn);
        self.told.remove(&conn);
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
            (Port::Conn(_), Frame::Rules(told)) => {
                if self.book.learn(cx, &told, true).is_some() {
                    self.rules = file::remembering(&cx.setup.files, self.book.file, self.book.former());
                }
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
        for (conn, told) in &mut self.told {
            self.book.tell(cx, Port::Conn(*conn), told);
        }
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
