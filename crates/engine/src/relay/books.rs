//! What a relay counts of the points that it owes to the aggregators.

use std::collections::BTreeMap;

/// Why a batch was given up. Closed: the ledger shows these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    RetainFull,
    TooOld,
    BadChecksum,
    UnknownVersion,
    Poison,
    DuplicateSender,
}

impl Drop {
    /// All there are.
    pub const ALL: [Drop; 6] =
        [Drop::RetainFull, Drop::TooOld, Drop::BadChecksum, Drop::UnknownVersion, Drop::Poison, Drop::DuplicateSender];

    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Drop::RetainFull => "retain_full",
            Drop::TooOld => "too_old",
            Drop::BadChecksum => "bad_checksum",
            Drop::UnknownVersion => "unknown_version",
            Drop::Poison => "poison",
            Drop::DuplicateSender => "duplicate_sender",
        }
    }
}

/// The books of the destination `aggregate`, in points:
/// `owed = delivered + in_flight + sum(dropped)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub owed: u64,
    pub delivered: u64,
    pub in_flight: u64,
    pub dropped: BTreeMap<Drop, u64>,
}
