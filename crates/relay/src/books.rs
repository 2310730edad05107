//! The relay's ledger, read while nothing moves.

use std::collections::BTreeMap;

use admin_api::{DestinationLedger, Ledger};
use engine::line::Reject;

use crate::decide::Nowhere;
use crate::lanes::Destination;
use crate::shared::{Shared, get};

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
    DestinationLedger {
        destination: AGGREGATE.into(),
        owed: books.owed + open,
        delivered: books.delivered,
        in_flight: books.in_flight + open,
        dropped: books.dropped.iter().map(|(why, n)| (why.as_str().to_owned(), *n)).collect(),
        ..DestinationLedger::default()
    }
}

fn plain(shared: &Shared, index: usize) -> DestinationLedger {
    let open = open_points(shared, |to| matches!(to, Destination::Store(store, _) if store == index));
    let store = &shared.stores[index];
    let ledger =
        DestinationLedger { destination: store.name.clone(), owed: open, in_flight: open, ..Default::default() };
    store.senders.iter().fold(ledger, |ledger, sender| node::add_store_books(ledger, &sender.books()))
}
