//! What the disk of a final node lets it do. In every mode but `ok` answers are withheld: relays keep, and spill, what is
//! not durable; windows in memory are emitted and everything else goes on. The log tries again by itself.

use store::{StoreError, Trouble};

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
        match error.trouble() {
            Trouble::Quota => Mode::Quota,
            Trouble::DiskFull => Mode::DiskFull,
            Trouble::ReadOnly => Mode::ReadOnly,
            Trouble::Broken => Mode::Error,
        }
    }
}
