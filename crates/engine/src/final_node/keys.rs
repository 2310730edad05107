//! Keys of a final node's store. All big-endian, so that they sort; the first byte is the family.
//!
//! ```text
//! 'f'                                   which format the store has, and who wrote it
//! 'g'                                   the number of partitions and the final nodes that they were spread over
//! 'h'                                   u64: the log begins at this ordinal
//! 'l' ordinal u64                       log record (`record`)
//! 'm' partition u16, 'n' partition u16  the checkpoint (`meta`), twice
//! 'w' window u32, partition u16, rule u32    snapshot of one block of windows (`window::block`)
//! 'x' window u32, partition u16, rule u32    what that snapshot holds, and which stores lack it (`meta`)
//! 'd' partition u16, number u64         dead letters (`dead`)
//! ```
//!
//! * The log is one for all partitions, in the order of writing. With a log for each partition in one family every file
//!   would hold a bit of all of them, and none could go before the slowest partition lets it. So files of the log cover
//!   ranges that follow each other: they are never merged with others (write amplification 2: log and table), and the
//!   head is dropped by whole files.
//! * Blocks and their index are in the order of time for the same reason: what the horizon takes goes by whole files,
//!   without a tombstone for each block.
//! * `m` and `n` are in different families, hence in different files: one damaged file does not take the included set.

use crate::time::UnixSeconds;
use crate::window::BlockId;

/// First bytes of keys that need a family of their own; see the module's head.
pub const FAMILIES: &[u8] = b"lwxn";

/// The record that says which format the store has.
pub const FORMAT: &[u8] = b"f";
/// The record that says over which final nodes the partitions are spread.
pub const LAYOUT: &[u8] = b"g";
/// Where the log begins.
pub const HEAD: &[u8] = b"h";

/// Where the checkpoint of a partition is, and its copy.
pub fn meta_keys(partition: u16) -> [Vec<u8>; 2] {
    let key = |family: &[u8]| [family, &partition.to_be_bytes()].concat();
    [key(b"m"), key(b"n")]
}

/// Where a record of the log is. Ordinal 0 and `u64::MAX` bound the whole log.
pub fn log_key(ordinal: u64) -> Vec<u8> {
    [&b"l"[..], &ordinal.to_be_bytes()].concat()
}

/// The ordinal in a key of the log.
pub fn ordinal_of(key: &[u8]) -> Option<u64> {
    key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

/// Where the snapshot of a block is.
pub fn block_key(partition: u16, id: BlockId) -> Vec<u8> {
    key_of(b"w", partition, id)
}

/// Where the index entry of a block is.
pub fn index_key(partition: u16, id: BlockId) -> Vec<u8> {
    key_of(b"x", partition, id)
}

/// The bounds of the blocks (`b"w"`) or of their index (`b"x"`) from window `from` up to, not including, `until`, of
/// all partitions; `None`: to the end.
pub fn window_range(family: u8, from: UnixSeconds, until: Option<UnixSeconds>) -> (Vec<u8>, Vec<u8>) {
    let bound = |window: UnixSeconds| [&[family][..], &window.0.to_be_bytes()].concat();
    (bound(from), until.map_or_else(|| vec![family + 1], bound))
}

/// The partition and block in a key of a snapshot or of the index.
pub fn block_of(key: &[u8]) -> Option<(u16, BlockId)> {
    let window = key.get(1..5)?.try_into().ok().map(u32::from_be_bytes)?;
    let partition = key.get(5..7)?.try_into().ok().map(u16::from_be_bytes)?;
    let rule = key.get(7..11)?.try_into().ok().map(u32::from_be_bytes)?;
    Some((partition, BlockId { window: UnixSeconds(window), rule }))
}

/// Where a parcel of dead letters is.
pub fn dead_key(partition: u16, number: u64) -> Vec<u8> {
    [&b"d"[..], &partition.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn key_of(family: &[u8], partition: u16, id: BlockId) -> Vec<u8> {
    [family, &id.window.0.to_be_bytes(), &partition.to_be_bytes(), &id.rule.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_and_read_back() {
        let id = |window, rule| BlockId { window: UnixSeconds(window), rule };
        let keys = [block_key(3, id(10, 7)), block_key(900, id(10, 0)), block_key(0, id(11, 0))];
        assert!(keys.is_sorted());
        assert_eq!(block_of(&keys[1]), Some((900, id(10, 0))));
        assert_eq!(ordinal_of(&log_key(77)), Some(77));
        let (from, until) = window_range(b'w', UnixSeconds(10), Some(UnixSeconds(11)));
        assert_eq!(keys.iter().filter(|key| (&from..&until).contains(key)).count(), 2);
        let (from, until) = window_range(b'w', UnixSeconds(0), None);
        assert!(keys.iter().all(|key| (&from..&until).contains(&key)));
        assert!(!(&from..&until).contains(&&index_key(0, id(0, 0))));
    }
}
