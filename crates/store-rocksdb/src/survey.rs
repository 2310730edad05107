//! What the directory of a store holds, before RocksDB is let in: it starts an empty store where its CURRENT is
//! missing, and takes a MANIFEST (the list of its tables) with a damaged end for a shorter one, and removes the tables
//! that are not in the list, all without a word.

use crate::replay;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Blocks of a list or a log; a part of a record never crosses the end of one.
pub(crate) const BLOCK_BYTES: usize = 32 << 10;
/// Checksum, length, type.
pub(crate) const HEADER_BYTES: usize = 4 + 2 + 1;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Nothing in it that could hold an entry.
    pub(crate) is_new: bool,
    /// The list that CURRENT names is not there; this is the newest that is.
    pub(crate) other_list: Option<String>,
    /// Why the list is not to be believed.
    pub(crate) list_damage: Option<String>,
    /// Tables that the list never names: just written when the process died, or the list lost its end.
    pub(crate) unlisted: BTreeSet<u64>,
}

/// What the records of a list say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Newest {
    /// The number that the next table would have got.
    table: u64,
    /// The newest operation that was known when the list was last written to.
    sequence: u64,
    /// The family that the record in hand is about, and all that were made.
    of: u64,
    families: BTreeSet<u64>,
    /// The numbers of the tables that were ever added.
    added: BTreeSet<u64>,
}

/// Looks at the directory `path`.
pub(crate) fn survey(path: &Path) -> io::Result<Survey> {
    let mut names: Vec<String> = Vec::new();
    let mut holds_log = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        holds_log |= name.ends_with(".log") && entry.metadata()?.len() > 0;
        names.push(name);
    }
    let tables: BTreeSet<u64> = names.iter().filter_map(|name| name.strip_suffix(".sst")?.parse().ok()).collect();
    let newest =
        names.iter().filter(|name| name.starts_with("MANIFEST-")).max_by_key(|name| (name.len(), *name)).cloned();
    let named = fs::read(path.join("CURRENT")).ok().and_then(|text| String::from_utf8(text).ok());
    let named = named.and_then(|text| text.strip_suffix('\n').map(str::to_owned)).filter(|name| names.contains(name));
    let mut found = Survey::default();
    let Some(list) = named.clone().or_else(|| newest.clone()) else {
        found.is_new = tables.is_empty() && !holds_log;
        if !found.is_new {
            found.list_damage = Some("there is no MANIFEST".to_owned());
        }
        return Ok(found);
    };
    if named.is_none() {
        if tables.is_empty() && !holds_log {
            // Died while it was made: CURRENT is the last step.
            found.is_new = true;
            return Ok(found);
        }
        found.other_list = newest;
    }
    match read_list(&fs::read(path.join(&list))?) {
        Ok(Newest { table: 0, .. }) => found.list_damage = Some(format!("{list} is empty")),
        Ok(newest) => {
            found.unlisted = tables.difference(&newest.added).copied().collect();
            // A family is in the list before anything is in the log for it. RocksDB would leave that out without a word.
            if replay::families(path)?.iter().any(|family| *family != 0 && !newest.families.contains(family)) {
                found.list_damage = Some(format!("{list} has lost its end, it lacks families"));
            }
            // The oldest log begins where the list ends, or before: later, what lies between is in tables that the list
            // no longer knows. Not noticed while there is nothing in the log: then only numbered records tell.
            let logs = names.iter().filter(|name| name.ends_with(".log")).min_by_key(|name| (name.len(), *name));
            let begins = logs.map_or(Ok(None), |name| first_sequence(&path.join(name)))?;
            if !found.unlisted.is_empty() && begins.is_some_and(|begins| begins > newest.sequence + 1) {
                found.list_damage = Some(format!("{list} has lost its end"));
            }
        }
        Err(at) => found.list_damage = Some(format!("{list} is damaged at byte {at}")),
    }
    Ok(found)
}

/// The number of the first operation in a log: a batch begins with it.
fn first_sequence(log: &Path) -> io::Result<Option<u64>> {
    let mut begin = Vec::new();
    fs::File::open(log)?.take((HEADER_BYTES + 8) as u64).read_to_end(&mut begin)?;
    let is_batch = begin.get(HEADER_BYTES - 1).is_some_and(|kind| *kind == 1 || *kind == 2);
    let number = begin.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk::<8>());
    Ok(number.filter(|_| is_batch).map(|number| u64::from_le_bytes(*number)))
}

/// What a list says at its end, or the place of a damaged record. A record cut off at the end is no damage: a power cut
/// leaves one.
fn read_list(list: &[u8]) -> Result<Newest, usize> {
    let mut newest = Newest::default();
    let mut at = 0;
    let mut record: Vec<u8> = Vec::new();
    loop {
        let left_in_block = BLOCK_BYTES - at % BLOCK_BYTES;
        if left_in_block < HEADER_BYTES {
            at += left_in_block;
            continue;
        }
        let Some((header, rest)) = list.get(at..).and_then(|rest| rest.split_first_chunk::<HEADER_BYTES>()) else {
            return Ok(newest);
        };
        let [c0, c1, c2, c3, l0, l1, kind] = *header;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if *header == [0; HEADER_BYTES] {
            // Space that was taken ahead and never written.
            return Ok(newest);
        }
        let Some(payload) = rest.get(..length).filter(|_| HEADER_BYTES + length <= left_in_block) else {
            return if HEADER_BYTES + length <= left_in_block { Ok(newest) } else { Err(at) };
        };
        if u32::from_le_bytes([c0, c1, c2, c3]) != masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)) {
            return Err(at);
        }
        // 1: whole, 2: first, 3: middle, 4: last part of a record.
        if kind <= 2 {
            record.clear();
        }
        record.extend_from_slice(payload);
        if kind == 1 || kind == 4 {
            let mut edit = record.as_slice();
            newest.of = 0;
            while newest.learn(&mut edit).is_some() {}
        }
        at += HEADER_BYTES + length;
    }
}

/// RocksDB stores checksums turned and shifted, as the data may hold checksums itself.
pub(crate) fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

impl Newest {
    /// Takes a field from a version edit; `None` at its end and at what we never write, behind which nothing counts.
    fn learn(&mut self, edit: &mut &[u8]) -> Option<()> {
        match varint(edit)? {
            3 => self.table = self.table.max(varint(edit)?),
            4 => self.sequence = self.sequence.max(varint(edit)?),
            // Log number, previous log number, least log number, the greatest number of a family.
            2 | 9 | 10 | 203 => {
                varint(edit)?;
            }
            200 => self.of = varint(edit)?,
            // Where to compact next: level, key.
            5 => {
                varint(edit)?;
                skip_bytes(edit)?;
            }
            // A table that goes: level, number.
            6 => {
                varint(edit)?;
                varint(edit)?;
            }
            // A table that comes: level, number, size, first and last key, least and greatest operation, fields.
            103 => {
                varint(edit)?;
                self.added.insert(varint(edit)?);
                varint(edit)?;
                skip_bytes(edit)?;
                skip_bytes(edit)?;
                varint(edit)?;
                varint(edit)?;
                while varint(edit)? != 1 {
                    skip_bytes(edit)?;
                }
            }
            // Comparator, name of a family that is made, and fields that may be skipped: their length comes first.
            tag if tag == 1 || tag == 201 || tag & (1 << 13) != 0 => {
                skip_bytes(edit)?;
                if tag == 201 {
                    self.families.insert(self.of);
                }
            }
            _ => return None,
        }
        Some(())
    }
}

fn skip_bytes(edit: &mut &[u8]) -> Option<()> {
    let length = usize::try_from(varint(edit)?).ok()?;
    *edit = edit.get(length..)?;
    Some(())
}

/// Takes a number of seven bits a byte, the least first.
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
