//! The relay's ledger, read while nothing moves.

use std::collections::BTreeMap;

use admin_api::{DestinationLedger, Ledger};
use engine::line::Reject;

use crate::decide::Nowhere;
use crate::lanes::Destination;
use crate::shared::{Shared, get};
use crate::spill::Persisted;

/// The name of the aggregation layers among the destinations.
pub(crate) const AGGREGATE: &str = "aggregate";

/// All books at one instant.
pub(crate) fn ledger(shared: &Shared) -> Ledger {
    let _still = shared.standing_still();
    let counters = &shared.counters;
    let (received, accepted) = (get(&counters.received), get(&counters.accepted));
    let rejected = nonzero(Reject::ALL.iter().map(|why| (why.as_str(), get(&counters.rejected[why.index()]))));
    let dropped = nonzero(Nowhere::ALL.iter().map(|why| (why.as_str(), get(&counters.nowhere[why.index()]))));
    let routed = accepted.saturating_sub(dropped.values().sum());
    let mut destinations = vec![aggregate(shared)];
    destinations.extend((0..shared.stores.len()).map(|store| plain(shared, store)));
    node::close_books(Ledger {
        node: shared.node.clone(),
        layer: "relay".into(),
        received,
        rejected,
        in_hand: 0,
        accepted,
        routed,
        dropped,
        destinations,
        unaccounted: 0,
        balanced: true,
    })
}

fn nonzero<'n>(counts: impl Iterator<Item = (&'n str, u64)>) -> BTreeMap<String, u64> {
    counts.filter(|(_, n)| *n > 0).map(|(why, n)| (why.to_owned(), n)).collect()
}

/// Points in open lanes are owed and in flight already.
fn open_points(shared: &Shared, wanted: impl Fn(Destination) -> bool) -> u64 {
    shared.lanes.all().iter().filter(|lane| wanted(lane.destination)).map(|lane| lane.open().points()).sum()
}

fn aggregate(shared: &Shared) -> DestinationLedger {
    let open = open_points(shared, |to| matches!(to, Destination::Aggregate(_)));
    let machine = shared.machine();
    let books = machine.books();
    let memory = DestinationLedger {
        destination: AGGREGATE.into(),
        owed: books.owed + open,
        delivered: books.delivered,
        in_flight: books.in_flight + open,
        dropped: books.dropped.iter().map(|(why, n)| (why.as_str().to_owned(), *n)).collect(),
        ..DestinationLedger::default()
    };
    with_disk(memory, shared.spill.ledger_of(AGGREGATE), books.journalled, books.answered_here)
}

fn plain(shared: &Shared, index: usize) -> DestinationLedger {
    let open = open_points(shared, |to| matches!(to, Destination::Store(store, _) if store == index));
    let store = &shared.stores[index];
    let ledger =
        DestinationLedger { destination: store.name.clone(), owed: open, in_flight: open, ..Default::default() };
    let (mut memory, mut journalled, mut answered_here) = (ledger, 0, 0);
    for sender in &store.senders {
        let books = sender.books();
        memory = node::add_store_books(memory, &books);
        journalled += books.journalled;
        answered_here += books.answered_here;
    }
    with_disk(memory, shared.spill.ledger_of(&store.name), journalled, answered_here)
}

/// Adds what the spill says. What a former life left there is owed from the start.
///
/// `journalled`: points on disk that memory still holds, and counts. `answered_here`: points that the disk has, or had,
/// which memory counted as delivered or dropped; until their tickets are settled they show as pending.
fn with_disk(mut ledger: DestinationLedger, disk: Persisted, journalled: u64, answered_here: u64) -> DestinationLedger {
    ledger.owed += disk.carried;
    let found = ledger.delivered + disk.settled;
    ledger.delivered = found.saturating_sub(answered_here);
    let too_many = journalled + answered_here.saturating_sub(found);
    ledger.spill_pending = disk.pending.saturating_sub(too_many);
    for (why, n) in disk.dropped {
        *ledger.dropped.entry(why.to_owned()).or_default() += n;
    }
    ledger
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(carried: u64, pending: u64, settled: u64, corrupt: u64) -> Persisted {
        let dropped = [("corrupt", corrupt)].into_iter().filter(|(_, n)| *n > 0).collect();
        Persisted { pending, settled, dropped, carried }
    }

    /// In memory: 100 owed, 60 delivered, 30 in flight (and so 10 spilled).
    #[track_caller]
    fn check(disk: Persisted, journalled: u64, answered_here: u64, expected: [u64; 3]) {
        let memory = DestinationLedger { owed: 100, delivered: 60, in_flight: 30, ..DestinationLedger::default() };
        let to = with_disk(memory, disk, journalled, answered_here);
        assert_eq!([to.owed, to.delivered, to.spill_pending], expected, "owed, delivered, pending");
        let ledger = node::close_books(Ledger { destinations: vec![to], ..Ledger::default() });
        assert!(ledger.balanced, "{ledger:?}");
    }

    #[test]
    fn the_books_of_memory_and_disk_balance_whatever_the_disk_did_with_its_part() {
        check(disk(0, 10, 0, 0), 0, 0, [100, 60, 10]);
        check(disk(0, 2, 7, 1), 0, 0, [100, 67, 2]);
        check(disk(1_000, 1_002, 7, 1), 0, 0, [1_100, 67, 1_002]);
    }

    #[test]
    fn what_is_journalled_counts_once_before_and_after_it_is_settled() {
        // 20 of those in flight are journalled; 40 of those delivered were, and are settled, half of them, or not yet.
        check(disk(0, 30, 40, 0), 20, 40, [100, 60, 10]);
        check(disk(0, 50, 20, 0), 20, 40, [100, 40, 30]);
        check(disk(0, 70, 0, 0), 20, 40, [100, 20, 50]);
    }
}
