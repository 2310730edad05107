//! A small file beside a store that says what the store should hold, even when the whole store is gone.
//!
//! Two slots are written in turns, each with a number and a checksum: whatever happens to the one being written, the
//! other is whole. Limits: it says what the last `write` that returned said, or the one in progress; a payload has at
//! most 65,512 bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use store::StoreError;

const SLOT_BYTES: usize = 64 << 10;
/// Magic, number, length, CRC32C of number, length and payload.
const HEADER_BYTES: usize = 8 + 8 + 4 + 4;
const MAGIC: &[u8; 8] = b"spillwit";

/// The file, and what its newest whole slot says.
#[derive(Debug)]
pub struct Witness {
    file: File,
    newest: Option<(u64, Vec<u8>)>,
    slot: Vec<u8>,
}

impl Witness {
    /// Opens the witness at `path`; makes an empty one, and its name durable, when there is none. Its directory exists.
    ///
    /// # Errors
    /// `Unwritable`, `Full` or `Io`. Damage is none: it reads as the other slot, or as nothing.
    pub fn open(path: &Path) -> Result<Witness, StoreError> {
        let failure = |error| crate::failure::of_system("open the witness of", error, path);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failure)?;
        crate::directory::sync_parent(path).map_err(failure)?;
        let mut newest: Option<(u64, Vec<u8>)> = None;
        for index in 0..2 {
            if let Some(read) = read_slot(&file, index).map_err(failure)?
                && newest.as_ref().is_none_or(|(number, _)| *number < read.0)
            {
                newest = Some(read);
            }
        }
        Ok(Witness { file, newest, slot: Vec::new() })
    }

    /// What was written last, or `None` when nothing was or nothing of it is whole.
    pub fn read(&self) -> Option<Vec<u8>> {
        self.newest.as_ref().map(|(_, payload)| payload.clone())
    }

    /// Replaces what the witness says: durable when this returns. Blocks for the time of an fdatasync.
    ///
    /// # Errors
    /// `Full`, `Unwritable` or `Io`: the witness says what it said before, or this; it may be written again.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let failure = |error| crate::failure::of_system("write the witness of", error, Path::new("the witness"));
        let length = u32::try_from(payload.len()).ok().filter(|_| HEADER_BYTES + payload.len() <= SLOT_BYTES);
        let length = length.ok_or_else(|| {
            failure(io::Error::new(io::ErrorKind::InvalidInput, "a witness says at most 65,512 bytes"))
        })?;
        let number = self.newest.as_ref().map_or(0, |(number, _)| number + 1);
        self.slot.clear();
        self.slot.extend_from_slice(MAGIC);
        self.slot.extend_from_slice(&number.to_le_bytes());
        self.slot.extend_from_slice(&length.to_le_bytes());
        self.slot.extend_from_slice(&checksum(number, payload).to_le_bytes());
        self.slot.extend_from_slice(payload);
        self.file.write_all_at(&self.slot, (number % 2) * SLOT_BYTES as u64).map_err(failure)?;
        self.file.sync_data().map_err(failure)?;
        self.newest = Some((number, payload.to_vec()));
        Ok(())
    }
}

fn checksum(number: u64, payload: &[u8]) -> u32 {
    let length = payload.len() as u64;
    let of_number = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &length.to_le_bytes());
    crc32c::crc32c_append(of_number, payload)
}

/// Number and payload of a whole slot.
fn read_slot(file: &File, index: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut slot = vec![0; SLOT_BYTES];
    let mut filled = 0;
    while let Some(rest) = slot.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, index * SLOT_BYTES as u64 + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    slot.truncate(filled);
    Ok(parse(&slot))
}

fn parse(slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (magic, rest) = slot.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let number = u64::from_le_bytes(*number);
    (magic == MAGIC && checksum(number, payload) == u32::from_le_bytes(*crc)).then(|| (number, payload.to_vec()))
}
