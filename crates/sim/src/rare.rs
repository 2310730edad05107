//! Faults that are drawn apart, each kind by a generator of its own: a new kind changes nothing in the runs that do not have it.
//! Each strikes a part of the runs, a few times.

use crate::faults::{DiskTrouble, Fault, Forgets, Planned, Rotten};
use crate::rng::Rng;
use crate::setup::{LinkId, LinkKind, NodeId, Role, Setup, Spares};

const PEERS: Kind = Kind { salt: 0x00be_e125, percent: 12, most: 2, draw: peers };
const CLONE: Kind = Kind { salt: 0x00c1_07e5, percent: 10, most: 1, draw: clone };
const KINDS: [Kind; 11] = [
    Kind { salt: 0x00a1_1c07, percent: 15, most: 3, draw: kill_then_power },
    Kind { salt: 0x00f0_96e7, percent: 10, most: 2, draw: forget },
    CLONE,
    PEERS,
    Kind { salt: 0x0f11_e000, percent: 20, most: 3, draw: new_file },
    Kind { salt: 0x004a_96ed, percent: 15, most: 4, draw: hang },
    Kind { salt: 0x0090_1507, percent: 10, most: 4, draw: poison },
    Kind { salt: 0x0051_0ead, percent: 20, most: 3, draw: slow_reader },
    Kind { salt: 0x002e_9ea7, percent: 15, most: 3, draw: repeat },
    Kind { salt: 0x002e_adee, percent: 15, most: 3, draw: read_error },
    Kind { salt: 0x0000_7077, percent: 15, most: 2, draw: rot },
];

struct Kind {
    salt: u64,
    /// Of the runs.
    percent: u64,
    /// In one run.
    most: u64,
    draw: fn(&mut Rng, &Setup) -> Fault,
}

impl Kind {
    /// Its generator, if it is in this run.
    fn of(&self, seed: u64) -> Option<Rng> {
        let mut rng = Rng::new(seed ^ self.salt);
        rng.percent(self.percent).then_some(rng)
    }
}

/// The nodes that the kinds of this run need.
pub fn spares(seed: u64) -> Spares {
    Spares { relay: CLONE.of(seed).is_some(), partial: PEERS.of(seed).is_some() }
}

/// Draws them all, in `from..until` (milliseconds).
pub fn schedule(seed: u64, setup: &Setup, from: u64, until: u64) -> Vec<Planned> {
    let mut planned = Vec::new();
    for kind in &KINDS {
        let Some(mut rng) = kind.of(seed) else { continue };
        for _ in 0..rng.range(1, kind.most) {
            let at_ms = rng.range(from, until - 1);
            planned.push(Planned { at_ms, fault: (kind.draw)(&mut rng, setup) });
        }
    }
    planned
}

/// Half of the runs have raw lines, with what they need drawn by a generator of its own.
pub fn raw(seed: u64) -> Option<Rng> {
    let mut rng = Rng::new(seed ^ 0x0a71_13e5);
    rng.percent(50).then_some(rng)
}

/// One of the nodes of this kind.
fn some(rng: &mut Rng, setup: &Setup, wanted: impl Fn(&Role) -> bool) -> NodeId {
    let nodes: Vec<NodeId> = (0..setup.regular).filter(|node| wanted(&setup.nodes[*node])).collect();
    rng.pick(&nodes)
}

/// What a process leaves in the kernel only, its next life reads; then the power goes, before that one has synced anything
/// of its own.
fn kill_then_power(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Relay(_) | Role::Final(_)));
    Fault::KillThenPower { node, down_ms: rng.range(300, 3_000), after_ms: rng.range(50, 1_500) }
}

/// A store that is behind, for seconds.
fn slow_reader(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Store(_)));
    Fault::SlowReader { node, ms: rng.range(2_000, 9_000), each_ms: rng.pick(&[50, 300, 1_500]) }
}

/// A batch or a flush that was delivered comes again.
fn repeat(rng: &mut Rng, setup: &Setup) -> Fault {
    let with_batches =
        |link: &LinkId| matches!(setup.links[*link].kind, LinkKind::Up | LinkKind::Down | LinkKind::Send);
    let links: Vec<LinkId> = (0..setup.regular_links).filter(with_batches).collect();
    Fault::Repeat { link: rng.pick(&links), ms: rng.range(100, 4_000) }
}

/// A disk that cannot be read now, and later can.
fn read_error(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Relay(_) | Role::Final(_)));
    Fault::Disk { node, nth: rng.range(1, 9), writes: rng.range(1, 3), kind: DiskTrouble::Read }
}

/// A partial node more, one less, or one for another.
fn peers(rng: &mut Rng, setup: &Setup) -> Fault {
    let drops = rng.percent(60).then(|| rng.index(setup.first_peers().len()));
    Fault::Peers { adds: drops.is_none() || rng.percent(50), drops, order: rng.number() }
}

/// Any file, also an older one again.
fn new_file(rng: &mut Rng, setup: &Setup) -> Fault {
    Fault::File { file: rng.index(setup.files.len()), order: rng.number() }
}

/// A relay that never comes back, or does after all.
fn forget(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Relay(_)));
    let ms = rng.range(300, 30_000);
    let how = rng.pick(&[Forgets::AtWork, Forgets::ForEver, Forgets::ComesBack { ms }, Forgets::Replaced { ms }]);
    Fault::Forget { node, how }
}

/// A second machine with a copy of a relay's disk.
fn clone(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Relay(_)));
    let ms = rng.range(2_500, 15_000);
    Fault::Clone { node, twins: rng.percent(50).then_some(ms) }
}

/// A worker that hangs, for less than the watchdog waits or for much longer.
fn hang(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Relay(_) | Role::Partial(_) | Role::Final(_)));
    Fault::Hang { node, which: rng.number(), ms: rng.range(500, 12_000) }
}

/// A batch that nobody survives.
fn poison(rng: &mut Rng, setup: &Setup) -> Fault {
    Fault::Poison { node: some(rng, setup, |role| matches!(role, Role::Relay(_))) }
}

/// A final node's disk goes bad.
fn rot(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Final(_)));
    let whole = Rotten::Store { witness: rng.percent(50) };
    let what = rng.pick(&[Rotten::Checkpoint, Rotten::Index, whole]);
    Fault::Rot { node, what, pick: rng.index(1000), down_ms: rng.range(300, 5_000) }
}
