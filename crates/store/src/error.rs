//! What can go wrong with a store, told apart by what its owner does next.

use std::fmt;
use std::io;
use thiserror::Error;

/// Why a store did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing was applied. Space has to be freed before the same batch can be written.
    #[error(
        "store is full, {used_bytes} bytes used {by}: delete what is no longer needed or give it more room, then write again"
    )]
    Full {
        /// What the store occupies now.
        used_bytes: u64,
        /// Which limit was met.
        by: FullBy,
    },
    /// Nothing was applied. The store is behind with its background work.
    #[error("store is busy with flushing: write the same batch again in some milliseconds")]
    Busy,
    /// What was read is not what was written.
    #[error("store is damaged at {place} ({detail}): what is there is lost; copy the store aside before repairing it")]
    Corrupt {
        /// The file or key that is damaged, readable by people.
        place: String,
        /// What was found.
        detail: String,
    },
    /// An earlier failure left the disk's content unknown. Reads still work.
    #[error("store takes no writes after an earlier failure ({cause}): open it again and rebuild from what it holds")]
    ReadOnly {
        /// The failure that came first.
        cause: String,
    },
    /// This handle belongs to an owner that was replaced, or that died with the process.
    #[error("store was opened again by a newer owner: end this worker, it no longer owns the store")]
    Superseded,
    /// Another process, or another handle of this one, has the store open.
    #[error("store {path} is open elsewhere: stop the other process, or give this one a directory of its own")]
    InUse {
        /// Where the store is.
        path: String,
    },
    /// The process may not write where the store is, or the file system is mounted read-only.
    #[error(
        "store {path} cannot be written to ({detail}): give this process the right to, or mount the file system read-write"
    )]
    Unwritable {
        /// Where the store is.
        path: String,
        /// What the system said.
        detail: String,
    },
    /// The directory of the open store was removed, renamed or replaced: what is written no longer has a name.
    #[error(
        "the directory {path} of the open store was removed or replaced: open the store again and count what is lost"
    )]
    Vanished {
        /// Where the store was.
        path: String,
    },
    /// The machine failed.
    #[error("{doing} in store: open it again; if it repeats, look at the disk and the kernel's log")]
    Io {
        /// What was being done, as a verb phrase: "write batch".
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Which limit made a store full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullBy {
    /// The quota from the configuration, in bytes.
    Quota(u64),
    /// The file system has no space left.
    Device,
}

impl fmt::Display for FullBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FullBy::Quota(bytes) => write!(f, "of a quota of {bytes}"),
            FullBy::Device => f.write_str("and no space left on the file system"),
        }
    }
}

/// What the owner of a store does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Delete, or apply the overflow policy; then write the same batch again.
    FreeSpace,
    /// Wait some milliseconds, then write the same batch again.
    RetrySoon,
    /// End this worker and let a new one open the store and rebuild its state from it.
    Reopen,
    /// End this worker for good: another one owns the store.
    Stop,
    /// A person must look. Count what is lost; never go on as if it were there. Opening again now and then may help
    /// (`InUse`, `Unwritable`).
    Escalate,
}

/// What is the matter with the place that a store is in, for whoever looks after the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The store has as many bytes as it may have.
    Quota,
    /// The file system has no space left, or this user's share of it is used up.
    DiskFull,
    /// The file system is read-only, or the process may not write there.
    ReadOnly,
    /// Anything else: a failing disk, damage, another owner.
    Broken,
}

impl StoreError {
    /// What is the matter, by the kind of the error and by the system's words, which stores hand on in theirs.
    pub fn trouble(&self) -> Trouble {
        match self {
            StoreError::Full { by: FullBy::Quota(_), .. } => Trouble::Quota,
            StoreError::Full { by: FullBy::Device, .. } => Trouble::DiskFull,
            StoreError::Unwritable { .. } => Trouble::ReadOnly,
            StoreError::Io { source, .. } => {
                let is = |kinds: [io::ErrorKind; 2]| kinds.contains(&source.kind());
                if is([io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied]) {
                    Trouble::ReadOnly
                } else if is([io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
                    Trouble::DiskFull
                } else {
                    trouble_in(&source.to_string())
                }
            }
            StoreError::ReadOnly { cause } | StoreError::Corrupt { detail: cause, .. } => trouble_in(cause),
            StoreError::Busy | StoreError::Superseded | StoreError::InUse { .. } | StoreError::Vanished { .. } => {
                Trouble::Broken
            }
        }
    }

    /// What the owner must do. Exhaustive: a new variant does not compile until it is decided.
    pub fn disposition(&self) -> Disposition {
        match self {
            StoreError::Full { .. } => Disposition::FreeSpace,
            StoreError::Busy => Disposition::RetrySoon,
            StoreError::ReadOnly { .. } | StoreError::Vanished { .. } | StoreError::Io { .. } => Disposition::Reopen,
            StoreError::Superseded => Disposition::Stop,
            StoreError::Corrupt { .. } | StoreError::InUse { .. } | StoreError::Unwritable { .. } => {
                Disposition::Escalate
            }
        }
    }
}

fn trouble_in(words: &str) -> Trouble {
    let says = |any: [&str; 2]| any.iter().any(|text| words.contains(text));
    if says(["Read-only file system", "Permission denied"]) {
        Trouble::ReadOnly
    } else if says(["No space left on device", "Disk quota exceeded"]) {
        Trouble::DiskFull
    } else {
        Trouble::Broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_is_the_matter_with_the_place() {
        let io = |source: io::Error| StoreError::Io { doing: "write", source };
        let words = |text: &str| io(io::Error::other(text.to_owned()));
        let earlier = |text: &str| StoreError::ReadOnly { cause: text.to_owned() };
        let damaged = |text: &str| StoreError::Corrupt { place: "x".to_owned(), detail: text.to_owned() };
        let path = || "x".to_owned();
        for (error, trouble) in [
            (StoreError::Full { used_bytes: 1, by: FullBy::Quota(1) }, Trouble::Quota),
            (StoreError::Full { used_bytes: 1, by: FullBy::Device }, Trouble::DiskFull),
            (io(io::ErrorKind::StorageFull.into()), Trouble::DiskFull),
            (io(io::ErrorKind::QuotaExceeded.into()), Trouble::DiskFull),
            (words("IO error: No space left on device: While appending"), Trouble::DiskFull),
            (earlier("IO error: Disk quota exceeded: x"), Trouble::DiskFull),
            (damaged("No space left on device"), Trouble::DiskFull),
            (io(io::ErrorKind::ReadOnlyFilesystem.into()), Trouble::ReadOnly),
            (io(io::ErrorKind::PermissionDenied.into()), Trouble::ReadOnly),
            (words("While open a file: x: Read-only file system"), Trouble::ReadOnly),
            (earlier("x: Read-only file system"), Trouble::ReadOnly),
            (StoreError::Unwritable { path: path(), detail: path() }, Trouble::ReadOnly),
            (words("Input/output error"), Trouble::Broken),
            (earlier("Input/output error"), Trouble::Broken),
            (damaged("block checksum mismatch"), Trouble::Broken),
            (StoreError::Busy, Trouble::Broken),
            (StoreError::Superseded, Trouble::Broken),
            (StoreError::InUse { path: path() }, Trouble::Broken),
            (StoreError::Vanished { path: path() }, Trouble::Broken),
        ] {
            assert_eq!(error.trouble(), trouble, "{error}");
        }
    }
}
