//! When a batch that was sent is late.
//!
//! A queue that grows at the receiver delays every acknowledgement, and is no reason to send anything again or to put it
//! on disk: answers come, in order. So what is on its way is compared with its own kind, the batches to the same peer
//! that begin with the same partition: it is late when its kind has been silent for the time-out, or when what was sent
//! a whole time-out after it has been answered already. One dead final node silences only the kinds of its partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Peer;
use crate::batch::Batch;
use crate::time::Mono;

#[derive(Clone, Copy, Debug)]
struct Answered {
    /// The latest answer.
    at: Mono,
    /// When the youngest of what was answered had been sent.
    sent: Mono,
}

/// The latest answers of each kind; at most one for every peer and partition.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<(Peer, u16), Answered>);

impl Streams {
    /// `batch`, sent to `peer` at `sent`, was answered.
    pub(super) fn answered(&mut self, now: Mono, peer: Peer, batch: &Batch, sent: Mono) {
        let entry = self.0.entry((peer, kind(batch))).or_insert(Answered { at: now, sent });
        entry.at = now;
        entry.sent = entry.sent.max(sent);
    }

    /// Whether `batch`, sent to `peer` at `sent`, should have been answered by now.
    pub(super) fn is_late(&self, now: Mono, peer: Peer, batch: &Batch, sent: Mono, timeout: Duration) -> bool {
        if now.since(sent) <= timeout {
            return false;
        }
        let Some(answered) = self.0.get(&(peer, kind(batch))) else { return true };
        now.since(answered.at) > timeout || answered.sent > sent + timeout
    }

    /// The link is gone: what its answers said no longer counts.
    pub(super) fn forget(&mut self, peer: Peer) {
        self.0.retain(|(of, _), _| *of != peer);
    }
}

fn kind(batch: &Batch) -> u16 {
    batch.header().claims.first().map_or(0, |claim| claim.partition)
}
