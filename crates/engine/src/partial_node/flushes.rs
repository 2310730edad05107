//! From a shard's partials to a final node and its answer back.

use std::time::Duration;

use super::{Built, InFlush, Part, PartialNode, set_part};
use crate::batch::{BatchId, PartitionSet};
use crate::time::Mono;
use crate::wire::{Flush, FlushReply, Group, GroupReply, Lane, NackReason};

impl PartialNode {
    /// Whether a shard may hand over a flush of this partition and lane: none is out.
    pub fn may_flush(&self, partition: u16, lane: Lane) -> bool {
        self.flushes.get(usize::from(partition)).is_some_and(|lanes| lanes[lane.index()].is_none())
    }

    /// As [`PartialNode::may_flush`], by a shard that has something to hand over: from now on it waits.
    pub fn wants_flush(&mut self, now: Mono, partition: u16, lane: Lane) -> bool {
        let Some(lanes) = self.flushes.get_mut(usize::from(partition)) else { return false };
        match &mut lanes[lane.index()] {
            Some(out) => {
                out.wanted.get_or_insert(now);
                false
            }
            None => true,
        }
    }

    /// How long partials of live traffic have waited for the answer to an earlier flush, where the final node is there
    /// to give it: for a dead one everything waits, which says nothing of the others.
    pub(super) fn flush_delay(&self, now: Mono) -> Duration {
        let waits = |(partition, lanes): (usize, &[Option<InFlush>; 2])| {
            let up = self.settings.owners.get(partition).and_then(|owner| self.owners_up.get(*owner));
            let wanted = lanes[Lane::First.index()].as_ref().and_then(|out| out.wanted);
            wanted.filter(|_| up == Some(&true))
        };
        let since = self.flushes.iter().enumerate().filter_map(waits).min();
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// A shard hands partials over. False, and nothing happens, if the shard is a ghost (a newer generation runs) or a
    /// flush is still out.
    pub fn built(&mut self, shard: usize, generation: u64, built: Built) -> bool {
        let current = self.generations.get(shard) == Some(&generation);
        if !current || built.groups.is_empty() || !self.may_flush(built.partition, built.lane) {
            return false;
        }
        for member in built.groups.iter().flat_map(|group| &group.included) {
            if let Some(held) = self.held.get_mut(&member.id) {
                set_part(held, built.partition, Part::InFlush);
            }
            if mutant!("ack_before_log") {
                self.part_done(member.id, built.partition);
            }
        }
        let flush =
            Flush { number: self.next_flush, partition: built.partition, lane: built.lane, groups: built.groups };
        self.next_flush = self.next_flush.wrapping_add(1);
        if let Some(lanes) = self.flushes.get_mut(usize::from(built.partition)) {
            lanes[built.lane.index()] = Some(InFlush { flush, sent: None, wanted: None });
        }
        true
    }

    /// The next flush to write to a final node, lane F first; it counts as sent from now on.
    pub fn next_flush(&mut self, now: Mono, owner: usize) -> Option<&Flush> {
        if self.held_off.get(owner) == Some(&true) {
            return None;
        }
        let timeout = self.settings.flush_timeout;
        let owners = &self.settings.owners;
        let due = |out: &InFlush| out.sent.is_none_or(|at| now.since(at) > timeout && !mutant!("flush_not_sent_again"));
        let mine = |partition: usize| owners.get(partition) == Some(&owner);
        let (partition, lane) = Lane::ALL.into_iter().find_map(|lane| {
            let flushes = self.flushes.iter().enumerate().filter(|(partition, _)| mine(*partition));
            let mut flushes = flushes.filter(|(_, lanes)| lanes[lane.index()].as_ref().is_some_and(due));
            flushes.next().map(|(partition, _)| (partition, lane))
        })?;
        let next = self.flushes.get_mut(partition)?[lane.index()].as_mut()?;
        next.sent = Some(now);
        Some(&next.flush)
    }

    /// The link to a final node is new: what is unanswered goes again.
    pub fn owner_connected(&mut self, owner: usize) {
        if let Some(up) = self.owners_up.get_mut(owner) {
            *up = true;
        }
        for (partition, lanes) in self.flushes.iter_mut().enumerate() {
            if self.settings.owners.get(partition) == Some(&owner) {
                lanes.iter_mut().flatten().for_each(|out| out.sent = None);
            }
        }
    }

    /// Which final nodes get no flushes, and none of whose batches are taken: an operator drained them. What is out to
    /// them may still be answered, and what is held waits.
    pub fn hold_off(&mut self, held_off: &[bool]) {
        for (mine, held_off) in self.held_off.iter_mut().zip(held_off) {
            *mine = *held_off;
        }
    }

    /// The link to a final node is gone.
    pub fn owner_disconnected(&mut self, owner: usize) {
        if let Some(up) = self.owners_up.get_mut(owner) {
            *up = false;
        }
    }

    /// A final node answered. An answer to a flush that is not out (an old number) is ignored.
    pub fn flush_reply(&mut self, reply: &FlushReply) {
        let Some(lanes) = self.flushes.get_mut(usize::from(reply.partition)) else { return };
        let slot = &mut lanes[reply.lane.index()];
        let Some(out) =
            slot.take_if(|out| out.flush.number == reply.number && out.flush.groups.len() == reply.groups.len())
        else {
            return;
        };
        for (group, answer) in out.flush.groups.iter().zip(&reply.groups) {
            self.settle(reply.partition, group, answer);
        }
    }

    fn settle(&mut self, partition: u16, group: &Group, answer: &GroupReply) {
        for member in &group.included {
            match answer {
                GroupReply::Merged => self.part_done(member.id, partition),
                GroupReply::Refused { .. } if mutant!("refused_not_rebuilt") => self.part_done(member.id, partition),
                GroupReply::Refused { included } if included.contains(&member.id) => {
                    self.part_done(member.id, partition)
                }
                GroupReply::TooManyHoles { ids } if ids.contains(&member.id) => {
                    self.give_up(member.id, NackReason::TooManyHoles);
                }
                GroupReply::DuplicateSender { ids } if ids.contains(&member.id) => {
                    self.give_up(member.id, NackReason::DuplicateSender);
                }
                GroupReply::Retired { ids, floor } if ids.contains(&member.id) => {
                    self.give_up(member.id, NackReason::Retired { floor: *floor });
                }
                GroupReply::Refused { .. }
                | GroupReply::TooManyHoles { .. }
                | GroupReply::DuplicateSender { .. }
                | GroupReply::Retired { .. }
                | GroupReply::Malformed => self.rebuild(member.id, partition),
            }
        }
    }

    fn rebuild(&mut self, id: BatchId, partition: u16) {
        let Some(held) = self.held.get_mut(&id) else { return };
        set_part(held, partition, Part::Folding(Lane::Suspect));
        let (batch, class) = (held.batch.clone(), held.class);
        self.rebuilt += 1;
        self.fold(&batch, PartitionSet::default().with(partition), Lane::Suspect, class);
    }
}
