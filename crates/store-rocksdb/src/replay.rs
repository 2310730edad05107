//! The batches in RocksDB's log files, read without RocksDB. Its own replay drops, without a word, what belongs to a
//! family that its list does not name; and repairing learns of families from tables, so that it drops what a family
//! without one has in the log, and the rest of each batch with it. Our keys say by themselves where they belong.

use crate::failure;
use crate::mend::each_record;
use crate::survey::varint;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use store::{Op, StoreError, WriteBatch};

/// The number of the first operation, and how many there are.
const BATCH_HEADER_BYTES: usize = 8 + 4;

/// The log files in the directory `path`, oldest first.
pub(crate) fn logs(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut numbered: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        numbered.extend(name.strip_suffix(".log").and_then(|number| Some((number.parse().ok()?, entry.path()))));
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, log)| log).collect())
}

/// The numbers of the families that the logs in `path` write to.
pub(crate) fn families(path: &Path) -> io::Result<BTreeSet<u64>> {
    let mut families = BTreeSet::new();
    for log in logs(path)? {
        each_record(&log, &mut |record| {
            each_op(record, &mut |family, _| {
                families.insert(family);
            });
            Ok(())
        })?;
    }
    Ok(families)
}

/// Writes every whole batch of the logs in `path` to `to`, in their order: how many there were. What a log says that a
/// table says already is said again, which changes nothing, as nothing that a table knows is newer than the whole log.
///
/// # Errors
/// Those of `to`, and when a log cannot be read for another reason than a failing disk.
pub(crate) fn replay(
    path: &Path,
    to: &mut dyn FnMut(&WriteBatch) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let system = |error| failure::of_system("read the log of", error, path);
    let (mut batch, mut batches) = (WriteBatch::new(), 0);
    for log in logs(path).map_err(system)? {
        let mut refused = None;
        let read = each_record(&log, &mut |record| {
            batch.clear();
            if !each_op(record, &mut |_, op| add(&mut batch, &op)) {
                return Ok(());
            }
            batches += 1;
            to(&batch).map_err(|error| {
                refused = Some(error);
                io::ErrorKind::Interrupted.into()
            })
        });
        match (refused, read) {
            (Some(error), _) => return Err(error),
            // What stands behind the place that the disk does not give is lost.
            (None, Err(error)) if error.raw_os_error() != Some(rustix::io::Errno::IO.raw_os_error()) => {
                return Err(system(error));
            }
            (None, Ok(_) | Err(_)) => {}
        }
    }
    Ok(batches)
}

fn add(batch: &mut WriteBatch, op: &Op<'_>) {
    match *op {
        Op::Put { key, value } => batch.put(key, value),
        Op::Delete { key } => batch.delete(key),
        Op::DeleteRange { from, to } => batch.delete_range(from, to),
    }
}

/// Calls `visit` with the number of the family and the operation, for each of a batch as RocksDB logs it. False when
/// this is no batch of ours; the operations before the one that is not are visited.
fn each_op(record: &[u8], visit: &mut dyn FnMut(u64, Op<'_>)) -> bool {
    let Some(mut rest) = record.get(BATCH_HEADER_BYTES..) else { return false };
    while !rest.is_empty() {
        let Some((family, op)) = take_op(&mut rest) else { return false };
        visit(family, op);
    }
    true
}

fn take_op<'a>(rest: &mut &'a [u8]) -> Option<(u64, Op<'a>)> {
    let (kind, behind) = rest.split_first()?;
    *rest = behind;
    // RocksDB's ValueType: with the number of a family, or without for the first one.
    let family = if matches!(kind, 0x4 | 0x5 | 0xe) { varint(rest)? } else { 0 };
    let first = take_bytes(rest)?;
    // `END` is no key, but an end of ranges.
    let is_key = first.first().is_some_and(|byte| *byte != 0xff);
    let op = match kind {
        0x0 | 0x4 if is_key => Op::Delete { key: first },
        0x1 | 0x5 if is_key => Op::Put { key: first, value: take_bytes(rest)? },
        0xe | 0xf => Op::DeleteRange { from: first, to: take_bytes(rest)? },
        _ => return None,
    };
    Some((family, op))
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}
