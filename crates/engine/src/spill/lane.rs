//! One lane: its books, what is known of its pending records, its gaps, and the check that finds what is missing.
//!
//! A check walks over the records from the head to the end that the lane had when it began. Between two readable
//! records everything that is not done is missing, and their sums say how much that is. It runs at every start and
//! whenever something could not be read; meanwhile the lane works as always.

use std::collections::BTreeMap;

use super::books::{Books, Lost, Mark, Run};
use super::record::{Content, Record};
use super::spans::Spans;
use crate::time::UnixSeconds;

/// A full spill gives back what was settled when it is so much: a few writes' worth, so that a small quota is not kept full
/// by what nobody needs. It is asked once a second.
const GIVE_BACK_BYTES: u64 = 64 << 10;

/// Gaps remembered for a lane; the books count what older ones lost.
pub const GAPS_MAX: usize = 1024;

/// A range of a lane that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Ordinals, both ends included.
    pub first: u64,
    pub last: u64,
    pub batches: u64,
    pub points: u64,
    pub why: Lost,
    /// When it was noticed.
    pub at: UnixSeconds,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) at: Mark,
    pub(super) to: Mark,
}

/// A lane in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub(super) destination: String,
    pub(super) books: Books,
    /// Where the next record goes, with what is about to be written.
    pub(super) next: Mark,
    pub(super) spans: Spans,
    /// Pending batches of this relay by epoch, of what was checked or written in this life.
    pub(super) epochs: BTreeMap<u32, u64>,
    pub(super) check: Option<Check>,
    pub(super) gaps: BTreeMap<u64, Gap>,
    /// Something was in it since the start.
    pub(super) used: bool,
    /// What the store has to be told.
    pub(super) unnamed: bool,
    pub(super) books_changed: bool,
    pub(super) runs_changed: bool,
    pub(super) new_gaps: Vec<u64>,
    pub(super) old_gaps: Vec<u64>,
    /// As far as it was given to the store, and as far as it is certainly on disk.
    pub(super) written: Books,
    pub(super) synced_head: Mark,
    /// What is behind it may still be taken back, so it is not lent.
    pub(super) synced_next: Mark,
    /// Records before it were forgotten.
    pub(super) forgotten: Mark,
    /// Of records before it nothing is left in the store's memory and log, either.
    pub(super) given_back: Mark,
}

impl Lane {
    /// Begins to look at everything that is pending.
    pub(super) fn check(&mut self) {
        let bounds = self.spans.bounds();
        self.spans.unseen(bounds);
        self.epochs.clear();
        self.check = Some(Check { at: self.books.head, to: self.books.next });
        self.end_check_if_done();
    }

    /// A record of the lane was read; `own`: the sender that this relay is.
    pub(super) fn checked(&mut self, record: &Record<'_>, own: u64, now: UnixSeconds) {
        let Some(check) = self.check else { return };
        let run = record.run();
        // What lies before the head may be visible still; what lies behind the end was written in this life.
        if run.first.ordinal < check.at.ordinal || run.first.ordinal >= check.to.ordinal {
            return;
        }
        self.missing(Run { first: check.at, end: run.first }, now);
        self.check = Some(Check { at: run.end, ..check });
        if !self.books.is_done(run.first.ordinal) {
            let header = &record.header;
            self.count(run.first.ordinal, (header.min_ts, header.max_ts), epoch_of(header.content, own));
        }
        self.end_check_if_done();
    }

    /// Every record of the lane up to `to` was read; `None`: all.
    pub(super) fn checked_all(&mut self, now: UnixSeconds) {
        if let Some(check) = self.check {
            self.missing(Run { first: check.at, end: check.to }, now);
            self.check = Some(Check { at: check.to, ..check });
            self.end_check_if_done();
        }
    }

    fn end_check_if_done(&mut self) {
        if self.check.is_some_and(|check| check.at.ordinal >= check.to.ordinal) {
            self.check = None;
            self.spans.seen();
            self.books_changed = true;
        }
    }

    fn missing(&mut self, range: Run, now: UnixSeconds) {
        if range.first.ordinal < range.end.ordinal {
            self.lose(range, Lost::Corrupt, now);
        }
    }

    /// What is pending in the range is lost. False: there are too many runs, nothing was changed.
    pub(super) fn lose(&mut self, range: Run, why: Lost, now: UnixSeconds) -> bool {
        let Some(parts) = self.books.finish(range) else { return false };
        for part in parts {
            let tally = part.tally();
            self.books.dropped[why.index()].add(tally);
            let (first, last) = (part.first.ordinal, part.end.ordinal.saturating_sub(1));
            self.gap(Gap { first, last, batches: tally.batches, points: tally.points, why, at: now });
            self.changed();
        }
        true
    }

    fn gap(&mut self, gap: Gap) {
        // A range that goes on where the last one ended, for the same reason and at the same time, is one gap.
        let before = self.gaps.range(..gap.first).next_back().map(|(_, before)| *before);
        let joined = before.filter(|b| b.last + 1 == gap.first && b.why == gap.why && b.at == gap.at);
        let gap = joined.map_or(gap, |before| Gap {
            last: gap.last,
            batches: before.batches.saturating_add(gap.batches),
            points: before.points.saturating_add(gap.points),
            ..before
        });
        self.gaps.insert(gap.first, gap);
        self.new_gaps.push(gap.first);
        while self.gaps.len() > GAPS_MAX {
            if let Some((first, _)) = self.gaps.pop_first() {
                self.old_gaps.push(first);
            }
        }
    }

    /// Whether a full disk gets enough from what was settled since the last time.
    pub(super) fn gives_back(&self) -> bool {
        let freed = self.given_back.until(self.synced_head);
        freed.bytes >= GIVE_BACK_BYTES || freed.batches > 0 && self.synced_head == self.written.next
    }

    /// The books differ from what the store has.
    pub(super) fn changed(&mut self) {
        self.books_changed = true;
        self.runs_changed = true;
        self.used = true;
        self.spans.trim(&self.books);
    }

    /// A record of the lane is pending. `span`: its oldest and newest timestamp.
    pub(super) fn count(&mut self, ordinal: u64, span: (UnixSeconds, UnixSeconds), epoch: Option<u32>) {
        self.spans.add(ordinal, span.0, span.1);
        if let Some(epoch) = epoch {
            *self.epochs.entry(epoch).or_default() += 1;
        }
    }

    /// A record that was pending is done.
    pub(super) fn uncount(&mut self, ordinal: u64, epoch: Option<u32>) {
        let unseen = self.check.is_some_and(|check| (check.at.ordinal..check.to.ordinal).contains(&ordinal));
        let Some(epoch) = epoch.filter(|_| !unseen) else { return };
        if let Some(count) = self.epochs.get_mut(&epoch) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.epochs.remove(&epoch);
            }
        }
    }
}

/// The epoch of a batch that this relay, in any of its lives, has sealed.
pub(super) fn epoch_of(content: Content, own: u64) -> Option<u32> {
    match content {
        Content::Batch(id) if id.sender == own => Some(id.epoch),
        Content::Batch(_) | Content::Block { .. } => None,
    }
}
