mod control;

use super::*;
use crate::batch::{Builder, Claim, Incarnation, PartitionSet, Versions};
use crate::wire::{Done, Durable, NackReason, Range};

pub(super) const SENDER: u64 = 7;
pub(super) const PLAN: Plan = Plan { floor: 1_000, start: Start::Floor, large_points: 1_000_000, replayers: 1 };

/// A batch of so many points.
pub(super) fn batch(seq: u32, points: u32) -> Bytes {
    let mut builder = Builder::new(PartitionSet::default().with(0), 64);
    builder.append(b"a.b 1 100\n", points, UnixSeconds(100), UnixSeconds(100));
    let incarnation = Incarnation { sender: SENDER, epoch: 1, nonce: 1 };
    builder.seal(incarnation, seq, Versions::default(), &[Claim { partition: 0, from: seq }]).bytes().clone()
}

pub(super) fn id(seq: u32) -> BatchId {
    BatchId { sender: SENDER, epoch: 1, seq }
}

pub(super) fn durable_of(first: u32, last: u32) -> Durable {
    let range = Range { sender: SENDER, epoch: 1, first, last };
    Durable { ranges: vec![range], queue_delay_ms: 0, window_bytes: 10_000 }
}

pub(super) fn said(lane: u16, destination: &str, points: u64) -> LaneBacklog {
    LaneBacklog {
        lane,
        destination: destination.into(),
        points,
        batches: points / 10,
        bytes: points,
        leased: 0,
        head: 0,
        tail: points / 10,
        oldest: UnixSeconds(100),
        newest: UnixSeconds(200),
    }
}

fn at(millis: u64) -> Mono {
    Mono::from_millis(millis)
}

fn ticket(lane: u16, ordinal: u64) -> Ticket {
    Ticket { lane, ordinal }
}

/// Two relays, two receivers, one store; everything up, a rate of 1000/s, and two lanes at relay 0.
fn replay() -> Replay {
    let settings = Settings {
        sources: vec!["relay-1".into(), "relay-2".into()],
        receivers: vec!["partial-1".into(), "partial-2".into()],
        stores: vec!["carbon/127.0.0.1:2103".into()],
    };
    let mut replay = Replay::new(settings, PLAN, Control::new(50_000, true));
    replay.set_rate(1_000);
    replay.source_up(0, 1);
    replay.source_up(1, 1);
    replay.receiver_up(at(0), 0, 10_000);
    replay.receiver_up(at(0), 1, 10_000);
    replay.store_state(0, true);
    let lanes = vec![said(0, "aggregate:final-1", 1_000), said(1, "aggregate:final-2", 1_000)];
    assert!(!replay.backlog(0, Backlog { lanes }));
    replay
}

/// Lends records `ordinals` of a lane, 10 points each; batches are numbered as `lane * 100 + ordinal`.
fn lend(replay: &mut Replay, now: Mono, lane: u16, ordinals: std::ops::Range<u64>) {
    for ordinal in ordinals {
        let seq = u32::from(lane) * 100 + u32::try_from(ordinal).unwrap();
        replay.leased(now, 0, Leased { number: 0, ticket: ticket(lane, ordinal), bytes: batch(seq, 10) });
    }
}

/// Takes turns until none is left; the records in their order.
fn turns(replay: &mut Replay, now: Mono) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some(turn) = replay.next_turn(now) {
        assert!(replay.go(now, turn.key).is_some());
        keys.push(turn.key);
    }
    keys
}

fn written(replay: &mut Replay, receiver: usize) -> Vec<u32> {
    std::iter::from_fn(|| replay.next_batch(receiver)).map(|bytes| Batch::decode(bytes).unwrap().id().seq).collect()
}

fn done(replay: &mut Replay) -> Vec<(Outcome, Vec<u64>)> {
    let ordinals = |done: Done| (done.outcome, done.tickets.iter().map(|ticket| ticket.ordinal).collect());
    replay.take_done(0).into_iter().map(ordinals).collect()
}

fn balanced(replay: &Replay) {
    let (by, all) = replay.books();
    assert!(all.balance() && by.values().all(Books::balance), "{all:?}");
}

#[test]
fn a_record_goes_its_way_and_is_delivered_when_it_is_durable_and_not_before() {
    let mut replay = replay();
    let request = replay.next_request(at(0), 0).unwrap();
    assert_eq!(
        (request.lane, request.from, request.to, request.max_points),
        (0, UnixSeconds(0), UnixSeconds(u32::MAX), 5_000)
    );
    lend(&mut replay, at(0), 0, 0..2);
    replay.lease_end(at(0), 0, LeaseEnd { number: request.number, granted: 2 });
    assert_eq!(turns(&mut replay, at(0)).len(), 2);
    let sent = [written(&mut replay, 0), written(&mut replay, 1)].concat();
    assert_eq!(sent.len(), 2);
    assert!(!replay.has_done(0));
    replay.durable(at(10), 1, &durable_of(0, 0));
    assert_eq!(done(&mut replay), [(Outcome::Delivered, vec![0])]);
    replay.durable(at(10), 0, &durable_of(0, u32::MAX));
    assert_eq!(done(&mut replay), [(Outcome::Delivered, vec![1])]);
    balanced(&replay);
    assert_eq!(replay.here(), (0, 0));
    assert_eq!(replay.books().1.delivered, 20);
}

#[test]
fn an_answer_for_one_of_two_relays_with_one_name_is_none_for_the_other() {
    let mut replay = replay();
    assert!(!replay.backlog(1, Backlog { lanes: vec![said(0, "aggregate:final-1", 1_000)] }));
    replay.leased(at(0), 0, Leased { number: 0, ticket: ticket(0, 0), bytes: batch(0, 10) });
    let mut builder = Builder::new(PartitionSet::default().with(0), 64);
    builder.append(b"a.b 2 100\n", 10, UnixSeconds(100), UnixSeconds(100));
    let copied = Incarnation { sender: SENDER, epoch: 1, nonce: 2 };
    let other = builder.seal(copied, 0, Versions::default(), &[Claim { partition: 0, from: 0 }]).bytes().clone();
    replay.leased(at(0), 1, Leased { number: 0, ticket: ticket(0, 0), bytes: other });
    let first = replay.next_turn(at(0)).expect("it is lent").key;
    assert!(replay.go(at(0), first).is_some());
    let receiver = (0..2).find(|receiver| replay.next_batch(*receiver).is_some()).expect("it was sent to one of them");
    replay.durable(at(10), receiver, &durable_of(0, 0));
    assert_eq!([0, 1].map(|source| replay.take_done(source).len()), if first.0 == 0 { [1, 0] } else { [0, 1] });
    balanced(&replay);
}

#[test]
fn every_refusal_has_its_outcome() {
    #[track_caller]
    fn check(reason: NackReason, expected: &[(Outcome, Vec<u64>)], ready_again: bool) {
        let mut replay = replay();
        lend(&mut replay, at(0), 0, 0..1);
        turns(&mut replay, at(0));
        assert_eq!(written(&mut replay, 0), [0]);
        replay.nack(at(1), 1, id(0), reason); // not whom it was sent to
        replay.nack(at(1), 0, id(99), reason); // no such batch
        assert!(!replay.has_done(0));
        replay.nack(at(1), 0, id(0), reason);
        assert_eq!(done(&mut replay), expected, "{reason:?}");
        assert_eq!(replay.has_ready(), ready_again, "{reason:?}");
        balanced(&replay);
    }
    check(NackReason::TooOld, &[(Outcome::TooOld, vec![0])], false);
    check(NackReason::Poison, &[(Outcome::Poison, vec![0])], false);
    check(NackReason::DuplicateSender, &[(Outcome::DuplicateSender, vec![0])], false);
    check(NackReason::Retired { floor: 1 }, &[(Outcome::DuplicateSender, vec![0])], false);
    check(NackReason::UnknownVersion, &[(Outcome::Released, vec![0])], false);
    check(NackReason::TooManyHoles, &[(Outcome::Released, vec![0])], false);
    check(NackReason::Overloaded { retry_after_ms: 500 }, &[], true);
    check(NackReason::BadChecksum, &[], true);
}

#[test]
fn who_is_overloaded_is_left_alone_for_as_long_as_it_says() {
    let mut replay = replay();
    replay.receiver_down(1);
    lend(&mut replay, at(0), 0, 0..1);
    turns(&mut replay, at(0));
    written(&mut replay, 0);
    replay.nack(at(1), 0, id(0), NackReason::Overloaded { retry_after_ms: 500 });
    assert_eq!(replay.next_turn(at(400)), None);
    let again = replay.next_turn(at(502)).unwrap();
    assert_eq!(again.points, 0, "it was paid for");
}

#[test]
fn a_batch_damaged_twice_is_damaged() {
    let mut replay = replay();
    replay.receiver_down(1);
    lend(&mut replay, at(0), 0, 0..1);
    for _ in 0..2 {
        assert!(!replay.has_done(0));
        turns(&mut replay, at(0));
        written(&mut replay, 0);
        replay.nack(at(1), 0, id(0), NackReason::BadChecksum);
    }
    assert_eq!(done(&mut replay), [(Outcome::BadChecksum, vec![0])]);
    // Damaged already when it was lent.
    replay.leased(at(2), 0, Leased { number: 0, ticket: ticket(0, 5), bytes: Bytes::from_static(b"no batch") });
    assert_eq!(done(&mut replay), [(Outcome::BadChecksum, vec![5])]);
    balanced(&replay);
}

#[test]
fn a_lost_receiver_s_batches_go_to_another_and_a_lost_relay_s_wait_for_nobody() {
    let mut replay = replay();
    replay.receiver_down(1);
    lend(&mut replay, at(0), 0, 0..4);
    turns(&mut replay, at(0));
    assert_eq!(written(&mut replay, 0), [0, 1, 2, 3]);
    replay.receiver_up(at(1), 1, 10_000);
    replay.receiver_down(0);
    turns(&mut replay, at(1));
    assert_eq!(written(&mut replay, 1), [0, 1, 2, 3], "oldest first again");
    lend(&mut replay, at(1), 0, 4..6);
    replay.source_down(0);
    assert_eq!(replay.here().1, 4, "what waited is forgotten, what is on its way goes on");
    replay.durable(at(2), 1, &durable_of(0, 3));
    replay.source_up(0, 1);
    assert_eq!(done(&mut replay), [(Outcome::Delivered, vec![0, 1, 2, 3])]);
    balanced(&replay);
    assert_eq!(replay.books().1.returned, 20);
}

/// Found by the simulator (seeds 13 and 28): a relay that lost its disk gives the places of its spill out anew.
#[test]
fn what_another_life_of_a_relay_lent_settles_nothing_in_this_one() {
    let mut replay = replay();
    lend(&mut replay, at(0), 0, 0..2);
    turns(&mut replay, at(0));
    assert_eq!(written(&mut replay, 0).len() + written(&mut replay, 1).len(), 2);
    replay.source_down(0);
    replay.durable(at(1), 0, &durable_of(0, 0));
    replay.source_up(0, 2);
    assert_eq!((done(&mut replay), replay.here()), (vec![], (0, 0)), "neither what is said already");
    assert_eq!(replay.next_request(at(1), 0), None, "its lanes are not known yet");
    // The same places, with something else in them, in a lane of another destination.
    replay.backlog(0, Backlog { lanes: vec![said(0, "aggregate:final-2", 20)] });
    let other = Leased { number: 0, ticket: ticket(0, 1), bytes: batch(77, 10) };
    replay.leased(at(2), 0, other);
    replay.durable(at(3), 0, &durable_of(1, 1));
    assert_eq!(done(&mut replay), [], "nor what is on its way");
    turns(&mut replay, at(3));
    replay.durable(at(4), 1, &durable_of(77, 77));
    assert_eq!(done(&mut replay), [(Outcome::Delivered, vec![1])]);
    balanced(&replay);
}

/// Found by the simulator (seed 1702).
#[test]
fn a_machine_that_was_put_right_still_knows_whose_life_its_lanes_are_of() {
    let mut replay = replay();
    replay.recover();
    replay.source_up(0, 2);
    replay.receiver_up(at(1), 0, 10_000);
    assert_eq!(replay.next_request(at(1), 0), None, "the lanes of life 2 are not known yet");
}

#[test]
fn leases_run_out_and_records_that_come_twice_count_once() {
    let mut replay = replay();
    lend(&mut replay, at(0), 0, 0..3);
    let turn = replay.next_turn(at(0)).unwrap();
    replay.go(at(0), turn.key);
    written(&mut replay, 0);
    written(&mut replay, 1);
    replay.tick(at(20_000));
    assert!(!replay.has_done(0));
    lend(&mut replay, at(20_000), 0, 2..3); // lent again: a younger lease
    replay.tick(at(25_000));
    assert_eq!(done(&mut replay), [(Outcome::Released, vec![0, 1])]);
    replay.durable(at(25_001), 0, &durable_of(0, 0)); // too late: the relay lends it again, and it is known then
    assert!(!replay.has_done(0));
    replay.tick(at(45_000));
    assert_eq!(done(&mut replay), [(Outcome::Released, vec![2])]);
    balanced(&replay);
    assert_eq!(replay.books().1.leased, 30);
}

#[test]
fn a_record_that_is_long_paid_for_goes_all_the_same() {
    let mut replay = replay();
    lend(&mut replay, at(0), 0, 0..1);
    let turn = replay.next_turn(at(0)).unwrap();
    replay.tick(at(100_000));
    assert!(!replay.has_done(0));
    assert_eq!(replay.go(at(100_000), turn.key), Some(To::Receiver(0)));
    assert_eq!(written(&mut replay, 0), [0]);
    replay.tick(at(110_000));
    assert!(!replay.has_done(0), "an answer takes its time");
    replay.tick(at(126_000));
    assert_eq!(done(&mut replay), [(Outcome::Released, vec![0])]);
}

#[test]
fn a_dead_final_node_holds_up_its_own_lane_only() {
    let mut replay = replay();
    // Lane 1 never gets an answer, lane 0 always does.
    let (mut next, mut delivered) = ([0u64; 2], 0);
    for step in 0..400_u64 {
        let now = at(step * 100);
        for lane in [0u16, 1] {
            let waiting = replay.lanes.get(&(0, lane)).unwrap().here();
            // The relay does not lend again what it has lent.
            if waiting < if lane == 0 { 1_000 } else { 1 } {
                let from = next[usize::from(lane)];
                lend(&mut replay, now, lane, from..from + 5);
                next[usize::from(lane)] += if lane == 0 { 5 } else { 0 };
                if next[0] >= 100 {
                    next[0] = 0;
                }
            }
        }
        turns(&mut replay, now);
        let sent = [written(&mut replay, 0), written(&mut replay, 1)].concat();
        for seq in sent.into_iter().filter(|seq| *seq < 100) {
            replay.durable(now, 0, &durable_of(seq, seq));
            delivered += 1;
        }
        replay.durable(now, 1, &Durable { ranges: Vec::new(), ..durable_of(0, 0) });
        replay.tick(now);
        done(&mut replay);
    }
    assert!(delivered > 1_000, "{delivered}");
    let dead = replay.lanes.get(&(0, 1)).unwrap();
    assert!(dead.allowance == 1 && dead.last_error.is_some(), "{dead:?}");
    balanced(&replay);
}

#[test]
fn lanes_take_turns_by_points_and_each_goes_oldest_first() {
    let mut replay = replay();
    lend(&mut replay, at(0), 0, 0..6);
    lend(&mut replay, at(0), 1, 0..3);
    let keys: Vec<(u16, u64)> = turns(&mut replay, at(0)).iter().map(|key| (key.1.lane, key.1.ordinal)).collect();
    assert_eq!(keys, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (0, 4), (0, 5)]);
}

#[test]
fn windows_are_kept_and_a_closed_one_opens_again() {
    let mut replay = replay();
    replay.receiver_down(1);
    let size = batch(0, 10).len() as u64;
    replay.receiver_up(at(0), 0, 3 * size);
    lend(&mut replay, at(0), 0, 0..9);
    assert_eq!(turns(&mut replay, at(0)).len(), 3);
    written(&mut replay, 0);
    replay.durable(at(1), 0, &Durable { window_bytes: 0, ..durable_of(0, 0) });
    assert_eq!(replay.next_turn(at(1)), None);
    replay.durable(at(2), 0, &Durable { window_bytes: 4 * size, ranges: Vec::new(), queue_delay_ms: 0 });
    assert_eq!(turns(&mut replay, at(2)).len(), 2);
}

#[test]
fn a_store_s_blocks_are_delivered_when_its_sender_released_them() {
    let mut replay = replay();
    let lanes = vec![said(2, "carbon/127.0.0.1:2103", 50), said(3, "nowhere/127.0.0.1:1", 50)];
    replay.backlog(0, Backlog { lanes });
    assert_eq!(replay.next_request(at(0), 0).unwrap().lane, 2);
    assert_eq!(replay.next_request(at(0), 0), None, "nobody knows nowhere");
    for ordinal in 0..3 {
        let bytes = Bytes::from_static(b"a 1 1\nb 2 1\n");
        replay.leased(at(0), 0, Leased { number: 0, ticket: ticket(2, ordinal), bytes });
    }
    assert_eq!(turns(&mut replay, at(0)).len(), 3);
    for count in 1..=2 {
        let (key, _, points) = replay.next_block(0).unwrap();
        assert_eq!(points, 2);
        replay.block_offered(0, key, count);
    }
    let (key, ..) = replay.next_block(0).unwrap();
    replay.block_refused(0, key);
    assert_eq!(replay.next_turn(at(1)), None, "the sender is full");
    replay.store_released(0, 1);
    assert_eq!(done(&mut replay), [(Outcome::Delivered, vec![0])]);
    replay.tick(at(60_000));
    assert_eq!(done(&mut replay), [(Outcome::Released, vec![2])], "what the sender took stays with it");
    replay.store_released(0, 2);
    assert_eq!(done(&mut replay), [(Outcome::Delivered, vec![1])]);
    balanced(&replay);
    assert_eq!(replay.books().0.get("carbon").unwrap().delivered, 4);
}

/// Receipts come seldom, so the rate of a store is what may go between two of them.
#[test]
fn between_two_receipts_of_a_store_goes_as_much_as_a_lane_may_have_ahead() {
    let mut replay = replay();
    replay.set_rate(u64::from(u32::MAX));
    replay.backlog(0, Backlog { lanes: vec![said(2, "carbon/127.0.0.1:2103", 1_000_000)] });
    let block = Bytes::from("web.host-17.requests 123 1700000000\n".repeat(7_300)); // 256 KiB
    let (mut ordinal, mut offered, mut most) = (0, 0, 0);
    for receipt in 1..=6 {
        let now = at(receipt * 5_000);
        for _ in 0..40 {
            replay.leased(now, 0, Leased { number: 0, ticket: ticket(2, ordinal), bytes: block.clone() });
            ordinal += 1;
        }
        turns(&mut replay, now);
        let before = offered;
        while let Some((key, ..)) = replay.next_block(0) {
            offered += 1;
            replay.block_offered(0, key, offered);
        }
        most = most.max((offered - before) * block.len() as u64);
        replay.store_released(0, offered);
    }
    assert!(most > 7 << 20, "{most} bytes");
    balanced(&replay);
}

#[test]
fn nothing_is_borrowed_that_could_not_go() {
    #[track_caller]
    fn check(prepare: impl FnOnce(&mut Replay), expected: Option<u16>) {
        let mut replay = replay();
        prepare(&mut replay);
        assert_eq!(replay.next_request(at(0), 0).map(|request| request.lane), expected);
    }
    check(|_| {}, Some(0));
    check(|replay| replay.set_rate(0), None);
    check(|replay| replay.source_down(0), None);
    check(
        |replay| {
            replay.receiver_down(0);
            replay.receiver_draining(1);
        },
        None,
    );
    check(|replay| assert_eq!(replay.next_request(at(0), 0).unwrap().lane, 0), Some(1));
    // At ten points a second one record waits, and no more.
    check(|replay| lend_at(replay, 10, 6), None);
    check(|replay| lend_at(replay, 10, 0), Some(0));
    check(|replay| lend_at(replay, 1_000, 6), Some(0));

    fn lend_at(replay: &mut Replay, rate: u64, records: u64) {
        replay.set_rate(rate);
        lend(replay, at(0), 0, 0..records);
    }
}

#[test]
fn an_empty_lane_rests_and_an_unanswered_request_is_asked_again() {
    let mut replay = replay();
    let first = replay.next_request(at(0), 0).unwrap();
    let second = replay.next_request(at(0), 0).unwrap();
    assert_eq!((first.lane, second.lane), (0, 1));
    replay.lease_end(at(0), 0, LeaseEnd { number: first.number, granted: 0 });
    assert_eq!(replay.next_request(at(500), 0), None);
    assert_eq!(replay.next_request(at(1_001), 0).unwrap().lane, 0);
    assert_eq!(replay.next_request(at(10_100), 0).unwrap().lane, 1, "it was never answered");
}

#[test]
fn after_a_panic_inside_the_books_balance_and_all_is_borrowed_again() {
    let mut replay = replay();
    lend(&mut replay, at(0), 0, 0..3);
    turns(&mut replay, at(0));
    replay.durable(at(0), 0, &durable_of(0, 0));
    replay.recover();
    balanced(&replay);
    let books = replay.books().1;
    assert_eq!((books.leased, books.delivered, books.returned, books.in_flight), (30, 10, 20, 0));
    assert_eq!(replay.next_request(at(0), 0), None, "no link is up");
    // A turn that is paid for meanwhile is nobody's any more.
    assert_eq!(replay.go(at(0), (0, ticket(0, 1))), None);
}

#[test]
fn silence_of_a_receiver_counts_as_overload() {
    let mut replay = replay();
    assert_eq!(replay.queue_delay(at(100)), None);
    replay.durable(at(100), 0, &Durable { ranges: Vec::new(), queue_delay_ms: 20, window_bytes: 1 });
    assert_eq!(replay.queue_delay(at(200)), Some(Duration::from_millis(20)));
    assert_eq!(replay.queue_delay(at(5_000)), Some(Duration::from_secs(5)), "of the one that never spoke");
}
