//! What is due for the spill, and what becomes of it there. Cases are scripts: what happens at which millisecond, and
//! what the machine says to it.

use super::*;
use crate::spill::Why;
use crate::wire::Ticket;

use Act::{Able, Ack, Down, Drain, Nack, Pull, Restart, Seal, Send, Tell, Tick, Unable, Up};

#[derive(Clone, Copy, Debug)]
enum Act {
    /// So many batches of one point each.
    Seal(u32),
    Up,
    Down,
    /// Everything that peer 0 may get: its numbers, with `'` for a re-send.
    Send,
    Tick,
    Ack(u32),
    Nack(u32, NackReason),
    Able,
    Unable,
    /// What is due: `why:numbers`.
    Pull,
    /// The spill has this number on disk under a ticket of the same number: `kept`, or `settle`.
    Tell(u32),
    Restart,
    Drain,
}

/// A batch of [`open`] with one line takes 88 bytes.
const BATCH: u64 = 88;

fn machine(retain_batches: u64, journal: bool) -> Relay {
    let settings = Settings {
        incarnation: ME,
        versions: Versions::default(),
        partitions: 4,
        peers: vec!["partial-1".to_owned()],
        ack_timeout: Duration::from_secs(3),
        retain_bytes: retain_batches * BATCH,
        journal,
    };
    Relay::new(settings, at(0))
}

fn ticket(seq: u32) -> Ticket {
    Ticket { lane: 0, ordinal: u64::from(seq) }
}

fn id(seq: u32) -> BatchId {
    BatchId { sender: 1, epoch: 2, seq }
}

fn numbers(of: impl IntoIterator<Item = String>) -> String {
    of.into_iter().collect::<Vec<_>>().join(",")
}

/// Plays a script on `relay` and gives what it said, in order; checks the books after every step.
#[track_caller]
fn play(relay: &mut Relay, script: &[(u64, Act)]) -> String {
    let mut said = Vec::new();
    for &(millis, act) in script {
        let now = at(millis);
        match act {
            Seal(n) => (0..n).for_each(|_| {
                relay.seal(now, open(0, 1));
            }),
            Up => relay.link_up(now, 0, 1 << 20),
            Down => relay.link_down(now, 0),
            Send => {
                let sent = drain(relay, now, 0);
                said.push(numbers(sent.iter().map(|(seq, again)| format!("{seq}{}", if *again { "'" } else { "" }))));
            }
            Tick => relay.tick(now),
            Ack(seq) => relay.durable(now, 0, &done(seq, seq)),
            Nack(seq, reason) => relay.nack(now, 0, id(seq), reason),
            Able => relay.set_spill(now, true),
            Unable => relay.set_spill(now, false),
            Pull => {
                let had = relay.has_due(now);
                let due = relay.next_due(now, u64::MAX);
                assert_eq!(had, !due.is_empty(), "has_due and next_due disagree");
                let why = due.first().map_or("nothing", |due| due.why.as_str());
                assert!(due.iter().all(|due| due.why.as_str() == why), "two reasons at once");
                said.push(format!("{why}:{}", numbers(due.iter().map(|due| due.batch.id().seq.to_string()))));
            }
            Tell(seq) => {
                said.push(if relay.spilled(now, id(seq), ticket(seq)) { "kept" } else { "settle" }.to_owned());
            }
            Restart => relay.spill_restarted(now),
            Drain => relay.drain(),
        }
        audit(relay);
    }
    said.join(" ")
}

/// The books balance and equal what is held.
#[track_caller]
fn audit(relay: &Relay) {
    balanced(relay);
    let points = |of: &dyn Fn(&Held) -> bool| {
        relay.held.values().filter(|held| of(held)).map(|held| u64::from(held.batch.header().points)).sum::<u64>()
    };
    let bytes = |of: &dyn Fn(&Held) -> bool| {
        relay.held.values().filter(|held| of(held)).map(|held| len(&held.batch)).sum::<u64>()
    };
    assert_eq!(relay.books.in_flight, points(&|_| true));
    assert_eq!(relay.books.journalled, points(&|held| matches!(held.journal, Journal::Done(_))));
    assert_eq!(relay.held_bytes, bytes(&|_| true));
    assert_eq!(relay.spilling_bytes, bytes(&|held| held.state == State::Spilling));
    let waits = |(seq, held): (&u32, &Held)| matches!(held.state, State::Waiting { .. }).then_some(*seq);
    assert_eq!(relay.waiting, relay.held.iter().filter_map(waits).collect());
    let due = |(seq, held): (&u32, &Held)| (held.journal == Journal::Due).then_some(*seq);
    assert_eq!(relay.unjournalled, relay.held.iter().filter_map(due).collect());
    let out = bytes(&|held| matches!(held.state, State::Sent { .. }));
    assert_eq!(relay.links[0].out_bytes, out, "what is out on the link");
}

#[track_caller]
fn check_in(mut relay: Relay, script: &[(u64, Act)], expected: &str) -> Relay {
    assert_eq!(play(&mut relay, script), expected);
    relay
}

#[track_caller]
fn check(script: &[(u64, Act)], expected: &str) -> Relay {
    check_in(machine(1_000, false), script, expected)
}

/// `delivered`, `in_flight`, `spilled`, `dropped`.
#[track_caller]
fn books(relay: &Relay, expected: [u64; 4]) {
    let books = relay.books();
    let dropped = books.dropped.values().sum();
    assert_eq!([books.delivered, books.in_flight, books.spilled, dropped], expected);
}

#[test]
fn a_test_batch_has_the_size_that_the_cases_count_with() {
    let mut relay = machine(1, false);
    relay.seal(at(0), open(0, 1));
    assert_eq!(relay.held(), (BATCH, 1));
}

#[test]
fn while_all_is_healthy_nothing_is_due() {
    let script = [(0, Able), (0, Up), (0, Seal(2)), (1, Send), (2, Pull), (3, Ack(0)), (2_000, Pull), (2_999, Ack(1))];
    let relay = check(&script, "0,1 nothing: nothing:");
    books(&relay, [2, 0, 0, 0]);
}

#[test]
fn without_a_peer_for_the_time_out_what_waits_is_due_also_what_comes_then() {
    let script = [(0, Able), (0, Seal(2)), (3_000, Pull), (3_001, Pull), (3_002, Seal(1)), (3_003, Pull)];
    let relay = check(&script, "nothing: no_peer:0,1 no_peer:2");
    books(&relay, [0, 3, 0, 0]);
    let script = [&script[..], &[(3_050, Tell(0)), (3_050, Tell(1)), (3_050, Tell(2))]].concat();
    let relay = check(&script, "nothing: no_peer:0,1 no_peer:2 kept kept kept");
    books(&relay, [0, 0, 3, 0]);
    assert_eq!(relay.held(), (0, 0));
}

#[test]
fn a_peer_that_comes_back_gets_what_the_spill_has_not_taken() {
    let script = [(0, Able), (0, Seal(1)), (4_000, Pull), (4_000, Seal(1)), (4_001, Up), (4_001, Pull), (4_002, Send)];
    check(&script, "no_peer:0 nothing: 1");
}

#[test]
fn three_attempts_are_made_and_then_it_is_due() {
    let three = [
        (0, Able),
        (0, Up),
        (0, Seal(1)),
        (0, Send),
        (3_001, Tick),
        (3_001, Pull),
        (3_001, Send),
        (6_002, Tick),
        (6_002, Send),
        (9_003, Tick),
        (9_003, Send),
        (9_003, Pull),
    ];
    check(&three, "0 nothing: 0' 0'  timeout:0");
}

#[test]
fn three_broken_links_in_a_second_are_no_time_out() {
    let script = [
        (0, Able),
        (0, Up),
        (0, Seal(1)),
        (0, Send),
        (300, Down),
        (300, Up),
        (300, Send),
        (600, Down),
        (600, Up),
        (600, Send),
        (900, Down),
        (900, Up),
        (900, Pull),
        (3_001, Pull),
    ];
    check(&script, "0 0' 0' nothing: timeout:0");
}

#[test]
fn an_overload_of_two_seconds_puts_nothing_on_disk_and_one_that_goes_on_does() {
    let overloaded = Nack(0, NackReason::Overloaded { retry_after_ms: 500 });
    let mut script = vec![(0, Able), (0, Up), (0, Seal(1))];
    for n in 0..4 {
        script.extend([(n * 600, Send), (n * 600, overloaded)]);
    }
    check(&[&script[..], &[(2_400, Pull), (2_400, Send)]].concat(), "0 0' 0' 0' nothing: 0'");
    check(&[&script[..], &[(3_001, Send), (3_001, Pull)]].concat(), "0 0' 0' 0'  timeout:0");
}

#[test]
fn when_the_retry_budget_is_used_up_the_rest_is_due_at_once() {
    let mut relay = machine(1 << 30, false);
    relay.set_spill(at(0), true);
    relay.link_up(at(0), 0, 1 << 30);
    for _ in 0..100 {
        let mut builder = Builder::new(PartitionSet::default().with(0), 1 << 20);
        builder.append(&vec![b'x'; 1 << 20], 1, UnixSeconds(1), UnixSeconds(1));
        relay.seal(at(0), builder);
    }
    assert_eq!(drain(&mut relay, at(0), 0).len(), 100);
    relay.tick(at(4_000));
    let again = drain(&mut relay, at(4_000), 0).len();
    let due = relay.next_due(at(4_000), u64::MAX);
    assert!(again >= 25 && again + due.len() == 100, "{again} sent again, {} due", due.len());
    assert!(due.iter().all(|due| due.why == Why::Timeout));
}

/// A batch a second; answers come, and later and later: the queue at the peer grows.
#[test]
fn a_peer_that_answers_later_and_later_is_neither_asked_again_nor_spilled_for() {
    let mut relay = machine(1_000, false);
    relay.set_spill(at(0), true);
    relay.link_up(at(0), 0, 1 << 20);
    for second in 0..60u32 {
        let now = at(u64::from(second) * 1_000);
        relay.seal(now, open(0, 1));
        assert_eq!(drain(&mut relay, now, 0), [(second, false)]);
        if second % 2 == 1 {
            relay.durable(now, 0, &done(second / 2, second / 2));
        }
        relay.tick(now);
        assert!(!relay.has_due(now), "at {second} s");
        audit(&relay);
    }
    assert_eq!((relay.resent(), relay.held().1), (0, 30), "the oldest has waited for 30 s");
}

#[test]
fn one_that_was_passed_over_is_late_although_its_peer_answers() {
    let mut script = vec![(0, Able), (0, Up), (0, Seal(1)), (0, Send)];
    let mut expected = "0".to_owned();
    for second in 1..6 {
        script.extend([(second * 1_000, Seal(1)), (second * 1_000, Send), (second * 1_000, Tick)]);
        script.push((second * 1_000, Ack(u32::try_from(second).unwrap())));
        expected += &format!(" {second}");
    }
    // 4 was sent more than 3 s after 0, and is answered.
    script.push((5_000, Send));
    check(&script, &format!("{expected} 0'"));
}

#[test]
fn one_silent_partition_is_late_while_the_others_answer() {
    let mut relay = machine(1_000, false);
    relay.set_spill(at(0), true);
    relay.link_up(at(0), 0, 1 << 20);
    relay.seal(at(0), open(0, 1));
    relay.seal(at(0), open(1, 1));
    drain(&mut relay, at(0), 0);
    relay.durable(at(2_900), 0, &done(1, 1));
    relay.seal(at(2_900), open(1, 1));
    drain(&mut relay, at(2_900), 0);
    relay.tick(at(3_001));
    assert_eq!(drain(&mut relay, at(3_001), 0), [(0, true)]);
}

#[test]
fn over_the_bound_what_waits_goes_first_oldest_first_and_then_what_is_on_its_way() {
    // Two are on their way, two wait, and two are too many.
    let script = [(0, Able), (0, Up), (0, Seal(2)), (0, Send), (1, Seal(2)), (1, Pull)];
    check_in(machine(2, false), &script, "0,1 memory:2,3");
    let script = [(0, Able), (0, Up), (0, Seal(4)), (0, Send), (1, Pull)];
    check_in(machine(2, false), &script, "0,1,2,3 memory:0,1");
    let script = [(0, Able), (0, Seal(4)), (1, Pull), (2, Pull), (3, Seal(1)), (3, Pull)];
    check_in(machine(2, false), &script, "memory:0,1 nothing: memory:2");
}

#[test]
fn clients_wait_only_when_the_spill_does_not_keep_up() {
    let mut relay = machine(8, false);
    play(&mut relay, &[(0, Able), (0, Seal(8))]);
    assert!(relay.accepts(at(1)), "a peer that is away keeps nobody waiting");
    play(&mut relay, &[(1, Seal(1)), (1, Pull)]);
    assert!(!relay.accepts(at(1)), "9 of 8 are held: the slack is used up");
    play(&mut relay, &[(2, Tell(0))]);
    assert!(relay.accepts(at(2)));
}

#[test]
fn a_late_durable_of_a_spilled_batch_settles_its_ticket_once() {
    let lost = [(0, Able), (0, Up), (0, Seal(2)), (0, Send), (1, Drain), (2, Pull), (3, Tell(0)), (3, Tell(1))];
    let mut relay = check(&lost, "0,1 shutdown:0,1 kept kept");
    play(&mut relay, &[(4, Ack(1)), (5, Ack(1))]);
    assert_eq!((relay.take_settled(), relay.take_settled()), (vec![ticket(1)], vec![]));
    books(&relay, [0, 0, 2, 0]);
}

#[test]
fn what_becomes_durable_while_it_is_written_is_delivered_and_its_ticket_settled_at_once() {
    let script = [(0, Able), (0, Up), (0, Seal(1)), (0, Send), (1, Drain), (1, Pull), (2, Ack(0)), (3, Tell(0))];
    let relay = check(&script, "0 shutdown:0 settle");
    books(&relay, [1, 0, 0, 0]);
    assert_eq!(relay.books().answered_here, 1);
}

#[test]
fn what_the_spill_took_and_did_not_tell_is_due_again() {
    let script = [(0, Able), (0, Seal(2)), (4_000, Pull), (4_001, Tell(0)), (4_002, Restart), (4_003, Pull)];
    check(&script, "no_peer:0,1 kept no_peer:1");
    // Told late, after all: then it is told twice, and counted once.
    let script = [&script[..], &[(4_004, Tell(1)), (4_005, Tell(1))]].concat();
    let relay = check(&script, "no_peer:0,1 kept no_peer:1 kept settle");
    books(&relay, [0, 0, 2, 0]);
    assert_eq!(relay.books().answered_here, 1);
}

#[test]
fn a_spill_that_can_take_nothing_leaves_the_live_path_alone() {
    let script = [(0, Able), (0, Seal(1)), (4_000, Pull), (4_001, Unable), (4_001, Pull), (4_002, Up), (4_003, Send)];
    check(&script, "no_peer:0 nothing: 0");
}

#[test]
fn a_spill_that_can_take_nothing_costs_the_oldest_when_no_peer_makes_progress() {
    let mut relay = machine(2, false);
    play(&mut relay, &[(0, Seal(2)), (10, Tick)]);
    assert!(!relay.accepts(at(10)), "a peer may still come");
    play(&mut relay, &[(3_500, Seal(1))]);
    assert_eq!(relay.books().dropped[&Drop::SpillFull], 1);
    assert!(relay.accepts(at(3_500)), "newer points replace older ones");
    books(&relay, [0, 2, 0, 1]);
}

#[test]
fn without_a_spill_attempts_do_not_end() {
    let mut script = vec![(0, Up), (0, Seal(1)), (0, Send)];
    for n in 1..6 {
        script.extend([(n * 4_000, Tick), (n * 4_000, Send)]);
    }
    check(&script, "0 0' 0' 0' 0' 0'");
}

#[test]
fn at_shutdown_everything_is_due_and_nothing_is_sent() {
    let script = [(0, Able), (0, Up), (0, Seal(2)), (0, Send), (1, Seal(1)), (2, Drain), (2, Send), (2, Pull)];
    check(&script, "0,1  shutdown:0,1,2");
}

#[test]
fn what_is_refused_for_good_is_dropped_and_kept_for_the_dead_letters_if_there_is_a_place_for_them() {
    let script = [(0, Able), (0, Up), (0, Seal(1)), (0, Send), (1, Nack(0, NackReason::TooOld))];
    let mut relay = check(&script, "0");
    let dead: Vec<(u32, Drop)> = relay.take_dead().iter().map(|(batch, why)| (batch.id().seq, *why)).collect();
    assert_eq!(dead, [(0, Drop::TooOld)]);
    books(&relay, [0, 0, 0, 1]);
    assert!(relay.take_dead().is_empty());
    let script = [(0, Up), (0, Seal(1)), (0, Send), (1, Nack(0, NackReason::Poison))];
    assert!(check(&script, "0").take_dead().is_empty());
}

#[test]
fn who_is_disowned_accepts_and_sends_nothing_more_and_what_it_holds_goes_to_disk() {
    for (reason, why) in [
        (NackReason::DuplicateSender, Disowned::Duplicate),
        (NackReason::Retired { floor: 2 }, Disowned::Retired { floor: 2 }),
        (NackReason::Retired { floor: u32::MAX }, Disowned::Forgotten),
    ] {
        let script = [(0, Able), (0, Up), (0, Seal(1)), (0, Send), (1, Seal(1)), (2, Nack(0, reason)), (3, Send)];
        let mut relay = check(&script, "0 ");
        assert_eq!((relay.disowned(), relay.accepts(at(3))), (Some(why), false));
        assert_eq!(play(&mut relay, &[(4, Down), (5, Up), (6, Send), (3_003, Pull)]), " no_peer:1");
        assert_eq!(relay.take_dead().len(), 1);
        books(&relay, [0, 1, 0, 1]);
    }
}

#[test]
fn a_journalled_batch_is_sent_and_held_all_the_same_and_settled_when_it_is_durable() {
    let script = [(0, Able), (0, Up), (0, Seal(2)), (0, Pull), (0, Send), (1, Tell(0)), (1, Pull), (2, Ack(0))];
    let mut relay = check_in(machine(1_000, true), &script, "journal:0,1 0,1 kept nothing:");
    assert_eq!(relay.take_settled(), [ticket(0)]);
    books(&relay, [1, 1, 0, 0]);
    assert_eq!((relay.books().answered_here, relay.books().journalled), (1, 0));
    assert!(relay.holds(id(1)) && !relay.holds(id(0)));
    // Durable before the journal has told.
    assert_eq!(play(&mut relay, &[(3, Ack(1)), (4, Tell(1))]), "settle");
    books(&relay, [2, 0, 0, 0]);
}

#[test]
fn a_journalled_batch_that_becomes_due_is_let_go_without_being_written_again() {
    let script = [
        (0, Able),
        (0, Seal(2)),
        (1, Pull),
        (2, Tell(0)),
        (3_001, Pull),
        (3_001, Tick),
        (3_002, Tell(1)),
        (3_003, Tick),
    ];
    let mut relay = check_in(machine(1_000, true), &script, "journal:0,1 kept nothing: kept");
    books(&relay, [0, 0, 2, 0]);
    assert_eq!((relay.take_settled(), relay.books().journalled), (vec![], 0));
}

#[test]
fn over_the_bound_a_journalled_batch_is_let_go_even_when_the_spill_is_full() {
    let mut relay = machine(1, true);
    play(&mut relay, &[(0, Able), (0, Seal(1)), (0, Pull), (0, Tell(0)), (1, Unable), (3_500, Seal(2))]);
    books(&relay, [0, 1, 1, 1]);
}

#[test]
fn a_journal_that_restarts_writes_what_it_had_not_told() {
    let script = [(0, Able), (0, Up), (0, Seal(2)), (0, Pull), (1, Tell(0)), (2, Restart), (3, Pull), (3, Send)];
    check_in(machine(1_000, true), &script, "journal:0,1 kept journal:1 0,1");
}

#[test]
fn an_epoch_is_retired_only_when_the_spill_has_nothing_of_it_either() {
    let mut relay = machine(1_000, false);
    let retired = |relay: &Relay, millis| relay.watermark(at(millis), None, UnixSeconds(500)).retired;
    assert_eq!(retired(&relay, 61_000), 0, "the spill has not said yet what it holds");
    relay.settings.incarnation.epoch = 9;
    for (oldest, expected) in [(Some(4), 3), (Some(8), 7), (Some(9), 8), (None, 8), (Some(0), 0)] {
        relay.set_spilled(oldest, None);
        assert_eq!((retired(&relay, 59_000), retired(&relay, 61_000)), (0, expected), "{oldest:?}");
    }
}

#[test]
fn the_watermark_counts_what_is_on_disk() {
    let mut relay = machine(1_000, false);
    relay.set_spilled(Some(2), Some(UnixSeconds(70)));
    assert_eq!(relay.watermark(at(0), Some(UnixSeconds(90)), UnixSeconds(500)).at, UnixSeconds(70));
    relay.set_spilled(None, None);
    assert_eq!(relay.watermark(at(0), Some(UnixSeconds(90)), UnixSeconds(500)).at, UnixSeconds(90));
}

#[test]
fn after_a_panic_inside_the_books_balance_with_a_spill_and_a_journal_too() {
    let mut relay = machine(1_000, true);
    play(
        &mut relay,
        &[(0, Able), (0, Seal(3)), (0, Pull), (0, Tell(0)), (0, Tell(1)), (4_000, Tick), (4_000, Seal(1))],
    );
    relay.books.in_flight = 999;
    relay.recover(at(4_001));
    audit(&relay);
    books(&relay, [0, 2, 2, 0]);
}
