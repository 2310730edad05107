//! Taking a relay down, in an order in which nothing that was read is lost.
//!
//! ```text
//!  no new clients -> those there are told, and read to their end -> queue to lanes -> lanes sealed
//!                 -> destinations get a share of the time -> the rest goes to the spill
//! ```
//!
//! What a destination confirms within its share costs no disk and comes to nobody twice. When the share is over, or there
//! is nobody to send to, whatever is not durable is due for the spill. Only where the spill can take nothing, destinations
//! have all of the time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::store_link::Phase;
use engine::time::Mono;

use crate::shared::Shared;
use crate::start::Running;

/// Destinations get this part of the time: one third.
const SHARE: u32 = 3;
/// Clients are told and read to their end in 1.5 s (`ingest`). Longer takes only who waits for a place in the queue with lines
/// in hand.
const CLIENTS_WITHIN: Duration = Duration::from_secs(5);
/// Kept for the workers to end.
const END_WITHIN: Duration = Duration::from_millis(500);

impl Running {
    /// Stops in order. What is neither delivered nor spilled at the deadline is lost with the process; the names of who
    /// was late come back.
    pub async fn stop(self, deadline: Duration) -> Vec<String> {
        let Running { shared, supervisor, slots, queue, listener, keeper, .. } = self;
        let shared = &shared;
        let clock = shared.clock;
        let end = clock.now() + deadline;
        let left = || end.since(clock.now());
        shared.draining.store(true, Ordering::Relaxed);
        keeper.draining();
        supervisor.stop_some("relay.listener", left()).await;
        drop(listener);
        supervisor.stop_some("relay.client", left().min(CLIENTS_WITHIN)).await;
        let empty = || queue.is_empty() && slots.iter().all(|slot| slot.is_empty());
        while !left().is_zero() && !empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shared.seal_older_than(Duration::ZERO);
        let share = if shared.spill.able() { left() / SHARE } else { left().saturating_sub(END_WITHIN) };
        spill_for_stores_away(shared);
        // Senders to stores drain by themselves when they are stopped: last bytes, last receipt.
        let stores = supervisor.stop_some("relay.store", share);
        let ((), late) = tokio::join!(deliver(shared, clock.now() + share), stores);
        spill_the_rest(shared, end - END_WITHIN.min(left())).await;
        let mut names = supervisor.shutdown(left().max(Duration::from_millis(100))).await;
        if held(shared) > 0 {
            names.extend(late);
        }
        names
    }
}

/// What is for a store without a connection goes to disk at once; there it would go in the end.
fn spill_for_stores_away(shared: &Shared) {
    if shared.spill.able() {
        let senders = shared.stores.iter().flat_map(|store| &store.senders);
        let away = senders.filter(|sender| sender.status().phase == Phase::Disconnected);
        away.for_each(output::StoreSender::drain_to_spill);
        shared.spill.wake();
    }
}

/// Waits until the aggregators have everything, or until `end`; not at all when there is nobody.
async fn deliver(shared: &Shared, end: Mono) {
    let goes_on = || {
        let machine = shared.machine();
        machine.held().1 > 0 && (machine.has_peer() || !shared.spill.able())
    };
    while goes_on() && shared.clock.now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything that is not durable goes to disk; waits for that until `end`, or until the spill takes nothing more.
async fn spill_the_rest(shared: &Shared, end: Mono) {
    shared.machine().drain();
    shared.stores.iter().flat_map(|store| &store.senders).for_each(output::StoreSender::drain_to_spill);
    shared.spill.wake();
    while held(shared) > 0 && shared.spill.able() && shared.clock.now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Batches and senders that hold something which is neither confirmed nor on disk.
fn held(shared: &Shared) -> usize {
    let senders = shared.stores.iter().flat_map(|store| &store.senders);
    let unsettled = senders.filter(|sender| sender.status().phase != Phase::Drained).count();
    shared.machine().held().1 + unsettled
}
