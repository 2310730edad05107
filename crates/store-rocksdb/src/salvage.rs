//! Reading on behind what cannot be read.
//!
//! A cursor that meets a damaged block ends there, and cannot be told to go to the next one. What can be asked without
//! reading data is how many bytes of tables lie between two keys: that number grows in steps, at each border between
//! two blocks and between two files, and the place of the next step is found by bisection. From there the cursor tries
//! again. So every block that can be read is read, and nothing is assumed about the keys.

use crate::RocksStore;
use crate::families::{Family, Piece};
use bytes::Bytes;
use rocksdb::Range;
use std::ops::ControlFlow;
use store::{Hole, StoreError, Visit};

/// What has been seen so far: over all pieces, as a hole may reach from one into the next.
#[derive(Default)]
struct Progress {
    holes: Vec<Hole>,
    last: Option<Bytes>,
    is_in_hole: bool,
    is_ended: bool,
}

impl Progress {
    fn readable(&mut self, key: &[u8], value: &[u8], visit: &mut Visit<'_>) -> ControlFlow<()> {
        let key = Bytes::copy_from_slice(key);
        if let Some(hole) = self.holes.last_mut().filter(|_| self.is_in_hole) {
            hole.before = Some(key.clone());
        }
        self.is_in_hole = false;
        let flow = visit(&key, value);
        self.is_ended = flow.is_break();
        self.last = Some(key);
        flow
    }

    fn unreadable(&mut self) {
        if !self.is_in_hole {
            self.holes.push(Hole { after: self.last.clone(), before: None });
        }
        self.is_in_hole = true;
    }
}

/// Visits what can be read of these pieces, which are in key order.
pub(crate) fn pieces(store: &RocksStore, pieces: &[Piece], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
    let mut progress = Progress::default();
    for piece in pieces {
        let mut from = piece.from.clone();
        while let Some(bad_from) = read(store, piece, &from, &mut progress, visit)? {
            progress.unreadable();
            match next_step(store, piece.family, &bad_from, &piece.to)? {
                Some(next) => from = next,
                None => break,
            }
        }
        if progress.is_ended {
            break;
        }
    }
    Ok(progress.holes)
}

/// Reads from `from` on; where it could not go on, if it could not.
fn read(
    store: &RocksStore,
    piece: &Piece,
    from: &[u8],
    progress: &mut Progress,
    visit: &mut Visit<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut cursor = store.cursor(piece.family, from, &piece.to)?;
    let mut at = from.to_vec();
    cursor.seek_to_first();
    while let Some((key, value)) = cursor.item() {
        if progress.readable(key, value, visit).is_break() {
            return Ok(None);
        }
        at.clear();
        at.extend_from_slice(key);
        at.push(0);
        cursor.next();
    }
    match cursor.status().map_err(|error| store.failure("salvage", &error)) {
        Ok(()) => Ok(None),
        Err(StoreError::Corrupt { .. }) => Ok(Some(at)),
        Err(error) => Err(error),
    }
}

/// The least key behind `from` at which another block or file begins, by what lies in tables between them.
fn next_step(store: &RocksStore, family: Family, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let handle = store.handle(family)?;
    let bytes_to =
        |key: &[u8]| -> u64 { store.db.get_approximate_sizes_cf(handle, &[Range::new(from, key)]).iter().sum() };
    // A file whose index cannot be read counts nothing in its midst: then its end is the next step.
    let mut ends: Vec<Vec<u8>> = Vec::new();
    for file in store.live_files()? {
        if file.column_family_name == store.families.name(family) {
            ends.extend(file.start_key.into_iter().filter(|key| key.as_slice() > from));
            ends.extend(file.end_key.into_iter().filter(|key| key.as_slice() >= from).map(|mut key| {
                key.push(0);
                key
            }));
        }
    }
    let end = ends.into_iter().filter(|end| end.as_slice() < to).min();
    let stepped = first_between(from, end.as_deref().unwrap_or(to), &|key| bytes_to(key) > 0);
    Ok(stepped.or(end))
}

/// The least key in `from..to` (`from` excluded) for which `is_behind` holds; it holds for every key above one for
/// which it does. Exact for keys up to eight bytes longer than the bounds.
fn first_between(from: &[u8], to: &[u8], is_behind: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let length = from.len().max(to.len()) + 8;
    let padded = |key: &[u8]| {
        let mut key = key.to_vec();
        key.resize(length, 0);
        key
    };
    let (mut low, mut high) = (padded(from), padded(to));
    if !is_behind(&high) && !is_behind(to) {
        return None;
    }
    if is_behind(&low) {
        high.clone_from(&low);
    }
    loop {
        let middle = mean(&low, &high);
        if middle == low {
            break;
        }
        if is_behind(&middle) { high = middle } else { low = middle }
    }
    // Zeros at the end make a key greater: without them it may be behind as well.
    while high.last() == Some(&0) && is_behind(&high[..high.len() - 1]) {
        high.pop();
    }
    (high.as_slice() > from && high.as_slice() < to).then_some(high)
}

/// The mean of two numbers of the same length, most significant byte first, rounded down.
fn mean(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut sum: Vec<u16> = Vec::with_capacity(a.len() + 1);
    let mut carry = 0;
    for (x, y) in a.iter().zip(b).rev() {
        let digit = u16::from(*x) + u16::from(*y) + carry;
        sum.push(digit & 0xff);
        carry = digit >> 8;
    }
    sum.reverse();
    let mut remainder = carry;
    sum.into_iter()
        .map(|digit| {
            let value = remainder << 8 | digit;
            remainder = value & 1;
            (value >> 1).to_be_bytes()[1]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_behind_a_border_is_found_exactly() {
        let check = |from: &[u8], to: &[u8], border: &[u8], expected: Option<&[u8]>| {
            let found = first_between(from, to, &|key| key > border);
            assert_eq!(found.as_deref(), expected, "behind {border:?} in {from:?}..{to:?}");
        };
        check(b"a", b"z", b"m", Some(b"m\0"));
        check(b"a", b"z", b"mmm", Some(b"mmm\0"));
        check(b"a", b"z", b"m\xff\xff", Some(b"m\xff\xff\0"));
        check(b"a", b"z", b"m\0", Some(b"m\0\0"));
        check(b"\x80\0\0\x01", b"\x81", b"\x80\0\0\x01", Some(b"\x80\0\0\x01\0"));
        check(b"a", b"b", b"a\xff\xff\xff", Some(b"a\xff\xff\xff\0"));
        check(b"a", b"b", b"c", None);
        assert_eq!(mean(&[0xff, 0xff], &[0xff, 0xfd]), [0xff, 0xfe]);
        assert_eq!(mean(&[0, 1], &[0, 2]), [0, 1]);
    }
}
