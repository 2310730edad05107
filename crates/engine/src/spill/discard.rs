//! Giving up what is pending: find it first, say how much it is, and only then do it. A dry run is the same without the
//! last step, so it says exactly what would go.

use super::books::{Books, Lost, Run};
use super::filter::Filter;
use super::{Origin, RecordError, Spill, Tally, keys, record};
use crate::time::UnixSeconds;

/// What is meant lies in so many pieces that it cannot be marked at once. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what matches lies in too many pieces: choose a wider time range or a wider glob, or one lane at a time")]
pub struct TooManyRuns;

/// A search for what is to be given up.
#[derive(Debug)]
pub struct Discard {
    filter: Filter,
    /// Lanes that are to be looked through, with the ordinal to go on at.
    lanes: Vec<(u16, u64)>,
    found: Vec<(u16, Run)>,
    total: Tally,
    span: Option<(UnixSeconds, UnixSeconds)>,
}

impl Discard {
    /// Records of these lanes of which everything matches. What the live path still has is left alone.
    pub fn matching(lanes: &[u16], filter: Filter) -> Discard {
        let lanes = lanes.iter().rev().map(|lane| (*lane, 0)).collect();
        Discard { filter, lanes, found: Vec::new(), total: Tally::default(), span: None }
    }

    /// Everything of a lane up to `to`, a place in it. For one up to an ordinal, take the mark of the first readable
    /// record from there on; what cannot be read before that is lost anyway.
    pub fn before(spill: &Spill, lane: u16, to: super::Mark) -> Discard {
        let all = Filter::new(UnixSeconds(0), UnixSeconds(u32::MAX), "");
        let filter = all.unwrap_or_else(|_| unreachable!("BUG: no glob always compiles"));
        let mut discard = Discard { filter, lanes: Vec::new(), found: Vec::new(), total: Tally::default(), span: None };
        if let Some(held) = spill.lanes.get(&lane) {
            let range = Run { first: held.books.head, end: to };
            held.books.pending_in(range).into_iter().for_each(|run| discard.add(lane, run));
            discard.span = held.spans.bounds().filter(|_| discard.total.batches > 0);
        }
        discard
    }

    /// The keys of the records to look at next, in order; `None`: the search is over.
    pub fn range(&mut self, spill: &Spill) -> Option<(u16, keys::KeyRange)> {
        loop {
            let (number, at) = self.lanes.last_mut()?;
            let books = spill.lanes.get(number).map(|lane| &lane.books);
            *at = books.map_or(u64::MAX, |books| books.next_pending(*at));
            let end = books.map_or(0, |books| books.next.ordinal);
            if *at < end {
                return Some((*number, keys::records_range(*number, *at, end)));
            }
            self.lanes.pop();
        }
    }

    /// A record of the range.
    ///
    /// # Errors
    /// When its content cannot be read; it is not found then.
    pub fn look(
        &mut self,
        spill: &mut Spill,
        value: &[u8],
        held: &dyn Fn(Origin<'_>) -> bool,
    ) -> Result<(), RecordError> {
        let Some((number, at)) = self.lanes.last_mut() else { return Ok(()) };
        let record = record::decode(value)?;
        let run = record.run();
        *at = run.end.ordinal;
        let number = *number;
        let books = spill.lanes.get(&number).map(|lane| &lane.books);
        let pending = books.is_some_and(|books| !books.is_done(run.first.ordinal));
        if !pending || held(record.header.origin()) || !self.filter.contains(&record.header) {
            return Ok(());
        }
        if self.filter.reads_content() {
            let content = spill.codec.content(&record)?;
            if !self.filter.all_series(record.header.content, &content) {
                return Ok(());
            }
        }
        let (oldest, newest) = (record.header.min_ts, record.header.max_ts);
        self.span = Some(self.span.map_or((oldest, newest), |(o, n)| (o.min(oldest), n.max(newest))));
        self.add(number, run);
        Ok(())
    }

    /// Everything readable of the last range was looked at.
    pub fn lane_done(&mut self) {
        self.lanes.pop();
    }

    fn add(&mut self, lane: u16, run: Run) {
        self.total.add(run.tally());
        match self.found.last_mut() {
            Some((of, last)) if *of == lane && last.end == run.first => last.end = run.end,
            Some(_) | None => self.found.push((lane, run)),
        }
    }

    /// How much it is.
    pub fn total(&self) -> Tally {
        self.total
    }

    /// Timestamps of the oldest and newest of these points, never too narrow.
    pub fn span(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        self.span
    }

    /// Does it, as far as it is still pending: written with the next [`Spill::ops`]. Gives what was lost, by lane.
    ///
    /// # Errors
    /// When it lies in too many pieces; nothing was changed.
    pub fn apply(self, spill: &mut Spill) -> Result<Vec<(u16, Tally)>, TooManyRuns> {
        let mut after: Vec<(u16, Books)> = Vec::new();
        for (number, run) in &self.found {
            let Some(lane) = spill.lanes.get(number) else { continue };
            if after.last().is_none_or(|(of, _)| of != number) {
                after.push((*number, lane.books.clone()));
            }
            let books = after.last_mut().map(|(_, books)| books);
            if books.is_some_and(|books| books.finish(*run).is_none()) {
                return Err(TooManyRuns);
            }
        }
        let mut lost: Vec<(u16, Tally)> = Vec::new();
        let now = spill.now;
        for (number, run) in self.found {
            let Some(lane) = spill.lanes.get_mut(&number) else { continue };
            let before = lane.books.dropped[Lost::Discarded.index()];
            lane.lose(run, Lost::Discarded, now);
            let dropped = lane.books.dropped[Lost::Discarded.index()];
            let gone = Tally {
                batches: dropped.batches - before.batches,
                points: dropped.points - before.points,
                bytes: dropped.bytes - before.bytes,
            };
            match lost.last_mut() {
                Some((of, total)) if *of == number => total.add(gone),
                Some(_) | None => lost.push((number, gone)),
            }
        }
        for (number, _) in &lost {
            spill.leases.start_over(*number);
            // Which epochs are left is only known when what is left has been read.
            if let Some(lane) = spill.lanes.get_mut(number) {
                lane.check();
            }
        }
        Ok(lost)
    }
}
