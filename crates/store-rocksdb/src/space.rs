//! Free space on the file system of a store: what must stay free, and the ballast.
//!
//! RocksDB needs space to free space, and even to open: it writes what the log holds into tables first. Therefore puts
//! end while there is still some (the reserve), and a part of it is held by a file that is removed when an operation
//! failed for want of space. It is made again when there is room for it above the reserve.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// As much as the log can hold, twice: enough for every recovery.
const BALLAST_MAX: u64 = 128 << 20;

/// Watches the file system of one directory.
#[derive(Debug)]
pub(crate) struct Space {
    directory: PathBuf,
    reserve_bytes: u64,
    has_ballast: bool,
}

impl Space {
    pub(crate) fn new(directory: &Path, reserve_bytes: u64) -> Space {
        let has_ballast = directory.join("ballast").exists();
        Space { directory: directory.to_owned(), reserve_bytes, has_ballast }
    }

    /// Whether `more` bytes leave the reserve untouched. A microsecond. When nobody can say what is free, they do: the
    /// write itself will tell.
    pub(crate) fn admits(&mut self, more: u64) -> bool {
        if self.reserve_bytes == 0 {
            return true;
        }
        let Some(free) = self.free() else { return true };
        if !self.has_ballast && free >= self.reserve_bytes.saturating_add(self.ballast_bytes()) {
            self.make_ballast();
        }
        free >= self.reserve_bytes.saturating_add(more)
    }

    /// Gives the ballast to an operation that failed for want of space; whether there was any.
    pub(crate) fn drop_ballast(&mut self) -> bool {
        self.has_ballast = false;
        fs::remove_file(self.directory.join("ballast")).is_ok()
    }

    /// Makes the ballast, if there is room for it above the reserve.
    pub(crate) fn settle(&mut self) {
        self.admits(0);
    }

    fn ballast_bytes(&self) -> u64 {
        (self.reserve_bytes / 2).min(BALLAST_MAX)
    }

    fn free(&self) -> Option<u64> {
        let found = statvfs(&self.directory).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// A ballast that cannot be made is none: the file system may not know how to reserve space.
    fn make_ballast(&mut self) {
        let path = self.directory.join("ballast");
        let made = File::create(&path)
            .is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, self.ballast_bytes()).is_ok());
        self.has_ballast = made || fs::remove_file(&path).is_err();
    }
}
