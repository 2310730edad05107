//! Which column family a key lies in, and which memtables are to be flushed when.
//!
//! A byte that the owner listed gets a column family of its own at the first put with it: an unused lane costs nothing.
//! A byte that was listed only after keys with it had been written stays in the shared family, or they would be hidden.

use std::collections::{BTreeMap, BTreeSet};

/// A memtable is handed over for flushing when it holds this much by our count, well before RocksDB would do it at
/// [`crate::tuning::MEMTABLE_BYTES`]: see `RocksStore::switch`.
const SWITCH_BYTES: u64 = 8 << 20;

/// What all memtables that are being filled may hold together; then the largest is handed over.
const FILLING_BYTES: u64 = 48 << 20;

/// How much log may be kept because of one memtable that fills slowly; then it is handed over, whatever it holds.
const LOG_BYTES: u64 = 64 << 20;

/// What an operation costs in a memtable besides its bytes, rounded up: skip list node, sequence number, lengths.
pub(crate) const OP_BYTES: u64 = 64;

/// The first byte of a family's keys; `None` is the family that all other keys share.
pub(crate) type Family = Option<u8>;

const SHARED_NAME: &str = "default";

/// A part of a key range that lies in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) family: Family,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// The families that exist, and those that may still be made.
#[derive(Debug)]
pub(crate) struct Families {
    names: BTreeMap<u8, String>,
    to_come: BTreeSet<u8>,
}

impl Families {
    /// From the bytes that the owner listed and the names of the column families found.
    pub(crate) fn new(listed: &[u8], found: &[String]) -> Families {
        let names: BTreeMap<u8, String> =
            found.iter().filter_map(|name| byte_of(name).map(|byte| (byte, name.clone()))).collect();
        let to_come = listed.iter().copied().filter(|byte| *byte != 0xff && !names.contains_key(byte)).collect();
        Families { names, to_come }
    }

    /// Where `key` is read and written now.
    pub(crate) fn of(&self, key: &[u8]) -> Family {
        key.first().copied().filter(|byte| self.names.contains_key(byte))
    }

    /// The name of the column family of `family`.
    pub(crate) fn name(&self, family: Family) -> &str {
        family.and_then(|byte| self.names.get(&byte)).map_or(SHARED_NAME, String::as_str)
    }

    /// The byte of `key`, when it is to have a family that does not exist yet.
    pub(crate) fn to_come(&self, key: &[u8]) -> Option<u8> {
        key.first().copied().filter(|byte| self.to_come.contains(byte))
    }

    /// Whether `key` has, or is to have, a family of its own.
    pub(crate) fn is_listed(&self, key: &[u8]) -> bool {
        self.of(key).is_some() || self.to_come(key).is_some()
    }

    /// The family of `byte` exists from now on.
    pub(crate) fn made(&mut self, byte: u8) {
        self.to_come.remove(&byte);
        self.names.insert(byte, name_of(byte));
    }

    /// Keys that begin with `byte` stay in the shared family.
    pub(crate) fn stays_shared(&mut self, byte: u8) {
        self.to_come.remove(&byte);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Family> {
        std::iter::once(None).chain(self.names.keys().copied().map(Some))
    }

    /// `from..to` cut at the borders of families, in key order.
    pub(crate) fn pieces(&self, from: &[u8], to: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut add = |family, start: &[u8], end: &[u8]| {
            let (start, end) = (start.max(from), end.min(to));
            if start < end {
                pieces.push(Piece { family, from: start.to_vec(), to: end.to_vec() });
            }
        };
        let mut shared_from: &[u8] = &[];
        let borders: Vec<(u8, [[u8; 1]; 2])> = self.names.keys().map(|byte| (*byte, [[*byte], [*byte + 1]])).collect();
        for (byte, [start, end]) in &borders {
            add(None, shared_from, start);
            add(Some(*byte), start, end);
            shared_from = end;
        }
        add(None, shared_from, to);
        pieces
    }
}

/// The name of the column family of keys that begin with `byte`.
pub(crate) fn name_of(byte: u8) -> String {
    format!("family-{byte:02x}")
}

fn byte_of(name: &str) -> Option<u8> {
    let byte = u8::from_str_radix(name.strip_prefix("family-")?, 16).ok()?;
    (byte != 0xff).then_some(byte)
}

/// Our own count of what the memtables hold. RocksDB must never switch one by itself: it would begin a new log file in
/// the midst of writes, and a power cut could then lose the end of the old file and keep the beginning of the new one.
#[derive(Debug, Default)]
pub(crate) struct Memtables {
    filling: BTreeMap<Family, Filling>,
    total_bytes: u64,
    /// Bytes written to the log since opening.
    log_at: u64,
}

#[derive(Debug)]
struct Filling {
    bytes: u64,
    /// Where the log was at the first write: the log is kept from there on.
    log_from: u64,
}

impl Memtables {
    /// `bytes` go to the memtable of `family`.
    pub(crate) fn add(&mut self, family: Family, bytes: u64) {
        let log_at = self.log_at;
        self.filling.entry(family).or_insert(Filling { bytes: 0, log_from: log_at }).bytes += bytes;
        self.total_bytes += bytes;
        self.log_at += bytes;
    }

    /// The families that have to be switched before anything more is written. Empty nearly always.
    pub(crate) fn due(&self) -> Vec<Family> {
        let log_kept = |filling: &Filling| self.log_at - filling.log_from;
        // With the one that holds the log, those that soon would: a switch costs a sync.
        let is_log_long = self.filling.values().any(|filling| log_kept(filling) >= LOG_BYTES);
        let mut due: Vec<Family> = self
            .filling
            .iter()
            .filter(|(_, filling)| filling.bytes >= SWITCH_BYTES || is_log_long && log_kept(filling) >= LOG_BYTES / 2)
            .map(|(family, _)| *family)
            .collect();
        if due.is_empty() && self.total_bytes >= FILLING_BYTES {
            due.extend(self.filling.iter().max_by_key(|(_, filling)| filling.bytes).map(|(family, _)| *family));
        }
        due
    }

    /// The memtable of `family` is being flushed, a new one is empty.
    pub(crate) fn switched(&mut self, family: Family) {
        if let Some(filling) = self.filling.remove(&family) {
            self.total_bytes -= filling.bytes;
        }
    }

    /// Whether the memtable of `family` holds anything.
    pub(crate) fn holds(&self, family: Family) -> bool {
        self.filling.contains_key(&family)
    }

    /// Bytes in the memtable of `family`, by our count.
    #[cfg(test)]
    pub(crate) fn bytes_of(&self, family: Family) -> u64 {
        self.filling.get(&family).map_or(0, |filling| filling.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_the_borders_of_the_families_that_exist() {
        let families = Families::new(&[0x80, 0x90], &["default".to_owned(), name_of(0x80), name_of(0x81)]);
        let check = |from: &[u8], to: &[u8], expected: &[(Family, &[u8], &[u8])]| {
            let expected: Vec<Piece> = expected
                .iter()
                .map(|(family, from, to)| Piece { family: *family, from: from.to_vec(), to: to.to_vec() })
                .collect();
            assert_eq!(families.pieces(from, to), expected, "{from:?}..{to:?}");
        };
        let (a, b) = (Some(0x80), Some(0x81));
        check(
            b"",
            b"\xff",
            &[(None, b"", b"\x80"), (a, b"\x80", b"\x81"), (b, b"\x81", b"\x82"), (None, b"\x82", b"\xff")],
        );
        check(b"a", b"\x80\x05", &[(None, b"a", b"\x80"), (a, b"\x80", b"\x80\x05")]);
        check(b"\x80\x01", b"\x80\x02", &[(a, b"\x80\x01", b"\x80\x02")]);
        check(b"\x80\x01", b"\x81", &[(a, b"\x80\x01", b"\x81")]);
        check(b"\x90", b"\x91", &[(None, b"\x90", b"\x91")]);
        check(b"b", b"a", &[]);
        check(b"\x81", b"\x81", &[]);
        assert_eq!(families.to_come(b"\x90x"), Some(0x90));
        assert_eq!(families.to_come(b"\x80x"), None, "it exists already");
        assert_eq!((families.of(b"\x81"), families.of(b"\x90")), (b, None));
    }

    #[test]
    fn memtables_are_due_when_large_when_many_and_when_they_hold_the_log() {
        let mut memtables = Memtables::default();
        memtables.add(None, 100);
        memtables.add(Some(1), SWITCH_BYTES - 1);
        assert_eq!(memtables.due(), []);
        memtables.add(Some(1), 1);
        assert_eq!(memtables.due(), [Some(1)], "large");
        memtables.switched(Some(1));
        assert!(!memtables.holds(Some(1)) && memtables.holds(None));
        for lane in 1..=13 {
            memtables.add(Some(lane), FILLING_BYTES / 13 + u64::from(lane));
        }
        assert_eq!(memtables.due(), [Some(13)], "the largest of many");
        for lane in 1..=13 {
            memtables.switched(Some(lane));
        }
        assert_eq!(memtables.due(), []);
        memtables.add(Some(20), 10);
        memtables.add(Some(21), SWITCH_BYTES);
        assert_eq!(memtables.due(), [None, Some(21)], "the one that holds a long log, and a large one");
    }
}
