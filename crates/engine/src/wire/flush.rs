//! What a partial node hands to a final node: mergeable partials, and the identities that they include.
//!
//! ```text
//! Flush payload                               Group
//!  0  8  flush number                          0  4  number of identities I
//!  8  2  partition                             4 32*I  I times: sender u64, epoch u32, seq u32,
//! 10  1  lane: 0 = F, 1 = S                            nonce u64, from u32, points u32
//! 11  1  reserved, 0                           .  4  length D of the deltas
//! 12  4  number of groups                      .  D  deltas (see `deltas`)
//! 16  .  groups
//! ```
//!
//! A group is merged as a whole or not at all. Lane F (first sends) is one group; lane S (re-sends, replays) has one
//! group per batch, so that one batch that is included already does not hold the others up.

use bytes::Bytes;

use super::{FrameError, Reader, put_count, put_id};
use crate::batch::{BatchId, Incarnation};

/// Which of the two lanes of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// First sends: merged together.
    First,
    /// Suspects: sent before, or replayed. One group per batch.
    Suspect,
}

impl Lane {
    /// Both.
    pub const ALL: [Lane; 2] = [Lane::First, Lane::Suspect];

    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Lane::First => 0,
            Lane::Suspect => 1,
        }
    }
}

/// One batch that a group includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Included {
    pub id: BatchId,
    pub nonce: u64,
    /// See "Claims" in `batch`: `from..=id.seq` may be marked.
    pub from: u32,
    /// How many of the batch's points fed this partition.
    pub points: u32,
}

impl Included {
    /// Which run of which sender it belongs to.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { sender: self.id.sender, epoch: self.id.epoch, nonce: self.nonce }
    }
}

/// Partials, and the batches whose points are in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub included: Vec<Included>,
    /// Encoded by `deltas`.
    pub deltas: Bytes,
}

/// One partition's partials of one lane and interval. Re-sent verbatim, under the same number, until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    pub number: u64,
    pub partition: u16,
    pub lane: Lane,
    pub groups: Vec<Group>,
}

/// What became of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupReply {
    /// Merged now, durably.
    Merged,
    /// Not merged, for these are included already, durably; the others must come again.
    Refused { included: Vec<BatchId> },
    /// Not merged: these would open more holes in the included set than it may have. They come again when older ones
    /// have arrived; the others of the group at once.
    TooManyHoles { ids: Vec<BatchId> },
    /// Not merged: the epoch of these batches' sender is known with another nonce: two processes run on copies of one
    /// disk. The others of the group come again.
    DuplicateSender { ids: Vec<BatchId> },
    /// Not merged: these are of an epoch that their sender has retired, the highest of those being `floor`. Nobody
    /// remembers whether they are in. The others of the group come again.
    Retired { ids: Vec<BatchId>, floor: u32 },
    /// Not merged: the deltas could not be read. They must be built anew.
    Malformed,
}

/// The answer to a flush; given only after everything it says is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushReply {
    pub number: u64,
    pub partition: u16,
    pub lane: Lane,
    pub groups: Vec<GroupReply>,
}

const INCLUDED_BYTES: usize = 32;
/// The code of the one answer that has a number of its own.
const RETIRED: u8 = 5;

pub(super) fn put(flush: &Flush, out: &mut Vec<u8>) {
    put_front(flush.number, flush.partition, flush.lane, flush.groups.len(), out);
    for group in &flush.groups {
        put_count(group.included.len(), out);
        for included in &group.included {
            put_id(included.id, out);
            out.extend_from_slice(&included.nonce.to_le_bytes());
            out.extend_from_slice(&included.from.to_le_bytes());
            out.extend_from_slice(&included.points.to_le_bytes());
        }
        put_count(group.deltas.len(), out);
        out.extend_from_slice(&group.deltas);
    }
}

/// Reads a flush; the deltas share the payload's bytes.
pub(super) fn decode(payload: &Bytes) -> Result<Flush, FrameError> {
    let mut reader = Reader::new(payload, "flush");
    let (number, partition, lane) = front(&mut reader)?;
    let count = reader.count(8)?;
    let mut groups = Vec::with_capacity(count);
    for _ in 0..count {
        let members = reader.count(INCLUDED_BYTES)?;
        let mut included = Vec::with_capacity(members);
        for _ in 0..members {
            let entry = Included { id: reader.id()?, nonce: reader.u64()?, from: reader.u32()?, points: reader.u32()? };
            if entry.from > entry.id.seq {
                return Err(reader.malformed("claim behind its own batch"));
            }
            included.push(entry);
        }
        let length = reader.count(1)?;
        let deltas = payload.slice_ref(reader.take(length)?);
        groups.push(Group { included, deltas });
    }
    reader.end()?;
    Ok(Flush { number, partition, lane, groups })
}

pub(super) fn put_reply(reply: &FlushReply, out: &mut Vec<u8>) {
    put_front(reply.number, reply.partition, reply.lane, reply.groups.len(), out);
    for group in &reply.groups {
        let (code, ids): (u8, &[BatchId]) = match group {
            GroupReply::Merged => (0, &[]),
            GroupReply::Refused { included } => (1, included),
            GroupReply::TooManyHoles { ids } => (2, ids),
            GroupReply::DuplicateSender { ids } => (3, ids),
            GroupReply::Malformed => (4, &[]),
            GroupReply::Retired { ids, .. } => (RETIRED, ids),
        };
        out.push(code);
        if let GroupReply::Retired { floor, .. } = group {
            out.extend_from_slice(&floor.to_le_bytes());
        }
        put_count(ids.len(), out);
        for id in ids {
            put_id(*id, out);
        }
    }
}

pub(super) fn decode_reply(body: &[u8]) -> Result<FlushReply, FrameError> {
    let mut reader = Reader::new(body, "flush_reply");
    let (number, partition, lane) = front(&mut reader)?;
    let count = reader.count(5)?;
    let mut groups = Vec::with_capacity(count);
    for _ in 0..count {
        let code = reader.u8()?;
        let floor = if code == RETIRED { reader.u32()? } else { 0 };
        let members = reader.count(16)?;
        let mut included = Vec::with_capacity(members);
        for _ in 0..members {
            included.push(reader.id()?);
        }
        groups.push(match (code, included.is_empty()) {
            (0, true) => GroupReply::Merged,
            (1, _) => GroupReply::Refused { included },
            (2, _) => GroupReply::TooManyHoles { ids: included },
            (3, _) => GroupReply::DuplicateSender { ids: included },
            (4, true) => GroupReply::Malformed,
            (RETIRED, _) => GroupReply::Retired { ids: included, floor },
            _ => return Err(reader.malformed("unknown answer")),
        });
    }
    reader.end()?;
    Ok(FlushReply { number, partition, lane, groups })
}

fn put_front(number: u64, partition: u16, lane: Lane, groups: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&partition.to_le_bytes());
    out.push(match lane {
        Lane::First => 0,
        Lane::Suspect => 1,
    });
    out.push(0);
    put_count(groups, out);
}

fn front(reader: &mut Reader<'_>) -> Result<(u64, u16, Lane), FrameError> {
    let number = reader.u64()?;
    let partition = reader.u16()?;
    let lane = match reader.u8()? {
        0 => Lane::First,
        1 => Lane::Suspect,
        _ => return Err(reader.malformed("unknown lane")),
    };
    if reader.u8()? != 0 {
        return Err(reader.malformed("reserved byte is set"));
    }
    Ok((number, partition, lane))
}
