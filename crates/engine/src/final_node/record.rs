//! A record of the log, version 1.
//!
//! ```text
//! offset size  field (little-endian)
//!      0    1  version = 1
//!      1    1  kind: 0 flush, 1 retired
//!      2    2  partition
//!      4    8  number: dense from 0 in each partition
//!     12    8  points that the partition has received with this record and all before it
//!     20    .  flush: a Flush frame (`wire`), less its refused groups; retired: sender u64, floor u32
//!   end-4    4  CRC32C of all before
//! ```
//!
//! Because of the number and the sum, what is missing between two readable records is known exactly.

use bytes::{Bytes, BytesMut};

use super::included::{take_u32, take_u64};
use crate::wire::{self, Flush, Frame};

const VERSION: u8 = 1;
const HEAD: usize = 20;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: u16,
    pub number: u64,
    /// Points received with this record and all before it.
    pub received: u64,
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Flush(Flush),
    Retired { sender: u64, floor: u32 },
}

pub(super) fn flush(partition: u16, number: u64, received: u64, flush: Flush) -> Vec<u8> {
    let mut out = head(0, partition, number, received);
    wire::encode(&Frame::Flush(flush), &mut out);
    seal(out)
}

pub(super) fn retired(partition: u16, number: u64, received: u64, sender: u64, floor: u32) -> Vec<u8> {
    let mut out = head(1, partition, number, received);
    out.extend_from_slice(&sender.to_le_bytes());
    out.extend_from_slice(&floor.to_le_bytes());
    seal(out)
}

fn head(kind: u8, partition: u16, number: u64, received: u64) -> Vec<u8> {
    let mut out = vec![VERSION, kind];
    out.extend_from_slice(&partition.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&received.to_le_bytes());
    out
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Partition and number of a record, without looking at the rest; `None` when the bytes are too short.
pub fn place(bytes: &[u8]) -> Option<(u16, u64)> {
    let partition = bytes.get(2..4)?.try_into().ok().map(u16::from_le_bytes)?;
    let number = bytes.get(4..12)?.try_into().ok().map(u64::from_le_bytes)?;
    Some((partition, number))
}

/// Reads a record; `None` when the bytes are damaged or something else.
pub fn read(bytes: &[u8]) -> Option<Record> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || body.first() != Some(&VERSION) {
        return None;
    }
    let (partition, number) = place(body)?;
    let mut rest = body.get(12..)?;
    let received = take_u64(&mut rest)?;
    let body = match body.get(1)? {
        0 => {
            let mut buffer = BytesMut::from(body.get(HEAD..)?);
            match wire::decode(wire::next_raw(&mut buffer).ok()??) {
                Ok(Frame::Flush(flush)) => Body::Flush(flush),
                Ok(_) | Err(_) => return None,
            }
        }
        1 => Body::Retired { sender: take_u64(&mut rest)?, floor: take_u32(&mut rest)? },
        _ => return None,
    };
    Some(Record { partition, number, received, body })
}

/// The deltas of a flush, one for each group.
pub(super) fn deltas(flush: &Flush) -> Vec<Bytes> {
    flush.groups.iter().map(|group| group.deltas.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchId;
    use crate::wire::{Group, Included, Lane};

    #[test]
    fn a_record_reads_back_and_any_changed_bit_is_noticed() {
        let id = BatchId { sender: 1, epoch: 2, seq: 3 };
        let group = Group {
            included: vec![Included { id, nonce: 4, from: 3, points: 5 }],
            deltas: Bytes::from_static(b"deltas"),
        };
        let said = Flush { number: 9, partition: 7, lane: Lane::First, groups: vec![group] };
        let flush = flush(7, 11, 500, said.clone());
        let expected = Record { partition: 7, number: 11, received: 500, body: Body::Flush(said) };
        assert_eq!(read(&flush), Some(expected));
        let retired = retired(7, 12, 500, 1, 2);
        let body = Body::Retired { sender: 1, floor: 2 };
        assert_eq!(read(&retired), Some(Record { partition: 7, number: 12, received: 500, body }));
        for bytes in [flush, retired] {
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x20;
                assert_eq!(read(&damaged), None, "byte {at}");
                assert_eq!(read(&bytes[..at]), None, "cut at {at}");
            }
        }
    }
}
