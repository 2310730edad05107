//! What the pool of the final nodes means for a partial role. Each owns its partitions, so only an order keeps work
//! from one: then its flushes wait, and relays spill what feeds it.

use std::sync::Arc;

use engine::health::{Outcome, Pool, Standing, WhyNot};
use engine::time::Mono;
use node::desk::Observed;

use super::role::PartialRole;

pub(crate) struct Watching(pub(crate) Arc<PartialRole>);

impl Observed for Watching {
    fn look(&self, _now: Mono, _pool: &mut Pool) {}

    fn decided(&self, _now: Mono, outcome: &Outcome) {
        let is_held_off = |standing: &Standing| matches!(standing, Standing::Out(WhyNot::Drained | WhyNot::Forgotten));
        let held_off: Vec<bool> = outcome.nodes.iter().map(is_held_off).collect();
        self.0.machine().hold_off(&held_off);
        self.0.wake_finals();
    }
}
