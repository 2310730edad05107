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
//! * Live first (INV-5): replay has a part of the memory, and only of what live leaves; its links' windows close while live
//!   waits, and open again with the `Durable` without ranges that they get twice a second. Its work is marked, so that
//!   shards take it only when no live work waits; lane F goes out before lane S.
//! * Losing the whole machine is safe, too: relays hold every batch until it is durable.

mod flushes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::batch::{Batch, BatchId, Incarnation, PartitionSet, Versions};
use crate::time::Mono;
use crate::wire::{Class, Durable, Flush, Group, Lane, NackReason, Range};

/// A link from a relay or replayer, numbered by the shell, never reused.
pub type Connection = u64;

/// A batch that killed its shard so often is not tried again.
const STRIKES_MAX: u8 = 2;
/// What an overloaded node asks a sender to wait.
const RETRY_AFTER_MS: u32 = 500;
/// No live link gets a smaller window than this: a batch or three.
const WINDOW_MIN: u64 = 1 << 20;
/// Replay may hold this part of the memory, if live leaves it.
const REPLAY_PART: u64 = 4;
/// While live work waits longer than this, replay gets no window.
const REPLAY_STOP: Duration = Duration::from_millis(250);
/// How often a replay link is told its window and the queue delay.
const TELL_REPLAY: Duration = Duration::from_millis(500);

/// Names and bounds of one partial node.
#[derive(Clone, Debug)]
pub struct Settings {
    pub versions: Versions,
    /// Versions of the rules of former days that the shards know: batches may still carry them.
    pub former_rules: BTreeSet<u64>,
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
    /// Replay waits until no live work does.
    pub class: Class,
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
    class: Class,
    origins: BTreeSet<Connection>,
    parts: Vec<(u16, Part)>,
}

#[derive(Debug)]
struct InFlush {
    flush: Flush,
    sent: Option<Mono>,
    /// Since when more of its partition and lane waits for its answer.
    wanted: Option<Mono>,
}

#[derive(Debug, Default)]
struct Origin {
    class: Class,
    /// When it was told of its window last.
    told: Option<Mono>,
    durable: Vec<BatchId>,
    nacks: Vec<(BatchId, NackReason)>,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct PartialNode {
    settings: Settings,
    held: BTreeMap<BatchId, Held>,
    held_bytes: u64,
    /// Part of `held_bytes`.
    replay_bytes: u64,
    /// For each final node, bytes of held batches that feed it; a batch that feeds two counts for both.
    bytes_for: Vec<u64>,
    origins: BTreeMap<Connection, Origin>,
    flushes: Vec<[Option<InFlush>; 2]>,
    owners_up: Vec<bool>,
    /// Which an operator holds off.
    held_off: Vec<bool>,
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
        let owners = settings.owners.iter().max().map_or(0, |most| most + 1);
        PartialNode {
            held: BTreeMap::new(),
            held_bytes: 0,
            replay_bytes: 0,
            bytes_for: vec![0; owners],
            origins: BTreeMap::new(),
            owners_up: vec![false; owners],
            held_off: vec![false; owners],
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

    /// A sender said hello and was welcome. `class`: what it sends.
    pub fn connected(&mut self, connection: Connection, class: Class) {
        self.origins.insert(connection, Origin { class, ..Origin::default() });
    }

    /// A sender is gone. What it sent is folded already and goes on; nobody needs an answer.
    pub fn disconnected(&mut self, connection: Connection) {
        self.origins.remove(&connection);
        for held in self.held.values_mut() {
            held.origins.remove(&connection);
        }
    }

    /// How many bytes one sender of this class may have out without an answer. Zero, for replay only, closes the window.
    ///
    /// `live_delay`: how long the oldest live work has waited for a shard.
    pub fn window_bytes(&self, now: Mono, class: Class, live_delay: Duration) -> u64 {
        let senders = self.origins.values().filter(|origin| origin.class == class).count().max(1) as u64;
        match class {
            Class::Live => (self.settings.hold_bytes / senders).max(WINDOW_MIN),
            Class::Replay if self.queue_delay(now, live_delay) > REPLAY_STOP => 0,
            Class::Replay => self.replay_room() / senders,
        }
    }

    /// What replay may hold: its part, or less where live leaves less.
    fn replay_room(&self) -> u64 {
        let live = self.held_bytes - self.replay_bytes;
        (self.settings.hold_bytes / REPLAY_PART).min(self.settings.hold_bytes.saturating_sub(live))
    }

    /// How long live work has waited: for a shard, or for the answer to the flush before its own.
    pub fn queue_delay(&self, now: Mono, live_delay: Duration) -> Duration {
        live_delay.max(self.flush_delay(now))
    }

    /// Takes a batch, or queues the refusal.
    pub fn batch(&mut self, from: Connection, batch: Batch, attempt: bool, class: Class) {
        let id = batch.id();
        if let Some(held) = self.held.get_mut(&id) {
            held.origins.insert(from);
            self.books.duplicates += 1;
            if mutant!("duplicate_counts") {
                self.books.received += 1;
            }
            return;
        }
        if let Some(reason) = self.refusal(&batch, class) {
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
        self.held_bytes += len(&batch);
        self.replay_bytes += if class == Class::Replay { len(&batch) } else { 0 };
        self.owners_of(partitions).for_each(|owner| self.bytes_for[owner] += len(&batch));
        let parts = partitions.iter().map(|partition| (partition, Part::Folding(lane))).collect();
        self.held.insert(id, Held { batch: batch.clone(), class, origins: BTreeSet::from([from]), parts });
        self.fold(&batch, partitions, lane, class);
    }

    /// The shards know these former rules from now on.
    pub fn know_rules(&mut self, version: u64) {
        self.settings.former_rules.insert(version);
    }

    fn refusal(&self, batch: &Batch, class: Class) -> Option<NackReason> {
        let header = batch.header();
        let Versions { rules, map } = self.settings.versions;
        let known = (header.versions.rules == rules || self.settings.former_rules.contains(&header.versions.rules))
            && header.versions.map == map
            && header.claims.last().is_some_and(|claim| claim.partition < self.settings.partitions);
        if !known {
            return Some(NackReason::UnknownVersion);
        }
        if self.strikes.get(&header.id).is_some_and(|strikes| *strikes >= STRIKES_MAX) {
            return Some(NackReason::Poison);
        }
        // Windows keep senders below `hold_bytes`; what was left behind by links that broke may double it.
        let full = match class {
            Class::Live => self.held_bytes + len(batch) > self.settings.hold_bytes.saturating_mul(2),
            // One batch goes in any case while live leaves room for it.
            Class::Replay => self.replay_bytes > 0 && self.replay_bytes + len(batch) > self.replay_room(),
        };
        let full = full || self.is_full_for_who_is_away(batch) || self.is_held_off(batch);
        full.then_some(NackReason::Overloaded { retry_after_ms: RETRY_AFTER_MS })
    }

    /// Half of the memory, in equal shares, is for final nodes that are away: beyond that their batches are refused, so
    /// that they do not take the place of the others' (and go to the relays' spills, where they belong).
    fn is_full_for_who_is_away(&self, batch: &Batch) -> bool {
        let share = self.settings.hold_bytes / 2 / (self.bytes_for.len().max(1) as u64);
        self.owners_of(batch.header().partitions())
            .any(|owner| !self.owners_up[owner] && self.bytes_for[owner] + len(batch) > share.max(WINDOW_MIN))
    }

    /// It feeds a final node that gets nothing now: relays spill it at once.
    fn is_held_off(&self, batch: &Batch) -> bool {
        self.owners_of(batch.header().partitions()).any(|owner| self.held_off.get(owner) == Some(&true))
    }

    /// The final nodes that these partitions belong to, each once.
    fn owners_of(&self, partitions: PartitionSet) -> impl Iterator<Item = usize> + use<> {
        let owner = |partition: u16| self.settings.owners.get(usize::from(partition)).copied();
        partitions.iter().filter_map(owner).collect::<BTreeSet<usize>>().into_iter()
    }

    fn fold(&mut self, batch: &Batch, partitions: PartitionSet, lane: Lane, class: Class) {
        let mut by_shard = vec![PartitionSet::default(); self.settings.shards];
        for partition in partitions.iter() {
            let shard = self.shard_of(partition);
            by_shard[shard] = by_shard[shard].with(partition);
        }
        for (shard, partitions) in by_shard.into_iter().enumerate() {
            if !partitions.is_empty() {
                self.work.push(Work { shard, batch: batch.clone(), partitions, lane, class });
            }
        }
    }

    /// Puts the machine right after a panic inside it: everything soft is thrown away. What shards have folded still
    /// goes out with its identities; relays send what they get no answer for again, and the final layer knows it.
    /// Senders and shards stay known. What was in flight is no longer received: it will be received again.
    pub fn recover(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.replay_bytes = 0;
        self.bytes_for.fill(0);
        self.work.clear();
        self.flushes.iter_mut().for_each(|lanes| *lanes = [None, None]);
        self.origins.values_mut().for_each(|origin| *origin = Origin { class: origin.class, ..Origin::default() });
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
        let again: Vec<Work> = self.held.values().flat_map(|held| self.still_folding(held, shard)).collect();
        if !mutant!("shard_forgets") {
            self.work.extend(again);
        }
    }

    fn still_folding(&self, held: &Held, shard: usize) -> Vec<Work> {
        Lane::ALL
            .into_iter()
            .filter_map(|lane| {
                let partitions = held
                    .parts
                    .iter()
                    .filter(|(partition, part)| *part == Part::Folding(lane) && self.shard_of(*partition) == shard)
                    .fold(PartitionSet::default(), |set, (partition, _)| set.with(*partition));
                let (batch, class) = (held.batch.clone(), held.class);
                (!partitions.is_empty()).then_some(Work { shard, batch, partitions, lane, class })
            })
            .collect()
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
        self.held_bytes -= len(&held.batch);
        self.replay_bytes -= if held.class == Class::Replay { len(&held.batch) } else { 0 };
        let owners = self.owners_of(held.batch.header().partitions());
        owners.for_each(|owner| self.bytes_for[owner] -= len(&held.batch));
        self.books.in_flight -= u64::from(held.batch.header().points);
        if self.strikes.get(&id).is_none_or(|strikes| *strikes < STRIKES_MAX) {
            self.strikes.remove(&id);
        }
        Some(held)
    }

    /// What one sender must be told: batches that are durable, and refusals. A replay link is also told its window and
    /// the queue delay twice a second, so that one that was stopped learns when it may go on.
    ///
    /// `live_delay`: how long the oldest live work has waited for a shard.
    pub fn answers(
        &mut self,
        now: Mono,
        connection: Connection,
        live_delay: Duration,
    ) -> (Option<Durable>, Vec<(BatchId, NackReason)>) {
        let class = self.origins.get(&connection).map_or(Class::Live, |origin| origin.class);
        let window_bytes = self.window_bytes(now, class, live_delay);
        let queue_delay = self.queue_delay(now, live_delay);
        let Some(origin) = self.origins.get_mut(&connection) else { return (None, Vec::new()) };
        let nacks = std::mem::take(&mut origin.nacks);
        let mut done = std::mem::take(&mut origin.durable);
        let told = origin.told.is_some_and(|at| now.since(at) < TELL_REPLAY);
        if done.is_empty() && (class == Class::Live || told) {
            return (None, nacks);
        }
        origin.told = Some(now);
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

    /// Bytes held of replay; part of [`PartialNode::held`].
    pub fn replay_held(&self) -> u64 {
        self.replay_bytes
    }

    /// Batches that were folded again because a flush was refused.
    pub fn rebuilt(&self) -> u64 {
        self.rebuilt
    }
}

fn len(batch: &Batch) -> u64 {
    batch.bytes().len() as u64
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
