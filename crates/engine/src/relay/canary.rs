//! Canaries: empty batches that take the whole way to the final layer's log and back, so that a peer proves itself also
//! while it gets no traffic.
//!
//! One is a batch of this relay's sender and epoch with a number of its own, for one partition. It is not held: nothing
//! is lost with it. It claims from the number from which the partition's next batch of points will claim, and leaves that
//! where it is: so one that is lost leaves no hole in an included set, and what it marks, no batch of points has. It is
//! sent with the attempt bit: one that comes after such a batch is "included already", and alone in its group.

use std::collections::BTreeMap;

use super::{Peer, Relay, Sending};
use crate::batch::{Builder, Claim, PartitionSet};
use crate::time::UnixSeconds;
use crate::wire::Class;

/// Canaries that are out, at most; beyond it the oldest are forgotten.
const OUT_MAX: usize = 1024;

/// What became of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    pub peer: Peer,
    pub round: u64,
    /// Else it was refused for a reason that says nothing of the peer.
    pub acked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Canaries {
    round: u64,
    /// For each peer the round of its latest one.
    sent: BTreeMap<Peer, u64>,
    out: BTreeMap<u32, (Peer, u64)>,
    answered: Vec<Canary>,
}

impl Canaries {
    /// Numbers `first..=last` are durable.
    pub(super) fn durable(&mut self, first: u32, last: u32) {
        while let Some((&seq, &(peer, round))) = self.out.range(first..=last).next() {
            self.out.remove(&seq);
            self.answered.push(Canary { peer, round, acked: true });
        }
    }

    /// One was refused.
    pub(super) fn refused(&mut self, seq: u32) {
        if let Some((peer, round)) = self.out.remove(&seq) {
            self.answered.push(Canary { peer, round, acked: false });
        }
    }

    /// What is out is not waited for.
    pub(super) fn forget_all(&mut self) {
        self.out.clear();
    }
}

impl Relay {
    /// A new round begins: one canary to each peer.
    pub fn begin_round(&mut self) {
        self.canaries.round += 1;
    }

    /// The canary of this round for `peer`, once, and the round.
    pub fn next_canary(&mut self, peer: Peer, at: UnixSeconds) -> Option<(Sending, u64)> {
        let round = self.canaries.round;
        let is_due = round > 0 && self.canaries.sent.get(&peer) != Some(&round);
        let takes_any = self.links.get(peer).is_some_and(|link| link.up && !link.draining);
        if !is_due || !takes_any || self.draining || self.disowned.is_some() {
            return None;
        }
        self.canaries.sent.insert(peer, round);
        let partition = u16::try_from(round % u64::from(self.settings.partitions.max(1))).unwrap_or(0);
        let from = self.claims.get(usize::from(partition)).copied()?;
        let mut builder = Builder::new(PartitionSet::default().with(partition), 0);
        builder.append(b"", 0, at, at);
        let seq = self.next_seq;
        self.next_seq += 1;
        let me = &self.settings;
        let batch = builder.seal(me.incarnation, seq, me.versions, &[Claim { partition, from }]);
        self.canaries.out.insert(seq, (peer, round));
        if self.canaries.out.len() > OUT_MAX {
            self.canaries.out.pop_first();
        }
        Some((Sending { batch, attempt: true, class: Class::Live }, round))
    }

    /// What became of canaries since this was asked last.
    pub fn take_canaries(&mut self) -> Vec<Canary> {
        std::mem::take(&mut self.canaries.answered)
    }
}
