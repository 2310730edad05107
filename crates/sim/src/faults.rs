//! What goes wrong, and when. A seed draws which kinds there are and how often (a swarm: runs differ more than their sum), and
//! from that a schedule, which can be shrunk. [`crate::strike`] does it.

use std::collections::BTreeSet;

use crate::file::FileId;
use crate::rng::Rng;
use crate::setup::{LinkId, NodeId, Role, Setup};

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
    /// kill -9, and the power goes `after_ms` after the next start.
    KillThenPower { node: NodeId, down_ms: u64, after_ms: u64 },
    /// A plain store takes `each_ms` for every block; the others wait in order.
    SlowReader { node: NodeId, ms: u64, each_ms: u64 },
    /// A connection is reset after `ms`, and what the acceptor heard on it till then it hears again on the next one.
    Repeat { link: LinkId, ms: u64 },
    /// The list of partial nodes changes: the spare one is put up, `drops` is taken down for good, or both; relays and the replayer
    /// are restarted with it one by one, in an order that `order` says.
    Peers { adds: bool, drops: Option<usize>, order: u64 },
    /// The cluster file changes, and all nodes are restarted one by one, in an order that `order` says.
    File { file: FileId, order: u64 },
    /// An operator forgets a relay.
    Forget { node: NodeId, how: Forgets },
    /// A relay's disk is copied, and a second machine starts with the copy: beside it while it runs, or (`twins`) both start
    /// at once and reach nobody for so many milliseconds, so that both take the same epoch.
    Clone { node: NodeId, twins: Option<u64> },
    /// A worker hangs: a shard, or a spill's thread. Beyond the watchdog it is fenced, and wakes up as a ghost.
    Hang { node: NodeId, which: u64, ms: u64 },
    /// A part of a final node's store cannot be read any more, or all of it is gone.
    Rot { node: NodeId, what: Rotten, pick: usize, down_ms: u64 },
    /// The next batch of a relay kills whoever folds it.
    Poison { node: NodeId },
}

/// What becomes of a relay that is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets {
    /// It is at work all the while (`--force`).
    AtWork,
    /// Its machine died and does not come back.
    ForEver,
    /// Its machine died and comes back as it was, after so many milliseconds.
    ComesBack { ms: u64 },
    /// A new machine takes its name.
    Replaced { ms: u64 },
}

/// What of a final node's store is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotten {
    /// One copy of a checkpoint.
    Checkpoint,
    /// The index entry of a block.
    Index,
    /// Everything; with or without the witness file beside it.
    Store { witness: bool },
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
    /// Reads fail.
    Read,
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

/// The names of all kinds: first those of [`draw`]'s numbers, then those that are drawn apart.
pub const KINDS: [&str; 26] = [
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
    "kill, then power cut",
    "forget",
    "clone",
    "new file",
    "slow reader",
    "repeat",
    "read error",
    "hang",
    "poison batch",
    "final store rots",
    "other partial nodes",
];

/// How many [`draw`] draws.
const DRAWN: usize = 14;

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
            Fault::Disk { kind: DiskTrouble::Read, .. } => 21,
            Fault::Disk { .. } => 12,
            Fault::Operator { .. } => 13,
            Fault::Damage { .. } => 14,
            Fault::KillThenPower { .. } => 15,
            Fault::Forget { .. } => 16,
            Fault::Clone { .. } => 17,
            Fault::File { .. } => 18,
            Fault::SlowReader { .. } => 19,
            Fault::Repeat { .. } => 20,
            Fault::Hang { .. } => 22,
            Fault::Poison { .. } => 23,
            Fault::Rot { .. } => 24,
            Fault::Peers { .. } => 25,
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
            Fault::RollBack { .. } | Fault::Forget { .. } | Fault::Clone { .. } => &["duplicate_sender"],
            Fault::Damage { .. } => &["corrupt"],
            Fault::Hang { .. } => &["spill_full", "spill_full_unanswered", "poison"],
            Fault::Poison { .. } => &["poison"],
            _ => &[],
        }
    };
    schedule.iter().flat_map(reasons).copied().collect()
}

/// Draws what goes wrong in `from..until` (milliseconds).
pub fn schedule(rng: &mut Rng, setup: &Setup, from: u64, until: u64) -> Vec<Planned> {
    // Damage is drawn apart.
    let kinds: Vec<usize> = (0..DRAWN).filter(|_| rng.percent(45)).collect();
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
    let nodes: Vec<NodeId> = (0..setup.regular).filter(|node| wanted(&setup.nodes[*node])).collect();
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
            let link = setup.links[rng.index(setup.regular_links)];
            let (from, to) = if rng.percent(50) { (link.dialer, link.acceptor) } else { (link.acceptor, link.dialer) };
            Fault::Cut { from, to, both: rng.percent(50), ms: rng.range(200, 9_000) }
        }
        6 => Fault::Isolate { node, ms: rng.range(200, 9_000) },
        7 => Fault::Reset { link: rng.index(setup.regular_links) },
        8 => Fault::HalfOpen { link: rng.index(setup.regular_links), side: rng.index(2) },
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
