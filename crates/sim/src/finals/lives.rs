//! What becomes of the deciding thread of a final node: it dies, or hangs.

use std::time::Duration;

use super::FinalNode;
use crate::node::{Cx, WATCHDOG};

impl FinalNode {
    /// A shard's thread dies: its partitions are read from the store again, once the log has settled.
    pub fn shard_panics(&mut self, cx: &mut Cx<'_>) {
        cx.truth.visit("final shard died");
        self.begin_again();
    }

    fn begin_again(&mut self) {
        self.owned.clear();
        self.waiting.clear();
        self.requested.clear();
        self.loaded.clear();
        // The log refuses what a former life has put into its queue; what it has in hand it finishes.
        self.queue.clear();
        self.hangs = None;
    }

    /// It does nothing for a while, and the log goes on.
    pub fn shard_hangs(&mut self, cx: &mut Cx<'_>, lasts: Duration) {
        self.hangs.get_or_insert((cx.now, cx.now + lasts));
    }

    /// Whether it hangs. Beyond the watchdog a new life takes its place; what the ghost does then reaches nobody: the log
    /// refuses its appends by their generation, and so does who emits.
    pub(super) fn stands_still(&mut self, cx: &mut Cx<'_>) -> bool {
        let Some((since, until)) = self.hangs else { return false };
        if cx.now >= until {
            self.hangs = None;
        } else if cx.now.since(since) >= WATCHDOG {
            cx.truth.visit("final shard fenced");
            // What had come in waited in its queue, which is replaced.
            self.inputs.iter_mut().for_each(std::collections::VecDeque::clear);
            self.begin_again();
        }
        self.hangs.is_some()
    }
}
