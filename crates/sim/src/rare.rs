//! Faults that are drawn apart, each kind by a generator of its own: a new kind changes nothing in the runs that do not have it.
//! Each strikes a part of the runs, a few times.

use crate::faults::{DiskTrouble, Fault, Planned};
use crate::rng::Rng;
use crate::setup::{LinkId, LinkKind, NodeId, Role, Setup};

/// Draws them all, in `from..until` (milliseconds).
pub fn schedule(seed: u64, setup: &Setup, from: u64, until: u64) -> Vec<Planned> {
    let kinds: [(u64, u64, Draw); 4] = [
        (0x00a1_1c07, 15, kill_then_power),
        (0x0051_0ead, 20, slow_reader),
        (0x002e_9ea7, 15, repeat),
        (0x002e_adee, 15, read_error),
    ];
    let mut planned = Vec::new();
    for (salt, percent, draw) in kinds {
        let mut rng = Rng::new(seed ^ salt);
        if rng.percent(percent) {
            for _ in 0..rng.range(1, 3) {
                let at_ms = rng.range(from, until - 1);
                planned.push(Planned { at_ms, fault: draw(&mut rng, setup) });
            }
        }
    }
    planned
}

/// Half of the runs have raw lines, with what they need drawn by a generator of its own.
pub fn raw(seed: u64) -> Option<Rng> {
    let mut rng = Rng::new(seed ^ 0x0a71_13e5);
    rng.percent(50).then_some(rng)
}

type Draw = fn(&mut Rng, &Setup) -> Fault;

/// One of the nodes of this kind.
fn some(rng: &mut Rng, setup: &Setup, wanted: impl Fn(&Role) -> bool) -> NodeId {
    let nodes: Vec<NodeId> = (0..setup.nodes.len()).filter(|node| wanted(&setup.nodes[*node])).collect();
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
    let links: Vec<LinkId> = (0..setup.links.len()).filter(with_batches).collect();
    Fault::Repeat { link: rng.pick(&links), ms: rng.range(100, 4_000) }
}

/// A disk that cannot be read now, and later can.
fn read_error(rng: &mut Rng, setup: &Setup) -> Fault {
    let node = some(rng, setup, |role| matches!(role, Role::Relay(_) | Role::Final(_)));
    Fault::Disk { node, nth: rng.range(1, 9), writes: rng.range(1, 3), kind: DiskTrouble::Read }
}
