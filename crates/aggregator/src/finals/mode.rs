//! What the disk of a final node lets it do. In every mode but `ok` answers are withheld: relays keep, and spill, what is
//! not durable; windows in memory are emitted and everything else goes on. The log tries again by itself.

use std::io;

use store::{FullBy, StoreError};

/// See the module's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Ok,
    /// The store has as many bytes as `final.quota` gives it. Old windows are sealed early to make room.
    Quota,
    /// The file system has no space left.
    DiskFull,
    /// The file system takes no writes.
    ReadOnly,
    /// The store failed; it is opened again.
    Error,
}

impl Mode {
    pub(crate) const ALL: [Mode; 5] = [Mode::Ok, Mode::Quota, Mode::DiskFull, Mode::ReadOnly, Mode::Error];

    /// The word for status, labels and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Mode::Ok => "ok",
            Mode::Quota => "quota",
            Mode::DiskFull => "disk_full",
            Mode::ReadOnly => "read_only",
            Mode::Error => "error",
        }
    }

    /// The mode that an error brings.
    pub(crate) fn of(error: &StoreError) -> Mode {
        match error {
            StoreError::Full { by: FullBy::Quota(_), .. } => Mode::Quota,
            StoreError::Full { by: FullBy::Device, .. } => Mode::DiskFull,
            StoreError::Io { source, .. } => {
                let is = |kinds: [io::ErrorKind; 2]| kinds.contains(&source.kind());
                if is([io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied]) {
                    Mode::ReadOnly
                } else if is([io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
                    Mode::DiskFull
                } else {
                    Mode::Error
                }
            }
            StoreError::Unwritable { .. } => Mode::ReadOnly,
            StoreError::Busy
            | StoreError::Vanished { .. }
            | StoreError::Corrupt { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Superseded
            | StoreError::InUse { .. } => Mode::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_name_that_says_what_to_do() {
        let io = |kind: io::ErrorKind| StoreError::Io { doing: "sync", source: kind.into() };
        for (error, mode) in [
            (StoreError::Full { used_bytes: 1, by: FullBy::Quota(1) }, Mode::Quota),
            (StoreError::Full { used_bytes: 1, by: FullBy::Device }, Mode::DiskFull),
            (io(io::ErrorKind::ReadOnlyFilesystem), Mode::ReadOnly),
            (io(io::ErrorKind::StorageFull), Mode::DiskFull),
            (io(io::ErrorKind::Other), Mode::Error),
            (StoreError::ReadOnly { cause: "an earlier failure".into() }, Mode::Error),
        ] {
            assert_eq!(Mode::of(&error), mode, "{error}");
        }
    }
}
