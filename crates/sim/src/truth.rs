//! What the simulator knows and no node does: every batch that was sealed, what became of it at its relay, and which
//! batches stand in which record of which partition's log.

use std::collections::{BTreeMap, BTreeSet};

use engine::batch::{BatchId, Incarnation, PartitionSet};
use engine::wire::Included;

use crate::file::FileId;
use crate::lines::Lines;

/// One point as a client sent it. `series`: index into the setup's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub series: usize,
    pub value: i64,
    pub at: u32,
}

/// Where a batch is, as far as its relay has to answer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The relay holds it in memory.
    Held,
    /// The relay let it go because it is durable in the final layer.
    Durable,
    /// The relay let it go because its spill has it, synced.
    Spilled,
    /// The relay counted it as dropped: it may be in, or not.
    Dropped,
    /// The relay died, or lost its disk, while it alone had it: it may be in each partition, or not.
    Doubtful,
}

/// A sealed batch.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub points: Vec<Point>,
    pub partitions: PartitionSet,
    /// Whose rules it was made for.
    pub file: FileId,
    pub fate: Fate,
}

/// One partition's log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The records that were appended and not taken back by a crash.
    pub records: BTreeMap<u64, Vec<Included>>,
    /// Records below this number are synced: nothing may take them back.
    pub durable: u64,
    /// The file beside the store knows of the records below this number.
    witnessed: u64,
    /// Records that retire a sender's epochs up to one: record, sender, epoch.
    retired: Vec<(u64, u64, u32)>,
    /// Of each sender and epoch the nonce that came first, and in which record.
    nonces: BTreeMap<(u64, u32), (u64, u64)>,
    /// One copy of its checkpoint was damaged: nothing may come of it but a word.
    pub scratched: bool,
    /// Its store was lost as a whole, with so many durable points; `None` in it: and nothing is left that knows how many.
    pub lost: Option<Option<u64>>,
    /// Damage was done to it: what is in is not known for certain.
    pub damaged: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Truth {
    pub batches: BTreeMap<BatchId, Sealed>,
    pub logs: BTreeMap<u16, Log>,
    /// Which partition has a batch durably. Kept beside the logs, because it is asked often.
    in_log: BTreeMap<BatchId, BTreeMap<u16, u32>>,
    /// Reasons for which points may be dropped in this run; all others are a violation.
    pub allowed: BTreeSet<&'static str>,
    /// Senders that an operator has forgotten: what is not durable then may stay so.
    pub forgotten: BTreeSet<u64>,
    /// There are relays with copies of one disk.
    pub has_clones: bool,
    lives: BTreeMap<(u64, u32), u64>,
    /// Senders and epochs that two relays have, so that only their nonces differ.
    twins: BTreeSet<(u64, u32)>,
    /// Batches that were given out before the store of a partition that they feed was lost.
    lost: BTreeSet<BatchId>,
    /// Senders whose next batch kills whoever folds it, and such batches.
    pub poison_next: BTreeSet<u64>,
    pub poison: BTreeSet<BatchId>,
    /// Points that may be in the stores or not, whose rules they were sent under, and in which partition if not in all.
    pub unsure: Vec<(Point, FileId, Option<u16>)>,
    /// Raw lines.
    pub lines: Lines,
    /// What went wrong, the first first.
    pub violations: Vec<String>,
    /// States visited, and how often: rare branches must be met in some seed.
    pub seen: BTreeMap<&'static str, u64>,
}

impl Truth {
    /// Something must not be. Only the first few are kept.
    pub fn violated(&mut self, invariant: &str, what: impl FnOnce() -> String) {
        if self.violations.len() < 5 {
            self.violations.push(format!("{invariant}: {}", what()));
        }
    }

    /// Points were dropped for this reason.
    pub fn dropped(&mut self, why: &'static str) {
        if !self.allowed.contains(why) {
            self.violated("INV-2", || {
                format!("points were dropped as {why}, and nothing happened that is a reason for it")
            });
        }
    }

    /// A branch was taken.
    pub fn visit(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// One copy of a partition's checkpoint is damaged.
    pub fn scratched(&mut self, partition: u16) {
        self.logs.entry(partition).or_default().scratched = true;
    }

    /// The file beside the store says how far a partition is now.
    pub fn witnessed(&mut self, partition: u16) {
        let log = self.logs.entry(partition).or_default();
        log.witnessed = log.durable;
    }

    /// A partition's store is lost as a whole. `knows`: the file beside it that counts is left.
    pub fn lost(&mut self, partition: u16, knows: bool) {
        let log = self.logs.remove(&partition).unwrap_or_default();
        let known = log.records.range(..log.witnessed).flat_map(|(_, included)| included);
        let points: u64 = known.map(|one| u64::from(one.points)).sum();
        let before = log.lost.map_or(Some(0), |before| before);
        let lost = Some(before.map(|before| before + points).filter(|_| knows));
        self.logs.insert(partition, Log { lost, scratched: log.scratched, ..Log::default() });
        for (id, sealed) in self.batches.iter().filter(|(_, sealed)| sealed.partitions.contains(partition)) {
            self.lost.insert(*id);
            self.unsure.extend(sealed.points.iter().map(|point| (*point, sealed.file, Some(partition))));
        }
        self.in_log.values_mut().for_each(|partitions| _ = partitions.remove(&partition));
    }

    /// A relay's process begins. Where disks were copied another one may have the same epoch: only the nonce tells whose
    /// batch is whose, and the truth has no nonces. It is sure of none of them, then.
    pub fn began(&mut self, who: Incarnation) {
        let other = self.lives.insert((who.sender, who.epoch), who.nonce);
        if self.has_clones && other.is_some() {
            self.visit("two relays in one epoch");
            self.twins.insert((who.sender, who.epoch));
            let of = |seq| BatchId { sender: who.sender, epoch: who.epoch, seq };
            for (_, sealed) in self.batches.range(of(0)..=of(u32::MAX)) {
                self.unsure.extend(sealed.points.iter().map(|point| (*point, sealed.file, None)));
            }
        }
    }

    /// A relay gave a batch its name.
    pub fn sealed(&mut self, id: BatchId, points: Vec<Point>, partitions: PartitionSet, file: FileId) {
        let clashes = self.twins.contains(&(id.sender, id.epoch));
        if clashes {
            self.unsure.extend(points.iter().map(|point| (*point, file, None)));
        }
        let sealed = Sealed { points, partitions, file, fate: Fate::Held };
        if self.batches.contains_key(&id) {
            if !clashes {
                self.violated("INV-3", || format!("{id:?} was given out twice"));
            }
            self.visit("two batches of one name");
        }
        self.batches.insert(id, sealed);
        if self.poison_next.remove(&id.sender) {
            self.poison.insert(id);
        }
    }

    /// A record was appended that retires a sender's epochs up to `floor`.
    pub fn retired(&mut self, partition: u16, number: u64, sender: u64, floor: u32) {
        self.logs.entry(partition).or_default().retired.push((number, sender, floor));
    }

    /// A record was appended; it may still be taken back by a crash.
    pub fn appended(&mut self, partition: u16, number: u64, included: Vec<Included>) {
        let log = self.logs.entry(partition).or_default();
        let mut impostor = None;
        for one in &included {
            let (nonce, _) = log.nonces.entry((one.id.sender, one.id.epoch)).or_insert((one.nonce, number));
            impostor = impostor.or((*nonce != one.nonce).then_some(one.id));
        }
        let gone = included.iter().find(|one| {
            let is_of = |(_, sender, floor): &(u64, u64, u32)| one.id.sender == *sender && one.id.epoch <= *floor;
            one.points > 0 && log.retired.iter().any(is_of)
        });
        if let Some(one) = included.iter().find(|one| self.poison.contains(&one.id) && one.points > 0) {
            let id = one.id;
            self.violated("INV-7", || format!("partition {partition} merges {id:?}, which nobody could fold"));
            return;
        }
        let gone = gone.filter(|_| !log.damaged).map(|one| one.id);
        let impostor = impostor.filter(|_| !log.damaged);
        if let Some(id) = gone {
            self.violated("INV-3", || format!("partition {partition} merges {id:?}, whose epoch it has retired"));
        }
        if let Some(id) = impostor {
            self.violated("INV-3", || format!("partition {partition} merges {id:?} of two relays with one name"));
        }
        self.logs.entry(partition).or_default().records.insert(number, included);
    }

    /// Records up to and with this one are synced.
    pub fn synced(&mut self, partition: u16, number: u64) {
        let log = self.logs.entry(partition).or_default();
        let from = log.durable;
        if number < from {
            return;
        }
        log.durable = number + 1;
        let mut twice = Vec::new();
        for included in log.records.range(from..=number).flat_map(|(_, included)| included) {
            let count = self.in_log.entry(included.id).or_default().entry(partition).or_default();
            *count += 1;
            // Canaries have no points: one that comes twice changes nothing.
            if *count > 1 && included.points > 0 {
                twice.push(included.id);
            }
        }
        for id in twice {
            let log = self.logs.get(&partition).cloned().unwrap_or_default();
            let has = |included: &Vec<Included>| included.iter().any(|one| one.id == id);
            let places: Vec<u64> = log.records.iter().filter(|(_, of)| has(of)).map(|(number, _)| *number).collect();
            self.violated("INV-3", || format!("partition {partition} has merged {id:?} twice, in records {places:?}"));
        }
    }

    /// A partition was recovered and goes on with record `next`.
    pub fn recovered(&mut self, partition: u16, next: u64) {
        let log = self.logs.entry(partition).or_default();
        let durable = log.durable;
        log.records.retain(|number, _| *number < next);
        log.retired.retain(|(number, ..)| *number < next);
        log.nonces.retain(|_, (_, number)| *number < next);
        if next < durable && !log.damaged {
            self.violated("INV-2", || {
                format!("partition {partition} came back with record {next} next, {durable} were durable")
            });
        }
        // What survived by chance is durable now: recovery has read it.
        if next > durable {
            self.synced(partition, next - 1);
        }
    }

    /// Whether a partition has a batch, durably.
    pub fn has(&self, partition: u16, id: BatchId) -> bool {
        self.in_log.get(&id).is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// Whether a batch is durable in every partition that it feeds.
    pub fn is_durable(&self, id: BatchId) -> bool {
        self.batches.get(&id).is_some_and(|sealed| sealed.partitions.iter().all(|partition| self.has(partition, id)))
    }

    /// Whether nobody can say if a batch is in: the final layer may have forgotten its word, or two batches have its name.
    pub fn is_damaged(&self, id: BatchId) -> bool {
        let damaged = |partition: u16| self.logs.get(&partition).is_some_and(|log| log.damaged);
        self.twins.contains(&(id.sender, id.epoch))
            || self.lost.contains(&id)
            || self.batches.get(&id).is_some_and(|sealed| sealed.partitions.iter().any(damaged))
    }

    /// Whether its relay has counted it as dropped.
    pub fn is_dropped(&self, id: BatchId) -> bool {
        self.batches.get(&id).is_some_and(|sealed| sealed.fate == Fate::Dropped)
    }

    /// Sets what became of a batch.
    pub fn set_fate(&mut self, id: BatchId, fate: Fate) {
        if let Some(sealed) = self.batches.get_mut(&id) {
            sealed.fate = fate;
        }
    }

    /// The relay that sealed these can answer for them no more, unless they are durable.
    pub fn doubt(&mut self, ids: impl IntoIterator<Item = BatchId>) {
        for id in ids {
            // What a relay still holds it answers for, whatever its disk does.
            if !self.is_durable(id) {
                self.set_fate(id, Fate::Doubtful);
            }
        }
    }

    /// Batches of a sender with this fate.
    pub fn of_sender(&self, sender: u64, fate: Fate) -> BTreeSet<BatchId> {
        let of = BatchId { sender, epoch: 0, seq: 0 }..=BatchId { sender, epoch: u32::MAX, seq: u32::MAX };
        self.batches.range(of).filter(|(_, sealed)| sealed.fate == fate).map(|(id, _)| *id).collect()
    }

    /// Every batch that is in a partition, durably.
    pub fn included(&self) -> impl Iterator<Item = (BatchId, u16)> {
        self.in_log.iter().flat_map(|(id, partitions)| partitions.keys().map(|partition| (*id, *partition)))
    }
}
