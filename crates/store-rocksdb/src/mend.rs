//! A log without its damaged records. RocksDB's own way of leaving them out gives up with "Write batch content
//! corrupted" when the next record lies in more than one block: its checksum of a record goes on from the parts that
//! stood before the damage. Repairing then drops the log whole.

use crate::directory::sync_directory;
use crate::survey::{BLOCK_BYTES, HEADER_BYTES, masked};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Writes each damaged log in the directory `path` anew, with the records that are whole. Files are replaced, not
/// changed, so links to them stay what they are.
pub(crate) fn mend_logs(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let log = entry?.path();
        if log.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        // An unreadable place fails the first reading, and nothing is written.
        if each_record(&log, &mut |_| Ok(()))? != Seen::Damage {
            continue;
        }
        let new = log.with_extension("mended");
        let written = write_whole(&log, &new).and_then(|()| fs::rename(&new, &log));
        if written.is_err() && new.exists() {
            fs::remove_file(&new)?;
        }
        written?;
    }
    sync_directory(path)
}

fn write_whole(log: &Path, new: &Path) -> io::Result<()> {
    let mut writer = Writer { to: BufWriter::new(File::create(new)?), at: 0 };
    each_record(log, &mut |record| writer.append(record))?;
    writer.to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    Damage,
    /// Records of a kind that we never write: better left alone.
    Foreign,
}

/// Calls `visit` with each record of `log` that is whole.
///
/// # Errors
/// Those of reading, and of `visit`.
pub(crate) fn each_record(log: &Path, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Seen> {
    let mut log = File::open(log)?;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    // The parts of a record that were read, when its first one was.
    let mut record: Option<Vec<u8>> = None;
    let mut seen = Seen::Nothing;
    loop {
        block.clear();
        if (&mut log).take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            return Ok(seen);
        }
        let mut rest = block.as_slice();
        while rest.len() >= HEADER_BYTES {
            let Some((kind, part)) = take_part(&mut rest) else {
                // Where the next part begins is not known: the rest of the block is lost.
                seen = Seen::Damage;
                record = None;
                break;
            };
            // 1: whole, 2: first, 3: middle, 4: last part of a record.
            match (kind, &mut record) {
                (1 | 2, begun) => {
                    if begun.replace(part.to_vec()).is_some_and(|begun| !begun.is_empty()) {
                        seen = Seen::Damage;
                    }
                }
                (3 | 4, Some(begun)) => begun.extend_from_slice(part),
                // Its begin is lost.
                (3 | 4, None) => seen = Seen::Damage,
                _ => return Ok(Seen::Foreign),
            }
            if (kind == 1 || kind == 4)
                && let Some(whole) = record.take()
            {
                visit(&whole)?;
            }
        }
    }
}

/// The next part of a record in what is left of a block, and its kind; `None` when it is damaged.
fn take_part<'a>(block: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let ([c0, c1, c2, c3, l0, l1, kind], rest) = block.split_first_chunk::<HEADER_BYTES>()?;
    let (part, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*l0, *l1])))?;
    *block = rest;
    (u32::from_le_bytes([*c0, *c1, *c2, *c3]) == checksum(*kind, part)).then_some((*kind, part))
}

fn checksum(kind: u8, part: &[u8]) -> u32 {
    masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), part))
}

/// Writes records as RocksDB does.
struct Writer<W> {
    to: W,
    /// Where in a block.
    at: usize,
}

impl<W: Write> Writer<W> {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let (mut rest, mut is_first) = (record, true);
        loop {
            if BLOCK_BYTES - self.at < HEADER_BYTES {
                self.to.write_all(&[0; HEADER_BYTES][..BLOCK_BYTES - self.at])?;
                self.at = 0;
            }
            let (part, after) = rest.split_at(rest.len().min(BLOCK_BYTES - self.at - HEADER_BYTES));
            let kind = match (is_first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let length = u16::try_from(part.len()).map_err(io::Error::other)?;
            self.to.write_all(&checksum(kind, part).to_le_bytes())?;
            self.to.write_all(&length.to_le_bytes())?;
            self.to.write_all(&[kind])?;
            self.to.write_all(part)?;
            self.at = (self.at + HEADER_BYTES + part.len()) % BLOCK_BYTES;
            (rest, is_first) = (after, false);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}
