//! RocksDB's errors, told apart by what the owner does next. RocksDB gives a kind and a text; where the kind is not
//! enough, the text decides, and a test holds that the texts are still the same.

use rocksdb::{Error, ErrorKind};
use std::io;
use std::path::Path;
use store::{FullBy, StoreError};

/// An error from opening the store at `path`.
pub(crate) fn when_opening(error: &Error, path: &Path) -> StoreError {
    let text: &str = error.as_ref();
    // "While lock file: <path>/LOCK: Resource temporarily unavailable" or "lock hold by current process".
    let is_locked = text.contains("Resource temporarily unavailable") || text.contains("lock hold by current process");
    if error.kind() == ErrorKind::IOError && text.contains("/LOCK: ") && is_locked {
        return StoreError::InUse { path: path.display().to_string() };
    }
    when_open("open", error, path, 0)
}

/// An error of an open store at `path` that occupies `used_bytes`.
pub(crate) fn when_open(doing: &'static str, error: &Error, path: &Path, used_bytes: u64) -> StoreError {
    let text: &str = error.as_ref();
    // A table that was removed: "IO error: No such file or directory: While open a file ...: <path>/000012.sst: ...".
    let is_table_missing = text.contains("No such file or directory") && text.contains(".sst");
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        StoreError::Full { used_bytes, by: FullBy::Device }
    } else if text.contains("Read-only file system") || text.contains("Permission denied") {
        StoreError::Unwritable { path: path.display().to_string(), detail: text.to_owned() }
    } else if error.kind() == ErrorKind::Corruption || is_table_missing {
        StoreError::Corrupt { place: path.display().to_string(), detail: text.to_owned() }
    } else if error.kind() == ErrorKind::Incomplete {
        // "Write stall": what `no_slowdown` answers instead of blocking.
        StoreError::Busy
    } else {
        StoreError::Io { doing, source: io::Error::other(error.clone()) }
    }
}

/// An error of the system about something at `path`.
pub(crate) fn of_system(doing: &'static str, source: io::Error, path: &Path) -> StoreError {
    let kind = source.kind();
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        StoreError::Full { used_bytes: 0, by: FullBy::Device }
    } else if matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
        StoreError::Unwritable { path: path.display().to_string(), detail: source.to_string() }
    } else {
        StoreError::Io { doing, source }
    }
}
