//! A relay's shell: lanes, the retaining machine, its pool of peers, and its spill ([`crate::spill`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::batch::{BatchId, Builder, Incarnation, PartitionSet};
use engine::health::{self, Orders, Pool};
use engine::relay::{Relay, Settings};
use engine::store_link::Event;
use engine::time::{Mono, UnixSeconds};
use engine::verdict::Verdict;
use engine::wire::{Frame, Hello, HelloOk, PROTOCOL, RefuseReason, Role};

use crate::book::Book;
use crate::live::Live;
use crate::node::{Cx, Node, Port};
use crate::raw::RawLines;
use crate::setup::{LinkId, Setup};
use crate::spill::Spiller;
use crate::truth::{Fate, Point};

const WRITES_PER_PUMP: usize = 64;
const SECOND: Duration = Duration::from_secs(1);
/// As in the relay's shell: a refusal that lasts longer is meant.
const BELIEVED_AFTER: Duration = Duration::from_secs(6);

struct Lane {
    builder: Builder,
    since: Mono,
    points: Vec<Point>,
}

/// See the module's head.
pub struct RelayNode {
    pub machine: Relay,
    pub pool: Pool,
    pub orders: Orders,
    pub spill: Spiller,
    pub raw: RawLines,
    pub who: Incarnation,
    pub book: Book,
    told: BTreeMap<Port, usize>,
    pub peers: Vec<usize>,
    lanes: BTreeMap<PartitionSet, Lane>,
    /// What the machine has to answer for, as the simulator saw it.
    pub held: BTreeSet<BatchId>,
    owed: u64,
    dropped: u64,
    watermark_at: BTreeMap<LinkId, Mono>,
    up: BTreeSet<LinkId>,
    round_at: Mono,
    /// Since when which peer refuses it as a second one of its sender; see the relay's `doubt`.
    refused: BTreeMap<usize, Mono>,
    forgotten: bool,
}

/// What the aggregators know of a relay that starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The highest epoch; zero if there is none.
    pub epoch: u32,
    pub is_forgotten: bool,
}

impl RelayNode {
    /// A process begins.
    pub fn start(cx: &mut Cx<'_>, known: Known) -> RelayNode {
        let (sender, epoch) = match cx.disk.identity {
            None => (cx.rng.number(), cx.unix.0),
            // No epoch is left after four thousand million seconds; runs are shorter.
            Some((sender, epoch)) => (sender, engine::batch::next_epoch(epoch, known.epoch, cx.unix).unwrap_or(epoch)),
        };
        cx.disk.identity = Some((sender, epoch));
        let who = Incarnation { sender, epoch, nonce: cx.rng.number() };
        cx.truth.began(who);
        let tunables = &cx.setup.tunables;
        let names: Vec<String> = cx.peers.iter().map(|peer| cx.setup.peers[*peer].clone()).collect();
        let settings = Settings {
            incarnation: who,
            versions: cx.setup.files[cx.file].versions,
            partitions: cx.setup.partitions,
            peers: names.clone(),
            ack_timeout: Duration::from_secs(3),
            retain_bytes: tunables.retain_bytes,
            journal: tunables.journal,
        };
        let health = health::Settings {
            kind: health::Kind::Free,
            probe: health::Probe::Canary { timeout: Duration::from_secs(3) },
            mode: health::Mode::Auto,
            proof: tunables.health_proof,
            recover: Duration::from_secs(20),
            floor_percent: 50,
            max_ejected_percent: 20,
        };
        let pool = Pool::new(health, names, cx.now);
        RelayNode {
            machine: Relay::new(settings, cx.now),
            orders: pool.orders(),
            pool,
            spill: Spiller::new(who),
            raw: RawLines::new(cx, epoch),
            who,
            book: Book::open(cx),
            told: BTreeMap::new(),
            peers: cx.peers.to_vec(),
            lanes: BTreeMap::new(),
            held: BTreeSet::new(),
            owed: 0,
            dropped: 0,
            watermark_at: BTreeMap::new(),
            up: BTreeSet::new(),
            round_at: Mono::ZERO,
            refused: BTreeMap::new(),
            forgotten: known.is_forgotten,
        }
    }

    /// Clients send points, if they are read now.
    pub fn input(&mut self, cx: &mut Cx<'_>) {
        if !self.machine.accepts(cx.now) || !self.raw.accepts(cx.now) {
            cx.truth.visit("clients wait");
            return;
        }
        if self.is_in_doubt(cx) {
            return;
        }
        for _ in 0..cx.rng.range(1, 6) {
            let series = cx.rng.index(cx.setup.series.len());
            let late = if cx.rng.percent(20) { cx.rng.range(0, cx.setup.tunables.late_seconds) } else { 0 };
            let at = cx.unix.0.saturating_sub(u32::try_from(late).unwrap_or(0));
            let value = i64::try_from(cx.rng.range(0, 999)).unwrap_or(0) - 300;
            self.append(cx, Point { series, value, at });
        }
        self.raw.input(cx);
        let full = cx.setup.tunables.batch_bytes;
        self.seal(cx, |lane, _| lane.builder.body_len() >= full);
        self.account(cx);
    }

    /// It must take no points: it is forgotten, or a second one of its sender.
    fn is_in_doubt(&self, cx: &mut Cx<'_>) -> bool {
        if self.forgotten {
            cx.truth.visit("relay is forgotten");
        }
        let is_second = self.refused.values().any(|since| cx.now.since(*since) >= BELIEVED_AFTER);
        if is_second {
            cx.truth.visit("relay is a second one");
        }
        self.forgotten || is_second
    }

    fn append(&mut self, cx: &mut Cx<'_>, point: Point) {
        let fed = cx.setup.files[self.book.file].feeds[point.series].iter();
        let set = fed.fold(PartitionSet::default(), |set, (_, partition)| set.with(*partition));
        let now = cx.now;
        let lane = self.lanes.entry(set).or_insert_with(|| Lane {
            builder: Builder::new(set, 256),
            since: now,
            points: Vec::new(),
        });
        let line = format!("{} {} {}\n", cx.setup.series[point.series], point.value, point.at);
        lane.builder.append(line.as_bytes(), 1, UnixSeconds(point.at), UnixSeconds(point.at));
        lane.points.push(point);
    }

    fn seal(&mut self, cx: &mut Cx<'_>, due: impl Fn(&Lane, Mono) -> bool) {
        let ripe: Vec<PartitionSet> =
            self.lanes.iter().filter(|(_, lane)| due(lane, cx.now)).map(|(set, _)| *set).collect();
        for set in ripe {
            let Some(lane) = self.lanes.remove(&set) else { continue };
            self.owed += lane.points.len() as u64;
            if let Some(id) = self.machine.seal(cx.now, lane.builder) {
                cx.truth.sealed(id, lane.points, set, self.book.file);
                self.held.insert(id);
            }
        }
    }

    /// INV-2 and INV-1: whatever the machine let go is durable, on disk, or counted; and its books balance.
    pub fn account(&mut self, cx: &mut Cx<'_>) {
        let gone: Vec<BatchId> = self.held.iter().filter(|id| !self.machine.holds(**id)).copied().collect();
        let mut nowhere = 0;
        for id in gone {
            self.held.remove(&id);
            let fate = if self.spill.told.contains(&id) {
                Fate::Spilled
            } else if cx.truth.is_durable(id) || cx.truth.is_damaged(id) {
                Fate::Durable
            } else {
                nowhere += cx.truth.batches.get(&id).map_or(0, |sealed| sealed.points.len() as u64);
                cx.truth.visit("relay dropped");
                Fate::Dropped
            };
            // A record that was damaged meanwhile stays in doubt.
            if cx.truth.batches.get(&id).is_some_and(|sealed| sealed.fate == Fate::Held) {
                cx.truth.set_fate(id, fate);
            }
        }
        let books = self.machine.books();
        let dropped: u64 = books.dropped.values().sum();
        let sum = books.delivered + books.in_flight + books.spilled + dropped;
        let owed = self.owed;
        if books.owed != sum || books.owed != owed {
            cx.truth.violated("INV-1", || format!("relay's books: sealed {owed}, {books:?}"));
        }
        for (why, _) in books.dropped.iter().filter(|(_, points)| **points > 0) {
            cx.truth.dropped(why.as_str());
        }
        // What it drops may be durable all the same, for it may not have heard.
        if nowhere > dropped - self.dropped {
            cx.truth.violated("INV-2", || {
                format!("a relay let go of {nowhere} points that are neither durable nor on disk; it counts {books:?}")
            });
        }
        self.dropped = dropped;
        let retain = cx.setup.tunables.retain_bytes;
        let (bytes, _) = self.machine.held();
        // A lane may be sealed above the bound: what clients had sent by then.
        let slack = 64 << 10;
        if bytes > retain + retain / 8 + slack {
            cx.truth.violated("INV-6", || format!("a relay holds {bytes} bytes of {retain}"));
        }
    }

    fn watch(&mut self, cx: &mut Cx<'_>) {
        if self.machine.disowned().is_some() {
            cx.truth.visit("relay disowned");
        }
        for canary in self.machine.take_canaries() {
            if canary.acked {
                self.pool.canary_acked(cx.now, canary.peer, canary.round);
            } else {
                self.pool.canary_void(canary.peer, canary.round);
            }
        }
        if cx.now.since(self.round_at) >= SECOND {
            self.round_at = cx.now;
            for (peer, pace) in self.machine.take_pace().into_iter().enumerate() {
                if let Some(took) = pace.took {
                    self.pool.latency(peer, took);
                }
                self.pool.queue_delay(peer, pace.queue_delay);
            }
            self.machine.begin_round();
        }
        self.pool.set_orders(cx.now, &self.orders);
        self.decided(cx);
    }

    /// INV-8, and what the pool decided is told to the machine.
    fn decided(&mut self, cx: &mut Cx<'_>) {
        let outcome = self.pool.outcome();
        let eligible = outcome.eligible();
        crate::check::floor(cx, outcome, &self.pool.evidence(cx.now), &self.orders);
        self.machine.set_eligible(cx.now, &eligible);
    }

    /// The place of a link's partial node in the list that this process has read.
    fn peer(&self, cx: &Cx<'_>, link: LinkId) -> Option<usize> {
        self.peers.iter().position(|peer| *peer == cx.setup.links[link].index)
    }

    /// A panic inside the machine, put right.
    pub fn machine_panics(&mut self, cx: &mut Cx<'_>) {
        self.machine.recover(cx.now);
        self.up.clear();
        cx.truth.visit("relay machine recovered");
        // No link is up in its eyes: they begin anew.
        cx.hang_ups.extend(cx.setup.dialed_by(cx.me).map(Port::Link));
    }
}

impl Node for RelayNode {
    fn tick(&mut self, cx: &mut Cx<'_>) {
        let linger = cx.setup.tunables.linger;
        self.seal(cx, |lane, now| now.since(lane.since) >= linger);
        self.machine.tick(cx.now);
        self.watch(cx);
        self.raw.tick(cx);
        self.spill.step(cx, &mut Live { machine: &mut self.machine, raw: &mut self.raw });
        self.account(cx);
    }

    fn wake(&mut self, cx: &mut Cx<'_>, _tag: u32) {
        self.spill.step(cx, &mut Live { machine: &mut self.machine, raw: &mut self.raw });
        self.account(cx);
    }

    fn dials(&self, setup: &Setup, link: LinkId) -> bool {
        self.peers.contains(&setup.links[link].index)
    }

    fn hello(&self, setup: &Setup) -> Option<Hello> {
        Some(Hello {
            protocol: PROTOCOL,
            role: Role::Relay,
            cluster: "sim".to_owned(),
            node: "relay".to_owned(),
            incarnation: self.who,
            versions: setup.files[self.book.file].versions,
            partitions: setup.partitions,
        })
    }

    /// A replayer dials.
    fn accept(&mut self, _cx: &mut Cx<'_>, conn: u64, hello: &Hello) -> Result<HelloOk, RefuseReason> {
        if hello.role != Role::Replayer {
            return Err(RefuseReason::Role);
        }
        self.spill.link_up(conn);
        self.told.insert(Port::Conn(conn), 0);
        Ok(HelloOk { node: "relay".to_owned(), window_bytes: 0, known_epoch: self.who.epoch, retired: 0 })
    }

    fn up(&mut self, cx: &mut Cx<'_>, link: LinkId, welcome: &HelloOk) {
        let Some(peer) = self.peer(cx, link) else { return };
        self.watermark_at.remove(&link);
        self.told.remove(&Port::Link(link));
        self.up.insert(link);
        self.refused.remove(&peer);
        self.machine.link_up(cx.now, peer, welcome.window_bytes);
        self.pool.link_up(cx.now, peer);
        self.decided(cx);
    }

    fn refused(&mut self, cx: &mut Cx<'_>, link: LinkId, reason: RefuseReason) {
        match reason {
            RefuseReason::Forgotten => self.forgotten = true,
            RefuseReason::DuplicateSender => {
                if let Some(peer) = self.peer(cx, link) {
                    self.refused.entry(peer).or_insert(cx.now);
                }
            }
            _ => {}
        }
    }

    fn down(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        let Some(peer) = self.peer(cx, link) else { return };
        self.up.remove(&link);
        self.machine.link_down(cx.now, peer);
        self.pool.link_down(cx.now, peer);
        self.decided(cx);
        self.account(cx);
    }

    fn closed(&mut self, _cx: &mut Cx<'_>, conn: u64) {
        self.spill.link_down(conn);
        self.told.remove(&Port::Conn(conn));
    }

    fn frame(&mut self, cx: &mut Cx<'_>, from: Port, frame: Frame) -> Result<(), &'static str> {
        let link = match from {
            Port::Conn(conn) => {
                self.spill.said(conn, frame);
                return Ok(());
            }
            Port::Link(link) => link,
        };
        let Some(peer) = self.peer(cx, link) else { return Err("a frame of a link that is not dialled") };
        match frame {
            Frame::Durable(durable) => self.machine.durable(cx.now, peer, &durable),
            Frame::Nack { id, reason } => {
                cx.truth.visit(reason.as_str());
                let held = self.machine.holds(id);
                self.machine.nack(cx.now, peer, id, reason);
                // Counted here as dropped, also if a journal has it: that is settled without a word.
                if held && !self.machine.holds(id) {
                    cx.truth.set_fate(id, Fate::Dropped);
                }
            }
            Frame::Verdict(verdict) => {
                self.pool.verdict(cx.now, peer, verdict);
                self.decided(cx);
            }
            Frame::Drain => {
                self.machine.peer_draining(cx.now, peer);
                self.pool.verdict(cx.now, peer, Verdict::Draining);
                self.decided(cx);
            }
            _ => return Err("frame that a relay does not take"),
        }
        self.account(cx);
        Ok(())
    }

    fn plain(&mut self, cx: &mut Cx<'_>, link: LinkId, event: Event) {
        self.raw.event(cx, link, event);
    }

    fn pump(&mut self, cx: &mut Cx<'_>) {
        for link in cx.setup.dialed_by(cx.me) {
            let Some(peer) = self.peer(cx, link).filter(|_| self.up.contains(&link)) else { continue };
            let port = Port::Link(link);
            self.book.tell(cx, port, self.told.entry(port).or_default());
            if self.watermark_at.get(&link).is_none_or(|at| cx.now.since(*at) >= SECOND) {
                self.watermark_at.insert(link, cx.now);
                let open = self.lanes.values().filter_map(|lane| lane.builder.min_ts()).min();
                let wall = UnixSeconds(cx.unix.0.saturating_sub(2));
                cx.say(port, Frame::Watermark(self.machine.watermark(cx.now, open, wall)));
            }
            if let Some((sending, round)) = self.machine.next_canary(peer, cx.unix) {
                let bytes = sending.batch.bytes().clone();
                cx.say(port, Frame::Batch { attempt: sending.attempt, class: sending.class, bytes });
                self.pool.canary_sent(cx.now, peer, round);
            }
            for _ in 0..WRITES_PER_PUMP {
                let Some(sending) = self.machine.next_for(cx.now, peer) else { break };
                if sending.attempt {
                    cx.truth.visit("relay sends again");
                }
                let bytes = sending.batch.bytes().clone();
                cx.say(port, Frame::Batch { attempt: sending.attempt, class: sending.class, bytes });
            }
        }
        for (port, told) in self.told.iter_mut().filter(|(port, _)| matches!(port, Port::Conn(_))) {
            self.book.tell(cx, *port, told);
        }
        self.raw.pump(cx);
        self.spill.pump(cx);
    }
}
