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
//! * State is a fold of the records since the last checkpoint over that checkpoint ([`Partition::restore`],
//!   [`Partition::replay`]): restart at any instant changes no value.
//!
//! Keys in the store, all big-endian so that they sort:
//!
//! ```text
//! 'm' partition u16                           meta: version u8 = 1, first record not in the checkpoint u64,
//!                                             sealed_before u32, books 4 x u64, included set (`included`)
//! 'l' partition u16, record u64               log record: a Flush frame (`wire`), or 'R' sender u64 floor u32
//! 'w' partition u16, window u32, rule u16     snapshot of one block of windows (`window`)
//! ```

pub mod included;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::deltas;
use crate::partial::Partial;
use crate::time::UnixSeconds;
use crate::window::{BlockId, Merged, Windows};
use crate::wire::{self, Flush, FlushReply, Frame, Group, GroupReply, Included};
use included::{IncludedSet, Objection, take_u32, take_u64};

const META_VERSION: u8 = 1;

/// Why stored bytes cannot be taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "checkpoint of partition {partition} was written by format {version}; this is format 1: run the version that wrote it"
    )]
    NewerFormat { partition: u16, version: u8 },
    #[error("{what} of partition {partition} is damaged")]
    Damaged { partition: u16, what: &'static str },
}

/// What the shell must do about a flush: append the record if there is one, and give the reply once everything up to
/// and including record `after` is synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub record: Option<Vec<u8>>,
    pub reply: FlushReply,
    pub after: u64,
}

/// What a checkpoint writes in one atomic batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    pub deletes: Vec<Vec<u8>>,
    /// Records from the first key up to, not including, the second are in the checkpoint.
    pub log: (Vec<u8>, Vec<u8>),
}

/// The books of one partition, in points. `received = merged + too_old + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub received: u64,
    pub merged: u64,
    pub too_old: u64,
    /// Appended, not synced.
    pub pending: u64,
    /// Points of `merged` that changed a window that was emitted before.
    pub corrected: u64,
    /// Groups that were included already; they changed nothing.
    pub duplicates: u64,
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
    sealed: Vec<BlockId>,
    books: Books,
}

impl Partition {
    /// An empty partition.
    pub fn new(number: u16) -> Partition {
        Partition {
            number,
            included: IncludedSet::new(),
            windows: Windows::new(UnixSeconds(0)),
            next: 0,
            log_from: 0,
            log_bytes: 0,
            pending: VecDeque::new(),
            sealed: Vec::new(),
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
                    self.books.duplicates += u64::from(matches!(reply, GroupReply::Refused { .. }));
                    reply
                }
            };
            replies.push(reply);
        }
        let reply = FlushReply { number, partition, lane, groups: replies };
        if taken.is_empty() {
            return Outcome { record: None, reply, after: self.last_appended() };
        }
        let deltas = taken.iter().map(|group| group.deltas.clone()).collect();
        let mut record = Vec::new();
        wire::encode(&Frame::Flush(Flush { number, partition, lane, groups: taken }), &mut record);
        let after = self.append(record.len());
        self.pending.push_back((after, deltas, points));
        self.books.received += points;
        self.books.pending += points;
        Outcome { record: Some(record), reply, after }
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
        let mut record = vec![b'R'];
        record.extend_from_slice(&sender.to_le_bytes());
        record.extend_from_slice(&floor.to_le_bytes());
        Some((self.append(record.len()), record))
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

    /// Every record up to and including `upto` is synced: its deltas become part of the windows.
    ///
    /// `load`: reads the snapshot of a block that was evicted.
    pub fn synced(&mut self, upto: u64, load: &mut dyn FnMut(BlockId) -> Option<Vec<u8>>) {
        while let Some((_, deltas, points)) = self.pending.pop_front_if(|(number, ..)| *number <= upto) {
            self.books.pending -= points;
            for bytes in deltas {
                self.merge(&bytes, load);
            }
        }
    }

    fn merge(&mut self, bytes: &[u8], load: &mut dyn FnMut(BlockId) -> Option<Vec<u8>>) {
        let Partition { windows, books, .. } = self;
        // Checked when it was taken, so it reads to its end.
        let read = deltas::decode(bytes, |delta| {
            let id = BlockId { window: delta.window, rule: delta.rule };
            let points = delta.partial.points();
            match merge_one(windows, id, delta.name, delta.partial, load) {
                Merged::Applied { corrected } => {
                    books.merged += points;
                    books.corrected += if corrected { points } else { 0 };
                }
                Merged::TooOld | Merged::Absent => books.too_old += points,
            }
        });
        debug_assert!(read.is_ok(), "BUG: deltas were checked before they were taken");
    }

    /// The windows, to emit from and to seal.
    pub fn windows(&mut self) -> &mut Windows {
        &mut self.windows
    }

    /// Drops the windows that start before `floor`; later points for them are too old.
    pub fn seal_before(&mut self, floor: UnixSeconds) {
        self.sealed.extend(self.windows.seal_before(floor).blocks);
    }

    /// The first record that is not in the checkpoint: recovery reads the log from here.
    pub fn log_from(&self) -> u64 {
        self.log_from
    }

    /// Bytes of records since the last checkpoint.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Memory of the windows.
    pub fn bytes(&self) -> usize {
        self.windows.bytes()
    }

    /// The books.
    pub fn books(&self) -> Books {
        self.books
    }

    /// Everything that changed since the last checkpoint, so that the log up to here can go. Only with nothing pending:
    /// the windows must hold what the log holds; `None` otherwise.
    pub fn checkpoint(&mut self) -> Option<Checkpoint> {
        if !self.pending.is_empty() {
            return None;
        }
        let mut checkpoint = Checkpoint {
            log: (log_key(self.number, self.log_from), log_key(self.number, self.next)),
            deletes: std::mem::take(&mut self.sealed).into_iter().map(|id| block_key(self.number, id)).collect(),
            ..Checkpoint::default()
        };
        for id in self.windows.take_changed() {
            let mut bytes = Vec::new();
            if self.windows.encode_block(id, &mut bytes) {
                checkpoint.puts.push((block_key(self.number, id), bytes));
            }
        }
        let mut meta = vec![META_VERSION];
        meta.extend_from_slice(&self.next.to_le_bytes());
        meta.extend_from_slice(&self.windows.sealed_before().0.to_le_bytes());
        let Books { received, merged, too_old, corrected, .. } = self.books;
        [received, merged, too_old, corrected].iter().for_each(|n| meta.extend_from_slice(&n.to_le_bytes()));
        self.included.encode(&mut meta);
        checkpoint.puts.push((meta_key(self.number), meta));
        self.log_from = self.next;
        self.log_bytes = 0;
        Some(checkpoint)
    }

    /// Takes up the meta record of a checkpoint. First of all, in an empty partition.
    ///
    /// # Errors
    /// When the bytes are not understood.
    pub fn restore(&mut self, meta: &[u8]) -> Result<(), RestoreError> {
        let partition = self.number;
        let damaged = RestoreError::Damaged { partition, what: "the checkpoint" };
        let (&version, mut rest) = meta.split_first().ok_or_else(|| damaged.clone())?;
        if version != META_VERSION {
            return Err(RestoreError::NewerFormat { partition, version });
        }
        let next = take_u64(&mut rest).ok_or_else(|| damaged.clone())?;
        let floor = take_u32(&mut rest).ok_or_else(|| damaged.clone())?;
        let mut books = [0u64; 4];
        for n in &mut books {
            *n = take_u64(&mut rest).ok_or_else(|| damaged.clone())?;
        }
        let [received, merged, too_old, corrected] = books;
        self.books = Books { received, merged, too_old, corrected, ..Books::default() };
        self.included = IncludedSet::decode(&mut rest).ok_or(damaged)?;
        self.windows = Windows::new(UnixSeconds(floor));
        self.next = next;
        self.log_from = next;
        Ok(())
    }

    /// Takes up the snapshot of one block of windows.
    ///
    /// # Errors
    /// When the bytes are not understood.
    pub fn restore_block(&mut self, id: BlockId, bytes: &[u8]) -> Result<(), RestoreError> {
        let partition = self.number;
        self.windows.restore(id, bytes).map_err(|_| RestoreError::Damaged { partition, what: "a block of windows" })
    }

    /// Takes up one record of the log, in their order; it is durable, so it is merged at once. `load`: as for
    /// [`Partition::synced`].
    ///
    /// # Errors
    /// When the bytes are no record, or not the next one.
    pub fn replay(
        &mut self,
        number: u64,
        bytes: &[u8],
        load: &mut dyn FnMut(BlockId) -> Option<Vec<u8>>,
    ) -> Result<(), RestoreError> {
        let damaged = RestoreError::Damaged { partition: self.number, what: "a log record" };
        if number != self.next {
            return Err(damaged);
        }
        if let Some(mut retired) = bytes.strip_prefix(b"R") {
            let sender = take_u64(&mut retired).ok_or_else(|| damaged.clone())?;
            let floor = take_u32(&mut retired).ok_or(damaged)?;
            self.included.retire(sender, floor);
        } else {
            let mut buffer = BytesMut::from(bytes);
            let raw = wire::next_raw(&mut buffer).ok().flatten().ok_or_else(|| damaged.clone())?;
            let Ok(Frame::Flush(flush)) = wire::decode(raw) else { return Err(damaged) };
            for group in flush.groups {
                group.included.iter().for_each(|member: &Included| self.included.insert(member));
                let points = deltas::check(&group.deltas).map_err(|_| damaged.clone())?.points;
                self.books.received += points;
                self.merge(&group.deltas, load);
            }
        }
        self.append(bytes.len());
        Ok(())
    }
}

fn merge_one(
    windows: &mut Windows,
    id: BlockId,
    name: &[u8],
    partial: Partial,
    load: &mut dyn FnMut(BlockId) -> Option<Vec<u8>>,
) -> Merged {
    if windows.is_absent(id)
        && let Some(bytes) = load(id)
        && windows.restore(id, &bytes).is_err()
    {
        return Merged::Absent;
    }
    windows.merge(id.rule, name, id.window, partial)
}

/// Where a partition's checkpoint is.
pub fn meta_key(partition: u16) -> Vec<u8> {
    [&b"m"[..], &partition.to_be_bytes()].concat()
}

/// Where a record is. Record 0 and `u64::MAX` bound the whole log of a partition.
pub fn log_key(partition: u16, number: u64) -> Vec<u8> {
    [&b"l"[..], &partition.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// Where the snapshot of a block is.
pub fn block_key(partition: u16, id: BlockId) -> Vec<u8> {
    [&b"w"[..], &partition.to_be_bytes(), &id.window.0.to_be_bytes(), &id.rule.to_be_bytes()].concat()
}

/// The bounds of all blocks of a partition.
pub fn block_range(partition: u16) -> (Vec<u8>, Vec<u8>) {
    let last = BlockId { window: UnixSeconds(u32::MAX), rule: u16::MAX };
    let mut end = block_key(partition, last);
    end.push(0);
    ([&b"w"[..], &partition.to_be_bytes()].concat(), end)
}

/// The number in a key of the log.
pub fn number_of_log_key(key: &[u8]) -> Option<u64> {
    key.get(3..11)?.try_into().ok().map(u64::from_be_bytes)
}

/// The block in a key of a snapshot.
pub fn block_of_key(key: &[u8]) -> Option<BlockId> {
    let window = key.get(3..7)?.try_into().ok().map(u32::from_be_bytes)?;
    let rule = key.get(7..9)?.try_into().ok().map(u16::from_be_bytes)?;
    Some(BlockId { window: UnixSeconds(window), rule })
}

#[cfg(test)]
mod tests;
