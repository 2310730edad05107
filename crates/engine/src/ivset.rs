//! Sets of sequence numbers as sorted, disjoint, non-adjacent closed intervals.
//!
//! A stream that arrives in order is one interval; each outage adds a few. This is the whole dedupe memory of a final
//! node (INV-3), so it never forgets: at its bound it refuses *new holes* instead ([`IntervalSet::would_exceed`]).

/// Intervals per stream above which new holes are refused. 10,000 hostile simulated runs needed 42 at most; at
/// 8 bytes each the bound costs 32 KiB per stream.
pub const INTERVALS_MAX: usize = 4096;

/// A set of `u32` sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet {
    runs: Vec<(u32, u32)>,
}

impl IntervalSet {
    /// The empty set.
    pub const fn new() -> IntervalSet {
        IntervalSet { runs: Vec::new() }
    }

    /// Whether `seq` is in the set.
    pub fn contains(&self, seq: u32) -> bool {
        let after = self.runs.partition_point(|&(lo, _)| lo <= seq);
        after > 0 && self.runs[after - 1].1 >= seq
    }

    /// Adds `lo..=hi`; nothing if `lo > hi`.
    pub fn insert(&mut self, lo: u32, hi: u32) {
        if lo > hi {
            return;
        }
        // The common case: the stream grows at its end.
        if let Some(last) = self.runs.last_mut()
            && lo >= last.0
            && lo <= last.1.saturating_add(1)
        {
            last.1 = last.1.max(hi);
            return;
        }
        let first = self.runs.partition_point(|&(_, end)| end.saturating_add(1) < lo);
        let behind = self.runs.partition_point(|&(start, _)| start <= hi.saturating_add(1));
        if first >= behind {
            self.runs.insert(first, (lo, hi));
            return;
        }
        let merged = (lo.min(self.runs[first].0), hi.max(self.runs[behind - 1].1));
        self.runs[first] = merged;
        self.runs.drain(first + 1..behind);
    }

    /// Whether adding `lo..=hi` would take the set over [`INTERVALS_MAX`] intervals.
    pub fn would_exceed(&self, lo: u32, hi: u32) -> bool {
        if self.runs.len() < INTERVALS_MAX || lo > hi {
            return false;
        }
        let first = self.runs.partition_point(|&(_, end)| end.saturating_add(1) < lo);
        let behind = self.runs.partition_point(|&(start, _)| start <= hi.saturating_add(1));
        first >= behind
    }

    /// The intervals, ascending, both ends included.
    pub fn runs(&self) -> &[(u32, u32)] {
        &self.runs
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(inserts: &[(u32, u32)], runs: &[(u32, u32)]) {
        let mut set = IntervalSet::new();
        for &(lo, hi) in inserts {
            set.insert(lo, hi);
        }
        assert_eq!(set.runs(), runs);
    }

    #[test]
    fn a_stream_in_order_is_one_interval() {
        check(&[(0, 0), (1, 1), (2, 7)], &[(0, 7)]);
    }

    #[test]
    fn holes_close_when_what_was_missing_arrives() {
        check(&[(0, 3), (8, 9), (5, 6)], &[(0, 3), (5, 6), (8, 9)]);
        check(&[(0, 3), (8, 9), (5, 6), (4, 4), (7, 7)], &[(0, 9)]);
        check(&[(5, 5), (0, 0), (0, 9)], &[(0, 9)]);
    }

    #[test]
    fn the_largest_number_is_as_good_as_any() {
        check(&[(u32::MAX, u32::MAX), (u32::MAX - 1, u32::MAX - 1)], &[(u32::MAX - 1, u32::MAX)]);
    }

    #[test]
    fn at_the_bound_only_new_holes_are_refused() {
        let mut set = IntervalSet::new();
        for n in 0..u32::try_from(INTERVALS_MAX).expect("small") {
            set.insert(n * 2, n * 2);
        }
        assert!(set.would_exceed(1_000_000, 1_000_000));
        assert!(!set.would_exceed(1, 1));
        set.insert(1, 1);
        assert!(!set.would_exceed(1_000_000, 1_000_000));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(inserts in prop::collection::vec((0u32..200, 0u32..12), 0..60)) {
            let mut set = IntervalSet::new();
            let mut model = BTreeSet::new();
            for (lo, len) in inserts {
                set.insert(lo, lo + len);
                model.extend(lo..=lo + len);
            }
            for n in 0..220 {
                prop_assert_eq!(set.contains(n), model.contains(&n));
            }
            for pair in set.runs().windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0, "sorted, disjoint, not adjacent");
            }
        }
    }
}
