use super::*;
use crate::batch::PartitionSet;
use crate::wire::{Durable, NackReason, Range};

const ME: Incarnation = Incarnation { sender: 1, epoch: 2, nonce: 3 };

fn at(millis: u64) -> Mono {
    Mono::from_millis(millis)
}

fn relay(peers: usize, retain_bytes: u64) -> Relay {
    let settings = Settings {
        incarnation: ME,
        versions: Versions::default(),
        partitions: 4,
        peers: (1..=peers).map(|n| format!("partial-{n}")).collect(),
        ack_timeout: Duration::from_secs(3),
        retain_bytes,
        journal: false,
    };
    Relay::new(settings, at(0))
}

fn open(partition: u16, lines: u32) -> Builder {
    let mut builder = Builder::new(PartitionSet::default().with(partition), 64);
    for n in 0..lines {
        builder.append(b"a.b 1 100\n", 1, UnixSeconds(100 + n), UnixSeconds(100 + n));
    }
    builder
}

fn drain(relay: &mut Relay, now: Mono, peer: Peer) -> Vec<(u32, bool)> {
    std::iter::from_fn(|| relay.next_for(now, peer)).map(|sending| (sending.batch.id().seq, sending.attempt)).collect()
}

fn done(first: u32, last: u32) -> Durable {
    Durable { ranges: vec![Range { sender: 1, epoch: 2, first, last }], queue_delay_ms: 0, window_bytes: 1 << 20 }
}

#[track_caller]
fn balanced(relay: &Relay) {
    let books = relay.books();
    assert_eq!(books.owed, books.delivered + books.in_flight + books.spilled + books.dropped.values().sum::<u64>());
}

#[test]
fn a_batch_is_kept_until_it_is_durable() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 5));
    assert_eq!(drain(&mut relay, at(0), 0), [(0, false)]);
    assert_eq!(drain(&mut relay, at(1), 0), []);
    assert_eq!(relay.books().in_flight, 5);
    relay.durable(at(9), 0, &done(0, 0));
    assert_eq!((relay.books().delivered, relay.held()), (5, (0, 0)));
    balanced(&relay);
}

#[test]
fn each_partition_claims_the_numbers_since_its_last_batch() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    for partition in [0, 1, 1, 0] {
        relay.seal(at(0), open(partition, 1));
    }
    let claims: Vec<(u16, u32, u32)> = std::iter::from_fn(|| relay.next_for(at(0), 0))
        .map(|sending| {
            let header = sending.batch.header().clone();
            (header.claims[0].partition, header.claims[0].from, header.id.seq)
        })
        .collect();
    assert_eq!(claims, [(0, 0, 0), (1, 0, 1), (1, 2, 2), (0, 1, 3)]);
}

#[test]
fn an_unanswered_batch_goes_to_another_peer_as_a_suspect() {
    let mut relay = relay(2, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    relay.link_up(at(0), 1, 1 << 20);
    relay.seal(at(0), open(0, 1));
    let first = if drain(&mut relay, at(0), 0).is_empty() { 1 } else { 0 };
    if first == 1 {
        assert_eq!(drain(&mut relay, at(0), 1), [(0, false)]);
    }
    relay.tick(at(2_900));
    assert_eq!(drain(&mut relay, at(2_900), 1 - first), []);
    relay.tick(at(3_100));
    assert_eq!(drain(&mut relay, at(3_100), first), []);
    assert_eq!(drain(&mut relay, at(3_100), 1 - first), [(0, true)]);
    balanced(&relay);
}

#[test]
fn with_one_peer_a_suspect_goes_to_it_again() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 1));
    drain(&mut relay, at(0), 0);
    relay.link_down(at(10), 0);
    assert_eq!(drain(&mut relay, at(10), 0), []);
    relay.link_up(at(0), 0, 1 << 20);
    assert_eq!(drain(&mut relay, at(20), 0), [(0, true)]);
}

#[test]
fn a_window_bounds_what_is_out_but_one_batch_always_fits() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 10);
    relay.seal(at(0), open(0, 1));
    relay.seal(at(0), open(0, 1));
    assert_eq!(drain(&mut relay, at(0), 0), [(0, false)]);
    relay.durable(at(1), 0, &done(0, 0));
    assert_eq!(drain(&mut relay, at(1), 0), [(1, false)]);
}

#[test]
fn a_draining_peer_gets_nothing_new_but_may_still_acknowledge() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 1));
    drain(&mut relay, at(0), 0);
    relay.peer_draining(at(0), 0);
    relay.seal(at(0), open(0, 1));
    assert_eq!(drain(&mut relay, at(0), 0), []);
    relay.durable(at(1), 0, &done(0, 0));
    assert_eq!(relay.books().delivered, 1);
}

#[test]
fn overload_is_waited_out_and_what_is_refused_for_good_is_counted() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    for _ in 0..3 {
        relay.seal(at(0), open(0, 2));
    }
    drain(&mut relay, at(0), 0);
    let id = |seq| BatchId { sender: 1, epoch: 2, seq };
    relay.nack(at(0), 0, id(0), NackReason::Overloaded { retry_after_ms: 500 });
    relay.nack(at(0), 0, id(1), NackReason::TooOld);
    relay.nack(at(0), 0, id(2), NackReason::BadChecksum);
    assert_eq!(drain(&mut relay, at(400), 0), [(2, true)]);
    assert_eq!(drain(&mut relay, at(500), 0), [(0, true)]);
    relay.nack(at(500), 0, id(2), NackReason::BadChecksum);
    let dropped = &relay.books().dropped;
    assert_eq!((dropped[&Drop::TooOld], dropped[&Drop::BadChecksum]), (2, 2));
    balanced(&relay);
}

#[test]
fn a_full_relay_lets_clients_wait_while_there_is_progress_and_drops_the_oldest_when_there_is_none() {
    let mut relay = relay(1, 300);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 10));
    relay.seal(at(0), open(0, 10));
    assert!(!relay.accepts(at(100)), "full, and an answer may still come");
    assert_eq!(relay.books().dropped.len(), 0);
    relay.tick(at(3_500));
    assert_eq!(relay.books().dropped[&Drop::SpillFull], 10);
    assert!(relay.accepts(at(3_500)), "stuck: newer points replace older ones");
    balanced(&relay);
}

#[test]
fn what_is_dropped_after_it_was_sent_is_counted_apart_for_it_may_have_arrived() {
    let mut relay = relay(1, 300);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 10));
    assert_eq!(drain(&mut relay, at(0), 0), [(0, false)]);
    relay.link_down(at(1), 0);
    for _ in 0..2 {
        relay.seal(at(1), open(0, 10));
    }
    relay.tick(at(3_500));
    let dropped = &relay.books().dropped;
    assert_eq!((dropped[&Drop::SpillFullUnanswered], dropped[&Drop::SpillFull]), (10, 10));
    balanced(&relay);
}

#[test]
fn another_senders_acknowledgement_changes_nothing() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 1));
    drain(&mut relay, at(0), 0);
    let mut foreign = done(0, 9);
    foreign.ranges[0].epoch = 1;
    relay.durable(at(1), 0, &foreign);
    assert_eq!(relay.books().in_flight, 1);
}

#[test]
fn retries_stay_within_their_budget() {
    let mut relay = relay(1, 1 << 30);
    relay.link_up(at(0), 0, 1 << 30);
    for _ in 0..200 {
        let mut builder = Builder::new(PartitionSet::default().with(0), 1 << 20);
        builder.append(&vec![b'x'; 1 << 20], 1, UnixSeconds(1), UnixSeconds(1));
        relay.seal(at(0), builder);
    }
    assert_eq!(drain(&mut relay, at(0), 0).len(), 200);
    relay.tick(at(4_000));
    let again = drain(&mut relay, at(4_000), 0).len();
    assert!((25..=32).contains(&again), "{again} MiB re-sent at once");
    let later = drain(&mut relay, at(14_000), 0).len();
    assert!((8..=11).contains(&later), "{later} MiB in ten seconds without fresh traffic");
}

#[test]
fn after_a_panic_everything_held_is_sent_again_and_the_books_balance() {
    let mut relay = relay(1, 1 << 20);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 3));
    relay.seal(at(0), open(0, 4));
    drain(&mut relay, at(0), 0);
    relay.durable(at(1), 0, &done(0, 0));
    relay.books.in_flight = 999; // as if the panic had come in the middle of counting
    relay.recover(at(2));
    balanced(&relay);
    relay.link_up(at(0), 0, 1 << 20);
    assert_eq!(drain(&mut relay, at(3), 0), [(1, true)]);
    assert_eq!(relay.books().delivered, 3);
}

#[test]
fn the_watermark_is_the_oldest_point_held_back() {
    let mut relay = relay(1, 1 << 20);
    let wall = UnixSeconds(500);
    assert_eq!(relay.watermark(at(0), None, wall).at, UnixSeconds(0), "the spill has not said yet what it holds");
    relay.set_spilled(None, None);
    assert_eq!(relay.watermark(at(0), None, wall).at, wall);
    assert_eq!(relay.watermark(at(0), Some(UnixSeconds(90)), wall).at, UnixSeconds(90));
    relay.seal(at(0), open(0, 1));
    assert_eq!(relay.watermark(at(7), None, wall).at, UnixSeconds(100));
    assert_eq!(relay.watermark(at(7), None, wall).oldest_ms, 7);
}

mod canary;
mod spill;
