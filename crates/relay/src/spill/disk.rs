//! The disk of a relay's spill: RocksDB in `<data>/spill`, and the witness beside it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::spill::FAMILIES;
use store_rocksdb::{Options, RocksStore};

use super::session::RESERVE_BYTES;
use super::thread::{Disk, Opened, Witness};

/// Below this the checksum does not help: nothing was written.
const CRC: usize = 4;

/// The real disk.
pub(crate) fn rocksdb(quota_bytes: u64) -> Disk {
    let options = Options { quota_bytes: quota_bytes.saturating_add(RESERVE_BYTES), families: &FAMILIES };
    Disk {
        open: Box::new(move |path, _| {
            let store = RocksStore::open(path, options)?;
            Ok(Opened { store: Box::new(store), quarantined: Vec::new() })
        }),
        witness: Box::new(|path| Ok(Box::new(FileWitness::beside(path)))),
    }
}

/// A file that is replaced as a whole: what it says, and its CRC32C.
#[derive(Debug)]
struct FileWitness {
    path: PathBuf,
}

impl FileWitness {
    fn beside(store: &Path) -> FileWitness {
        FileWitness { path: store.with_extension("witness") }
    }
}

impl Witness for FileWitness {
    fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(&self.path).ok()?;
        let said = bytes.split_off(bytes.len().checked_sub(CRC)?);
        (crc32c::crc32c(&bytes).to_le_bytes() == said[..]).then_some(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("witness.new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.write_all(&crc32c::crc32c(bytes).to_le_bytes())?;
        file.sync_data()?;
        fs::rename(&new, &self.path)
    }
}
