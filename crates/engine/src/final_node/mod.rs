//! A final node owns the truth of its partitions. One [`Partition`] is single-threaded and obeys the one atomic rule:
//!
//! ```text
//!  Flush --check--> one log record {identities + deltas} --append, sync--> merge into windows, then answer
//!            \--> refused, or included already ------------- sync ------> answer
//! ```
//!
//! * Identities and deltas are in one record: a crash keeps both or none.
//! * Every answer, also "included already", waits until everything appended before it is synced: it speaks of state
//!   that must not be forgotten again.
//! * Windows change only when the record is synced, so nothing is emitted that a crash could take back.
//! * State is a fold of the records since the last checkpoint over that checkpoint ([`Partition::recover`]): restart at
//!   any instant changes no value.
//! * Most windows of the horizon are on disk only. A record that changes such a window waits until its block was read;
//!   the answer does not.
//!
//! `keys`, `record`, `meta` and `dead` draw what is in the store; `cursor` says which stores may lack which windows.

pub mod cursor;
pub mod dead;
pub mod emit;
pub mod included;
pub mod keys;
mod meta;
pub mod pace;
pub mod record;
mod recover;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::deltas;
use crate::time::UnixSeconds;
use crate::window::{BlockId, Merged, Windows};
use crate::wire::{Flush, FlushReply, Group, GroupReply};
use cursor::Cursor;
use dead::Dead;
use included::{IncludedSet, Known, Objection};
use meta::Meta;
pub use recover::{Finding, Found, Snapshots};

/// Why stored bytes cannot be taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "checkpoint of partition {partition} was written by format {version}; this is format 1: run the version that wrote it"
    )]
    NewerFormat { partition: u16, version: u8 },
}

/// What the shell must do about a flush: append the record if there is one, and give the reply once everything up to
/// and including record `after` is synced. `loads`: blocks that [`Partition::synced`] will need, to be read meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub record: Option<Vec<u8>>,
    pub reply: FlushReply,
    pub after: u64,
    pub loads: Vec<BlockId>,
}

/// What a checkpoint writes in one atomic batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Once it is durable, nobody reads records below this number any more ...
    pub log_from: u64,
    /// ... nor blocks of windows before this.
    pub floor: UnixSeconds,
}

/// The books of one partition, in points. `received = merged + too_old + corrupt + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub received: u64,
    pub merged: u64,
    pub too_old: u64,
    /// Lost by damage of the store, or refused because they belong to a window that was.
    pub corrupt: u64,
    /// Appended, not merged yet.
    pub pending: u64,
    /// Points of `merged` that changed a window that was emitted before.
    pub corrected: u64,
    /// Points of `merged` in windows that are past the horizon.
    pub sealed: u64,
    /// Groups that were included already; they changed nothing.
    pub duplicates: u64,
}

/// How far a partition is, for a file beside the store: it tells what is gone even when the whole store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of the next record.
    pub next: u64,
    /// Points in all records.
    pub received: u64,
    pub too_old: u64,
    pub corrupt: u64,
    pub sealed: u64,
}

/// One partition. See the module's head.
#[derive(Debug)]
pub struct Partition {
    number: u16,
    included: IncludedSet,
    windows: Windows,
    /// The number of the next record.
    next: u64,
    /// The first record that the checkpoint does not hold.
    log_from: u64,
    log_bytes: u64,
    pending: VecDeque<(u64, Vec<Bytes>, u64)>,
    cursor: Cursor,
    dead: Dead,
    books: Books,
}

impl Partition {
    /// An empty partition. `targets`: names of the stores' addresses, see [`Cursor`].
    pub fn new(number: u16, targets: &[String]) -> Partition {
        Partition {
            number,
            included: IncludedSet::new(),
            windows: Windows::new(UnixSeconds(0)),
            next: 0,
            log_from: 0,
            log_bytes: 0,
            pending: VecDeque::new(),
            cursor: Cursor::new(targets, Vec::new()),
            dead: Dead::default(),
            books: Books::default(),
        }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Takes a flush: decides which groups may be merged and makes the one record of them.
    pub fn flush(&mut self, flush: Flush) -> Outcome {
        let Flush { number, partition, lane, groups } = flush;
        let mut replies = Vec::with_capacity(groups.len());
        let mut taken = Vec::new();
        let mut points = 0;
        for group in groups {
            let reply = match self.judge(&group) {
                Ok(of_group) => {
                    group.included.iter().for_each(|member| self.included.insert(member));
                    points += of_group;
                    taken.push(group);
                    GroupReply::Merged
                }
                Err(reply) => {
                    // A canary that comes after what claims its number is nobody's duplicate.
                    let has_points = group.included.iter().any(|member| member.points > 0);
                    self.books.duplicates += u64::from(has_points && matches!(reply, GroupReply::Refused { .. }));
                    reply
                }
            };
            replies.push(reply);
        }
        let reply = FlushReply { number, partition, lane, groups: replies };
        if taken.is_empty() {
            return Outcome { record: None, reply, after: self.last_appended(), loads: Vec::new() };
        }
        let taken = Flush { number, partition, lane, groups: taken };
        let deltas = record::deltas(&taken);
        let mut loads: Vec<BlockId> = deltas.iter().flat_map(|bytes| self.absent_in(bytes)).collect();
        loads.sort_unstable();
        loads.dedup();
        self.books.received += points;
        self.books.pending += points;
        let record = record::flush(self.number, self.next, self.books.received, taken);
        let after = self.append(record.len());
        if mutant!("merge_dropped") && after % 16 == 15 {
            self.books.pending -= points;
            return Outcome { record: Some(record), reply, after, loads };
        }
        self.pending.push_back((after, deltas, points));
        Outcome { record: Some(record), reply, after, loads }
    }

    /// The points of a group that may be merged, or why it may not.
    fn judge(&self, group: &Group) -> Result<u64, GroupReply> {
        self.included.check(&group.included).map_err(|objection| match objection {
            Objection::Already(included) => GroupReply::Refused { included },
            Objection::DuplicateSender(ids) => GroupReply::DuplicateSender { ids },
            Objection::Retired { ids, floor } => GroupReply::Retired { ids, floor },
            Objection::TooManyHoles(ids) => GroupReply::TooManyHoles { ids },
        })?;
        deltas::check(&group.deltas).map(|totals| totals.points).map_err(|_| GroupReply::Malformed)
    }

    /// Takes nothing of a sender's epochs up to `floor` any more. The record to append, if that is news.
    pub fn retire(&mut self, sender: u64, floor: u32) -> Option<(u64, Vec<u8>)> {
        if !self.included.retire(sender, floor) {
            return None;
        }
        let record = record::retired(self.number, self.next, self.books.received, sender, floor);
        Some((self.append(record.len()), record))
    }

    /// Every sender that is known, with its highest epoch and its floor.
    pub fn senders(&self) -> BTreeMap<u64, Known> {
        self.included.senders()
    }

    fn append(&mut self, len: usize) -> u64 {
        let number = self.next;
        self.next += 1;
        self.log_bytes += len as u64;
        number
    }

    /// The highest record number appended so far; replies without a record wait for it. Zero before the first is
    /// harmless: nothing can be forgotten then.
    fn last_appended(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Every record up to and including `upto` is synced: its deltas become part of the windows. Returns the blocks that
    /// must be loaded first ([`Partition::loaded`]); then this is to be called again.
    pub fn synced(&mut self, upto: u64) -> Vec<BlockId> {
        while let Some((_, deltas, _)) = self.pending.front().filter(|(number, ..)| *number <= upto) {
            let mut missing: Vec<BlockId> = deltas.iter().flat_map(|bytes| self.absent_in(bytes)).collect();
            if !missing.is_empty() {
                missing.sort_unstable();
                missing.dedup();
                return missing;
            }
            if let Some((_, deltas, points)) = self.pending.pop_front() {
                self.books.pending -= points;
                deltas.iter().for_each(|bytes| self.merge(bytes, None));
            }
        }
        Vec::new()
    }

    /// A snapshot was read, or could not be (`None`). What was found if it is lost.
    pub fn loaded(&mut self, id: BlockId, bytes: Option<&[u8]>) -> Option<Finding> {
        if self.restored(id, bytes) { None } else { Some(self.lose(id, 0)) }
    }

    /// False: the block is absent, and these are not its bytes.
    fn restored(&mut self, id: BlockId, bytes: Option<&[u8]>) -> bool {
        !self.windows.is_absent(id) || bytes.is_some_and(|bytes| self.windows.restore(id, bytes).is_ok())
    }

    /// `again`: points in the block that the log still has and nobody has counted.
    fn lose(&mut self, id: BlockId, again: u64) -> Finding {
        let points = self.windows.lose(id).saturating_sub(again);
        self.forget_merged(points);
        Finding::Block { id, points }
    }

    /// Points that were merged are gone.
    fn forget_merged(&mut self, points: u64) {
        self.books.merged = self.books.merged.saturating_sub(points);
        self.books.corrupt += points;
    }

    /// The blocks that these deltas change and that are not in memory.
    fn absent_in(&self, bytes: &[u8]) -> Vec<BlockId> {
        let mut absent = Vec::new();
        if self.windows.has_absent() {
            let read = deltas::decode(bytes, |delta| {
                let id = BlockId { window: delta.window, rule: delta.rule };
                if absent.last() != Some(&id) && self.windows.is_absent(id) {
                    absent.push(id);
                }
            });
            debug_assert!(read.is_ok(), "BUG: deltas were checked before they were taken");
        }
        absent
    }

    /// `replayed`: the number of the record, if a block may hold it already.
    fn merge(&mut self, bytes: &[u8], replayed: Option<u64>) {
        let Partition { windows, books, dead, .. } = self;
        // Checked when it was taken, so it reads to its end.
        let read = deltas::decode(bytes, |delta| {
            let id = BlockId { window: delta.window, rule: delta.rule };
            let points = delta.partial.points();
            if replayed.is_some_and(|number| number < windows.as_of(id)) && !mutant!("replayed_twice") {
                books.merged += points;
                return;
            }
            if id.window < windows.sealed_before() {
                dead.add(id, delta.name, &delta.partial);
            }
            match windows.merge(id.rule, delta.name, id.window, delta.partial) {
                Merged::Applied { corrected } => {
                    books.merged += points;
                    books.corrected += if corrected { points } else { 0 };
                }
                Merged::TooOld => books.too_old += points,
                // Absent: loads come before merging, so this is a bug; counted, not hidden.
                Merged::Lost | Merged::Absent => books.corrupt += points,
            }
        });
        debug_assert!(read.is_ok(), "BUG: deltas were checked before they were taken");
    }

    /// The windows, to emit from and to seal.
    pub fn windows(&mut self) -> &mut Windows {
        &mut self.windows
    }

    /// What the stores may lack.
    pub fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    /// Both, to emit from one and to note it in the other.
    pub fn emitting(&mut self) -> (&mut Windows, &mut Cursor) {
        (&mut self.windows, &mut self.cursor)
    }

    /// Drops the windows that start before `floor`; later points for them are too old.
    pub fn seal_before(&mut self, floor: UnixSeconds) {
        self.books.sealed += self.windows.seal_before(floor).points;
        self.cursor.seal_before(self.windows.sealed_before());
    }

    /// The first record that is not in the checkpoint: recovery reads the log from here.
    pub fn log_from(&self) -> u64 {
        self.log_from
    }

    /// Bytes of records since the last checkpoint.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Whether a checkpoint would write anything new.
    pub fn has_changed(&self) -> bool {
        self.log_bytes > 0 || self.windows.has_changed() || self.cursor.has_changed()
    }

    /// Memory of the windows and of what is known of absent ones.
    pub fn bytes(&self) -> usize {
        self.windows.bytes() + self.cursor.bytes()
    }

    /// How far it is.
    pub fn mark(&self) -> Mark {
        let Books { received, too_old, corrupt, sealed, .. } = self.books;
        Mark { next: self.next, received, too_old, corrupt, sealed }
    }

    /// Points too old whose dead letters were not kept because there are too many, since the start of the process.
    pub fn dead_letters_unkept(&self) -> u64 {
        self.dead.unkept
    }

    /// The books.
    pub fn books(&self) -> Books {
        self.books
    }

    /// Everything that changed since the last checkpoint, so that the log up to here can go: up to what is merged. What
    /// is appended and not merged yet stays in the log; that its batches are in the included set already is right, for
    /// a store keeps a later write only together with all before it.
    ///
    /// The puts may be written in several batches, in their order, each block with its index entry: a block says up to
    /// which record it goes, so a crash between them merges nothing twice. Empty values stand for a block that is lost.
    /// The last two are the copies of the checkpoint.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let number = self.number;
        let pending = self.pending.front().filter(|_| !mutant!("checkpoint_covers_pending"));
        let log_from = pending.map_or(self.next, |(number, ..)| *number);
        let mut puts = Vec::new();
        let mut reindex = self.cursor.take_changed();
        for id in self.windows.take_gone() {
            puts.extend([keys::block_key(number, id), keys::index_key(number, id)].map(|key| (key, Vec::new())));
        }
        for id in self.windows.take_changed() {
            let mut bytes = Vec::new();
            if let Some(rest) = self.windows.encode_block(id, log_from, &mut bytes) {
                puts.push((keys::block_key(number, id), bytes));
                puts.push((keys::index_key(number, id), meta::index_entry(&rest, self.cursor.owed(id))));
                reindex.remove(&id);
            }
        }
        for id in reindex {
            if let Some(rest) = self.windows.rest(id) {
                puts.push((keys::index_key(number, id), meta::index_entry(&rest, self.cursor.owed(id))));
            }
        }
        if let Some((parcel, bytes)) = self.dead.take_parcel() {
            puts.push((keys::dead_key(number, parcel), bytes));
        }
        let floor = self.windows.sealed_before();
        let meta = self.meta(log_from).encode();
        puts.extend(keys::meta_keys(number).map(|key| (key, meta.clone())));
        self.log_from = log_from;
        self.log_bytes = 0;
        Checkpoint { puts, log_from, floor }
    }

    fn meta(&self, next: u64) -> Meta {
        let books = self.books;
        Meta {
            next,
            floor: self.windows.sealed_before().0,
            // What is pending is received when its record is replayed.
            books: Books { received: books.received - books.pending, ..books },
            dead_next: self.dead.next,
            dead_bytes: self.dead.bytes,
            slots: self.cursor.slots().to_vec(),
            lost: self.windows.lost().collect(),
            included: if mutant!("included_not_in_checkpoint") { IncludedSet::new() } else { self.included.clone() },
        }
    }
}

#[cfg(test)]
mod tests;
