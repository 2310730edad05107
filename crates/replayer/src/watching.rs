//! What the pool of the nodes that take batches means for replay.

use std::sync::Arc;

use engine::health::{Outcome, Pool};
use engine::time::Mono;
use node::desk::Observed;

use crate::shared::Shared;

pub(crate) struct Watching(pub(crate) Arc<Shared>);

impl Observed for Watching {
    /// Links and verdicts are told by the links; a replayer sends no canaries.
    fn look(&self, _now: Mono, _pool: &mut Pool) {}

    fn decided(&self, _now: Mono, outcome: &Outcome) {
        self.0.machine().set_eligible(&outcome.eligible());
        self.0.wake_all();
    }
}
