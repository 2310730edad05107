//! A replayer's shell: the replay machine, the controller of its rate, and a pacer in virtual time.

use std::collections::BTreeMap;

use engine::batch::Incarnation;
use engine::final_node::pace::Debt;
use engine::health::{self, Orders, Pool};
use engine::pace::{Controller, STEP, Seen};
use engine::replay::{Change, Control, Key, Plan, Replay, Settings, Start};
use engine::store_link::{Block, Event};
use engine::time::Mono;
use engine::verdict::Verdict;
use engine::wire::{Class, Frame, Hello, HelloOk, PROTOCOL, Role};

use crate::book::Book;
use crate::node::{Cx, Node, Port};
use crate::rng::Rng;
use crate::sender::{self, Sender};
use crate::setup::{LinkId, LinkKind, Setup};

const TURNS: usize = 64;

/// See the module's head.
pub struct ReplayerNode {
    pub machine: Replay,
    pub pool: Pool,
    pub orders: Orders,
    controller: Controller,
    pub book: Book,
    told: BTreeMap<LinkId, usize>,
    who: Incarnation,
    pub peers: Vec<usize>,
    plan: Plan,
    debt: Debt,
    paying: Option<Key>,
    stepped: Mono,
    sent: u64,
    up: BTreeMap<LinkId, ()>,
    /// One for each store, as `replayer::stores`.
    senders: Vec<Sender>,
}

impl ReplayerNode {
    /// A process begins. Its settings are kept outside, as in a file.
    pub fn start(cx: &mut Cx<'_>) -> ReplayerNode {
        let plan = Plan { floor: 50, start: Start::Rate, large_points: 1 << 40, replayers: 1 };
        let control = Control::new(cx.setup.tunables.replay_rate, true);
        let names: Vec<String> = cx.peers.iter().map(|peer| cx.setup.peers[*peer].clone()).collect();
        let stores = cx.setup.raw.as_ref().map(|raw| raw.names.clone()).unwrap_or_default();
        let settings = Settings { sources: cx.setup.relays.clone(), receivers: names.clone(), stores };
        let bounds = control.bounds(&plan);
        let health = health::Settings {
            kind: health::Kind::Free,
            probe: health::Probe::Link,
            mode: health::Mode::Auto,
            proof: cx.setup.tunables.health_proof,
            recover: std::time::Duration::from_secs(20),
            floor_percent: 50,
            max_ejected_percent: 20,
        };
        let pool = Pool::new(health, names, cx.now);
        ReplayerNode {
            machine: Replay::new(settings, plan, control),
            book: Book::blank(cx),
            told: BTreeMap::new(),
            orders: pool.orders(),
            pool,
            controller: Controller::new(bounds, bounds.ceiling),
            who: Incarnation { sender: 0, epoch: 0, nonce: cx.rng.number() },
            peers: cx.peers.to_vec(),
            plan,
            debt: Debt::default(),
            paying: None,
            stepped: Mono::ZERO,
            sent: 0,
            up: BTreeMap::new(),
            senders: senders(cx),
        }
    }

    /// Blocks to the senders, and what became of them.
    fn feed(&mut self, cx: &mut Cx<'_>) {
        for (store, sender) in self.senders.iter_mut().enumerate() {
            sender.tick(cx);
            self.machine.store_state(store, sender.link.accepts(cx.now));
            while let Some((key, bytes, points)) = self.machine.next_block(store) {
                if sender.link.offer(cx.now, Block { bytes, points }).is_err() {
                    cx.truth.visit("replayed block refused");
                    self.machine.block_refused(store, key);
                    break;
                }
                cx.truth.visit("block replayed");
                self.machine.block_offered(store, key, sender.link.progress().offered);
            }
            self.machine.store_released(store, sender.link.progress().released);
        }
    }

    /// An operator changes something.
    pub fn change(&mut self, cx: &mut Cx<'_>, change: &Change) {
        let known = self.machine.known_sources();
        if let Ok((control, _)) = self.machine.control().apply(change, &known) {
            cx.truth.visit("replay changed");
            self.machine.set_control(control);
            self.refresh(|_| {});
        }
    }

    /// A panic inside the machine, put right: its links begin anew.
    pub fn machine_panics(&mut self, cx: &mut Cx<'_>) {
        cx.truth.visit("replay machine recovered");
        self.machine.recover();
        self.paying = None;
        cx.hang_ups.extend(self.up.keys().map(|link| Port::Link(*link)));
    }

    fn refresh(&mut self, change: impl FnOnce(&mut Controller)) {
        self.controller.set(self.machine.control().bounds(&self.plan));
        change(&mut self.controller);
        self.machine.set_rate(self.controller.rate());
    }

    /// One record after another, as the rate lets them.
    fn pace(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..TURNS {
            if self.paying.is_none() {
                let Some(turn) = self.machine.next_turn(cx.now) else { return };
                self.debt.add(turn.points);
                self.paying = Some(turn.key);
            }
            if !self.debt.is_paid(cx.now, self.controller.rate()) {
                return;
            }
            if let Some(key) = self.paying.take() {
                self.machine.go(cx.now, key);
            }
        }
    }

    /// What a link is for, and the machine's number for who is at its other end.
    fn kind(&self, cx: &Cx<'_>, link: LinkId) -> (LinkKind, usize) {
        let of = &cx.setup.links[link];
        let place = self.peers.iter().position(|peer| *peer == of.index).unwrap_or(usize::MAX);
        (of.kind, if of.kind == LinkKind::Send { place } else { of.index })
    }

    fn look_at_pool(&mut self, cx: &mut Cx<'_>) {
        self.pool.set_orders(cx.now, &self.orders);
        crate::check::floor(cx, self.pool.outcome(), &self.pool.evidence(cx.now), &self.orders);
        self.machine.set_eligible(&self.pool.outcome().eligible());
    }
}

impl Node for ReplayerNode {
    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.machine.tick(cx.now);
        self.feed(cx);
        if cx.now.since(self.stepped) >= STEP {
            self.stepped = cx.now;
            let seen = Seen { delay: self.machine.queue_delay(cx.now), sent: self.machine.sent() - self.sent };
            self.sent = self.machine.sent();
            self.refresh(|controller| controller.step(seen));
        }
        self.look_at_pool(cx);
        if self.machine.control().is_paused() && !self.machine.is_empty() {
            cx.truth.visit("replay paused");
        }
        let books = self.machine.books().1;
        if !books.balance() {
            cx.truth.violated("INV-1", || format!("books of the replayer: {books:?}"));
        }
    }

    fn dials(&self, setup: &Setup, link: LinkId) -> bool {
        setup.links[link].kind != LinkKind::Send || self.peers.contains(&setup.links[link].index)
    }

    fn hello(&self, setup: &Setup) -> Option<Hello> {
        Some(Hello {
            protocol: PROTOCOL,
            role: Role::Replayer,
            cluster: "sim".to_owned(),
            node: "replayer-1".to_owned(),
            incarnation: self.who,
            versions: setup.files[self.book.file].versions,
            partitions: setup.partitions,
        })
    }

    fn up(&mut self, cx: &mut Cx<'_>, link: LinkId, welcome: &HelloOk) {
        self.told.remove(&link);
        self.up.insert(link, ());
        match self.kind(cx, link) {
            (LinkKind::Borrow, source) => self.machine.source_up(source, welcome.known_epoch),
            (_, receiver) => {
                self.machine.receiver_up(cx.now, receiver, welcome.window_bytes);
                self.pool.link_up(cx.now, receiver);
                self.look_at_pool(cx);
            }
        }
    }

    fn down(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.up.remove(&link);
        match self.kind(cx, link) {
            (LinkKind::Borrow, source) => self.machine.source_down(source),
            (_, receiver) => {
                self.machine.receiver_down(receiver);
                self.pool.link_down(cx.now, receiver);
                self.look_at_pool(cx);
            }
        }
    }

    fn frame(&mut self, cx: &mut Cx<'_>, from: Port, frame: Frame) -> Result<(), &'static str> {
        let Port::Link(link) = from else { return Err("nobody dials a replayer") };
        let (kind, index) = self.kind(cx, link);
        match (kind, frame) {
            (LinkKind::Borrow, Frame::Leased(leased)) => self.machine.leased(cx.now, index, leased),
            (LinkKind::Borrow, Frame::LeaseEnd(end)) => self.machine.lease_end(cx.now, index, end),
            (LinkKind::Borrow, Frame::Rules(told)) => {
                self.book.learn(cx, &told, false);
            }
            (LinkKind::Borrow, Frame::Backlog(backlog)) => {
                self.machine.backlog(index, backlog);
            }
            (LinkKind::Send, Frame::Durable(durable)) => self.machine.durable(cx.now, index, &durable),
            (LinkKind::Send, Frame::Nack { id, reason }) => {
                cx.truth.visit("replay refused");
                self.machine.nack(cx.now, index, id, reason);
            }
            (LinkKind::Send, Frame::Verdict(verdict)) => self.pool.verdict(cx.now, index, verdict),
            (LinkKind::Send, Frame::Drain) => {
                self.machine.receiver_draining(index);
                self.pool.verdict(cx.now, index, Verdict::Draining);
            }
            (_, Frame::Verdict(_) | Frame::Drain) => {}
            _ => return Err("frame that a replayer does not take"),
        }
        Ok(())
    }

    fn plain(&mut self, cx: &mut Cx<'_>, link: LinkId, event: Event) {
        if let Some(sender) = self.senders.iter_mut().find(|sender| sender.to == link) {
            sender.event(cx, event);
        }
    }

    fn pump(&mut self, cx: &mut Cx<'_>) {
        self.senders.iter_mut().for_each(|sender| sender.pump(cx));
        self.pace(cx);
        let links: Vec<LinkId> = self.up.keys().copied().collect();
        for link in links {
            let port = Port::Link(link);
            match self.kind(cx, link) {
                (LinkKind::Borrow, source) => {
                    for done in self.machine.take_done(source) {
                        cx.say(port, Frame::Done(done));
                    }
                    while let Some(request) = self.machine.next_request(cx.now, source) {
                        cx.say(port, Frame::LeaseRequest(request));
                    }
                }
                (_, receiver) => {
                    self.book.tell(cx, port, self.told.entry(link).or_default());
                    while let Some(bytes) = self.machine.next_batch(receiver) {
                        cx.say(port, Frame::Batch { attempt: true, class: Class::Replay, bytes });
                    }
                }
            }
        }
    }
}

fn senders(cx: &Cx<'_>) -> Vec<Sender> {
    let Some(raw) = &cx.setup.raw else { return Vec::new() };
    let mut rng = Rng::new(raw.seed ^ 0x5e4d ^ u64::from(cx.unix.0));
    let to = (0..cx.setup.stores).filter_map(|index| cx.setup.link_to(cx.me, LinkKind::Plain, index));
    to.map(|to| Sender::new(sender::settings(), rng.number(), to)).collect()
}
