use super::*;
use crate::ivset::IntervalSet;

fn linked(peers: usize) -> Relay {
    let mut relay = relay(peers, 1 << 20);
    (0..peers).for_each(|peer| relay.link_up(at(0), peer, 1 << 20));
    relay
}

/// This round's canary for a peer: number, partition, the first number it marks.
fn canary(relay: &mut Relay, peer: Peer) -> Option<(u32, u16, u32)> {
    let (sending, _) = relay.next_canary(peer, UnixSeconds(100))?;
    assert!(sending.attempt && sending.batch.header().points == 0 && sending.batch.body().is_empty());
    let claim = sending.batch.header().claims[0];
    Some((sending.batch.id().seq, claim.partition, claim.from))
}

fn took(relay: &mut Relay) -> Vec<Option<Duration>> {
    relay.take_pace().into_iter().map(|pace| pace.took).collect()
}

#[test]
fn a_round_is_one_canary_to_each_peer_for_one_partition_and_the_next_round_takes_the_next() {
    let mut relay = linked(2);
    assert_eq!(canary(&mut relay, 0), None, "no round has begun");
    relay.begin_round();
    assert_eq!((canary(&mut relay, 0), canary(&mut relay, 0)), (Some((0, 1, 0)), None));
    assert_eq!(canary(&mut relay, 1), Some((1, 1, 0)));
    relay.begin_round();
    assert_eq!(canary(&mut relay, 0), Some((2, 2, 0)));
    relay.link_down(at(1), 1);
    assert_eq!(canary(&mut relay, 1), None);
}

#[test]
fn canaries_are_in_no_books_and_leave_no_hole_whether_they_arrive_late_or_never() {
    let mut relay = linked(1);
    let mut included = IntervalSet::new();
    let mark = |set: &mut IntervalSet, batch: &Batch| {
        let from = batch.header().claim(1).unwrap();
        assert!(!set.contains(batch.id().seq), "points are taken");
        set.insert(from, batch.id().seq);
    };
    for _ in 0..4 {
        relay.begin_round(); // the first is for partition 1; all are lost
        assert!(canary(&mut relay, 0).is_some());
    }
    relay.seal(at(0), open(1, 5));
    relay.begin_round();
    let late = canary(&mut relay, 0).unwrap();
    assert_eq!(late, (5, 1, 5), "from where the next batch of points will claim");
    relay.seal(at(0), open(1, 5));
    while let Some(sending) = relay.next_for(at(0), 0) {
        mark(&mut included, &sending.batch);
    }
    assert!(included.contains(late.0), "included already, when it comes at last");
    assert_eq!(included.runs(), [(0, 6)]);
    assert_eq!((relay.books().owed, relay.held().1), (10, 2));
    balanced(&relay);
}

#[test]
fn a_durable_answers_canaries_and_a_refusal_says_nothing_of_the_peer() {
    let mut relay = linked(2);
    relay.begin_round();
    (0..2).for_each(|peer| assert!(canary(&mut relay, peer).is_some()));
    relay.durable(at(500), 0, &done(0, 0));
    let id = BatchId { sender: 1, epoch: 2, seq: 1 };
    relay.nack(at(501), 1, id, NackReason::Overloaded { retry_after_ms: 500 });
    let first = Canary { peer: 0, round: 1, acked: true };
    assert_eq!(relay.take_canaries(), [first, Canary { peer: 1, round: 1, acked: false }]);
    relay.durable(at(502), 0, &done(0, 1));
    assert_eq!(relay.take_canaries(), []);
    assert_eq!(took(&mut relay), [None, None], "they are no traffic");
}

#[test]
fn only_eligible_peers_get_work_and_who_has_work_may_still_finish_it() {
    let mut relay = linked(2);
    for partition in 0..4 {
        relay.seal(at(0), open(partition, 1));
    }
    let first = drain(&mut relay, at(0), 0);
    assert!(!first.is_empty() && first.len() < 4);
    relay.set_eligible(at(1), &[false, true]);
    for partition in 0..4 {
        relay.seal(at(1), open(partition, 1));
    }
    assert_eq!(drain(&mut relay, at(1), 0), []);
    assert_eq!(drain(&mut relay, at(1), 1).len(), 8 - first.len());
    relay.begin_round();
    assert!(canary(&mut relay, 0).is_some(), "it may prove itself");
    relay.durable(at(700), 0, &done(0, 3));
    assert_eq!(took(&mut relay), [Some(Duration::from_millis(700)), Some(Duration::from_millis(699))]);
    relay.set_eligible(at(800), &[false, false]);
    assert!(!relay.has_peer());
    balanced(&relay);
}
