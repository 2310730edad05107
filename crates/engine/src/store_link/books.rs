//! What a store link counts: points in the books, connections in the counters.

/// The books in points, and what was done again. `owed` equals the sum of the six classes at all times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// All points ever taken.
    pub owed: u64,
    /// To be written: never written yet, or written to a connection that was lost.
    pub in_flight: u64,
    /// Written, without a receipt (yet, or for ever).
    pub delivered_unconfirmed: u64,
    /// Written and covered by a receipt.
    pub delivered: u64,
    /// Dropped because `retain_bytes` were held and the store took nothing new.
    pub dropped_retain_full: u64,
    /// Dropped for the same reason where a spill should have taken it and could not.
    pub dropped_spill_full: u64,
    /// Handed over to the spill, all in all. What became of them there is in the spill's books.
    pub spilled: u64,
    /// Points owed again after a lost connection. Not a class: the same point may count more than once.
    pub resent: u64,
    /// Points written once more although not owed. Not a class.
    pub reasserted: u64,
    /// Points on disk of blocks that are still held. Not a class.
    pub journalled: u64,
    /// Points on disk, ever, that are in another class than `spilled` and not in `journalled`: their tickets were told by
    /// [`super::StoreLink::take_settled`], or refused by [`super::StoreLink::journalled`]. Not a class. With it
    /// `spill: pending + settled + dropped - carried over = spilled + journalled + answered_here`.
    pub answered_here: u64,
    /// Points whose copies were given up before their time, so that they are not sent again. Not a class.
    pub reasserts_skipped: u64,
}

impl Books {
    /// INV-1 for this link.
    pub fn balance(&self) -> bool {
        let dropped = self.dropped_retain_full + self.dropped_spill_full;
        self.owed == self.in_flight + self.delivered_unconfirmed + self.delivered + self.spilled + dropped
    }
}

/// What happened to connections. Each counts since the link began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came to stand.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Connections lost by a reset (a crash of the shell is one).
    pub resets: u64,
    /// Connections that the store closed by itself.
    pub peer_closes: u64,
    /// Half-closes answered by FIN.
    pub receipts: u64,
    /// Half-closes not answered in time.
    pub receipts_missed: u64,
}

/// How far a link is, in blocks in the order of their offering (empty ones do not count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many were offered and taken.
    pub offered: u64,
    /// The first so many will never be sent again by this link: they have their receipt and no re-assert wants them, or
    /// they were written to a store without receipts longer ago than `silence` and `linger`, or the spill has them, or they
    /// were dropped.
    pub released: u64,
}
