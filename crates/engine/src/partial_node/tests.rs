use bytes::Bytes;

use super::*;
use crate::batch::{Builder, Claim};
use crate::time::UnixSeconds;
use crate::wire::{FlushReply, GroupReply, Included};

const RELAY: Connection = 1;
const REPLAYER: Connection = 2;

fn node() -> PartialNode {
    let mut node = PartialNode::new(Settings {
        versions: Versions::default(),
        partitions: 4,
        owners: vec![0, 1, 0, 1],
        shards: 2,
        hold_bytes: 1 << 20,
        flush_timeout: Duration::from_millis(1500),
        former_rules: BTreeSet::new(),
        first_flush: 100,
    });
    node.connected(RELAY, Class::Live);
    node.shard_started(0, 1, None);
    node.shard_started(1, 1, None);
    node
}

fn batch(seq: u32, partitions: &[u16]) -> Batch {
    let set = partitions.iter().fold(PartitionSet::default(), |set, partition| set.with(*partition));
    let mut builder = Builder::new(set, 32);
    builder.append(b"a 1 100\n", 1, UnixSeconds(100), UnixSeconds(100));
    let claims: Vec<Claim> = set.iter().map(|partition| Claim { partition, from: 0 }).collect();
    builder.seal(Incarnation { sender: 5, epoch: 1, nonce: 9 }, seq, Versions::default(), &claims)
}

fn id(seq: u32) -> BatchId {
    BatchId { sender: 5, epoch: 1, seq }
}

fn member(seq: u32) -> Included {
    Included { id: id(seq), nonce: 9, from: 0, points: 1 }
}

/// What a shard would hand over for one unit of work.
fn fold(work: &Work, partition: u16) -> Built {
    let included = vec![member(work.batch.id().seq)];
    let group = Group { included, deltas: Bytes::from_static(b"d") };
    Built { partition, lane: work.lane, groups: vec![group] }
}

fn reply(flush: &Flush, groups: Vec<GroupReply>) -> FlushReply {
    FlushReply { number: flush.number, partition: flush.partition, lane: flush.lane, groups }
}

fn next(node: &mut PartialNode, millis: u64, owner: usize) -> Option<Flush> {
    node.next_flush(Mono::from_millis(millis), owner).cloned()
}

fn durable(node: &mut PartialNode) -> Vec<(u32, u32)> {
    let (durable, nacks) = node.answers(Mono::ZERO, RELAY, Duration::ZERO);
    assert_eq!(nacks, []);
    durable.map_or(Vec::new(), |d| d.ranges.iter().map(|r| (r.first, r.last)).collect())
}

#[track_caller]
fn balanced(node: &PartialNode) {
    let books = node.books();
    assert_eq!(books.received, books.delivered + books.in_flight + books.dropped.values().sum::<u64>());
}

#[test]
fn a_batch_is_durable_when_every_partition_it_feeds_says_so() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0, 1]), false, Class::Live);
    let work = node.take_work();
    assert_eq!(
        work.iter().map(|w| (w.shard, w.partitions.iter().collect())).collect::<Vec<(usize, Vec<u16>)>>(),
        [(0, vec![0]), (1, vec![1])]
    );
    assert!(node.built(0, 1, fold(&work[0], 0)));
    assert!(node.built(1, 1, fold(&work[1], 1)));
    let (first, second) = (next(&mut node, 0, 0).expect("owner 0"), next(&mut node, 0, 1).expect("owner 1"));
    node.flush_reply(&reply(&first, vec![GroupReply::Merged]));
    assert_eq!(durable(&mut node), []);
    node.flush_reply(&reply(&second, vec![GroupReply::Merged]));
    assert_eq!(durable(&mut node), [(0, 0)]);
    assert_eq!(node.held(), (0, 0));
    balanced(&node);
}

#[test]
fn a_refused_flush_settles_what_is_included_and_rebuilds_the_rest_as_suspects() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.batch(RELAY, batch(1, &[0]), false, Class::Live);
    let work = node.take_work();
    let mut built = fold(&work[0], 0);
    built.groups[0].included.push(member(1));
    assert!(node.built(0, 1, built));
    let flush = next(&mut node, 0, 0).expect("flush");
    node.flush_reply(&reply(&flush, vec![GroupReply::Refused { included: vec![id(0)] }]));
    assert_eq!(durable(&mut node), [(0, 0)]);
    let again = node.take_work();
    assert_eq!((again.len(), again[0].batch.id(), again[0].lane), (1, id(1), Lane::Suspect));
    assert!(node.built(0, 1, fold(&again[0], 0)));
    let flush = next(&mut node, 0, 0).expect("flush");
    assert_eq!(flush.lane, Lane::Suspect);
    node.flush_reply(&reply(&flush, vec![GroupReply::Merged]));
    assert_eq!(durable(&mut node), [(1, 1)]);
    balanced(&node);
}

#[test]
fn an_impostors_batch_does_not_take_its_neighbours_with_it() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.batch(RELAY, batch(1, &[0]), false, Class::Live);
    let work = node.take_work();
    let mut built = fold(&work[0], 0);
    built.groups[0].included.push(member(1));
    assert!(node.built(0, 1, built));
    let flush = next(&mut node, 0, 0).expect("flush");
    node.flush_reply(&reply(&flush, vec![GroupReply::DuplicateSender { ids: vec![id(0)] }]));
    assert_eq!(node.answers(Mono::ZERO, RELAY, Duration::ZERO).1, [(id(0), NackReason::DuplicateSender)]);
    let again = node.take_work();
    assert_eq!((again.len(), again[0].batch.id(), again[0].lane), (1, id(1), Lane::Suspect));
    balanced(&node);
}

#[test]
fn an_unanswered_flush_goes_again_verbatim_and_only_one_is_out() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.batch(RELAY, batch(1, &[0]), false, Class::Live);
    let work = node.take_work();
    assert!(node.built(0, 1, fold(&work[0], 0)));
    assert!(!node.built(0, 1, fold(&work[1], 0)), "one is out already");
    let first = next(&mut node, 0, 0).expect("flush");
    assert_eq!(next(&mut node, 1_400, 0), None);
    assert_eq!(next(&mut node, 1_600, 0), Some(first.clone()));
    node.owner_connected(0);
    assert_eq!(next(&mut node, 1_601, 0), Some(first));
}

#[test]
fn a_shard_that_died_gets_back_what_it_had_not_handed_over() {
    let mut node = node();
    for seq in 0..3 {
        node.batch(RELAY, batch(seq, &[0]), false, Class::Live);
    }
    let work = node.take_work();
    assert!(node.built(0, 1, fold(&work[0], 0)));
    node.shard_started(0, 2, Some(id(1)));
    let again: Vec<u32> = node.take_work().iter().map(|work| work.batch.id().seq).collect();
    assert_eq!(again, [1, 2], "batch 0 is in a flush that is kept here");
    assert!(!node.built(0, 1, fold(&work[1], 0)), "a ghost of the first generation");
}

#[test]
fn a_batch_that_kills_its_shard_twice_is_poison() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.shard_started(0, 2, Some(id(0)));
    assert_eq!(node.take_work().len(), 1, "one death may have another reason");
    node.shard_started(0, 3, Some(id(0)));
    assert_eq!(node.take_work().len(), 0);
    assert_eq!(node.answers(Mono::ZERO, RELAY, Duration::ZERO).1, [(id(0), NackReason::Poison)]);
    node.batch(RELAY, batch(0, &[0]), true, Class::Live);
    assert_eq!(node.answers(Mono::ZERO, RELAY, Duration::ZERO).1, [(id(0), NackReason::Poison)]);
    balanced(&node);
}

#[test]
fn partials_always_name_the_batches_in_them_even_one_given_up_meanwhile() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0, 2]), false, Class::Live);
    let work = node.take_work();
    assert!(node.built(0, 1, fold(&work[0], 0)));
    let flush = next(&mut node, 0, 0).expect("flush");
    node.flush_reply(&reply(&flush, vec![GroupReply::DuplicateSender { ids: vec![id(0)] }]));
    assert_eq!(node.held(), (0, 0), "given up because of partition 0");
    assert!(node.built(0, 1, fold(&work[0], 2)));
    let flush = next(&mut node, 0, 0).expect("flush of partition 2");
    assert_eq!(flush.groups[0].included, [member(0)]);
}

#[test]
fn every_sender_of_a_batch_is_told() {
    let mut node = node();
    node.connected(2, Class::Live);
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.batch(2, batch(0, &[0]), true, Class::Live);
    let work = node.take_work();
    assert_eq!(work.len(), 1, "held once, folded once");
    node.built(0, 1, fold(&work[0], 0));
    let flush = next(&mut node, 0, 0).expect("flush");
    node.flush_reply(&reply(&flush, vec![GroupReply::Merged]));
    assert_eq!(durable(&mut node), [(0, 0)]);
    assert!(node.answers(Mono::ZERO, 2, Duration::ZERO).0.is_some());
}

#[test]
fn a_sender_that_left_does_not_hold_its_batches_back() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.disconnected(RELAY);
    let work = node.take_work();
    node.built(0, 1, fold(&work[0], 0));
    let flush = next(&mut node, 0, 0).expect("flush");
    node.flush_reply(&reply(&flush, vec![GroupReply::Merged]));
    assert_eq!(node.held(), (0, 0));
    balanced(&node);
}

#[test]
fn what_cannot_be_evaluated_here_is_refused_for_good() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[7]), false, Class::Live);
    assert_eq!(node.answers(Mono::ZERO, RELAY, Duration::ZERO).1, [(id(0), NackReason::UnknownVersion)]);
    assert_eq!(node.books().received, 0);
}

#[test]
fn a_late_answer_to_an_older_flush_changes_nothing() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    let work = node.take_work();
    node.built(0, 1, fold(&work[0], 0));
    let mut flush = next(&mut node, 0, 0).expect("flush");
    flush.number -= 1;
    node.flush_reply(&reply(&flush, vec![GroupReply::Merged]));
    assert_eq!(durable(&mut node), []);
    assert!(!node.may_flush(0, Lane::First));
}

#[test]
fn overload_is_said_not_suffered() {
    let mut node = node();
    node.settings.hold_bytes = 100;
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.batch(RELAY, batch(1, &[0]), false, Class::Live);
    node.batch(RELAY, batch(2, &[0]), false, Class::Live);
    let (_, nacks) = node.answers(Mono::ZERO, RELAY, Duration::ZERO);
    assert!(matches!(nacks[..], [(_, NackReason::Overloaded { .. }), ..]), "{nacks:?}");
    balanced(&node);
}

#[test]
fn after_a_panic_inside_what_comes_again_is_answered_for() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    let work = node.take_work();
    node.books.in_flight = 77; // as if the panic had come in the middle of counting
    node.recover();
    balanced(&node);
    assert!(node.built(0, 1, fold(&work[0], 0)), "the shard's partials still go out");
    let flush = next(&mut node, 0, 0).expect("flush");
    node.batch(RELAY, batch(0, &[0]), true, Class::Live);
    node.flush_reply(&reply(&flush, vec![GroupReply::Merged]));
    assert_eq!(durable(&mut node), [(0, 0)]);
    balanced(&node);
}

#[test]
fn an_impostor_is_known_by_its_nonce() {
    let mut node = node();
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    assert!(node.is_impostor(Incarnation { sender: 5, epoch: 1, nonce: 10 }));
    assert!(!node.is_impostor(Incarnation { sender: 5, epoch: 1, nonce: 9 }));
    assert!(!node.is_impostor(Incarnation { sender: 5, epoch: 2, nonce: 10 }));
}

const QUIET: Duration = Duration::ZERO;

fn at(millis: u64) -> Mono {
    Mono::from_millis(millis)
}

#[test]
fn replay_gets_a_window_from_what_live_leaves() {
    // Of 1 MiB replay may hold a quarter; a batch has 1000 bytes or so.
    let size = len(&batch(0, &[0]));
    #[track_caller]
    fn check(hold: u64, live: u32, replayers: u64, delay_ms: u64, expected: u64) {
        let mut node = node();
        node.settings.hold_bytes = hold;
        for connection in 0..replayers {
            node.connected(REPLAYER + connection, Class::Replay);
        }
        for seq in 0..live {
            node.batch(RELAY, batch(seq, &[0]), false, Class::Live);
        }
        let window = node.window_bytes(at(0), Class::Replay, Duration::from_millis(delay_ms));
        assert_eq!(window, expected, "hold {hold}, {live} live, {replayers} replayers, {delay_ms} ms");
    }
    check(8 * size, 0, 1, 0, 2 * size);
    check(8 * size, 6, 1, 0, 2 * size);
    check(8 * size, 7, 1, 0, size);
    check(8 * size, 8, 1, 0, 0);
    check(8 * size, 12, 1, 0, 0);
    check(8 * size, 0, 2, 0, size);
    check(8 * size, 0, 1, 250, 2 * size);
    check(8 * size, 0, 1, 251, 0);
    // Replayers take nothing off the windows of live senders.
    let mut node = node();
    node.settings.hold_bytes = 64 << 20;
    let alone = node.window_bytes(at(0), Class::Live, QUIET);
    node.connected(REPLAYER, Class::Replay);
    assert_eq!(node.window_bytes(at(0), Class::Live, Duration::from_secs(9)), alone);
}

#[test]
fn replay_beyond_its_part_is_refused_and_live_is_not() {
    let mut node = node();
    node.connected(REPLAYER, Class::Replay);
    node.settings.hold_bytes = 4 * len(&batch(0, &[0]));
    node.batch(REPLAYER, batch(0, &[0]), true, Class::Replay);
    node.batch(REPLAYER, batch(1, &[0]), true, Class::Replay);
    let (durable, nacks) = node.answers(at(0), REPLAYER, QUIET);
    assert!(matches!(nacks[..], [(refused, NackReason::Overloaded { .. })] if refused == id(1)), "{nacks:?}");
    assert_eq!(durable.map(|durable| durable.ranges.len()), Some(0));
    node.batch(RELAY, batch(2, &[0]), false, Class::Live);
    assert_eq!(node.answers(at(0), RELAY, QUIET), (None, Vec::new()));
    let classes: Vec<Class> = node.take_work().iter().map(|work| work.class).collect();
    assert_eq!(classes, [Class::Replay, Class::Live]);
    assert_eq!((node.replay_held() * 2, node.held().1), (node.held().0, 2));
    balanced(&node);
}

#[test]
fn a_replay_link_is_told_twice_a_second_how_it_is_here() {
    let mut node = node();
    node.connected(REPLAYER, Class::Replay);
    let mut told = |millis, delay| node.answers(at(millis), REPLAYER, Duration::from_millis(delay)).0;
    let first = told(0, 300).expect("at once");
    assert_eq!((first.ranges.len(), first.queue_delay_ms, first.window_bytes), (0, 300, 0));
    assert_eq!(told(499, 0), None);
    let second = told(500, 10).expect("half a second later");
    assert_eq!((second.queue_delay_ms, second.window_bytes), (10, (1 << 20) / 4));
    assert_eq!(node.answers(at(5_000), RELAY, QUIET).0, None, "a live link hears of it with its batches");
}

#[test]
fn the_queue_delay_counts_the_wait_for_an_answer_of_a_final_node_that_is_there() {
    #[track_caller]
    fn check(lane: Lane, up: bool, expected_ms: u64) {
        let mut node = node();
        if up {
            node.owner_connected(0);
        }
        node.batch(RELAY, batch(0, &[0]), lane == Lane::Suspect, Class::Live);
        let work = node.take_work();
        assert!(node.wants_flush(at(0), 0, lane), "none is out");
        assert!(node.built(0, 1, fold(&work[0], 0)));
        let flush = next(&mut node, 0, 0).expect("flush");
        assert!(!node.wants_flush(at(500), 0, lane) && !node.wants_flush(at(1_000), 0, lane));
        let delay = |node: &PartialNode| node.queue_delay(at(1_200), Duration::from_millis(7)).as_millis();
        assert_eq!(delay(&node), u128::from(expected_ms), "{lane:?}, up {up}");
        node.flush_reply(&reply(&flush, vec![GroupReply::Merged]));
        assert_eq!(delay(&node), 7, "the place is free");
    }
    check(Lane::First, true, 700);
    check(Lane::First, false, 7);
    check(Lane::Suspect, true, 7);
    let mut node = node();
    node.owner_connected(0);
    node.owner_disconnected(0);
    assert_eq!(node.owners_up, [false, false]);
}

#[test]
fn first_sends_go_out_before_re_sends_and_replay() {
    let mut node = node();
    node.batch(REPLAYER, batch(0, &[0]), true, Class::Replay);
    node.batch(RELAY, batch(1, &[2]), false, Class::Live);
    for work in node.take_work() {
        let partition = work.partitions.iter().next().expect("one");
        assert!(node.built(0, 1, fold(&work, partition)));
    }
    let lanes: Vec<Lane> = std::iter::from_fn(|| next(&mut node, 0, 0)).map(|flush| flush.lane).collect();
    assert_eq!(lanes, [Lane::First, Lane::Suspect]);
}

#[test]
fn batches_for_a_final_node_that_is_away_leave_room_for_the_others() {
    let mut node = node();
    // Of a memory of 8 MiB, 2 MiB are for each of the two final nodes while it is away.
    node.settings.hold_bytes = 8 << 20;
    node.owner_connected(0);
    let large = |seq: u32, partition: u16| {
        let mut builder = Builder::new(PartitionSet::default().with(partition), 512 << 10);
        builder.append(&vec![b'x'; 512 << 10], 1, UnixSeconds(100), UnixSeconds(100));
        let claims = [Claim { partition, from: 0 }];
        builder.seal(Incarnation { sender: 5, epoch: 1, nonce: 9 }, seq, Versions::default(), &claims)
    };
    let refused = |node: &mut PartialNode| node.answers(Mono::ZERO, RELAY, Duration::ZERO).1.len();
    (0..3).for_each(|seq| node.batch(RELAY, large(seq, 1), false, Class::Live));
    assert_eq!(refused(&mut node), 0);
    (3..9).for_each(|seq| node.batch(RELAY, large(seq, 3), false, Class::Live));
    assert_eq!(refused(&mut node), 6, "the share of final node 1 is full");
    (9..20).for_each(|seq| node.batch(RELAY, large(seq, 2), false, Class::Live));
    assert_eq!(refused(&mut node), 0, "final node 0 is there");
    node.owner_connected(1);
    node.batch(RELAY, large(20, 1), false, Class::Live);
    assert_eq!(refused(&mut node), 0, "final node 1 is back");
    node.recover();
    assert_eq!(node.bytes_for, [0, 0]);
}

#[test]
fn a_final_node_that_is_held_off_gets_nothing_and_its_batches_are_refused_at_once() {
    let mut node = node();
    (0..2).for_each(|owner| node.owner_connected(owner));
    node.batch(RELAY, batch(0, &[0]), false, Class::Live);
    node.batch(RELAY, batch(1, &[1]), false, Class::Live);
    let work = node.take_work();
    assert!(node.built(0, 1, fold(&work[0], 0)) && node.built(1, 1, fold(&work[1], 1)));
    node.hold_off(&[false, true]);
    assert!(next(&mut node, 0, 0).is_some());
    assert_eq!(next(&mut node, 0, 1), None);
    node.batch(RELAY, batch(2, &[1]), false, Class::Live);
    node.batch(RELAY, batch(3, &[0, 1]), false, Class::Live);
    node.batch(RELAY, batch(4, &[2]), false, Class::Live);
    let overloaded = NackReason::Overloaded { retry_after_ms: RETRY_AFTER_MS };
    let (_, nacks) = node.answers(Mono::ZERO, RELAY, Duration::ZERO);
    assert_eq!(nacks, [(id(2), overloaded), (id(3), overloaded)]);
    node.hold_off(&[false, false]);
    assert!(next(&mut node, 0, 1).is_some(), "it is sent as soon as it may be");
    balanced(&node);
}
