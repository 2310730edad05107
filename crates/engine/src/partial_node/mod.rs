//! A partial node: it takes raw batches, has its shards fold them into partials, and answers for them when the final
//! layer says that they are durable. It has no disk and no dedupe memory, and may be lost for ever at any time.
//!
//! Per batch and partition that it feeds:
//!
//! ```text
//!          batch                 shard hands over            FlushReply
//!   (link) -----> Folding(lane) -----------------> InFlush -------------> Done   all Done: Durable to who sent it
//!                    ^                                |
//!                    +--------- refused with others --+   (rebuilt from the raw batch, lane S)
//! ```
//!
//! * At most one flush a partition and lane is out; it is re-sent verbatim until answered. A final node answers one it
//!   has merged already with "included", so nothing is merged twice.
//! * A shard that dies takes its unflushed partials with it: [`PartialNode::shard_started`] gives its successor every
//!   batch again whose partitions are still Folding there. A batch in hand at two deaths is poison: refused for good.
//! * Losing the whole machine is safe, too: relays hold every batch until it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::batch::{Batch, BatchId, Incarnation, PartitionSet, Versions};
use crate::time::Mono;
use crate::wire::{Durable, Flush, FlushReply, Group, GroupReply, Lane, NackReason, Range};

/// A link from a relay or replayer, numbered by the shell, never reused.
pub type Connection = u64;

/// A batch that killed its shard so often is not tried again.
const STRIKES_MAX: u8 = 2;
/// What an overloaded node asks a sender to wait.
const RETRY_AFTER_MS: u32 = 500;
/// No link gets a smaller window than this: a batch or three.
const WINDOW_MIN: u64 = 1 << 20;

/// Names and bounds of one partial node.
#[derive(Clone, Debug)]
pub struct Settings {
    pub versions: Versions,
    pub partitions: u16,
    /// How many final nodes there are; partition `p` belongs to number `owners[p]`.
    pub owners: Vec<usize>,
    pub shards: usize,
    /// Bytes of raw batches to hold.
    pub hold_bytes: u64,
    /// An unanswered flush is sent again after this long.
    pub flush_timeout: Duration,
    /// Where flush numbers start: random, so that two lives of a node do not use the same.
    pub first_flush: u64,
}

/// A batch for one shard: fold its points that belong to `partitions` into `lane`.
#[derive(Clone, Debug)]
pub struct Work {
    pub shard: usize,
    pub batch: Batch,
    pub partitions: PartitionSet,
    pub lane: Lane,
}

/// What a shard hands over: partials, and which batches' points are in them. Every batch that was folded is listed,
/// also one that this machine has given up meanwhile: partials without their identities would be counted twice.
#[derive(Clone, Debug)]
pub struct Built {
    pub partition: u16,
    pub lane: Lane,
    pub groups: Vec<Group>,
}

/// The books in points: `received = delivered + in_flight + sum(dropped)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub received: u64,
    pub delivered: u64,
    pub in_flight: u64,
    pub dropped: BTreeMap<&'static str, u64>,
    /// Batches that came again while they were held; not part of the equation.
    pub duplicates: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Folding(Lane),
    InFlush,
    Done,
}

#[derive(Debug)]
struct Held {
    batch: Batch,
    origins: BTreeSet<Connection>,
    parts: Vec<(u16, Part)>,
}

#[derive(Debug)]
struct InFlush {
    flush: Flush,
    sent: Option<Mono>,
}

#[derive(Debug, Default)]
struct Origin {
    durable: Vec<BatchId>,
    nacks: Vec<(BatchId, NackReason)>,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct PartialNode {
    settings: Settings,
    held: BTreeMap<BatchId, Held>,
    held_bytes: u64,
    origins: BTreeMap<Connection, Origin>,
    flushes: Vec<[Option<InFlush>; 2]>,
    next_flush: u64,
    generations: Vec<u64>,
    strikes: BTreeMap<BatchId, u8>,
    work: Vec<Work>,
    rebuilt: u64,
    books: Books,
}

impl PartialNode {
    /// An empty node.
    pub fn new(settings: Settings) -> PartialNode {
        PartialNode {
            held: BTreeMap::new(),
            held_bytes: 0,
            origins: BTreeMap::new(),
            flushes: (0..settings.partitions).map(|_| [None, None]).collect(),
            next_flush: settings.first_flush,
            generations: vec![0; settings.shards],
            strikes: BTreeMap::new(),
            work: Vec::new(),
            rebuilt: 0,
            books: Books::default(),
            settings,
        }
    }

    /// Which shard folds a partition.
    pub fn shard_of(&self, partition: u16) -> usize {
        usize::from(partition) % self.settings.shards.max(1)
    }

    /// A sender said hello and was welcome.
    pub fn connected(&mut self, connection: Connection) {
        self.origins.insert(connection, Origin::default());
    }

    /// A sender is gone. What it sent is folded already and goes on; nobody needs an answer.
    pub fn disconnected(&mut self, connection: Connection) {
        self.origins.remove(&connection);
        for held in self.held.values_mut() {
            held.origins.remove(&connection);
        }
    }

    /// How many bytes one sender may have out without an answer.
    pub fn window_bytes(&self) -> u64 {
        let senders = self.origins.len().max(1) as u64;
        (self.settings.hold_bytes / senders).max(WINDOW_MIN)
    }

    /// Takes a batch, or queues the refusal.
    pub fn batch(&mut self, from: Connection, batch: Batch, attempt: bool) {
        let id = batch.id();
        if let Some(held) = self.held.get_mut(&id) {
            held.origins.insert(from);
            self.books.duplicates += 1;
            return;
        }
        if let Some(reason) = self.refusal(&batch) {
            if let Some(origin) = self.origins.get_mut(&from) {
                origin.nacks.push((id, reason));
            }
            return;
        }
        let lane = if attempt { Lane::Suspect } else { Lane::First };
        let partitions = batch.header().partitions();
        let points = u64::from(batch.header().points);
        self.books.received += points;
        self.books.in_flight += points;
        self.held_bytes += batch.bytes().len() as u64;
        let parts = partitions.iter().map(|partition| (partition, Part::Folding(lane))).collect();
        self.held.insert(id, Held { batch: batch.clone(), origins: BTreeSet::from([from]), parts });
        self.fold(&batch, partitions, lane);
    }

    fn refusal(&self, batch: &Batch) -> Option<NackReason> {
        let header = batch.header();
        let known = header.versions == self.settings.versions
            && header.claims.last().is_some_and(|claim| claim.partition < self.settings.partitions);
        if !known {
            return Some(NackReason::UnknownVersion);
        }
        if self.strikes.get(&header.id).is_some_and(|strikes| *strikes >= STRIKES_MAX) {
            return Some(NackReason::Poison);
        }
        // Windows keep senders below `hold_bytes`; what was left behind by links that broke may double it.
        let full = self.held_bytes + batch.bytes().len() as u64 > self.settings.hold_bytes.saturating_mul(2);
        full.then_some(NackReason::Overloaded { retry_after_ms: RETRY_AFTER_MS })
    }

    fn fold(&mut self, batch: &Batch, partitions: PartitionSet, lane: Lane) {
        let mut by_shard = vec![PartitionSet::default(); self.settings.shards];
        for partition in partitions.iter() {
            let shard = self.shard_of(partition);
            by_shard[shard] = by_shard[shard].with(partition);
        }
        for (shard, partitions) in by_shard.into_iter().enumerate() {
            if !partitions.is_empty() {
                self.work.push(Work { shard, batch: batch.clone(), partitions, lane });
            }
        }
    }

    /// Puts the machine right after a panic inside it: everything soft is thrown away. What shards have folded still
    /// goes out with its identities; relays send what they get no answer for again, and the final layer knows it.
    /// Senders and shards stay known. What was in flight is no longer received: it will be received again.
    pub fn recover(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.work.clear();
        self.flushes.iter_mut().for_each(|lanes| *lanes = [None, None]);
        self.origins.values_mut().for_each(|origin| *origin = Origin::default());
        self.books.in_flight = 0;
        self.books.received = self.books.delivered + self.books.dropped.values().sum::<u64>();
    }

    /// What the shell owes the shards; to be handed over before the machine is used again.
    pub fn take_work(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.work)
    }

    /// A shard begins, or begins again under a new generation with nothing in memory.
    ///
    /// `in_hand`: what its predecessor was working on when it died. Everything the shard must fold is in
    /// [`PartialNode::take_work`] afterwards; what was queued for the predecessor is to be thrown away.
    pub fn shard_started(&mut self, shard: usize, generation: u64, in_hand: Option<BatchId>) {
        if let Some(current) = self.generations.get_mut(shard) {
            *current = generation;
        }
        if let Some(id) = in_hand {
            let strikes = self.strikes.entry(id).or_default();
            *strikes += 1;
            if *strikes >= STRIKES_MAX {
                self.give_up(id, NackReason::Poison);
            }
        }
        self.work.retain(|work| work.shard != shard);
        let again: Vec<(Batch, PartitionSet, Lane)> =
            self.held.values().flat_map(|held| self.still_folding(held, shard)).collect();
        for (batch, partitions, lane) in again {
            self.work.push(Work { shard, batch, partitions, lane });
        }
    }

    fn still_folding(&self, held: &Held, shard: usize) -> Vec<(Batch, PartitionSet, Lane)> {
        Lane::ALL
            .into_iter()
            .filter_map(|lane| {
                let partitions = held
                    .parts
                    .iter()
                    .filter(|(partition, part)| *part == Part::Folding(lane) && self.shard_of(*partition) == shard)
                    .fold(PartitionSet::default(), |set, (partition, _)| set.with(*partition));
                (!partitions.is_empty()).then(|| (held.batch.clone(), partitions, lane))
            })
            .collect()
    }

    /// Whether a shard may hand over a flush of this partition and lane: none is out.
    pub fn may_flush(&self, partition: u16, lane: Lane) -> bool {
        self.flushes.get(usize::from(partition)).is_some_and(|lanes| lanes[lane.index()].is_none())
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
        }
        let flush =
            Flush { number: self.next_flush, partition: built.partition, lane: built.lane, groups: built.groups };
        self.next_flush = self.next_flush.wrapping_add(1);
        if let Some(lanes) = self.flushes.get_mut(usize::from(built.partition)) {
            lanes[built.lane.index()] = Some(InFlush { flush, sent: None });
        }
        true
    }

    /// The next flush to write to a final node; it counts as sent from now on.
    pub fn next_flush(&mut self, now: Mono, owner: usize) -> Option<&Flush> {
        let timeout = self.settings.flush_timeout;
        let owners = &self.settings.owners;
        let next = self
            .flushes
            .iter_mut()
            .enumerate()
            .filter(|(partition, _)| owners.get(*partition) == Some(&owner))
            .flat_map(|(_, lanes)| lanes.iter_mut().flatten())
            .find(|out| out.sent.is_none_or(|at| now.since(at) > timeout))?;
        next.sent = Some(now);
        Some(&next.flush)
    }

    /// The link to a final node is new: what is unanswered goes again.
    pub fn owner_connected(&mut self, owner: usize) {
        for (partition, lanes) in self.flushes.iter_mut().enumerate() {
            if self.settings.owners.get(partition) == Some(&owner) {
                lanes.iter_mut().flatten().for_each(|out| out.sent = None);
            }
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
        let batch = held.batch.clone();
        self.rebuilt += 1;
        self.fold(&batch, PartitionSet::default().with(partition), Lane::Suspect);
    }

    fn part_done(&mut self, id: BatchId, partition: u16) {
        let Some(held) = self.held.get_mut(&id) else { return };
        set_part(held, partition, Part::Done);
        if held.parts.iter().all(|(_, part)| *part == Part::Done)
            && let Some(held) = self.release(id)
        {
            self.books.delivered += u64::from(held.batch.header().points);
            for connection in held.origins {
                if let Some(origin) = self.origins.get_mut(&connection) {
                    origin.durable.push(id);
                }
            }
        }
    }

    fn give_up(&mut self, id: BatchId, why: NackReason) {
        if let Some(held) = self.release(id) {
            *self.books.dropped.entry(why.as_str()).or_default() += u64::from(held.batch.header().points);
            for connection in held.origins {
                if let Some(origin) = self.origins.get_mut(&connection) {
                    origin.nacks.push((id, why));
                }
            }
        }
    }

    fn release(&mut self, id: BatchId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.held_bytes -= held.batch.bytes().len() as u64;
        self.books.in_flight -= u64::from(held.batch.header().points);
        if self.strikes.get(&id).is_none_or(|strikes| *strikes < STRIKES_MAX) {
            self.strikes.remove(&id);
        }
        Some(held)
    }

    /// What one sender must be told: batches that are durable, and refusals.
    pub fn answers(
        &mut self,
        connection: Connection,
        queue_delay: Duration,
    ) -> (Option<Durable>, Vec<(BatchId, NackReason)>) {
        let window_bytes = self.window_bytes();
        let Some(origin) = self.origins.get_mut(&connection) else { return (None, Vec::new()) };
        let nacks = std::mem::take(&mut origin.nacks);
        let mut done = std::mem::take(&mut origin.durable);
        if done.is_empty() {
            return (None, nacks);
        }
        done.sort_unstable();
        let queue_delay_ms = u32::try_from(queue_delay.as_millis()).unwrap_or(u32::MAX);
        (Some(Durable { ranges: ranges(&done), queue_delay_ms, window_bytes }), nacks)
    }

    /// Whether an incarnation is one of another process on a copied disk, as far as what is held tells.
    pub fn is_impostor(&self, hello: Incarnation) -> bool {
        let from = BatchId { sender: hello.sender, epoch: hello.epoch, seq: 0 };
        let to = BatchId { seq: u32::MAX, ..from };
        self.held.range(from..=to).next().is_some_and(|(_, held)| held.batch.header().nonce != hello.nonce)
    }

    /// The books.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Bytes and batches held.
    pub fn held(&self) -> (u64, usize) {
        (self.held_bytes, self.held.len())
    }

    /// Batches that were folded again because a flush was refused.
    pub fn rebuilt(&self) -> u64 {
        self.rebuilt
    }
}

fn set_part(held: &mut Held, partition: u16, part: Part) {
    if let Some(entry) = held.parts.iter_mut().find(|(number, _)| *number == partition) {
        entry.1 = part;
    }
}

/// Sorted ids as runs of one sender and epoch.
fn ranges(sorted: &[BatchId]) -> Vec<Range> {
    let mut runs: Vec<Range> = Vec::new();
    for id in sorted {
        match runs.last_mut() {
            Some(run)
                if run.sender == id.sender && run.epoch == id.epoch && run.last.checked_add(1) == Some(id.seq) =>
            {
                run.last = id.seq;
            }
            _ => runs.push(Range { sender: id.sender, epoch: id.epoch, first: id.seq, last: id.seq }),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
