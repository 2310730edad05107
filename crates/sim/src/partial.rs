//! A partial node's shell: the machine, its shards (a folder each, with a queue for live work and one for replay), and the
//! pool of final nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Batch, BatchId, Incarnation};
use engine::fold::{Folders, FormerRules};
use engine::health::{self, Orders, Pool, Standing};
use engine::partial_node::{Built, PartialNode, Settings, Work};
use engine::time::Mono;
use engine::verdict::Verdict;
use engine::watermarks::Watermarks;
use engine::wire::{Class, Frame, Hello, HelloOk, Lane, PROTOCOL, RefuseReason, Role};

use crate::book::Book;
use crate::node::{Cx, Node, Port};
use crate::setup::{LinkId, Setup};

const SHARDS: usize = 2;
const HOLD_BYTES: u64 = 4 << 20;
const FLUSH: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

struct Shard {
    folder: Folders,
    live: VecDeque<Work>,
    replay: VecDeque<Work>,
    generation: u64,
}

/// See the module's head.
pub struct PartialNodeShell {
    pub machine: PartialNode,
    pub pool: Pool,
    pub orders: Orders,
    pub book: Book,
    told: BTreeMap<LinkId, usize>,
    who: Incarnation,
    shards: Vec<Shard>,
    flushed: Mono,
    watermarks: Watermarks,
    /// Connections of relays and replayers.
    conns: BTreeMap<u64, Conn>,
    watermark_at: BTreeMap<LinkId, Mono>,
    links_up: BTreeMap<LinkId, bool>,
}

struct Conn {
    class: Class,
    who: Incarnation,
    verdict_at: Option<Mono>,
}

impl PartialNodeShell {
    /// A process begins, with nothing.
    pub fn start(cx: &mut Cx<'_>) -> PartialNodeShell {
        let settings = Settings {
            versions: cx.setup.files[cx.file].versions,
            partitions: cx.setup.partitions,
            owners: cx.setup.owners.clone(),
            shards: SHARDS,
            hold_bytes: HOLD_BYTES,
            flush_timeout: FLUSH * 4,
            former_rules: BTreeSet::new(),
            first_flush: cx.rng.number(),
        };
        let health = health::Settings {
            kind: health::Kind::Fixed,
            probe: health::Probe::Link,
            mode: health::Mode::Auto,
            proof: cx.setup.tunables.health_proof,
            recover: Duration::from_secs(20),
            floor_percent: 50,
            max_ejected_percent: 20,
        };
        let pool = Pool::new(health, cx.setup.finals.clone(), cx.now);
        let mut node = PartialNodeShell {
            machine: PartialNode::new(settings),
            orders: pool.orders(),
            pool,
            book: Book::blank(cx),
            told: BTreeMap::new(),
            who: Incarnation { sender: 0, epoch: 0, nonce: cx.rng.number() },
            shards: Vec::new(),
            flushed: cx.now,
            watermarks: Watermarks::default(),
            conns: BTreeMap::new(),
            watermark_at: BTreeMap::new(),
            links_up: BTreeMap::new(),
        };
        for shard in 0..SHARDS {
            node.shards.push(node.new_shard(cx.setup, 1));
            node.machine.shard_started(shard, 1, None);
        }
        node
    }

    /// The highest epoch of a sender that was heard of lately.
    pub fn epoch_of(&self, sender: u64) -> u32 {
        self.watermarks.epoch_of(sender)
    }

    fn known(&self, setup: &Setup) -> FormerRules {
        let file = |file: &usize| (setup.files[*file].versions.rules, Arc::clone(&setup.files[*file].rules));
        self.book.former().iter().map(file).collect()
    }

    fn new_shard(&self, setup: &Setup, generation: u64) -> Shard {
        let rules = Arc::clone(&setup.files[self.book.file].rules);
        let folder = Folders::new(rules, Arc::new(self.known(setup)), setup.partitions);
        Shard { folder, live: VecDeque::new(), replay: VecDeque::new(), generation }
    }

    fn hand_out(&mut self) {
        for work in self.machine.take_work() {
            let shard = &mut self.shards[work.shard];
            match work.class {
                Class::Live => shard.live.push_back(work),
                Class::Replay => shard.replay.push_back(work),
            }
        }
    }

    /// Shards fold what waits: live first (INV-5).
    fn fold(&mut self, setup: &Setup) {
        let known = Arc::new(self.known(setup));
        for shard in &mut self.shards {
            while let Some(work) = shard.live.pop_front().or_else(|| shard.replay.pop_front()) {
                if !shard.folder.knows(&work.batch) {
                    shard.folder.learn(Arc::clone(&known));
                }
                shard.folder.fold(&work.batch, work.partitions, work.lane);
            }
        }
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        for index in 0..SHARDS {
            let mine: Vec<u16> =
                (0..cx.setup.partitions).filter(|partition| self.machine.shard_of(*partition) == index).collect();
            let shard = &mut self.shards[index];
            for lane in Lane::ALL {
                for partition in &mine {
                    if shard.folder.has(*partition, lane) && self.machine.wants_flush(cx.now, *partition, lane) {
                        let groups = shard.folder.take(*partition, lane);
                        let built = Built { partition: *partition, lane, groups };
                        self.machine.built(index, shard.generation, built);
                    }
                }
            }
            shard.folder.trim();
        }
    }

    /// A shard's thread dies. `with`: the batch it was working on, if it was.
    pub fn shard_panics(&mut self, cx: &mut Cx<'_>, shard: usize, in_hand: bool) {
        cx.truth.visit("partial shard died");
        let index = shard % SHARDS;
        let generation = self.shards[index].generation + 1;
        // What it worked on is the oldest that waits; it dies of it at most once, so that nothing becomes poison.
        let with: Option<BatchId> = self.shards[index].live.front().filter(|_| in_hand).map(|work| work.batch.id());
        self.shards[index] = self.new_shard(cx.setup, generation);
        self.machine.shard_started(index, generation, with);
        self.hand_out();
    }

    /// A panic inside the machine, put right.
    pub fn machine_panics(&mut self, cx: &mut Cx<'_>) {
        cx.truth.visit("partial machine recovered");
        self.machine.recover();
    }

    fn books(&self, cx: &mut Cx<'_>) {
        let books = self.machine.books();
        let dropped: u64 = books.dropped.values().sum();
        if books.received != books.delivered + books.in_flight + dropped {
            cx.truth.violated("INV-1", || format!("books of a partial node: {books:?}"));
        }
        if self.machine.rebuilt() > 0 {
            cx.truth.visit("batch folded again");
        }
        let (bytes, _) = self.machine.held();
        if bytes > HOLD_BYTES * 2 {
            cx.truth.violated("INV-6", || format!("a partial node holds {bytes} bytes of {HOLD_BYTES}"));
        }
        if self.machine.replay_held() > HOLD_BYTES / 4 + (1 << 20) {
            cx.truth.violated("INV-5", || "replay holds more of a partial node than its part".to_owned());
        }
    }

    fn look_at_pool(&mut self, cx: &mut Cx<'_>) {
        self.pool.set_orders(cx.now, &self.orders);
        let outcome = self.pool.outcome();
        crate::check::floor(cx, outcome, &self.pool.evidence(cx.now), &self.orders);
        let held_off: Vec<bool> = outcome
            .nodes
            .iter()
            .map(|standing| matches!(standing, Standing::Out(health::WhyNot::Drained | health::WhyNot::Forgotten)))
            .collect();
        self.machine.hold_off(&held_off);
    }
}

impl Node for PartialNodeShell {
    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.fold(cx.setup);
        if cx.now.since(self.flushed) >= FLUSH {
            self.flushed = cx.now;
            self.flush(cx);
        }
        self.look_at_pool(cx);
        self.books(cx);
    }

    fn hello(&self, setup: &Setup) -> Option<Hello> {
        Some(Hello {
            protocol: PROTOCOL,
            role: Role::Partial,
            cluster: "sim".to_owned(),
            node: "partial".to_owned(),
            incarnation: self.who,
            versions: setup.files[self.book.file].versions,
            partitions: setup.partitions,
        })
    }

    fn accept(&mut self, cx: &mut Cx<'_>, conn: u64, hello: &Hello) -> Result<HelloOk, RefuseReason> {
        let class = match hello.role {
            Role::Relay => Class::Live,
            Role::Replayer => Class::Replay,
            Role::Partial | Role::Visitor => return Err(RefuseReason::Role),
        };
        let other = |conn: &&Conn| {
            conn.class == Class::Live
                && conn.who.sender == hello.incarnation.sender
                && conn.who.nonce != hello.incarnation.nonce
        };
        let version = hello.versions.rules;
        if class == Class::Live && !self.book.knows(&cx.setup.files, version) {
            cx.truth.visit("newer rules refused");
            return Err(RefuseReason::Versions);
        }
        if class == Class::Live && cx.forgotten.contains(&hello.incarnation.sender) {
            return Err(RefuseReason::Forgotten);
        }
        if class == Class::Live && self.conns.values().find(other).is_some() {
            return Err(RefuseReason::DuplicateSender);
        }
        if self.machine.is_impostor(hello.incarnation) {
            return Err(RefuseReason::DuplicateSender);
        }
        self.machine.connected(conn, class);
        self.conns.insert(conn, Conn { class, who: hello.incarnation, verdict_at: None });
        let window_bytes = self.machine.window_bytes(cx.now, class, Duration::ZERO);
        let known_epoch = self.watermarks.epoch_of(hello.incarnation.sender);
        Ok(HelloOk { node: "partial".to_owned(), window_bytes, known_epoch, retired: 0 })
    }

    fn up(&mut self, cx: &mut Cx<'_>, link: LinkId, _welcome: &HelloOk) {
        let owner = cx.setup.links[link].index;
        self.watermark_at.remove(&link);
        self.told.remove(&link);
        self.links_up.insert(link, true);
        self.machine.owner_connected(owner);
        self.pool.link_up(cx.now, owner);
        self.look_at_pool(cx);
    }

    fn down(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        let owner = cx.setup.links[link].index;
        self.links_up.remove(&link);
        self.machine.owner_disconnected(owner);
        self.pool.link_down(cx.now, owner);
        self.look_at_pool(cx);
    }

    fn closed(&mut self, _cx: &mut Cx<'_>, conn: u64) {
        self.conns.remove(&conn);
        self.machine.disconnected(conn);
    }

    fn frame(&mut self, cx: &mut Cx<'_>, from: Port, frame: Frame) -> Result<(), &'static str> {
        match (from, frame) {
            (Port::Conn(conn), Frame::Batch { attempt, class, bytes }) => {
                let Ok(batch) = Batch::decode(bytes) else { return Err("a damaged batch") };
                if batch.header().versions.rules != cx.setup.files[self.book.file].versions.rules {
                    cx.truth.visit("batch of former rules");
                }
                let own = self.conns.get(&conn).map_or(Class::Live, |conn| conn.class);
                self.machine.batch(conn, batch, attempt, own.max(class));
                self.hand_out();
            }
            (Port::Conn(_), Frame::Watermark(watermark)) => self.watermarks.note(cx.now, watermark),
            (Port::Link(_), Frame::FlushReply(reply)) => {
                self.machine.flush_reply(&reply);
                self.hand_out();
            }
            (Port::Link(link), Frame::Verdict(verdict)) => {
                self.pool.verdict(cx.now, cx.setup.links[link].index, verdict);
            }
            (Port::Link(_), Frame::Drain) => {}
            (_, Frame::Rules(bytes)) => {
                if let Some(file) = self.book.learn(cx, &bytes, false) {
                    self.machine.know_rules(cx.setup.files[file].versions.rules);
                }
            }
            _ => return Err("frame that a partial node does not take"),
        }
        Ok(())
    }

    fn pump(&mut self, cx: &mut Cx<'_>) {
        for (conn, state) in &mut self.conns {
            if state.verdict_at.is_none_or(|at| cx.now.since(at) >= SECOND) {
                state.verdict_at = Some(cx.now);
                cx.out.push((Port::Conn(*conn), Frame::Verdict(Verdict::Ready)));
            }
            let (durable, nacks) = self.machine.answers(cx.now, *conn, Duration::ZERO);
            if let Some(durable) = durable {
                crate::check::durable(cx, &durable);
                cx.out.push((Port::Conn(*conn), Frame::Durable(durable)));
            }
            for (id, reason) in nacks {
                cx.out.push((Port::Conn(*conn), Frame::Nack { id, reason }));
            }
        }
        let links: Vec<LinkId> = self.links_up.keys().copied().collect();
        for link in links {
            if self.watermark_at.get(&link).is_none_or(|at| cx.now.since(*at) >= SECOND) {
                self.watermark_at.insert(link, cx.now);
                let latest = self.watermarks.latest(cx.now);
                for watermark in latest.into_iter().filter(|watermark| !cx.forgotten.contains(&watermark.sender)) {
                    cx.say(Port::Link(link), Frame::Watermark(watermark));
                }
            }
            self.book.tell(cx, Port::Link(link), self.told.entry(link).or_default());
            while let Some(flush) = self.machine.next_flush(cx.now, cx.setup.links[link].index) {
                let frame = Frame::Flush(flush.clone());
                cx.say(Port::Link(link), frame);
            }
        }
    }
}
