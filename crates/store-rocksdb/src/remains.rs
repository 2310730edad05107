//! What can be read of a table that lacks its end, and with it the index: the blocks of data stand in front, in the order
//! of their keys, and each ends in a way that can be recognised. RocksDB leaves such a table out as a whole.
//!
//! A block is believed when its checksum is right. The checksums of a table are mixed with a number that stands at its
//! lost end; but then all whole blocks point to the same number. Two have to agree. Reading ends at the first place that
//! is no block: what stands before the damage is found, not all that stands behind it.

use crate::survey::{masked, varint};
use std::collections::BTreeMap;

/// Kind of compression (none) and checksum, behind each block.
const TRAILER_BYTES: usize = 1 + 4;
/// Behind each key: number of the operation, and kind.
const SUFFIX_BYTES: usize = 8;
const PUT: u8 = 1;

/// Key and value.
type Entry = (Vec<u8>, Vec<u8>);

/// A block as it seems to be.
struct Block {
    puts: Vec<Entry>,
    bytes: usize,
    /// The number that its checksum points to.
    points_to: u32,
}

/// The puts of the whole blocks of `table`, in the order of their keys.
pub(crate) fn puts(table: &[u8]) -> Vec<Entry> {
    let (mut blocks, mut at) = (Vec::new(), 0);
    while let Some(block) = table.get(at..).and_then(|rest| read_block(rest, at)) {
        at += block.bytes;
        blocks.push(block);
    }
    let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
    for block in &blocks {
        *votes.entry(block.points_to).or_default() += 1;
    }
    let elected = votes.into_iter().max_by_key(|(_, votes)| *votes).filter(|(_, votes)| *votes > 1);
    let Some((number, _)) = elected else { return Vec::new() };
    blocks.retain(|block| block.points_to == number);
    blocks.into_iter().flat_map(|block| block.puts).collect()
}

/// The block that `rest` begins with, which stands at `at` in its table.
fn read_block(rest: &[u8], at: usize) -> Option<Block> {
    let (mut entries, mut key) = (rest, Vec::new());
    let mut puts = Vec::new();
    loop {
        let before = entries;
        let [shared, own, value] = [(); 3].map(|()| varint(&mut entries).and_then(|n| usize::try_from(n).ok()));
        let (shared, own, value) = (shared?, own?, value?);
        if shared + own < SUFFIX_BYTES {
            // No key is so short: here the entries end, and the places where reading may begin are listed.
            entries = before;
            break;
        }
        let (own, behind) = entries.split_at_checked(own)?;
        let (value, behind) = behind.split_at_checked(value)?;
        entries = behind;
        if shared > key.len() {
            return None;
        }
        key.truncate(shared);
        key.extend_from_slice(own);
        let (name, suffix) = key.split_at(key.len() - SUFFIX_BYTES);
        match suffix.first() {
            Some(&PUT) if name.first().is_some_and(|byte| *byte != 0xff) => puts.push((name.to_vec(), value.to_vec())),
            // Deletes say nothing about what is missing.
            Some(0) => {}
            // Not a block of data: those end here.
            _ => return None,
        }
    }
    let entries_bytes = rest.len() - entries.len();
    let list = entries.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut last = None;
    for (count, word) in list.enumerate() {
        // The number of places ends the list; its upper bits are flags.
        if count > 0 && usize::try_from(word & 0x0fff_ffff) == Ok(count) {
            return finish(rest, at, entries_bytes + (count + 1) * 4, puts);
        }
        if last.map_or(word != 0, |last| word <= last) || word as usize >= entries_bytes {
            return None;
        }
        last = Some(word);
    }
    None
}

fn finish(rest: &[u8], at: usize, length: usize, puts: Vec<Entry>) -> Option<Block> {
    // The kind of compression is checked with the data.
    let checked = rest.get(..=length)?;
    let stored = u32::from_le_bytes(*rest.get(length + 1..)?.first_chunk::<4>()?);
    let is_plain = checked.last() == Some(&0);
    // What is added is that number, mixed with the lower and the upper half of the place.
    let place = at as u64;
    let place = u32::try_from(place & 0xffff_ffff).ok()?.wrapping_add(u32::try_from(place >> 32).ok()?);
    let points_to = stored.wrapping_sub(masked(crc32c::crc32c(checked))) ^ place;
    is_plain.then_some(Block { puts, bytes: length + TRAILER_BYTES, points_to })
}
