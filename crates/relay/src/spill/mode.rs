//! What a spill is able to do, in one word.

use engine::time::UnixSeconds;
use store::{FullBy, StoreError};

/// The modes. In all but [`Mode::Ok`] nothing is spilled and the live path goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Starting,
    Ok,
    /// As full as it may be.
    Quota,
    /// The file system is full.
    DiskFull,
    ReadOnly,
    /// The store failed, and is being opened again.
    Error,
}

impl Mode {
    pub(crate) const ALL: [Mode; 6] =
        [Mode::Starting, Mode::Ok, Mode::Quota, Mode::DiskFull, Mode::ReadOnly, Mode::Error];

    /// The word in metrics, the admin API and the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Mode::Starting => "starting",
            Mode::Ok => "ok",
            Mode::Quota => "quota",
            Mode::DiskFull => "disk_full",
            Mode::ReadOnly => "read_only",
            Mode::Error => "error",
        }
    }

    /// The mode that an error of the store means.
    pub(crate) fn of(error: &StoreError) -> Mode {
        match error {
            StoreError::Full { by: FullBy::Quota(_), .. } => Mode::Quota,
            StoreError::Full { by: FullBy::Device, .. } => Mode::DiskFull,
            StoreError::Io { source, .. } if is_read_only(&source.to_string()) => Mode::ReadOnly,
            StoreError::ReadOnly { cause } if is_read_only(cause) => Mode::ReadOnly,
            StoreError::Unwritable { .. } => Mode::ReadOnly,
            StoreError::ReadOnly { cause } | StoreError::Corrupt { detail: cause, .. } if is_full(cause) => {
                Mode::DiskFull
            }
            StoreError::Io { source, .. } if is_full(&source.to_string()) => Mode::DiskFull,
            StoreError::Busy
            | StoreError::Corrupt { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Superseded
            | StoreError::InUse { .. }
            | StoreError::Vanished { .. }
            | StoreError::Io { .. } => Mode::Error,
        }
    }
}

// RocksDB hands on the words of the system.
fn is_read_only(text: &str) -> bool {
    text.contains("Read-only file system")
}

fn is_full(text: &str) -> bool {
    text.contains("No space left on device")
}

/// A mode, since when, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModeSeen {
    pub(crate) mode: Mode,
    pub(crate) since: UnixSeconds,
    /// Empty while all is well.
    pub(crate) detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_store_is_a_mode() {
        let io = |text: &str| StoreError::Io { doing: "write", source: std::io::Error::other(text.to_owned()) };
        for (error, mode) in [
            (StoreError::Full { used_bytes: 1, by: FullBy::Quota(1) }, Mode::Quota),
            (StoreError::Full { used_bytes: 1, by: FullBy::Device }, Mode::DiskFull),
            (io("While open a file: x: Read-only file system"), Mode::ReadOnly),
            (io("IO error: No space left on device: While appending"), Mode::DiskFull),
            (StoreError::ReadOnly { cause: "x: Read-only file system".into() }, Mode::ReadOnly),
            (io("broken"), Mode::Error),
            (StoreError::Superseded, Mode::Error),
        ] {
            assert_eq!(Mode::of(&error), mode, "{error}");
        }
    }
}
