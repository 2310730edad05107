//! Faults that are drawn apart, each kind by a generator of its own: a new kind changes nothing in the runs that do not have it.
//! Each strikes a part of the runs, a few times.

use crate::faults::{Fault, Planned};
use crate::rng::Rng;
use crate::setup::{NodeId, Role, Setup};

/// Draws them all, in `from..until` (milliseconds).
pub fn schedule(seed: u64, setup: &Setup, from: u64, until: u64) -> Vec<Planned> {
    let kinds: [(u64, u64, Draw); 1] = [(0x00a1_1c07, 15, kill_then_power)];
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
