//! The directory of a store: made durably, recognised again, and taken by one handle only.

use crate::failure;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use store::StoreError;

/// Creates the directory with its parents and makes its own entry durable: RocksDB syncs only what is inside.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    sync_parent(path)
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        Some(_) | None => sync_directory(Path::new(".")),
    }
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

pub(crate) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The store is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Owner(fs::File);

impl Drop for Owner {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked just before and has not come to its exec.
        // Where this fails there was no lock.
        rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock).ok();
    }
}

/// Takes the store for this handle. RocksDB has a lock of its own, but only opening takes it, and opening changes what
/// a repair would need as it was.
pub(crate) fn lock(path: &Path) -> Result<Owner, StoreError> {
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path.join("owner"));
    let file = opened.map_err(|error| failure::of_system("lock", error, path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Owner(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: path.display().to_string() }),
        // RocksDB's lock remains.
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK | rustix::io::Errno::NOSYS) => Ok(Owner(file)),
        Err(error) => Err(failure::of_system("lock", error.into(), path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in a child process between fork and exec.
    #[test]
    fn a_dropped_owner_lets_go_also_while_a_copy_of_its_descriptor_is_open() {
        let dir = std::env::temp_dir().join(format!("spillway-store-owner-{}", std::process::id()));
        create_directory(&dir).expect("a directory");
        let owner = lock(&dir).expect("free");
        let copy = owner.0.try_clone().expect("a descriptor");
        assert!(matches!(lock(&dir), Err(StoreError::InUse { .. })));
        drop(owner);
        drop(lock(&dir).expect("free again"));
        drop(copy);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
