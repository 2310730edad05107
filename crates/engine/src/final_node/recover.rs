//! A partition from what its store holds, and what of it is gone.
//!
//! What is damaged is left out and counted in points, everything before and after it is taken up. The counts come from
//! three places: sums in the records of the log, the checkpoint's books against the blocks of the index, and the
//! [`Mark`] that the shell keeps in a file of its own, which knows what a lost store held.

use bytes::Bytes;

use super::cursor::Cursor;
use super::dead::Dead;
use super::meta::{self, Meta};
use super::record::{self, Body};
use super::{Mark, Partition, RestoreError};
use crate::deltas;
use crate::time::UnixSeconds;
use crate::window::{BlockId, Windows, snapshot_rest};

/// What the store holds of one partition.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The copies of the checkpoint that can be read.
    pub metas: Vec<Bytes>,
    /// The index entries of its blocks.
    pub index: Vec<(BlockId, Bytes)>,
    /// The records of the log, in the order of their ordinals.
    pub records: Vec<Bytes>,
    /// From the witness file.
    pub mark: Option<Mark>,
}

/// Something that was damaged. `points`: how many are lost because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// One copy of the checkpoint; the other one served. Nothing is lost.
    Checkpoint,
    /// Both copies of the checkpoint: which batches are merged is known only since then. Batches that come again from
    /// before then are merged a second time.
    IncludedLost,
    /// Records of the log, between two that can be read or at its end.
    Records { records: u64, points: u64 },
    /// Blocks of windows of which not even the index knows.
    Blocks { points: u64 },
    /// The snapshot of a block.
    Block { id: BlockId, points: u64 },
    /// What the checkpoint held before its loss and no block has.
    Before { points: u64 },
}

impl Finding {
    /// How many points are lost because of it.
    pub fn points(self) -> u64 {
        match self {
            Finding::Checkpoint | Finding::IncludedLost => 0,
            Finding::Records { points, .. }
            | Finding::Blocks { points }
            | Finding::Block { points, .. }
            | Finding::Before { points } => points,
        }
    }
}

/// How recovery reads snapshots of blocks.
pub trait Snapshots {
    /// The snapshot of one block; `None` when it is not there or cannot be read.
    fn load(&mut self, id: BlockId) -> Option<Bytes>;
    /// Every snapshot of the partition that can be read. Slow, and only asked for when index entries are missing.
    fn all(&mut self, visit: &mut dyn FnMut(BlockId, &[u8]));
}

impl Partition {
    /// Rebuilds partition `number`. `targets`: names of the stores' addresses, see [`Cursor`].
    ///
    /// # Errors
    /// Only when a newer program wrote what is found; nothing may be changed then.
    pub fn recover(
        number: u16,
        targets: &[String],
        found: &Found,
        snapshots: &mut dyn Snapshots,
    ) -> Result<(Partition, Vec<Finding>), RestoreError> {
        let mut findings = Vec::new();
        let mut partition = Partition::new(number, targets);
        let meta = read_metas(number, &found.metas, &mut findings)?;
        let had_meta = meta.is_some();
        if let Some(meta) = meta {
            partition.take_up(meta, targets);
        }
        partition.take_up_index(found, had_meta, snapshots, &mut findings);
        if !had_meta {
            partition.begin_without_checkpoint(found, &mut findings);
        }
        let mut records = found.records.as_slice();
        while let Some((bytes, behind)) = records.split_first() {
            partition.replay(bytes, behind, snapshots, &mut findings);
            records = behind;
        }
        partition.count_what_only_blocks_hold();
        partition.compare_with(found.mark, &mut findings);
        Ok((partition, findings))
    }

    fn take_up(&mut self, meta: Meta, targets: &[String]) {
        let Meta { next, floor, books, dead_next, dead_bytes, slots, lost, included } = meta;
        self.books = books;
        self.included = included;
        self.windows = Windows::new(UnixSeconds(floor));
        lost.into_iter().for_each(|id| self.windows.set_lost(id));
        self.dead = Dead::new(dead_next, dead_bytes);
        self.cursor = Cursor::new(targets, slots);
        (self.next, self.log_from) = (next, next);
    }

    fn take_up_index(
        &mut self,
        found: &Found,
        had_meta: bool,
        snapshots: &mut dyn Snapshots,
        findings: &mut Vec<Finding>,
    ) {
        let floor = self.windows.sealed_before();
        for (id, bytes) in found.index.iter().filter(|(id, _)| id.window >= floor) {
            if let Some((rest, owed)) = meta::read_index(bytes) {
                self.windows.set_absent(*id, rest);
                // Without the checkpoint nobody knows whose slots these are: all may lack it.
                self.cursor.restore(*id, if had_meta || owed == 0 { owed } else { u64::MAX }, u64::from(rest.keys));
            }
        }
        let expected = self.books.merged.saturating_sub(self.books.sealed);
        // More than expected may hide that one is missing, too: only a sum that fits says that none is.
        if had_meta && self.windows.points() == expected + self.ahead_of_checkpoint(&found.records) {
            return;
        }
        let (windows, cursor) = (&mut self.windows, &mut self.cursor);
        snapshots.all(&mut |id, bytes| {
            if !windows.is_absent(id)
                && let Ok(rest) = snapshot_rest(bytes)
            {
                windows.set_absent(id, rest);
                // Which stores may lack what was emitted stood in its index entry: any may.
                if rest.emitted {
                    cursor.restore(id, u64::MAX, u64::from(rest.keys));
                }
            }
        });
        if had_meta {
            let expected = expected + self.ahead_of_checkpoint(&found.records);
            let points = expected.saturating_sub(self.windows.points());
            self.forget_merged(points);
            if points > 0 {
                findings.push(Finding::Blocks { points });
            }
        }
    }

    /// There was a checkpoint, or a log from the start: what came before the first record that is left is in the blocks,
    /// was sealed, or is gone.
    fn begin_without_checkpoint(&mut self, found: &Found, findings: &mut Vec<Finding>) {
        let first = found.records.iter().find_map(|bytes| record::read(bytes));
        let mark = found.mark.unwrap_or_default();
        let received =
            first.as_ref().map_or(mark.received, |record| record.received.saturating_sub(points_of(&record.body)));
        // What a record holds that is left in the log and is in a block already is counted when it is replayed.
        let kept = self.windows.points().saturating_sub(self.points_in_blocks(&found.records, |_| true));
        let has_first = first.is_some();
        let next = first.map_or(mark.next, |record| record.number);
        // The log is there from its start: the first checkpoint was never finished, and what its blocks hold comes again.
        if next == 0 && (kept == 0 || has_first) {
            return;
        }
        findings.push(Finding::IncludedLost);
        let received = received.max(kept);
        let gone = (mark.sealed + mark.too_old).min(received - kept);
        self.next = next;
        self.books.received = received;
        self.books.sealed = gone.min(mark.sealed);
        self.books.too_old = gone - self.books.sealed;
        self.books.merged = kept + self.books.sealed;
        self.books.corrupt = received - kept - gone;
        let points = self.books.corrupt.saturating_sub(mark.corrupt);
        findings.push(Finding::Before { points });
    }

    /// Points of records behind the checkpoint that blocks hold already: a crash in the midst of the next one leaves such blocks.
    fn ahead_of_checkpoint(&self, records: &[Bytes]) -> u64 {
        if self.windows.newest_record() <= self.next {
            return 0;
        }
        let number = |bytes: &&Bytes| record::place(bytes).is_some_and(|(_, number)| number >= self.next);
        records.iter().filter(number).map(|bytes| self.points_in_blocks(std::slice::from_ref(bytes), |_| true)).sum()
    }

    /// The points in these records of the log that blocks hold already.
    fn points_in_blocks(&self, records: &[Bytes], is_meant: impl Fn(BlockId) -> bool) -> u64 {
        let mut points = 0;
        for record in records.iter().filter_map(|bytes| record::read(bytes)) {
            let Body::Flush(flush) = &record.body else { continue };
            for group in &flush.groups {
                let read = deltas::decode(&group.deltas, |delta| {
                    let id = BlockId { window: delta.window, rule: delta.rule };
                    let is_in = is_meant(id) && record.number < self.windows.as_of(id);
                    points += if is_in { delta.partial.points() } else { 0 };
                });
                debug_assert!(read.is_ok(), "BUG: deltas were checked before they were taken");
            }
        }
        points
    }

    /// Brings back a block that a record changes. What it holds of that record and those behind it is not counted yet, and
    /// if the block is lost it is merged from them: only the rest is lost.
    fn load(&mut self, id: BlockId, ahead: &[&[Bytes]], snapshots: &mut dyn Snapshots, findings: &mut Vec<Finding>) {
        let snapshot = snapshots.load(id);
        if !self.restored(id, snapshot.as_deref()) {
            let again = ahead.iter().map(|records| self.points_in_blocks(records, |of| of == id)).sum();
            findings.push(self.lose(id, again));
        }
    }

    /// Takes up one record; it is durable, so it is merged at once.
    fn replay(&mut self, bytes: &Bytes, behind: &[Bytes], snapshots: &mut dyn Snapshots, findings: &mut Vec<Finding>) {
        // A record that cannot be read shows as a gap before the next one that can, or in the mark.
        let Some(record) = record::read(bytes) else { return };
        if record.number < self.next || record.partition != self.number {
            return;
        }
        let points = points_of(&record.body);
        if record.number > self.next {
            let lost = record.received.saturating_sub(points).saturating_sub(self.books.received);
            findings.push(Finding::Records { records: record.number - self.next, points: lost });
            self.books.received += lost;
            self.books.corrupt += lost;
        }
        self.next = record.number + u64::from(!mutant!("record_number_reused"));
        self.log_bytes += bytes.len() as u64;
        match record.body {
            Body::Retired { sender, floor } => {
                self.included.retire(sender, floor);
            }
            Body::Flush(flush) => {
                self.books.received += points;
                for group in flush.groups {
                    if !mutant!("replay_forgets_ids") {
                        group.included.iter().for_each(|member| self.included.insert(member));
                    }
                    for id in self.absent_in(&group.deltas) {
                        self.load(id, &[std::slice::from_ref(bytes), behind], snapshots, findings);
                    }
                    self.merge(&group.deltas, Some(record.number));
                }
            }
        }
    }

    /// A block may be newer than the checkpoint, and the records that it holds may be gone. They are not lost, and their
    /// numbers must not be used again: a record with such a number would be taken for one that is in the block.
    fn count_what_only_blocks_hold(&mut self) {
        self.next = self.next.max(self.windows.newest_record());
        let counted = self.books.merged.saturating_sub(self.books.sealed);
        let uncounted = self.windows.points().saturating_sub(counted);
        self.books.received += uncounted;
        self.books.merged += uncounted;
    }

    fn compare_with(&mut self, mark: Option<Mark>, findings: &mut Vec<Finding>) {
        let Some(mark) = mark else { return };
        if mark.next > self.next {
            let points = mark.received.saturating_sub(self.books.received);
            findings.push(Finding::Records { records: mark.next - self.next, points });
            self.next = mark.next;
            self.books.received += points;
            self.books.corrupt += points;
        }
    }
}

/// The newest checkpoint that can be read.
fn read_metas(number: u16, copies: &[Bytes], findings: &mut Vec<Finding>) -> Result<Option<Meta>, RestoreError> {
    let mut newest: Option<Meta> = None;
    let mut readable = 0;
    for bytes in copies {
        if let Some(meta) = Meta::decode(number, bytes)? {
            readable += 1;
            newest =
                Some(newest.into_iter().fold(meta, |best, other| if other.next > best.next { other } else { best }));
        }
    }
    if readable == 1 {
        findings.push(Finding::Checkpoint);
    }
    Ok(newest)
}

fn points_of(body: &Body) -> u64 {
    match body {
        Body::Retired { .. } => 0,
        Body::Flush(flush) => {
            record::deltas(flush).iter().filter_map(|bytes| deltas::check(bytes).ok()).map(|t| t.points).sum()
        }
    }
}
