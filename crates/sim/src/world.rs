//! The world of one run: time, the queue of what will happen, and the processes. One thread; the order of equal times is the
//! order in which things were planned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::backoff::Backoff;
use engine::store_link;
use engine::time::{Mono, UnixSeconds};
use engine::wire::FORGOTTEN;

use crate::disk::Disk;
use crate::faults::Fault;
use crate::file::FileId;
use crate::finals::FinalNode;
use crate::net::{Conn, Msg};
use crate::node::{Cx, Node, Port};
use crate::partial::PartialNodeShell;
use crate::plain::StoreNode;
use crate::relay::{Known, RelayNode};
use crate::replayer::ReplayerNode;
use crate::rng::Rng;
use crate::setup::{LinkId, NodeId, Role, Setup, Spares};
use crate::trace::Trace;
use crate::truth::Truth;

/// When all runs begin, by a right clock.
const BEGINNING: u32 = 1_700_000_000;
const TICK: Duration = Duration::from_millis(100);

/// What a node runs.
pub enum Process {
    Relay(Box<RelayNode>),
    Partial(Box<PartialNodeShell>),
    Final(Box<FinalNode>),
    Replayer(Box<ReplayerNode>),
    Store(Box<StoreNode>),
}

impl Process {
    /// The cluster file that it was started with; `None`: it has none.
    pub fn file(&self) -> Option<FileId> {
        match self {
            Process::Relay(node) => Some(node.book.file),
            Process::Partial(node) => Some(node.book.file),
            Process::Final(node) => Some(node.book.file),
            Process::Replayer(node) => Some(node.book.file),
            Process::Store(_) => None,
        }
    }

    /// The partial nodes that it was started with; `None`: it asks for none.
    pub fn peers(&self) -> Option<&[usize]> {
        match self {
            Process::Relay(node) => Some(&node.peers),
            Process::Replayer(node) => Some(&node.peers),
            Process::Partial(_) | Process::Final(_) | Process::Store(_) => None,
        }
    }

    /// As any process.
    pub fn node(&mut self) -> &mut dyn Node {
        match self {
            Process::Relay(node) => node.as_mut(),
            Process::Partial(node) => node.as_mut(),
            Process::Final(node) => node.as_mut(),
            Process::Replayer(node) => node.as_mut(),
            Process::Store(node) => node.as_mut(),
        }
    }
}

/// Where a process runs.
pub struct Host {
    pub process: Option<Process>,
    /// Which life of it: what was planned for a former one does not happen.
    pub life: u32,
    pub disk: Disk,
    /// Seconds that its clock is wrong.
    pub skew: i64,
    /// How often its data directory was rolled back.
    pub roll_backs: i64,
    pub paused_until: Mono,
    /// A store that reads slowly: until when, and how long it takes for a block.
    pub slow: Option<(Mono, Duration)>,
    /// What its disk held at some time.
    pub snapshot: Option<Disk>,
    /// It does not start: an operator has taken it away, or has not put it up yet.
    pub gone: bool,
    /// Senders that it has heard are forgotten: the file of orders, which outlives processes.
    pub forgotten: BTreeSet<u64>,
    /// The partial nodes in its cluster file: read when a process starts.
    pub peers: Vec<usize>,
    rng: Rng,
}

/// The state of a link at the end that dials.
#[derive(Debug, Default)]
pub struct Dial {
    pub conn: Option<u64>,
    pub up: bool,
    pub dialing: bool,
    pub next: Mono,
    pub backoff: Backoff,
    /// Batches and flushes that were delivered, to be repeated on the next connection ([`Fault::Repeat`]).
    pub heard: Option<Vec<Vec<u8>>>,
}

/// Something that will happen.
pub enum Event {
    Tick(NodeId, u32),
    Wake(NodeId, u32, u32),
    Input(NodeId, u32),
    Dial(LinkId, u32),
    Deliver {
        conn: u64,
        to: usize,
        msg: Msg,
    },
    Start(NodeId),
    /// A node that was taken away is put up again.
    Return(NodeId),
    /// A partial node that is not listed any more ends for good.
    TakenDown(NodeId),
    /// A node hears that an operator has forgotten this sender.
    Ordered(NodeId, u64),
    Fault(Fault),
}

/// See the module's head.
pub struct World {
    pub setup: Setup,
    pub truth: Truth,
    pub trace: Trace,
    pub now: Mono,
    pub hosts: Vec<Host>,
    pub conns: BTreeMap<u64, Conn>,
    pub dials: Vec<Dial>,
    /// Directions in which nothing arrives, until when.
    pub cuts: BTreeMap<(NodeId, NodeId), Mono>,
    pub rng: Rng,
    /// Clients send until then.
    pub input_until: Mono,
    pub next_conn: u64,
    /// The partial nodes that the cluster file lists now.
    pub peers: Vec<usize>,
    /// What the cluster file is now.
    pub file: FileId,
    queue: BTreeMap<(Mono, u64), Event>,
    planned: u64,
}

impl World {
    /// A cluster whose processes all start at once.
    pub fn new(seed: u64, verbose: bool, spares: Spares, raw: Option<Rng>) -> World {
        let mut rng = Rng::new(seed);
        let setup = Setup::new(&mut rng, spares, raw);
        let mut spare_rng = Rng::new(seed ^ 0x5ba7_e5ba);
        let host = |node: NodeId| Host {
            process: None,
            life: 0,
            disk: Disk::default(),
            skew: 0,
            roll_backs: 0,
            paused_until: Mono::ZERO,
            slow: None,
            snapshot: None,
            gone: node >= setup.regular,
            forgotten: BTreeSet::new(),
            peers: setup.first_peers(),
            rng: if node < setup.regular { rng.fork() } else { spare_rng.fork() },
        };
        let hosts: Vec<Host> = (0..setup.nodes.len()).map(host).collect();
        let mut world = World {
            dials: setup.links.iter().map(|_| Dial::default()).collect(),
            truth: Truth::default(),
            trace: Trace::new(verbose),
            now: Mono::from_millis(1),
            hosts,
            conns: BTreeMap::new(),
            cuts: BTreeMap::new(),
            rng: rng.fork(),
            input_until: Mono::ZERO,
            next_conn: 1,
            peers: setup.first_peers(),
            file: 0,
            queue: BTreeMap::new(),
            planned: 0,
            setup,
        };
        (0..world.hosts.len()).for_each(|node| world.plan(world.now, Event::Start(node)));
        world
    }

    /// Something is to happen.
    pub fn plan(&mut self, at: Mono, event: Event) {
        self.planned += 1;
        self.queue.insert((at.max(self.now), self.planned), event);
    }

    /// Lets everything happen up to `until`, or to the first violation.
    pub fn run_until(&mut self, until: Mono) {
        while self.truth.violations.is_empty() {
            let Some(first) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) else { break };
            let ((at, _), event) = first.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node, life) => self.tick(node, life),
            Event::Wake(node, life, tag) => {
                if self.is_current(node, life, || Event::Wake(node, life, tag)) {
                    self.trace.note(self.now, 2, node as u64);
                    self.call(node, |process, cx| process.node().wake(cx, tag));
                }
            }
            Event::Input(node, life) => self.input(node, life),
            Event::Dial(link, life) => self.dialed(link, life),
            Event::Deliver { conn, to, msg } => self.deliver(conn, to, msg),
            Event::Start(node) => self.start(node),
            Event::Return(node) => {
                self.hosts[node].gone = false;
                self.start(node);
            }
            Event::TakenDown(node) => {
                // Unless it was listed again meanwhile.
                if !matches!(self.setup.nodes[node], Role::Partial(index) if self.peers.contains(&index)) {
                    self.kill(node, false);
                    self.hosts[node].gone = true;
                }
            }
            Event::Ordered(node, sender) => _ = self.hosts[node].forgotten.insert(sender),
            Event::Fault(fault) => self.strike(fault),
        }
    }

    /// False: it is of a former life, or the process is paused, and it is planned again for later.
    fn is_current(&mut self, node: NodeId, life: u32, again: impl FnOnce() -> Event) -> bool {
        let host = &self.hosts[node];
        if host.life != life || host.process.is_none() {
            return false;
        }
        if host.paused_until > self.now {
            self.plan(host.paused_until, again());
            return false;
        }
        true
    }

    fn tick(&mut self, node: NodeId, life: u32) {
        if self.is_current(node, life, || Event::Tick(node, life)) {
            self.trace.note(self.now, 1, node as u64);
            self.call(node, |process, cx| process.node().tick(cx));
            self.heartbeats(node);
            self.dial_again(node);
            self.plan(self.now + TICK, Event::Tick(node, life));
        }
    }

    fn input(&mut self, node: NodeId, life: u32) {
        if self.now >= self.input_until || !self.is_current(node, life, || Event::Input(node, life)) {
            return;
        }
        self.call(node, |process, cx| {
            if let Process::Relay(relay) = process {
                relay.input(cx);
            }
        });
        let every = self.setup.tunables.input_every_ms;
        let wait = self.hosts[node].rng.range(every / 2, every * 3 / 2);
        self.plan(self.now + Duration::from_millis(wait), Event::Input(node, life));
    }

    /// The clock of a node.
    pub fn unix(&self, node: NodeId) -> UnixSeconds {
        let right = i64::from(BEGINNING) + i64::try_from(self.now.since(Mono::ZERO).as_secs()).unwrap_or(0);
        UnixSeconds(u32::try_from(right + self.hosts[node].skew).unwrap_or(0))
    }

    /// Lets a process do something, and then say what it has to say.
    pub fn call(&mut self, node: NodeId, what: impl FnOnce(&mut Process, &mut Cx<'_>)) {
        let unix = self.unix(node);
        let Some(mut process) = self.hosts[node].process.take() else { return };
        let mut cx = self.cx(node, unix);
        what(&mut process, &mut cx);
        process.node().pump(&mut cx);
        let Cx { out, plain, wakes, hang_ups, .. } = cx;
        let host = &mut self.hosts[node];
        host.process = Some(process);
        let life = host.life;
        wakes.into_iter().for_each(|(at, tag)| self.plan(at, Event::Wake(node, life, tag)));
        for (port, frame) in out {
            self.say(port, &frame);
        }
        for (link, what) in plain {
            self.plain(link, what);
        }
        for port in hang_ups {
            self.hang_up(port);
        }
    }

    fn cx(&mut self, me: NodeId, unix: UnixSeconds) -> Cx<'_> {
        let host = &mut self.hosts[me];
        Cx {
            me,
            now: self.now,
            unix,
            rng: &mut host.rng,
            setup: &self.setup,
            file: self.file,
            truth: &mut self.truth,
            trace: &mut self.trace,
            disk: &mut host.disk,
            forgotten: &host.forgotten,
            peers: &host.peers,
            out: Vec::new(),
            plain: Vec::new(),
            wakes: Vec::new(),
            hang_ups: Vec::new(),
        }
    }

    /// A process starts where none runs.
    pub fn start(&mut self, node: NodeId) {
        if self.hosts[node].process.is_some() || self.hosts[node].gone {
            return;
        }
        self.trace.note(self.now, 3, node as u64);
        let name = self.setup.names[node].clone();
        self.trace.say(self.now, || format!("{name} starts"));
        let unix = self.unix(node);
        let role = self.setup.nodes[node];
        let known = self.known_of(node);
        let mut cx = self.cx(node, unix);
        let process = match role {
            Role::Relay(_) => Process::Relay(Box::new(RelayNode::start(&mut cx, known))),
            Role::Partial(_) => Process::Partial(Box::new(PartialNodeShell::start(&mut cx))),
            Role::Final(index) => Process::Final(Box::new(FinalNode::start(&mut cx, index))),
            Role::Replayer => Process::Replayer(Box::new(ReplayerNode::start(&mut cx))),
            Role::Store(_) => {
                let (values, raw) = (std::mem::take(&mut cx.disk.values), std::mem::take(&mut cx.disk.raw));
                Process::Store(Box::new(StoreNode { values, raw }))
            }
        };
        let host = &mut self.hosts[node];
        host.life += 1;
        host.process = Some(process);
        let life = host.life;
        let links: Vec<LinkId> = self.setup.dialed_by(node).collect();
        links.into_iter().for_each(|link| self.dials[link] = Dial { next: self.now, ..Dial::default() });
        let offset = Duration::from_millis(self.hosts[node].rng.range(0, 99));
        self.plan(self.now + offset, Event::Tick(node, life));
        if matches!(role, Role::Relay(_)) {
            self.plan(self.now + offset, Event::Input(node, life));
        }
    }

    /// What the aggregators that run know of a relay: it asks them at its start.
    fn known_of(&self, node: NodeId) -> Known {
        let Some((sender, _)) = self.hosts[node].disk.identity else { return Known::default() };
        let reachable = |other: &usize| {
            let cut = |from, to| self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now);
            !cut(node, *other) && !cut(*other, node) && self.hosts[*other].paused_until <= self.now
        };
        let mut known = Known::default();
        for host in (0..self.hosts.len()).filter(reachable).map(|other| &self.hosts[other]) {
            let epoch = match &host.process {
                Some(Process::Partial(partial)) => partial.epoch_of(sender),
                Some(Process::Final(node)) => node.epoch_of(sender),
                _ => continue,
            };
            // No epoch is above the floor of who is forgotten: it gets one like any other.
            if epoch == FORGOTTEN || host.forgotten.contains(&sender) {
                known.is_forgotten = true;
            } else {
                known.epoch = known.epoch.max(epoch);
            }
        }
        known
    }

    /// A process ends without a word. `silently`: and its machine, too, so that nobody's kernel tells the peers.
    pub fn kill(&mut self, node: NodeId, silently: bool) {
        let Some(process) = self.hosts[node].process.take() else { return };
        let name = self.setup.names[node].clone();
        self.trace.say(self.now, || format!("{name} dies"));
        self.trace.note(self.now, 4, node as u64);
        match process {
            Process::Relay(relay) => {
                self.truth.doubt(relay.held.iter().copied());
                self.truth.lines.relay_died(node);
            }
            // What a store has read is on its disk.
            Process::Store(store) => {
                let disk = &mut self.hosts[node].disk;
                (disk.values, disk.raw) = (store.values, store.raw);
            }
            Process::Partial(_) | Process::Final(_) | Process::Replayer(_) => {}
        }
        self.hosts[node].life += 1;
        self.hosts[node].paused_until = Mono::ZERO;
        self.drop_conns_of(node, silently);
    }

    /// A word on a plain link's connection, for the machine that dialled it.
    pub fn tell_plain(&mut self, link: LinkId, event: store_link::Event) {
        let node = self.setup.links[link].dialer;
        self.call(node, |process, cx| process.node().plain(cx, link, event));
    }

    /// The node at an end of a link.
    pub fn port_of(&self, conn: u64, side: usize) -> Option<(NodeId, Port)> {
        let of = self.conns.get(&conn)?;
        let link = &self.setup.links[of.link];
        Some(if side == 0 { (link.dialer, Port::Link(of.link)) } else { (link.acceptor, Port::Conn(conn)) })
    }

    /// How much is planned.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}
