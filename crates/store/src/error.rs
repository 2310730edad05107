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

impl StoreError {
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
