//! What a relay counts of the points that it owes to the aggregators.

use std::collections::BTreeMap;

/// Why a batch was given up. Closed: the ledger shows these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// Memory was over its bound and the spill took nothing. It was never sent.
    SpillFull,
    /// The same, but it had been sent to a peer that did not answer: it may have arrived, so the aggregates may hold
    /// up to so many points more than this ledger says.
    SpillFullUnanswered,
    TooOld,
    BadChecksum,
    UnknownVersion,
    Poison,
    DuplicateSender,
}

impl Drop {
    /// All there are.
    pub const ALL: [Drop; 7] = [
        Drop::SpillFull,
        Drop::SpillFullUnanswered,
        Drop::TooOld,
        Drop::BadChecksum,
        Drop::UnknownVersion,
        Drop::Poison,
        Drop::DuplicateSender,
    ];

    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Drop::SpillFull => "spill_full",
            Drop::SpillFullUnanswered => "spill_full_unanswered",
            Drop::TooOld => "too_old",
            Drop::BadChecksum => "bad_checksum",
            Drop::UnknownVersion => "unknown_version",
            Drop::Poison => "poison",
            Drop::DuplicateSender => "duplicate_sender",
        }
    }
}

/// The books of the destination `aggregate`, in points:
/// `owed = delivered + in_flight + spilled + sum(dropped)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub owed: u64,
    pub delivered: u64,
    pub in_flight: u64,
    /// Handed over to the spill, all in all. What became of them there is in the spill's books.
    pub spilled: u64,
    pub dropped: BTreeMap<Drop, u64>,
    /// Part of `in_flight`: journalled, so on disk as well. Not a class.
    pub journalled: u64,
    /// Points on disk, ever, that were counted as delivered or dropped here and not as spilled: their tickets were told
    /// by [`super::Relay::take_settled`], or refused by [`super::Relay::spilled`]. Not a class. With it
    /// `spill: pending + settled + dropped - carried over = spilled + journalled + answered_here`.
    pub answered_here: u64,
}
