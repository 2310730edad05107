//! The checkpoint of a partition, version 2, and the index entries of its blocks.
//!
//! ```text
//! checkpoint                                        index entry of a block
//!  version  u8 = 2                                   rest   see `window::rest`
//!  next     u64  first record not in it              owed   varint, slots of the targets that may lack it (`cursor`)
//!  floor    u32  windows before it are sealed        crc    u32, CRC32C of all before
//!  books    6 x u64  received, merged, too_old,
//!                    corrected, corrupt, sealed
//!  dead     2 x u64  next parcel of dead letters, bytes of all
//!  slots    u16, each u16 length and name
//!  lost     u32, each window u32 and rule u32
//!  included see `included`
//!  crc      u32  CRC32C of all before
//! ```
//!
//! Numbers are little-endian. Written twice, under two keys, because without it a final node does not know any more what
//! it has merged.

use super::included::{IncludedSet, take_u32, take_u64};
use super::{Books, RestoreError};
use crate::sketch::codec::{Reader, put_varint};
use crate::time::UnixSeconds;
use crate::window::{BlockId, Rest};

const VERSION: u8 = 2;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) next: u64,
    pub(super) floor: u32,
    pub(super) books: Books,
    pub(super) dead_next: u64,
    pub(super) dead_bytes: u64,
    pub(super) slots: Vec<String>,
    pub(super) lost: Vec<BlockId>,
    pub(super) included: IncludedSet,
}

impl Meta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&self.floor.to_le_bytes());
        let Books { received, merged, too_old, corrected, corrupt, sealed, .. } = self.books;
        for number in [received, merged, too_old, corrected, corrupt, sealed, self.dead_next, self.dead_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&count16(self.slots.len()));
        for slot in &self.slots {
            out.extend_from_slice(&count16(slot.len()));
            out.extend_from_slice(slot.as_bytes());
        }
        out.extend_from_slice(&u32::try_from(self.lost.len()).unwrap_or(u32::MAX).to_le_bytes());
        for id in &self.lost {
            out.extend_from_slice(&id.window.0.to_le_bytes());
            out.extend_from_slice(&id.rule.to_le_bytes());
        }
        self.included.encode(&mut out);
        seal(out)
    }

    /// Reads a checkpoint; `None`: it is damaged.
    ///
    /// # Errors
    /// When a newer program wrote it.
    pub(super) fn decode(partition: u16, bytes: &[u8]) -> Result<Option<Meta>, RestoreError> {
        let Some(body) = checked(bytes) else { return Ok(None) };
        match body.first() {
            Some(&VERSION) => Ok(body.get(1..).and_then(read)),
            Some(&version) => Err(RestoreError::NewerFormat { partition, version }),
            None => Ok(None),
        }
    }
}

fn read(mut rest: &[u8]) -> Option<Meta> {
    let rest = &mut rest;
    let (next, floor) = (take_u64(rest)?, take_u32(rest)?);
    let mut numbers = [0u64; 8];
    for number in &mut numbers {
        *number = take_u64(rest)?;
    }
    let [received, merged, too_old, corrected, corrupt, sealed, dead_next, dead_bytes] = numbers;
    let books = Books { received, merged, too_old, corrected, corrupt, sealed, ..Books::default() };
    let mut slots = Vec::new();
    for _ in 0..take_u16(rest)? {
        let length = usize::from(take_u16(rest)?);
        let (name, behind) = rest.split_at_checked(length)?;
        slots.push(String::from_utf8(name.to_vec()).ok()?);
        *rest = behind;
    }
    let mut lost = Vec::new();
    for _ in 0..take_u32(rest)? {
        lost.push(BlockId { window: UnixSeconds(take_u32(rest)?), rule: take_u32(rest)? });
    }
    let included = IncludedSet::decode(rest)?;
    rest.is_empty().then_some(Meta { next, floor, books, dead_next, dead_bytes, slots, lost, included })
}

/// An index entry.
pub(super) fn index_entry(rest: &Rest, owed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    rest.encode(&mut out);
    put_varint(&mut out, owed);
    seal(out)
}

/// Reads an index entry; `None`: it is damaged.
pub(super) fn read_index(bytes: &[u8]) -> Option<(Rest, u64)> {
    let mut reader = Reader::new(checked(bytes)?);
    let rest = Rest::decode(&mut reader).ok()?;
    let owed = reader.varint().ok()?;
    (reader.remaining() == 0).then_some((rest, owed))
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(body)
}

/// There are fewer than 65536 stores, and their names are shorter.
fn count16(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes()
}

fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    let (front, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(u16::from_le_bytes(*front))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_and_an_index_entry_read_back_and_damage_is_noticed() {
        let mut included = IncludedSet::new();
        included.retire(4, 3);
        let meta = Meta {
            next: 7,
            floor: 1000,
            books: Books { received: 9, merged: 6, too_old: 2, corrupt: 1, sealed: 3, ..Books::default() },
            dead_next: 1,
            dead_bytes: 60,
            slots: vec!["carbon/127.0.0.1:2103".into()],
            lost: vec![BlockId { window: UnixSeconds(1010), rule: 2 }],
            included,
        };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(3, &bytes), Ok(Some(meta)));
        let rest =
            Rest { points: 300, keys: 4, emitted: true, complete: false, dirty: true, as_of: 9, crc: 0xdead_beef };
        let entry = index_entry(&rest, 0b101);
        assert_eq!(read_index(&entry), Some((rest, 0b101)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!((Meta::decode(3, &damaged), Meta::decode(3, &bytes[..at])), (Ok(None), Ok(None)));
        }
        for at in 0..entry.len() {
            let mut damaged = entry.clone();
            damaged[at] ^= 4;
            assert_eq!((read_index(&damaged), read_index(&entry[..at])), (None, None));
        }
        let newer = seal(vec![9, 0, 0]);
        assert_eq!(Meta::decode(3, &newer), Err(RestoreError::NewerFormat { partition: 3, version: 9 }));
    }
}
