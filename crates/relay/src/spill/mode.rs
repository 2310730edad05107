//! What a spill is able to do, in one word.

use engine::time::UnixSeconds;
use store::{StoreError, Trouble};

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
        match error.trouble() {
            Trouble::Quota => Mode::Quota,
            Trouble::DiskFull => Mode::DiskFull,
            Trouble::ReadOnly => Mode::ReadOnly,
            Trouble::Broken => Mode::Error,
        }
    }
}

/// A mode, since when, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModeSeen {
    pub(crate) mode: Mode,
    pub(crate) since: UnixSeconds,
    /// Empty while all is well.
    pub(crate) detail: String,
}
