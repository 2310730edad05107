//! The books of a lane: two marks, what is done between them, and how much of that was lost.
//!
//! A [`Mark`] is a place in the lane with everything that the lane had taken before it. Because each mark carries its
//! sums, `spilled = pending + settled + dropped` holds by construction: spilled is what lies before `next`, done is what
//! lies before `head` and in the runs beyond it, pending is the rest.
//!
//! ```text
//! books  next (ordinal, points, bytes: 3 x u64), head (the same), oldest u32, newest u32 of what is pending,
//!        n u8, n x (batches, points, bytes: 3 x u64) dropped, in the order of `Lost`
//! runs   n u32, n x (first 3 x u64, end 3 x u64)
//! ```

use std::collections::BTreeMap;

use crate::time::UnixSeconds;
use crate::wire::Outcome;

/// Runs beyond the head at most. What would be one more stays pending, is lent again and found settled then.
pub const RUNS_MAX: usize = 4096;

/// A place in a lane, and what the lane had taken before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Also the number of batches before it.
    pub ordinal: u64,
    pub points: u64,
    /// As the records lie on disk.
    pub bytes: u64,
}

impl Mark {
    /// The place behind a record at this one.
    #[must_use]
    pub fn after(self, points: u64, bytes: u64) -> Mark {
        Mark {
            ordinal: self.ordinal.saturating_add(1),
            points: self.points.saturating_add(points),
            bytes: self.bytes.saturating_add(bytes),
        }
    }

    /// What lies between `self` and a later `end`.
    pub fn until(self, end: Mark) -> Tally {
        Tally {
            batches: end.ordinal.saturating_sub(self.ordinal),
            points: end.points.saturating_sub(self.points),
            bytes: end.bytes.saturating_sub(self.bytes),
        }
    }

    fn put(self, out: &mut Vec<u8>) {
        for number in [self.ordinal, self.points, self.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// An amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub batches: u64,
    pub points: u64,
    pub bytes: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, more: Tally) {
        self.batches = self.batches.saturating_add(more.batches);
        self.points = self.points.saturating_add(more.points);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        for number in [self.batches, self.points, self.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn at_most(self, other: Tally) -> Tally {
        Tally {
            batches: self.batches.min(other.batches),
            points: self.points.min(other.points),
            bytes: self.bytes.min(other.bytes),
        }
    }

    fn less(self, other: Tally) -> Tally {
        Tally {
            batches: self.batches.saturating_sub(other.batches),
            points: self.points.saturating_sub(other.points),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Records that follow each other: from `first` on, up to `end` (excluded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: Mark,
    pub end: Mark,
}

impl Run {
    /// How much it is.
    pub fn tally(self) -> Tally {
        self.first.until(self.end)
    }

    fn is_empty(self) -> bool {
        self.first.ordinal >= self.end.ordinal
    }
}

/// Why something that was spilled will never be delivered. Closed: the ledger shows these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lost {
    /// Damaged or gone.
    Corrupt,
    /// An operator gave it up.
    Discarded,
    TooOld,
    Poison,
    BadChecksum,
    DuplicateSender,
}

impl Lost {
    /// All there are, in the order of the books.
    pub const ALL: [Lost; 6] =
        [Lost::Corrupt, Lost::Discarded, Lost::TooOld, Lost::Poison, Lost::BadChecksum, Lost::DuplicateSender];

    /// The word in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lost::Corrupt => "corrupt",
            Lost::Discarded => "discarded",
            Lost::TooOld => "too_old",
            Lost::Poison => "poison",
            Lost::BadChecksum => "bad_checksum",
            Lost::DuplicateSender => "duplicate_sender",
        }
    }

    /// Why a record with this outcome is lost; `None`: it is not.
    pub const fn of(outcome: Outcome) -> Option<Lost> {
        match outcome {
            Outcome::Delivered | Outcome::Released => None,
            Outcome::TooOld => Some(Lost::TooOld),
            Outcome::Poison => Some(Lost::Poison),
            Outcome::BadChecksum => Some(Lost::BadChecksum),
            Outcome::DuplicateSender => Some(Lost::DuplicateSender),
        }
    }

    /// The byte in keys.
    pub(super) fn code(self) -> u8 {
        u8::try_from(self.index()).unwrap_or(u8::MAX)
    }

    /// Its place in [`Lost::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Lost::Corrupt => 0,
            Lost::Discarded => 1,
            Lost::TooOld => 2,
            Lost::Poison => 3,
            Lost::BadChecksum => 4,
            Lost::DuplicateSender => 5,
        }
    }
}

/// The books of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Where the next record goes.
    pub next: Mark,
    /// Everything before it is done.
    pub head: Mark,
    pub dropped: [Tally; Lost::ALL.len()],
    /// Done beyond the head: disjoint, not adjacent, by their first ordinal.
    runs: BTreeMap<u64, Run>,
}

impl Books {
    /// What was ever spilled into the lane.
    pub fn spilled(&self) -> Tally {
        Mark::default().until(self.next)
    }

    /// What is neither settled nor dropped.
    pub fn pending(&self) -> Tally {
        self.spilled().less(self.done())
    }

    /// What was delivered.
    pub fn settled(&self) -> Tally {
        self.dropped.iter().fold(self.done(), |done, dropped| done.less(*dropped))
    }

    fn done(&self) -> Tally {
        let mut done = Mark::default().until(self.head);
        self.runs.values().for_each(|run| done.add(run.tally()));
        done
    }

    /// Whether that record is settled or dropped.
    pub fn is_done(&self, ordinal: u64) -> bool {
        self.next_pending(ordinal) != ordinal
    }

    /// The first ordinal from `ordinal` on that is not done; perhaps that of `next`.
    pub fn next_pending(&self, ordinal: u64) -> u64 {
        let ordinal = ordinal.max(self.head.ordinal);
        let run = self.runs.range(..=ordinal).next_back().map(|(_, run)| run);
        run.filter(|run| run.end.ordinal > ordinal).map_or(ordinal, |run| run.end.ordinal)
    }

    /// The parts of a range that are not done, cut to what lies between head and next. Exact, because every border of
    /// what is done carries its sums.
    pub fn pending_in(&self, range: Run) -> Vec<Run> {
        let mut at = range.first.max(self.head);
        let end = range.end.min(self.next);
        let before = self.runs.range(..at.ordinal).next_back().map(|(_, run)| *run);
        if let Some(run) = before.filter(|run| run.end > at) {
            at = run.end;
        }
        let mut parts = Vec::new();
        for run in self.runs.range(at.ordinal..end.ordinal.max(at.ordinal)).map(|(_, run)| *run) {
            parts.push(Run { first: at, end: run.first });
            at = run.end;
        }
        parts.push(Run { first: at, end });
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// What is not done in `from..to`: first and last of each stretch.
    pub(super) fn pending_ordinals(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let end = to.min(self.next.ordinal);
        let mut stretches = Vec::new();
        let mut first = self.next_pending(from);
        while first < end {
            let behind = self.runs.range(first..end).next().map_or(end, |(behind, _)| *behind);
            stretches.push((first, behind - 1));
            first = self.next_pending(behind);
        }
        stretches
    }

    /// Marks what is pending in a range as done; says what that was. `None`: there would be too many runs.
    pub(super) fn finish(&mut self, range: Run) -> Option<Vec<Run>> {
        let parts = self.pending_in(range);
        for part in &parts {
            let joins = part.first.ordinal == self.head.ordinal
                || self.runs.contains_key(&part.end.ordinal)
                || self.run_before(part.first.ordinal).is_some();
            if !joins && self.runs.len() >= RUNS_MAX {
                return None;
            }
        }
        parts.iter().for_each(|part| self.insert(*part));
        Some(parts)
    }

    /// The run that ends at this ordinal.
    fn run_before(&self, ordinal: u64) -> Option<Run> {
        let run = self.runs.range(..ordinal).next_back().map(|(_, run)| *run);
        run.filter(|run| run.end.ordinal == ordinal)
    }

    /// Takes up what was not done.
    fn insert(&mut self, mut run: Run) {
        if let Some(behind) = self.runs.remove(&run.end.ordinal) {
            run.end = behind.end;
        }
        if run.first.ordinal == self.head.ordinal || mutant!("head_jumps") {
            self.head = run.end;
        } else if let Some(before) = self.run_before(run.first.ordinal) {
            self.runs.insert(before.first.ordinal, Run { first: before.first, end: run.end });
        } else {
            self.runs.insert(run.first.ordinal, run);
        }
    }

    /// How many runs there are beyond the head.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn set_runs(&mut self, runs: Vec<Run>) {
        self.runs.clear();
        for run in runs {
            self.pending_in(run).into_iter().for_each(|part| self.insert(part));
        }
    }

    /// `next`: with what is about to be written. `span`: timestamps of what is pending.
    pub(super) fn encode(&self, next: Mark, span: Option<(UnixSeconds, UnixSeconds)>) -> Vec<u8> {
        let mut out = Vec::new();
        next.put(&mut out);
        self.head.put(&mut out);
        let (oldest, newest) = span.unwrap_or((UnixSeconds(u32::MAX), UnixSeconds(0)));
        out.extend_from_slice(&oldest.0.to_le_bytes());
        out.extend_from_slice(&newest.0.to_le_bytes());
        out.push(u8::try_from(self.dropped.len()).unwrap_or(0));
        self.dropped.iter().for_each(|dropped| dropped.put(&mut out));
        out
    }

    pub(super) fn encode_runs(&self) -> Vec<u8> {
        let mut out = u32::try_from(self.runs.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        for run in self.runs.values() {
            run.first.put(&mut out);
            run.end.put(&mut out);
        }
        out
    }

    /// Two accounts of one lane become one: the later marks, the larger losses, what either knows to be done. Used at a
    /// start, between the store and the witness beside it.
    pub(super) fn join(&mut self, other: &Books) {
        let runs: Vec<Run> = self.runs.values().chain(other.runs.values()).copied().collect();
        self.next = self.next.max(other.next);
        self.head = self.head.max(other.head).min(self.next);
        for (mine, theirs) in self.dropped.iter_mut().zip(&other.dropped) {
            if theirs.points > mine.points {
                *mine = *theirs;
            }
        }
        self.set_runs(runs);
    }

    /// What was dropped beyond the head while the runs that say so are gone is pending again, so it is no longer dropped:
    /// the last reasons of the list give back what is too much.
    pub(super) fn drop_no_more_than_done(&mut self) {
        let mut room = self.done();
        for dropped in &mut self.dropped {
            *dropped = dropped.at_most(room);
            room = room.less(*dropped);
        }
    }
}

/// Reads what [`Books::encode`] wrote, from the front; runs are apart. `None`: it is damaged.
pub(super) fn decode(bytes: &mut &[u8]) -> Option<(Books, Option<(UnixSeconds, UnixSeconds)>)> {
    let (next, head) = (mark(bytes)?, mark(bytes)?);
    let (oldest, newest) = (UnixSeconds(take_u32(bytes)?), UnixSeconds(take_u32(bytes)?));
    let mut books = Books { next, head, ..Books::default() };
    let count = usize::from(*bytes.split_off_first()?);
    for index in 0..count {
        *books.dropped.get_mut(index)? = take_tally(bytes)?;
    }
    (head <= next).then_some((books, (oldest <= newest).then_some((oldest, newest))))
}

/// Reads what [`Books::encode_runs`] wrote.
pub(super) fn decode_runs(mut bytes: &[u8]) -> Option<Vec<Run>> {
    let count = take_u32(&mut bytes)?;
    (0..count).map(|_| Some(Run { first: mark(&mut bytes)?, end: mark(&mut bytes)? })).collect()
}

fn mark(bytes: &mut &[u8]) -> Option<Mark> {
    Some(Mark { ordinal: take_u64(bytes)?, points: take_u64(bytes)?, bytes: take_u64(bytes)? })
}

pub(super) fn take_tally(bytes: &mut &[u8]) -> Option<Tally> {
    Some(Tally { batches: take_u64(bytes)?, points: take_u64(bytes)?, bytes: take_u64(bytes)? })
}

pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    bytes.split_off(..4).and_then(|taken| taken.try_into().ok()).map(u32::from_le_bytes)
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    bytes.split_off(..8).and_then(|taken| taken.try_into().ok()).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
