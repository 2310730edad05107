//! The pure half of a relay's spill: what a record looks like, which lane it is in, what the books say, who has a lease.
//!
//! The shell owns the store. It asks [`Spill`] what to write ([`Spill::ops`]), writes that in one atomic batch and says
//! whether it worked ([`Spill::written`], [`Spill::refused`]), syncs and says so ([`Spill::synced`]), and feeds it keys
//! and values that it read. Everything the store has been told can be rebuilt from the store ([`Spill::load`]); only
//! leases are gone after a crash, which costs a repetition.
//!
//! * **Lanes.** One destination each, dense ordinals from 0, never used again. Records and books change in one batch.
//! * **Settling** in order moves the head, out of order it is a run beyond it, twice or unknown is harmless. If what was
//!   settled is lost by a crash, the record is lent once more.
//! * **Nothing vanishes uncounted.** `spilled = pending + settled + dropped` of every lane, after any crash. What is
//!   missing between two readable records is known from their sums, what is missing at the end from the books, and what
//!   is missing when the whole store is gone from the witness.
//! * **Bounds**: 4,096 runs beyond the head and 1,024 gaps a lane, 65,536 leases, 256 pieces of timestamps a lane.

mod books;
mod discard;
mod entry;
mod filter;
mod keys;
mod lane;
mod lease;
mod load;
mod record;
mod spans;
mod why;

use std::collections::BTreeMap;

pub use books::{Books, Lost, Mark, RUNS_MAX, Run, Tally};
pub use discard::{Discard, TooManyRuns};
pub use entry::Entry;
pub use filter::{Filter, timestamps};
pub use keys::{
    FAMILIES, FORMAT, KeyRange, NO_LANE, all_records, behind, books_range, dead_range, record as key, records_from,
};
pub use lane::{GAPS_MAX, Gap};
pub use lease::{Grant, LEASE_FOR, LEASES_MAX, Offered};
pub use load::LoadError;
pub use record::{Codec, Content, Header, Origin, Record, RecordError, decode, fingerprint};
pub use why::Why;

use crate::batch::Batch;
use crate::time::{Mono, UnixSeconds};
use crate::wire::Ticket;
use lane::{Lane, epoch_of};
use lease::Leases;

/// One change to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

/// What must be known of a record to settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub run: Run,
    /// Of a batch of this relay.
    pub epoch: Option<u32>,
}

/// Whether something was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Now,
    /// It was before, or there is no such record. Nothing has changed.
    Before,
    /// Too much is settled out of order already; it stays pending and will be lent again.
    TooManyRuns,
}

/// Appended, and not known to be written.
#[derive(Clone, Copy, Debug)]
struct Staged {
    ticket: Ticket,
    meta: Meta,
    span: (UnixSeconds, UnixSeconds),
}

/// What one lane holds, and held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneView {
    pub lane: u16,
    pub destination: String,
    pub spilled: Tally,
    pub pending: Tally,
    pub settled: Tally,
    /// Not empty ones.
    pub dropped: Vec<(Lost, Tally)>,
    pub head: u64,
    pub tail: u64,
    /// Where the next record goes.
    pub end: Mark,
    /// Timestamps of the oldest and newest pending point, never too narrow.
    pub span: Option<(UnixSeconds, UnixSeconds)>,
    /// Oldest first.
    pub gaps: Vec<Gap>,
    /// A check is not through: what is missing may still be called pending.
    pub checking: bool,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct Spill {
    /// The sender that this relay is.
    own: u64,
    program: String,
    lanes: BTreeMap<u16, Lane>,
    leases: Leases,
    codec: Codec,
    staged: Vec<Staged>,
    /// Puts of staged records, and of dead letters with what they change in the books.
    puts: Vec<Op>,
    dead: Vec<Op>,
    dead_kept: Tally,
    dead_changed: bool,
    versioned: bool,
    now: UnixSeconds,
}

impl Spill {
    /// Time passes: leases end. How many did.
    pub fn tick(&mut self, now: Mono, unix: UnixSeconds) -> usize {
        self.now = unix;
        self.end_old_leases(now)
    }

    /// Puts something at the end of its lane. It is to be written with the next [`Spill::ops`], and there for certain
    /// when the sync after that has succeeded.
    pub fn append(&mut self, entry: &Entry<'_>) -> Ticket {
        let number = self.lane_of(entry.destination);
        let before = self.lanes.get(&number).map(|lane| lane.next).unwrap_or_default();
        let header = self.header(entry, before);
        let value = self.codec.encode(&header, entry.bytes);
        self.stage(number, &header, value)
    }

    fn header<'e>(&self, entry: &Entry<'e>, before: Mark) -> Header<'e> {
        Header {
            why: entry.why,
            content: entry.content,
            destination: entry.destination,
            before,
            points: entry.points,
            min_ts: entry.min_ts,
            max_ts: entry.max_ts,
            spilled_at: self.now,
            raw_bytes: u32::try_from(entry.bytes.len()).unwrap_or(u32::MAX),
        }
    }

    /// Puts a record of another spill, or of an export, at the end of the lane of its destination; the identity in it
    /// stays what it was.
    pub fn import(&mut self, record: &Record<'_>) -> Ticket {
        let number = self.lane_of(record.header.destination);
        let before = self.lanes.get(&number).map(|lane| lane.next).unwrap_or_default();
        let value = record::moved(record, before, Why::Import);
        self.stage(number, &Header { before, ..record.header.clone() }, value)
    }

    /// The lane of a destination, made when it is new.
    fn lane_of(&mut self, destination: &str) -> u16 {
        let destination = record::clipped(destination);
        let known = self.lanes.iter().find(|(_, lane)| lane.destination == destination);
        if let Some((number, _)) = known {
            return *number;
        }
        let number = self.lanes.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        let lane = Lane { destination: destination.to_owned(), unnamed: true, ..Lane::default() };
        self.lanes.entry(number).or_insert(lane);
        number
    }

    fn stage(&mut self, number: u16, header: &Header<'_>, value: Vec<u8>) -> Ticket {
        let ticket = Ticket { lane: number, ordinal: header.before.ordinal };
        let end = header.before.after(u64::from(header.points), value.len() as u64);
        let meta = Meta { run: Run { first: header.before, end }, epoch: epoch_of(header.content, self.own) };
        self.staged.push(Staged { ticket, meta, span: (header.min_ts, header.max_ts) });
        self.puts.push(Op::Put { key: keys::record(number, ticket.ordinal), value });
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.next = end;
        }
        ticket
    }

    /// Bytes of records that wait to be written.
    pub fn staged_bytes(&self) -> u64 {
        self.staged.iter().map(|staged| staged.meta.run.tally().bytes).sum()
    }

    /// What is to be written, all together; nothing if the store has been told everything.
    pub fn ops(&self) -> Vec<Op> {
        let mut ops = Vec::with_capacity(self.puts.len() + self.dead.len() + 8);
        if !self.versioned {
            let mut value = FORMAT.to_be_bytes().to_vec();
            value.extend_from_slice(self.program.as_bytes());
            ops.push(Op::Put { key: keys::VERSION.to_vec(), value });
        }
        for (number, lane) in &self.lanes {
            let staged = lane.next != lane.books.next;
            if lane.unnamed && (staged || lane.books_changed) {
                ops.push(Op::Put { key: keys::name(*number), value: lane.destination.clone().into_bytes() });
            }
            if staged || lane.books_changed {
                let value = lane.books.encode(lane.next, self.span_of(*number, lane));
                ops.push(Op::Put { key: keys::books(*number), value });
            }
            if lane.runs_changed {
                ops.push(Op::Put { key: keys::runs(*number), value: lane.books.encode_runs() });
            }
            let gaps = lane.new_gaps.iter().filter_map(|first| lane.gaps.get(first));
            ops.extend(gaps.map(|gap| Op::Put { key: keys::gap(*number, gap.first), value: load::encode_gap(gap) }));
            ops.extend(lane.old_gaps.iter().map(|first| Op::Delete { key: keys::gap(*number, *first) }));
        }
        if self.dead_changed {
            let mut value = Vec::new();
            self.dead_kept.put(&mut value);
            ops.push(Op::Put { key: keys::DEAD_TALLY.to_vec(), value });
        }
        ops.extend(self.dead.iter().cloned());
        ops
    }

    /// The records of what is to be written, to go into the same batch as [`Spill::ops`].
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.puts.iter().filter_map(|op| match op {
            Op::Put { key, value } => Some((key.as_slice(), value.as_slice())),
            Op::Delete { .. } => None,
        })
    }

    fn span_of(&self, number: u16, lane: &Lane) -> Option<(UnixSeconds, UnixSeconds)> {
        let staged = self.staged.iter().filter(|staged| staged.ticket.lane == number).map(|staged| staged.span);
        lane.spans.bounds().into_iter().chain(staged).reduce(|(o, n), (oldest, newest)| (o.min(oldest), n.max(newest)))
    }

    /// The store took all of [`Spill::ops`] and [`Spill::records`].
    pub fn written(&mut self) {
        self.versioned = true;
        for staged in std::mem::take(&mut self.staged) {
            if let Some(lane) = self.lanes.get_mut(&staged.ticket.lane) {
                lane.books.next = staged.meta.run.end;
                lane.unnamed = false;
                lane.used = true;
                lane.count(staged.ticket.ordinal, staged.span, staged.meta.epoch);
                lane.books_changed = true;
            }
        }
        self.puts.clear();
        self.dead.clear();
        self.dead_changed = false;
        for lane in self.lanes.values_mut().filter(|lane| lane.books_changed || lane.runs_changed) {
            lane.unnamed = false;
            lane.books_changed = false;
            lane.runs_changed = false;
            lane.new_gaps.clear();
            lane.old_gaps.clear();
            lane.written = lane.books.clone();
        }
    }

    /// The store took nothing: what was appended since is forgotten, everything else is to be written later.
    pub fn refused(&mut self) {
        self.staged.clear();
        self.puts.clear();
        self.lanes.values_mut().for_each(|lane| lane.next = lane.books.next);
    }

    /// Whether the store has to be told anything.
    pub fn has_changes(&self) -> bool {
        let changed = |lane: &Lane| lane.books_changed || lane.runs_changed;
        !self.staged.is_empty() || self.dead_changed || self.lanes.values().any(changed)
    }

    /// Everything written is on disk. Gives ranges of keys that the store may forget, if that is worth its while.
    pub fn synced(&mut self) -> Vec<keys::KeyRange> {
        let mut forget = Vec::new();
        for (number, lane) in &mut self.lanes {
            lane.synced_head = lane.written.head;
            lane.synced_next = lane.written.next;
            let freed = lane.forgotten.until(lane.synced_head);
            let emptied = freed.bytes >= FORGET_EMPTY_BYTES && lane.synced_head == lane.written.next;
            if freed.bytes >= FORGET_BYTES || emptied {
                forget.push(keys::records_range(*number, 0, lane.synced_head.ordinal));
                lane.forgotten = lane.synced_head;
            }
        }
        forget
    }

    /// For a full disk: ranges of keys that the store may forget, in smaller pieces than [`Spill::synced`] asks for. They
    /// are given until [`Spill::given_back`].
    pub fn to_give_back(&self) -> Vec<keys::KeyRange> {
        let due = self.lanes.iter().filter(|(_, lane)| lane.gives_back());
        due.map(|(number, lane)| keys::records_range(*number, 0, lane.synced_head.ordinal)).collect()
    }

    /// The store has given back what [`Spill::to_give_back`] said.
    pub fn given_back(&mut self) {
        for lane in self.lanes.values_mut().filter(|lane| lane.gives_back()) {
            lane.given_back = lane.synced_head;
            lane.forgotten = lane.synced_head;
        }
    }

    /// Whether a record is neither settled nor dropped.
    pub fn is_pending(&self, ticket: Ticket) -> bool {
        self.lanes
            .get(&ticket.lane)
            .is_some_and(|lane| ticket.ordinal < lane.books.next.ordinal && !lane.books.is_done(ticket.ordinal))
    }

    /// What is pending in `from..to` of a lane: ordinals, first and last of each stretch.
    pub fn pending_between(&self, lane: u16, from: u64, to: u64) -> Vec<(u64, u64)> {
        self.lanes.get(&lane).map_or_else(Vec::new, |lane| lane.books.pending_ordinals(from, to))
    }

    /// What must be known of a record that was read.
    pub fn meta(&self, record: &Record<'_>) -> Meta {
        Meta { run: record.run(), epoch: epoch_of(record.header.content, self.own) }
    }

    /// What is known of a record that is lent.
    pub fn leased_meta(&self, ticket: Ticket) -> Option<Meta> {
        self.leases.meta(ticket)
    }

    /// What was appended with the next [`Spill::ops`], to settle it later without reading it.
    pub fn staged_meta(&self, ticket: Ticket) -> Option<Meta> {
        self.staged.iter().rev().find(|staged| staged.ticket == ticket).map(|staged| staged.meta)
    }

    /// A record was delivered.
    pub fn settle(&mut self, ticket: Ticket, meta: Meta) -> Settled {
        self.finish(ticket, meta, None)
    }

    /// A record was refused for good: it becomes a dead letter. `value`: as it lies in the store.
    pub fn bury(&mut self, ticket: Ticket, meta: Meta, why: Lost, value: Option<&[u8]>) -> Settled {
        let settled = self.finish(ticket, meta, Some(why));
        if let (Settled::Now, Some(value)) = (settled, value) {
            let key = keys::dead(why.code(), self.now.0, ticket.lane, ticket.ordinal);
            self.keep(key, value.to_vec(), meta.run.tally().points);
        }
        settled
    }

    /// What a peer refused for good before it was ever spilled becomes a dead letter, too. It is in no lane's books: who
    /// held it has counted it.
    pub fn keep_dead(&mut self, batch: &Batch, why: &str) {
        let entry = Entry::batch(AGGREGATE, batch, Why::Timeout);
        let header = self.header(&entry, Mark::default());
        let value = self.codec.encode(&header, entry.bytes);
        let code = Lost::ALL.iter().find(|lost| lost.as_str() == why).map_or(u8::MAX, |lost| lost.code());
        let id = batch.id();
        let ordinal = u64::from(id.epoch) << 32 | u64::from(id.seq);
        self.keep(keys::dead(code, self.now.0, keys::NO_LANE, ordinal), value, u64::from(entry.points));
    }

    fn keep(&mut self, key: Vec<u8>, value: Vec<u8>, points: u64) {
        let bytes = value.len() as u64;
        if self.dead_kept.bytes.saturating_add(bytes) <= DEAD_BYTES_MAX {
            self.dead_kept.add(Tally { batches: 1, points, bytes });
            self.dead_changed = true;
            self.dead.push(Op::Put { key, value });
        }
    }

    /// How many dead letters are kept; at 256 MiB no more are, and they are only counted.
    pub fn dead_letters(&self) -> Tally {
        self.dead_kept
    }

    /// Gives up the dead letters: the range is to be deleted together with the next [`Spill::ops`].
    pub fn forget_dead(&mut self) -> keys::KeyRange {
        self.dead.clear();
        self.dead_kept = Tally::default();
        self.dead_changed = true;
        keys::dead_range()
    }

    fn finish(&mut self, ticket: Ticket, meta: Meta, lost: Option<Lost>) -> Settled {
        self.leases.end(ticket);
        let fits = meta.run.first.ordinal == ticket.ordinal && meta.run.end.ordinal == ticket.ordinal + 1;
        if !fits || !self.is_pending(ticket) {
            return Settled::Before;
        }
        let Some(lane) = self.lanes.get_mut(&ticket.lane) else { return Settled::Before };
        if lane.books.finish(meta.run).is_none() {
            return Settled::TooManyRuns;
        }
        if let Some(why) = lost {
            lane.books.dropped[why.index()].add(meta.run.tally());
        }
        lane.uncount(ticket.ordinal, meta.epoch);
        lane.changed();
        Settled::Now
    }

    /// What could not be read is to be looked for in the whole lane.
    pub fn check(&mut self, lane: u16) {
        if let Some(lane) = self.lanes.get_mut(&lane).filter(|lane| lane.check.is_none()) {
            lane.check();
        }
    }

    /// The keys of records that a check wants to read next, in order: `salvage` them. `None`: no check is due.
    pub fn check_range(&self) -> Option<(u16, keys::KeyRange)> {
        let due = self.lanes.iter().find_map(|(number, lane)| lane.check.map(|check| (*number, check)));
        due.map(|(lane, check)| (lane, keys::records_range(lane, check.at.ordinal, check.to.ordinal)))
    }

    /// A key of a check's range that could be read. What is no record counts as missing.
    pub fn checked(&mut self, lane: u16, value: &[u8]) {
        let (own, now) = (self.own, self.now);
        if let (Some(lane), Ok(record)) = (self.lanes.get_mut(&lane), record::decode(value)) {
            lane.checked(&record, own, now);
        }
    }

    /// Every readable key of a check's range was given to [`Spill::checked`].
    pub fn checked_all(&mut self, lane: u16) {
        let now = self.now;
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.checked_all(now);
        }
    }

    /// The oldest epoch of this relay of which anything is pending for the aggregators, 0 while that is not known;
    /// and the oldest timestamp of what is pending for them.
    pub fn oldest(&self) -> (Option<u32>, Option<UnixSeconds>) {
        let lanes = || self.lanes.values().filter(|lane| lane.books.pending().batches > 0);
        let epochs =
            lanes().filter_map(|lane| if lane.check.is_some() { Some(0) } else { lane.epochs.keys().next().copied() });
        let for_aggregators = lanes().filter(|lane| is_aggregate(&lane.destination));
        (epochs.min(), for_aggregators.filter_map(|lane| lane.spans.bounds()).map(|(oldest, _)| oldest).min())
    }

    /// The lane of a destination, if there is one.
    pub fn lane_named(&self, destination: &str) -> Option<u16> {
        self.lanes.iter().find(|(_, lane)| lane.destination == destination).map(|(number, _)| *number)
    }

    /// Every lane there is.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.lanes.iter().map(|(number, lane)| view(*number, lane)).collect()
    }

    /// One lane.
    pub fn lane(&self, number: u16) -> Option<LaneView> {
        self.lanes.get(&number).map(|lane| view(number, lane))
    }

    /// For who reads records past the machine.
    pub fn codec(&mut self) -> &mut Codec {
        &mut self.codec
    }
}

const DEAD_BYTES_MAX: u64 = 256 << 20;
/// Space is given back in pieces of this size: files of a lane hold some 16 MiB.
const FORGET_BYTES: u64 = 32 << 20;
/// And of this, when the lane is empty.
const FORGET_EMPTY_BYTES: u64 = 1 << 20;

/// Whether a destination is the aggregation layers, or a part of them.
pub fn is_aggregate(destination: &str) -> bool {
    destination == AGGREGATE || destination.strip_prefix(AGGREGATE).is_some_and(|rest| rest.starts_with(':'))
}

/// The destination of batches for more than one final node; with `:` and a name behind it, of those for that one.
pub const AGGREGATE: &str = "aggregate";

fn view(number: u16, lane: &Lane) -> LaneView {
    let books = &lane.books;
    let dropped = Lost::ALL.into_iter().map(|why| (why, books.dropped[why.index()]));
    LaneView {
        lane: number,
        destination: lane.destination.clone(),
        spilled: books.spilled(),
        pending: books.pending(),
        settled: books.settled(),
        dropped: dropped.filter(|(_, tally)| tally.batches > 0).collect(),
        head: books.head.ordinal,
        tail: books.next.ordinal,
        end: books.next,
        span: lane.spans.bounds(),
        gaps: lane.gaps.values().copied().collect(),
        checking: lane.check.is_some(),
    }
}

#[cfg(test)]
mod tests;
