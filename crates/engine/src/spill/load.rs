//! A start: the books from the store, from the records themselves, and from the witness beside the store.
//!
//! ```text
//! gap      last u64, batches u64, points u64, why u8, at u32
//! witness  "SPW1", n u16, n x (lane u16, length u32, of: destination length u8, destination, books, runs)
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;

use super::books::{self, Books, Lost, take_u32, take_u64};
use super::keys::{self, FORMAT, Key};
use super::lane::{Gap, Lane};
use super::{Codec, Record, Spill, record};
use crate::time::UnixSeconds;

const WITNESS: &[u8; 4] = b"SPW1";
/// Bytes of a witness at most. Lanes share them: one with more runs than fit is written without, which matters only
/// when a store is lost as a whole; then what was settled beyond the head counts as lost.
const WITNESS_BYTES: usize = 60_000;

/// Why a spill cannot be used by this program. It is untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the spill is of format {format}, written by {program}; this program knows {FORMAT}: start the newer program, \
         or give this node another data directory"
    )]
    Newer { format: u16, program: String },
}

impl Spill {
    /// A spill as the store has it. `entries`: all of [`super::books_range`] that can be read; `witness`: what
    /// [`Spill::witness`] gave last. Then [`Spill::found`] every record that lies behind the books
    /// ([`Spill::beyond_books`]), and [`Spill::loaded`].
    ///
    /// # Errors
    /// When a newer program has written it.
    pub fn load(
        own: u64,
        program: &str,
        entries: &[(Bytes, Bytes)],
        witness: Option<&[u8]>,
    ) -> Result<Spill, LoadError> {
        let mut spill = Spill {
            own,
            program: program.to_owned(),
            lanes: BTreeMap::new(),
            leases: super::Leases::default(),
            codec: Codec::default(),
            staged: Vec::new(),
            puts: Vec::new(),
            dead: Vec::new(),
            dead_kept: super::Tally::default(),
            dead_changed: false,
            versioned: false,
            now: UnixSeconds(0),
        };
        let mut runs = BTreeMap::new();
        for (key, value) in entries {
            match keys::read(key) {
                Some(Key::Version) => spill.versioned = known_version(value)?,
                Some(Key::Name(lane)) => {
                    spill.loading(lane).destination = String::from_utf8_lossy(value).into_owned();
                }
                Some(Key::Books(lane)) => {
                    if let Some((books, span)) = books::decode(&mut &value[..]) {
                        let lane = spill.loading(lane);
                        lane.books = books;
                        lane.spans.unseen(span);
                    }
                }
                Some(Key::Runs(lane)) => {
                    if let Some(found) = books::decode_runs(value) {
                        runs.insert(lane, found);
                    }
                }
                Some(Key::Gap(lane, first)) => {
                    if let Some(gap) = decode_gap(first, value) {
                        spill.loading(lane).gaps.insert(first, gap);
                    }
                }
                Some(Key::DeadTally) => spill.dead_kept = books::take_tally(&mut &value[..]).unwrap_or_default(),
                Some(Key::Record(..)) | None => {}
            }
        }
        for (lane, runs) in runs {
            spill.loading(lane).books.set_runs(runs);
        }
        for (lane, destination, books, span) in witness.and_then(read_witness).unwrap_or_default() {
            let lane = spill.loading(lane);
            if lane.books.next.ordinal == 0 {
                lane.books = books;
                lane.spans.unseen(span);
            } else {
                lane.books.join(&books);
            }
            if lane.destination.is_empty() {
                lane.destination = destination;
            }
        }
        Ok(spill)
    }

    fn loading(&mut self, lane: u16) -> &mut Lane {
        self.lanes.entry(lane).or_default()
    }

    /// The keys in which records may lie that the books do not know: normally nothing is there. What is read there
    /// goes to [`Spill::found`].
    pub fn beyond_books(&self) -> Vec<keys::KeyRange> {
        let (start, end) = keys::all_records();
        let mut ranges = Vec::new();
        let mut from = start;
        for (number, lane) in &self.lanes {
            ranges.push((from, keys::record(*number, 0)));
            let (tail, behind) = keys::records_from(*number, lane.books.next.ordinal);
            ranges.push((tail, behind.clone()));
            from = behind;
        }
        ranges.push((from, end));
        ranges.retain(|(from, to)| from < to);
        ranges
    }

    /// A record that the books do not know, in order of the keys.
    pub fn found(&mut self, key: &[u8], value: &[u8]) {
        let (Some(Key::Record(number, ordinal)), Ok(record)) = (keys::read(key), record::decode(value)) else { return };
        if record.header.before.ordinal != ordinal {
            return;
        }
        let lane = self.lanes.entry(number).or_default();
        if lane.books.next.ordinal == 0 && ordinal > 0 {
            // Nobody knows what became of what was before: all of it was read and is gone, or there would be books.
            lane.books.head = record.header.before;
        }
        if lane.destination.is_empty() {
            lane.destination = record.header.destination.to_owned();
        }
        lane.books.next = lane.books.next.max(record.run().end);
        lane.spans.add(ordinal, record.header.min_ts, record.header.max_ts);
    }

    /// Everything was found: the books are put right and written with the next [`Spill::ops`], and every lane is
    /// checked.
    pub fn loaded(&mut self, now: UnixSeconds) {
        self.now = now;
        for lane in self.lanes.values_mut() {
            lane.books.drop_no_more_than_done();
            lane.next = lane.books.next;
            lane.synced_next = lane.books.next;
            lane.forgotten = lane.books.head;
            lane.unnamed = true;
            lane.books_changed = true;
            lane.runs_changed = true;
            lane.check();
        }
    }

    /// What must be known when the whole store is gone; to be kept beside it after each sync.
    pub fn witness(&self) -> Vec<u8> {
        let share = (WITNESS_BYTES - WITNESS.len() - 2) / self.lanes.len().max(1);
        let (mut lanes, mut count) = (Vec::new(), 0_u16);
        for (number, lane) in &self.lanes {
            let destination = record::clipped(&lane.destination);
            let books = lane.written.encode(lane.written.next, lane.spans.bounds());
            let mut runs = lane.written.encode_runs();
            let length = |runs: &[u8]| 1 + destination.len() + books.len() + runs.len();
            if 6 + length(&runs) > share {
                runs = Books::default().encode_runs();
            }
            let length = length(&runs);
            if 6 + length > share {
                continue;
            }
            count += 1;
            lanes.extend_from_slice(&number.to_le_bytes());
            lanes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            lanes.push(u8::try_from(destination.len()).unwrap_or(u8::MAX));
            lanes.extend_from_slice(destination.as_bytes());
            lanes.extend_from_slice(&books);
            lanes.extend_from_slice(&runs);
        }
        let mut out = WITNESS.to_vec();
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&lanes);
        out
    }

    /// Told in a former life of the thread or not: what a record is, for who wrote it.
    pub fn is_own(&self, record: &Record<'_>, epoch: u32) -> bool {
        match record.header.content {
            record::Content::Batch(id) => id.sender == self.own && id.epoch == epoch,
            record::Content::Block { epoch: of, .. } => of == epoch,
        }
    }
}

fn known_version(value: &[u8]) -> Result<bool, LoadError> {
    let (format, program) = value.split_at_checked(2).unwrap_or_default();
    let format = format.try_into().map_or(0, u16::from_be_bytes);
    if format > FORMAT {
        return Err(LoadError::Newer { format, program: String::from_utf8_lossy(program).into_owned() });
    }
    Ok(format == FORMAT)
}

type Seen = (u16, String, Books, Option<(UnixSeconds, UnixSeconds)>);

fn read_witness(bytes: &[u8]) -> Option<Vec<Seen>> {
    let mut bytes = bytes.strip_prefix(WITNESS)?;
    let count = bytes.split_off(..2)?.try_into().map(u16::from_le_bytes).ok()?;
    let mut lanes = Vec::new();
    for _ in 0..count {
        let lane = bytes.split_off(..2)?.try_into().map(u16::from_le_bytes).ok()?;
        let length = usize::try_from(take_u32(&mut bytes)?).ok()?;
        let mut entry = bytes.split_off(..length)?;
        let destination = usize::from(*entry.split_off_first()?);
        let destination = String::from_utf8_lossy(entry.split_off(..destination)?).into_owned();
        let (mut books, span) = books::decode(&mut entry)?;
        books.set_runs(books::decode_runs(entry)?);
        lanes.push((lane, destination, books, span));
    }
    Some(lanes)
}

pub(super) fn encode_gap(gap: &Gap) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [gap.last, gap.batches, gap.points] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(gap.why.code());
    out.extend_from_slice(&gap.at.0.to_le_bytes());
    out
}

fn decode_gap(first: u64, mut bytes: &[u8]) -> Option<Gap> {
    let (last, batches, points) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?, take_u64(&mut bytes)?);
    let why = *Lost::ALL.get(usize::from(*bytes.split_off_first()?))?;
    Some(Gap { first, last, batches, points, why, at: UnixSeconds(take_u32(&mut bytes)?) })
}
