//! Closing the books: what does not add up is shown, never hidden.

use admin_api::{DestinationLedger, Ledger};
use engine::store_link::Books;

/// Adds one address of a store to the store's books.
pub fn add_store_books(mut ledger: DestinationLedger, books: &Books) -> DestinationLedger {
    ledger.owed += books.owed;
    ledger.delivered += books.delivered;
    ledger.delivered_unconfirmed += books.delivered_unconfirmed;
    ledger.in_flight += books.in_flight;
    for (why, n) in [("retain_full", books.dropped_retain_full), ("spill_full", books.dropped_spill_full)] {
        if n > 0 {
            *ledger.dropped.entry(why.into()).or_default() += n;
        }
    }
    ledger
}

/// Works out what is unaccounted for, of each destination and of the node.
pub fn close_books(mut ledger: Ledger) -> Ledger {
    for to in &mut ledger.destinations {
        let found = to.delivered
            + to.delivered_unconfirmed
            + to.in_flight
            + to.spill_pending
            + to.returned
            + to.dropped.values().sum::<u64>();
        to.unaccounted = difference(to.owed, found);
    }
    let taken = ledger.accepted + ledger.in_hand + ledger.rejected.values().sum::<u64>();
    let placed = ledger.routed + ledger.dropped.values().sum::<u64>();
    ledger.unaccounted = difference(ledger.received, taken) + difference(ledger.accepted, placed);
    ledger.balanced = ledger.received == taken
        && ledger.accepted == placed
        && ledger.destinations.iter().all(|to| to.unaccounted == 0);
    ledger
}

fn difference(whole: u64, parts: u64) -> i64 {
    let size = i64::try_from(whole.abs_diff(parts)).unwrap_or(i64::MAX);
    if whole >= parts { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(owed: u64, delivered: u64) -> Ledger {
        let to = DestinationLedger { owed, delivered, ..DestinationLedger::default() };
        Ledger { received: 10, accepted: 10, routed: 10, destinations: vec![to], ..Ledger::default() }
    }

    #[test]
    fn books_that_add_up_balance() {
        let closed = close_books(books(10, 10));
        assert!(closed.balanced);
        assert_eq!((closed.unaccounted, closed.destinations[0].unaccounted), (0, 0));
    }

    #[test]
    fn a_point_that_is_missing_or_twice_there_shows() {
        assert_eq!(close_books(books(10, 9)).destinations[0].unaccounted, 1);
        assert_eq!(close_books(books(10, 11)).destinations[0].unaccounted, -1);
        assert!(!close_books(books(10, 11)).balanced);
        let lost = close_books(Ledger { received: 11, ..books(10, 10) });
        assert_eq!((lost.unaccounted, lost.balanced), (1, false));
    }

    #[test]
    fn two_errors_that_cancel_out_do_not_balance() {
        let crossed = Ledger { received: 11, accepted: 10, routed: 11, ..books(10, 10) };
        assert!(!close_books(crossed).balanced);
    }
}
