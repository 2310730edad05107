//! The disk of a relay's spill: RocksDB in `<data>/spill`, and the witness beside it.

use std::io;
use std::path::Path;

use admin_api::Quarantined;
use engine::spill::FAMILIES;
use engine::time::UnixSeconds;
use store::StoreError;
use store_rocksdb::{Finding, Options};

use super::session::RESERVE_BYTES;
use super::thread::{Disk, Opened, Witness};

/// Left free on the file system: what is left over when the disk fills up is for settling and for opening again.
const FREE_BYTES: u64 = 64 << 20;

/// The real disk.
pub(crate) fn rocksdb(quota_bytes: u64) -> Disk {
    let options = Options {
        quota_bytes: quota_bytes.saturating_add(RESERVE_BYTES),
        families: &FAMILIES,
        reserve_bytes: FREE_BYTES,
    };
    Disk {
        open: Box::new(move |path, now| {
            let opened = store_rocksdb::open(path, &options)?;
            let quarantined = opened.findings.iter().map(|finding| shown(finding, path, now)).collect();
            Ok(Opened { store: Box::new(opened.store), quarantined })
        }),
        witness: Box::new(|path| {
            let witness = store_rocksdb::Witness::open(&path.with_extension("witness")).map_err(as_io)?;
            Ok(Box::new(FileWitness(witness)))
        }),
    }
}

fn shown(finding: &Finding, path: &Path, now: UnixSeconds) -> Quarantined {
    let path = finding.put_aside.as_deref().unwrap_or(path);
    Quarantined { path: path.display().to_string(), at: u64::from(now.0), reason: finding.to_string() }
}

fn as_io(error: StoreError) -> io::Error {
    match error {
        StoreError::Io { source, .. } => source,
        StoreError::Full { .. }
        | StoreError::Busy
        | StoreError::Corrupt { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::Superseded
        | StoreError::InUse { .. }
        | StoreError::Unwritable { .. }
        | StoreError::Vanished { .. } => io::Error::other(error),
    }
}

#[derive(Debug)]
struct FileWitness(store_rocksdb::Witness);

impl Witness for FileWitness {
    fn read(&self) -> Option<Vec<u8>> {
        self.0.read()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes).map_err(as_io)
    }
}
