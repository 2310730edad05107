//! Frames between a replayer and a relay's spill.
//!
//! The replayer dials the relay's `link` port (`Hello` with [`super::Role::Replayer`]) and asks; the relay answers with
//! records and an end, and says its backlog every second. A lease saves work and guards nothing: it ends with the link
//! or after 30 s, and two replayers that hold one record are harmless.
//!
//! ```text
//! LeaseRequest  number u64, lane u16, max_bytes u32, max_points u32, from u32, to u32, matching text
//! Leased        number u64, lane u16, ordinal u64, the record's bytes (a batch, or a block of canonical lines)
//! LeaseEnd      number u64, granted u32
//! Done          outcome u8, n u32, n x (lane u16, ordinal u64)
//! Backlog       n u16, n x (lane u16, destination text, points u64, batches u64, bytes u64, leased u64, head u64,
//!               tail u64, oldest u32, newest u32)
//! ```

use bytes::Bytes;

use super::{BACKLOG, DONE, FrameError, LEASE_END, LEASE_REQUEST, LEASED, Reader, put_count, put_text};
use crate::time::UnixSeconds;

/// Where one spilled record is, for ever: lanes and ordinals are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub lane: u16,
    pub ordinal: u64,
}

/// Asks for spilled records of one lane, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Comes back in the answer.
    pub number: u64,
    pub lane: u16,
    /// At most so many bytes and points; at least one record is granted if there is any.
    pub max_bytes: u32,
    pub max_points: u32,
    /// Only records that have points with a timestamp in `from..=to`.
    pub from: UnixSeconds,
    pub to: UnixSeconds,
    /// Only records with a series that this glob matches; empty: all.
    pub matching: String,
}

/// One record, lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    pub number: u64,
    pub ticket: Ticket,
    /// A batch for a lane of the aggregators, canonical lines for a lane of a store.
    pub bytes: Bytes,
}

/// The answer to a [`LeaseRequest`] is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEnd {
    pub number: u64,
    /// Records lent; zero: nothing that may be lent now.
    pub granted: u32,
}

/// What became of leased records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Durable at the final layer, or received by the store: forget it.
    Delivered,
    /// Not sent, or in doubt: lend it again.
    Released,
    /// Refused for good: it goes to the dead letters under this reason.
    TooOld,
    Poison,
    BadChecksum,
    DuplicateSender,
}

impl Outcome {
    /// All there are, in the order of their codes.
    pub const ALL: [Outcome; 6] = [
        Outcome::Delivered,
        Outcome::Released,
        Outcome::TooOld,
        Outcome::Poison,
        Outcome::BadChecksum,
        Outcome::DuplicateSender,
    ];

    /// The word in logs, and in the ledger for the refusals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Released => "released",
            Outcome::TooOld => "too_old",
            Outcome::Poison => "poison",
            Outcome::BadChecksum => "bad_checksum",
            Outcome::DuplicateSender => "duplicate_sender",
        }
    }
}

/// What became of some leased records. Saying it twice is harmless; if it is lost, the lease runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub outcome: Outcome,
    pub tickets: Vec<Ticket>,
}

/// What one lane of a relay's spill holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneBacklog {
    pub lane: u16,
    /// `aggregate`, `aggregate:<final node>`, or `<store>/<host:port>`.
    pub destination: String,
    pub points: u64,
    pub batches: u64,
    /// On disk.
    pub bytes: u64,
    /// Points that are lent now; part of `points`.
    pub leased: u64,
    /// The first ordinal that is not settled, and the one after the last.
    pub head: u64,
    pub tail: u64,
    /// Timestamps of the oldest and newest point, as far as known without reading: never too narrow.
    pub oldest: UnixSeconds,
    pub newest: UnixSeconds,
}

/// Every lane that holds anything, or did since the relay's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub lanes: Vec<LaneBacklog>,
}

pub(super) fn put_request(request: &LeaseRequest, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&request.number.to_le_bytes());
    out.extend_from_slice(&request.lane.to_le_bytes());
    out.extend_from_slice(&request.max_bytes.to_le_bytes());
    out.extend_from_slice(&request.max_points.to_le_bytes());
    out.extend_from_slice(&request.from.0.to_le_bytes());
    out.extend_from_slice(&request.to.0.to_le_bytes());
    put_text(&request.matching, out);
    LEASE_REQUEST
}

pub(super) fn request(payload: &[u8]) -> Result<LeaseRequest, FrameError> {
    let mut reader = Reader::new(payload, "lease_request");
    let request = LeaseRequest {
        number: reader.u64()?,
        lane: reader.u16()?,
        max_bytes: reader.u32()?,
        max_points: reader.u32()?,
        from: UnixSeconds(reader.u32()?),
        to: UnixSeconds(reader.u32()?),
        matching: reader.text()?,
    };
    reader.end()?;
    Ok(request)
}

pub(super) fn put_leased(leased: &Leased, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&leased.number.to_le_bytes());
    put_ticket(leased.ticket, out);
    out.extend_from_slice(&leased.bytes);
    LEASED
}

/// Shares the record's bytes with the frame.
pub(super) fn leased(payload: &Bytes) -> Result<Leased, FrameError> {
    let mut reader = Reader::new(payload, "leased");
    let (number, ticket) = (reader.u64()?, ticket(&mut reader)?);
    let bytes = payload.slice(payload.len() - reader.rest.len()..);
    Ok(Leased { number, ticket, bytes })
}

pub(super) fn put_lease_end(end: LeaseEnd, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&end.number.to_le_bytes());
    out.extend_from_slice(&end.granted.to_le_bytes());
    LEASE_END
}

pub(super) fn lease_end(payload: &[u8]) -> Result<LeaseEnd, FrameError> {
    let mut reader = Reader::new(payload, "lease_end");
    let end = LeaseEnd { number: reader.u64()?, granted: reader.u32()? };
    reader.end()?;
    Ok(end)
}

pub(super) fn put_done(done: &Done, out: &mut Vec<u8>) -> u8 {
    out.push(Outcome::ALL.iter().position(|known| *known == done.outcome).and_then(|n| n.try_into().ok()).unwrap_or(1));
    put_count(done.tickets.len(), out);
    done.tickets.iter().for_each(|&ticket| put_ticket(ticket, out));
    DONE
}

pub(super) fn done(payload: &[u8]) -> Result<Done, FrameError> {
    let mut reader = Reader::new(payload, "done");
    let code = usize::from(reader.u8()?);
    let outcome = *Outcome::ALL.get(code).ok_or_else(|| reader.malformed("unknown outcome"))?;
    let tickets = (0..reader.count(10)?).map(|_| ticket(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Done { outcome, tickets })
}

pub(super) fn put_backlog(backlog: &Backlog, out: &mut Vec<u8>) -> u8 {
    let lanes = backlog.lanes.get(..backlog.lanes.len().min(usize::from(u16::MAX))).unwrap_or_default();
    out.extend_from_slice(&u16::try_from(lanes.len()).unwrap_or(u16::MAX).to_le_bytes());
    for lane in lanes {
        out.extend_from_slice(&lane.lane.to_le_bytes());
        put_text(&lane.destination, out);
        for n in [lane.points, lane.batches, lane.bytes, lane.leased, lane.head, lane.tail] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&lane.oldest.0.to_le_bytes());
        out.extend_from_slice(&lane.newest.0.to_le_bytes());
    }
    BACKLOG
}

pub(super) fn backlog(payload: &[u8]) -> Result<Backlog, FrameError> {
    let mut reader = Reader::new(payload, "backlog");
    let lanes = (0..reader.u16()?).map(|_| lane(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Backlog { lanes })
}

fn lane(reader: &mut Reader<'_>) -> Result<LaneBacklog, FrameError> {
    Ok(LaneBacklog {
        lane: reader.u16()?,
        destination: reader.text()?,
        points: reader.u64()?,
        batches: reader.u64()?,
        bytes: reader.u64()?,
        leased: reader.u64()?,
        head: reader.u64()?,
        tail: reader.u64()?,
        oldest: UnixSeconds(reader.u32()?),
        newest: UnixSeconds(reader.u32()?),
    })
}

fn put_ticket(ticket: Ticket, out: &mut Vec<u8>) {
    out.extend_from_slice(&ticket.lane.to_le_bytes());
    out.extend_from_slice(&ticket.ordinal.to_le_bytes());
}

fn ticket(reader: &mut Reader<'_>) -> Result<Ticket, FrameError> {
    Ok(Ticket { lane: reader.u16()?, ordinal: reader.u64()? })
}
