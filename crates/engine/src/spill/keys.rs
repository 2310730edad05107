//! Where what lies in the store.
//!
//! ```text
//!  key                                            value
//!  'v'                                            format version u16, the program that wrote it
//!  'n' lane u16                                   destination of the lane
//!  'b' lane u16                                   books of the lane (`books`)
//!  'r' lane u16                                   what is done beyond the head (`books`)
//!  'g' lane u16, first ordinal u64                a gap (`load`)
//!  'd'                                            how many dead letters there are (batches, points, bytes: 3 x u64)
//!  0x80+lane u8, ordinal u64                      a record (`record`) of lane 0..=62; each has files of its own
//!  0xbf lane u16, ordinal u64                     a record of any other lane; these share their files
//!  0xc0 why u8, at u32, lane u16, ordinal u64     a dead letter: the record as it was
//! ```
//!
//! Numbers in keys are big-endian, so that their order is the order of the bytes.

/// Format of the spill as a whole; a record has a version of its own.
pub const FORMAT: u16 = 1;
/// Lanes below it have a family of their own, the others share one.
const SHARED: u8 = 63;

pub(super) const VERSION: &[u8] = b"v";
pub(super) const DEAD_TALLY: &[u8] = b"d";
const NAME: u8 = b'n';
const BOOKS: u8 = b'b';
const RUNS: u8 = b'r';
const GAP: u8 = b'g';
const RECORDS: u8 = 0x80;
const SHARED_RECORDS: u8 = RECORDS + SHARED;
const DEAD: u8 = 0xc0;
/// Of a dead letter that was never in a lane.
pub const NO_LANE: u16 = u16::MAX;

/// First bytes of keys that want a family (files) of their own each: the lanes.
pub const FAMILIES: [u8; SHARED as usize + 1] = {
    let mut families = [RECORDS; SHARED as usize + 1];
    let mut lane = 1;
    while lane < families.len() {
        families[lane] = families[lane - 1] + 1;
        lane += 1;
    }
    families
};

/// The first key of a range, and the first one that is not in it.
pub type KeyRange = (Vec<u8>, Vec<u8>);

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Version,
    Name(u16),
    Books(u16),
    Runs(u16),
    Gap(u16, u64),
    DeadTally,
    Record(u16, u64),
}

/// Everything but records and dead letters: `from..to` of what a start reads first.
pub fn books_range() -> KeyRange {
    (vec![0], vec![RECORDS])
}

/// The keys of a lane's records with ordinals in `from..to`.
pub(super) fn records_range(lane: u16, from: u64, to: u64) -> KeyRange {
    (record(lane, from), record(lane, to))
}

/// The keys of all of a lane's records from ordinal `from` on.
pub fn records_from(lane: u16, from: u64) -> KeyRange {
    let mut end = of_records(lane);
    // Neither a first byte nor the lane behind it is the largest there is; where one were, its carry is right.
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    (record(lane, from), end)
}

/// The keys of every record there is.
pub fn all_records() -> KeyRange {
    (vec![RECORDS], vec![DEAD])
}

/// The key right behind `key`.
pub fn behind(key: &[u8]) -> Vec<u8> {
    let mut behind = key.to_vec();
    behind.push(0);
    behind
}

/// The keys of all dead letters.
pub fn dead_range() -> KeyRange {
    (vec![DEAD], vec![DEAD + 1])
}

/// The key of a record.
pub fn record(lane: u16, ordinal: u64) -> Vec<u8> {
    let mut key = of_records(lane);
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

pub(super) fn dead(why: u8, at: u32, lane: u16, ordinal: u64) -> Vec<u8> {
    let mut key = vec![DEAD, why];
    key.extend_from_slice(&at.to_be_bytes());
    key.extend_from_slice(&lane.to_be_bytes());
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

pub(super) fn name(lane: u16) -> Vec<u8> {
    of_lane(NAME, lane)
}

pub(super) fn books(lane: u16) -> Vec<u8> {
    of_lane(BOOKS, lane)
}

pub(super) fn runs(lane: u16) -> Vec<u8> {
    of_lane(RUNS, lane)
}

pub(super) fn gap(lane: u16, first: u64) -> Vec<u8> {
    let mut key = of_lane(GAP, lane);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

fn of_lane(kind: u8, lane: u16) -> Vec<u8> {
    let [high, low] = lane.to_be_bytes();
    vec![kind, high, low]
}

fn of_records(lane: u16) -> Vec<u8> {
    match u8::try_from(lane) {
        Ok(own) if own < SHARED => vec![RECORDS + own],
        Ok(_) | Err(_) => of_lane(SHARED_RECORDS, lane),
    }
}

/// What a key says; `None` for one that this version does not know.
pub(super) fn read(key: &[u8]) -> Option<Key> {
    let (&kind, rest) = key.split_first()?;
    let ordinal = |rest: &[u8]| Some(u64::from_be_bytes(rest.try_into().ok()?));
    let lane = |rest: &[u8]| Some(u16::from_be_bytes(rest.try_into().ok()?));
    match kind {
        b'v' if rest.is_empty() => Some(Key::Version),
        b'd' if rest.is_empty() => Some(Key::DeadTally),
        NAME => lane(rest).map(Key::Name),
        BOOKS => lane(rest).map(Key::Books),
        RUNS => lane(rest).map(Key::Runs),
        GAP => Some(Key::Gap(lane(rest.get(..2)?)?, ordinal(rest.get(2..)?)?)),
        RECORDS..SHARED_RECORDS => Some(Key::Record(u16::from(kind - RECORDS), ordinal(rest)?)),
        SHARED_RECORDS => Some(Key::Record(lane(rest.get(..2)?)?, ordinal(rest.get(2..)?)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_are_about_and_sort_by_it() {
        assert_eq!(record(1, 258), [0x81, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(dead(4, 1, 2, 3), [0xc0, 4, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        for (key, about) in [
            (VERSION.to_vec(), Key::Version),
            (name(63), Key::Name(63)),
            (books(7), Key::Books(7)),
            (runs(7), Key::Runs(7)),
            (gap(0, 9), Key::Gap(0, 9)),
            (record(62, 1), Key::Record(62, 1)),
            (record(63, u64::MAX), Key::Record(63, u64::MAX)),
            (record(700, 5), Key::Record(700, 5)),
        ] {
            assert_eq!(read(&key), Some(about), "{key:?}");
        }
        for unknown in [&b""[..], b"v1", b"x", b"n\x00\x40\x00", b"n\x00", b"\x80", b"\xc0"] {
            assert_eq!(read(unknown), None, "{unknown:?}");
        }
        for (lane, next) in [(3, 4), (62, 63), (63, 64), (255, 256), (700, 701)] {
            let end = records_from(lane, 0).1;
            assert!(record(lane, 255) < record(lane, 256) && record(lane, u64::MAX) < end && end <= record(next, 0));
        }
        assert!(record(u16::MAX, u64::MAX) < dead_range().0);
    }
}
