//! What goes wrong, and when. A seed draws which kinds there are and how often (a swarm: runs differ more than their sum), and
//! from that a schedule, which can be shrunk.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use engine::batch::BatchId;
use engine::health::Hand;
use engine::replay::Change;
use engine::spill;
use engine::time::Mono;
use store::{Fault as DiskFault, FaultPlan, Store};

use crate::disk::Disk;
use crate::rng::Rng;
use crate::setup::{LinkId, LinkKind, NodeId, Role, Setup};
use crate::truth::Fate;
use crate::world::{Event, Process, World};

/// Seconds; more than any clock is wrong otherwise.
const AHEAD: i64 = 30;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9: what was written to the disk is kept, synced or not.
    Kill { node: NodeId, down_ms: u64 },
    /// The power goes: what was not synced is lost, or a part of it; peers are not told.
    PowerCut { node: NodeId, down_ms: u64 },
    /// A process and its disk are lost; an empty one starts in its place.
    DiskLost { node: NodeId, down_ms: u64 },
    /// The data directory is remembered ...
    Snapshot { node: NodeId },
    /// ... and put back.
    RollBack { node: NodeId, down_ms: u64 },
    /// Nothing arrives, in one direction or both.
    Cut { from: NodeId, to: NodeId, both: bool, ms: u64 },
    /// A node is cut off from all others.
    Isolate { node: NodeId, ms: u64 },
    /// A connection is reset.
    Reset { link: LinkId },
    /// One end of a connection is closed, and the other does not hear of it.
    HalfOpen { link: LinkId, side: usize },
    /// A process stands still, and goes on as if nothing had been.
    Pause { node: NodeId, ms: u64 },
    /// A worker panics (`which`), in or outside of its machine.
    Panic { node: NodeId, which: u64 },
    /// A clock is set.
    Skew { node: NodeId, seconds: i64 },
    /// A disk is full for some writes, or fails.
    Disk { node: NodeId, nth: u64, writes: u64, kind: DiskTrouble },
    /// A record of a relay's spill cannot be read any more.
    Damage { node: NodeId, pick: usize },
    /// An operator does something.
    Operator { node: NodeId, what: Order },
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTrouble {
    Full,
    Busy,
    /// A write or sync fails; whether it took effect.
    Write {
        applied: bool,
    },
    Sync {
        applied: bool,
    },
}

/// What an operator orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Drain { peer: usize },
    Undrain { peer: usize },
    Mode { strict: bool },
    Auto,
    Rate { rate: u64 },
    PauseReplay,
    ResumeReplay,
}

/// A fault and its time, in milliseconds since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub at_ms: u64,
    pub fault: Fault,
}

/// The names of all kinds, in the order of [`draw`]'s numbers.
pub const KINDS: [&str; 15] = [
    "kill",
    "power cut",
    "disk lost",
    "snapshot",
    "roll back",
    "cut",
    "isolate",
    "reset",
    "half-open",
    "pause",
    "panic",
    "skew",
    "disk",
    "operator",
    "damage",
];

impl Fault {
    /// Its place in [`KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Fault::Kill { .. } => 0,
            Fault::PowerCut { .. } => 1,
            Fault::DiskLost { .. } => 2,
            Fault::Snapshot { .. } => 3,
            Fault::RollBack { .. } => 4,
            Fault::Cut { .. } => 5,
            Fault::Isolate { .. } => 6,
            Fault::Reset { .. } => 7,
            Fault::HalfOpen { .. } => 8,
            Fault::Pause { .. } => 9,
            Fault::Panic { .. } => 10,
            Fault::Skew { .. } => 11,
            Fault::Disk { .. } => 12,
            Fault::Operator { .. } => 13,
            Fault::Damage { .. } => 14,
        }
    }
}

/// For which reasons a run with these faults may drop points.
pub fn allowed(schedule: &[Planned]) -> BTreeSet<&'static str> {
    let reasons = |planned: &Planned| -> &'static [&'static str] {
        match planned.fault {
            // The spill takes nothing for a while.
            Fault::Disk { .. } => &["spill_full", "spill_full_unanswered"],
            // A batch that was in hand twice.
            Fault::Panic { .. } => &["poison"],
            // Old records of a retired epoch are there again.
            Fault::RollBack { .. } => &["duplicate_sender"],
            Fault::Damage { .. } => &["corrupt"],
            _ => &[],
        }
    };
    schedule.iter().flat_map(reasons).copied().collect()
}

/// Draws what goes wrong in `from..until` (milliseconds).
pub fn schedule(rng: &mut Rng, setup: &Setup, from: u64, until: u64) -> Vec<Planned> {
    // Damage is drawn apart.
    let kinds: Vec<usize> = (0..KINDS.len() - 1).filter(|_| rng.percent(45)).collect();
    let mean = rng.pick(&[400, 1_500, 5_000]);
    let mut planned = Vec::new();
    let mut at_ms = from;
    while !kinds.is_empty() {
        at_ms += rng.range(1, 2 * mean);
        if at_ms >= until {
            break;
        }
        let kind = rng.pick(&kinds);
        if let Some(fault) = draw(rng, setup, kind) {
            planned.push(Planned { at_ms, fault });
        }
    }
    for _ in 0..if rng.percent(25) { rng.range(1, 4) } else { 0 } {
        let node = some(rng, setup, |role| matches!(role, Role::Relay(_)));
        let fault = Fault::Damage { node, pick: rng.index(1000) };
        planned.push(Planned { at_ms: rng.range(from, until - 1), fault });
    }
    planned.sort_by_key(|planned| planned.at_ms);
    planned
}

fn some(rng: &mut Rng, setup: &Setup, wanted: impl Fn(&Role) -> bool) -> NodeId {
    let nodes: Vec<NodeId> = (0..setup.nodes.len()).filter(|node| wanted(&setup.nodes[*node])).collect();
    rng.pick(&nodes)
}

fn draw(rng: &mut Rng, setup: &Setup, kind: usize) -> Option<Fault> {
    let node = some(rng, setup, |_| true);
    let down_ms = rng.range(300, 9_000);
    let is_relay = |role: &Role| matches!(role, Role::Relay(_));
    let has_disk = |role: &Role| matches!(role, Role::Relay(_) | Role::Final(_));
    let has_panics = |role: &Role| !matches!(role, Role::Store(_));
    Some(match kind {
        0 => Fault::Kill { node, down_ms },
        1 => Fault::PowerCut { node, down_ms },
        2 => Fault::DiskLost { node: some(rng, setup, is_relay), down_ms },
        3 => Fault::Snapshot { node: some(rng, setup, is_relay) },
        4 => Fault::RollBack { node: some(rng, setup, is_relay), down_ms },
        5 => {
            let link = setup.links[rng.index(setup.links.len())];
            let (from, to) = if rng.percent(50) { (link.dialer, link.acceptor) } else { (link.acceptor, link.dialer) };
            Fault::Cut { from, to, both: rng.percent(50), ms: rng.range(200, 9_000) }
        }
        6 => Fault::Isolate { node, ms: rng.range(200, 9_000) },
        7 => Fault::Reset { link: rng.index(setup.links.len()) },
        8 => Fault::HalfOpen { link: rng.index(setup.links.len()), side: rng.index(2) },
        9 => Fault::Pause { node, ms: rng.range(500, 12_000) },
        10 => Fault::Panic { node: some(rng, setup, has_panics), which: rng.number() },
        11 => Fault::Skew { node, seconds: i64::try_from(rng.range(0, 40)).unwrap_or(0) - 20 },
        12 => Fault::Disk {
            node: some(rng, setup, has_disk),
            nth: rng.range(1, 5),
            writes: rng.range(1, 20),
            kind: rng.pick(&[
                DiskTrouble::Full,
                DiskTrouble::Busy,
                DiskTrouble::Write { applied: false },
                DiskTrouble::Write { applied: true },
                DiskTrouble::Sync { applied: false },
                DiskTrouble::Sync { applied: true },
            ]),
        },
        13 => {
            let peer = rng.index(3);
            let what = rng.pick(&[
                Order::Drain { peer },
                Order::Undrain { peer },
                Order::Mode { strict: true },
                Order::Mode { strict: false },
                Order::Auto,
                Order::Rate { rate: 20 },
                Order::Rate { rate: 100_000 },
                Order::PauseReplay,
                Order::ResumeReplay,
            ]);
            Fault::Operator { node: some(rng, setup, has_panics), what }
        }
        _ => return None,
    })
}

impl World {
    /// Something goes wrong now.
    pub fn strike(&mut self, fault: Fault) {
        self.trace.note(self.now, 7, fault.kind() as u64);
        self.trace.say(self.now, || format!("{fault:?}"));
        match fault {
            Fault::Kill { node, down_ms } => self.fell(node, down_ms, false, |_, _| {}),
            Fault::PowerCut { node, down_ms } => self.fell(node, down_ms, true, |disk, rng| disk.power_cut(rng)),
            Fault::DiskLost { node, down_ms } => {
                self.doubt_disk(node);
                self.fell(node, down_ms, true, |disk, _| *disk = Disk::default());
            }
            Fault::Snapshot { node } => {
                let host = &mut self.hosts[node];
                host.snapshot = Some(host.disk.copy());
            }
            Fault::RollBack { node, down_ms } => {
                if let Some(old) = self.hosts[node].snapshot.take() {
                    self.doubt_disk(node);
                    // Its clock has not gone back as well, and the same second does not come twice: otherwise nobody
                    // could tell its lives apart but by the nonce.
                    let host = &mut self.hosts[node];
                    host.roll_backs += 1;
                    host.skew = AHEAD + 2 * host.roll_backs;
                    self.fell(node, down_ms, true, |disk, _| *disk = old);
                }
            }
            Fault::Cut { from, to, both, ms } => {
                self.cut(from, to, ms);
                if both {
                    self.cut(to, from, ms);
                }
            }
            Fault::Isolate { node, ms } => {
                for other in 0..self.hosts.len() {
                    self.cut(node, other, ms);
                    self.cut(other, node, ms);
                }
            }
            Fault::Reset { link } => {
                if let Some(conn) = self.dials[link].conn {
                    self.close(conn, 0, false);
                    self.close(conn, 1, false);
                }
            }
            Fault::HalfOpen { link, side } => {
                // A plain store's end is closed by its process only.
                let is_plain = self.setup.links[link].kind == LinkKind::Plain;
                if let Some(conn) = self.dials[link].conn.filter(|_| !is_plain) {
                    self.close(conn, side, false);
                }
            }
            Fault::Pause { node, ms } => self.hosts[node].paused_until = self.now + Duration::from_millis(ms),
            Fault::Panic { node, which } => self.panics(node, which),
            Fault::Skew { node, seconds } => {
                if self.hosts[node].process.is_some() {
                    self.hosts[node].skew = seconds;
                }
            }
            Fault::Disk { node, nth, writes, kind } => self.hosts[node].disk.store.set_faults(plan(nth, writes, kind)),
            Fault::Damage { node, pick } => self.damage(node, pick),
            Fault::Operator { node, what } => self.order(node, what),
        }
    }

    fn fell(&mut self, node: NodeId, down_ms: u64, silently: bool, disk: impl FnOnce(&mut Disk, &mut Rng)) {
        if self.hosts[node].process.is_none() {
            return;
        }
        self.kill(node, silently);
        let mut rng = self.rng.fork();
        disk(&mut self.hosts[node].disk, &mut rng);
        self.plan(self.now + Duration::from_millis(down_ms), Event::Start(node));
    }

    /// What only the disk of a relay has may be gone.
    fn doubt_disk(&mut self, node: NodeId) {
        if let Some((sender, _)) = self.hosts[node].disk.identity {
            let spilled = self.truth.of_sender(sender, Fate::Spilled);
            self.truth.doubt(spilled);
        }
    }

    fn damage(&mut self, node: NodeId, pick: usize) {
        let (from, to) = spill::all_records();
        let mut records: Vec<(Vec<u8>, Option<BatchId>)> = Vec::new();
        let copy = self.hosts[node].disk.store.copy().open();
        let read = copy.salvage(&from, &to, &mut |key, value| {
            let id = spill::decode(value).ok().and_then(|record| match record.header.content {
                spill::Content::Batch(id) => Some(id),
                spill::Content::Block { .. } => None,
            });
            records.push((key.to_vec(), id));
            ControlFlow::Continue(())
        });
        drop(read);
        if records.is_empty() {
            return;
        }
        let (key, id) = &records[pick % records.len()];
        self.truth.visit("record damaged");
        self.truth.doubt(*id);
        self.hosts[node].disk.store.set_faults(FaultPlan::new().damage(key));
    }

    fn cut(&mut self, from: NodeId, to: NodeId, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        let entry = self.cuts.entry((from, to)).or_insert(Mono::ZERO);
        *entry = (*entry).max(until);
    }

    fn panics(&mut self, node: NodeId, which: u64) {
        self.call(node, |process, cx| match process {
            Process::Relay(relay) if which.is_multiple_of(2) => relay.machine_panics(cx),
            Process::Relay(relay) => relay.spill.thread_dies(cx),
            Process::Partial(partial) if which.is_multiple_of(3) => partial.machine_panics(cx),
            Process::Partial(partial) => {
                partial.shard_panics(cx, usize::from(which & 4 != 0), which & 8 != 0);
            }
            Process::Final(node) => node.shard_panics(cx),
            Process::Replayer(replayer) => replayer.machine_panics(cx),
            Process::Store(_) => {}
        });
    }

    fn order(&mut self, node: NodeId, what: Order) {
        self.call(node, |process, cx| {
            let orders = match process {
                Process::Relay(relay) => &mut relay.orders,
                Process::Partial(partial) => &mut partial.orders,
                Process::Replayer(replayer) => {
                    if let Some(change) = change(what) {
                        replayer.change(cx, &change);
                        return;
                    }
                    &mut replayer.orders
                }
                Process::Final(_) | Process::Store(_) => return,
            };
            let count = orders.hands.len();
            match what {
                Order::Drain { peer } => orders.hands[peer % count] = Hand::Drained,
                Order::Undrain { peer } => orders.hands[peer % count] = Hand::Off,
                Order::Mode { strict: true } => orders.mode = engine::health::Mode::Strict,
                Order::Mode { strict: false } => orders.mode = engine::health::Mode::Lenient,
                Order::Auto => orders.mode = engine::health::Mode::Auto,
                Order::Rate { .. } | Order::PauseReplay | Order::ResumeReplay => {}
            }
        });
    }

    /// Nothing goes wrong any more; what is down starts, and operators take their orders back.
    pub fn heal(&mut self) {
        self.trace.say(self.now, || "healed".to_owned());
        self.cuts.clear();
        for node in 0..self.hosts.len() {
            self.hosts[node].paused_until = Mono::ZERO;
            self.hosts[node].disk.store.set_faults(FaultPlan::new());
            self.start(node);
            for what in
                [Order::Undrain { peer: 0 }, Order::Undrain { peer: 1 }, Order::Undrain { peer: 2 }, Order::Auto]
            {
                self.order(node, what);
            }
            self.order(node, Order::Rate { rate: 50_000 });
            self.order(node, Order::ResumeReplay);
        }
    }
}

fn change(what: Order) -> Option<Change> {
    Some(match what {
        Order::Rate { rate } => Change { rate: Some(rate), ..Change::default() },
        Order::PauseReplay => Change { paused: Some(true), ..Change::default() },
        Order::ResumeReplay => Change { paused: Some(false), ..Change::default() },
        Order::Drain { .. } | Order::Undrain { .. } | Order::Mode { .. } | Order::Auto => return None,
    })
}

fn plan(nth: u64, writes: u64, kind: DiskTrouble) -> FaultPlan {
    let of = |fault| (nth..nth + writes).fold(FaultPlan::new(), |plan, at| plan.fail_write(at, fault));
    match kind {
        DiskTrouble::Full => of(DiskFault::Full),
        DiskTrouble::Busy => of(DiskFault::Busy),
        DiskTrouble::Write { applied } => FaultPlan::new().fail_write(nth, DiskFault::Io { applied }),
        DiskTrouble::Sync { applied } => FaultPlan::new().fail_sync(nth, DiskFault::Io { applied }),
    }
}
