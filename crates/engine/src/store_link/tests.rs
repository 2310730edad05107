//! Tables of cases: what is done at which second, and what the link does in answer.

use std::time::Duration;

use bytes::Bytes;

use super::{Block, Books, Command, Event, Overflow, Phase, Progress, Receipts, Settings, StoreLink};
use crate::time::Mono;

use Do::{ConnectFailed, Connected, Drain, Fin, Hand, Offer, PeerClosed, Reset, Tick, Write};

#[derive(Clone, Copy, Debug)]
enum Do {
    /// One block for each letter, of one point.
    Offer(&'static str),
    /// Everything that may be written is written.
    Write,
    /// The next blocks are pulled and only begun.
    Hand,
    Connected,
    ConnectFailed,
    PeerClosed,
    Reset,
    Fin,
    Tick,
    Drain,
}

fn settings() -> Settings {
    Settings { backoff_base: Duration::ZERO, ..Settings::default() }
}

fn mono(seconds: u64) -> Mono {
    Mono::from_millis(seconds * 1_000)
}

/// Letters that the link gave to write, and a word for every command, in order.
#[track_caller]
fn play(link: &mut StoreLink, script: &[(u64, Do)]) -> String {
    let mut out = Vec::new();
    for &(second, action) in script {
        let now = mono(second);
        match action {
            Offer(letters) => {
                for letter in letters.bytes() {
                    let block = Block { bytes: Bytes::from(vec![letter; 10]), points: 1 };
                    if link.offer(now, block).is_err() {
                        out.push("refused".to_owned());
                    }
                }
            }
            Write => loop {
                let letters = pull(link, now);
                if letters.is_empty() {
                    break;
                }
                link.handle(now, Event::Written { blocks: letters.len() });
                out.push(letters);
            },
            Hand => out.push(pull(link, now) + "~"),
            Connected => link.handle(now, Event::Connected),
            ConnectFailed => link.handle(now, Event::ConnectFailed),
            PeerClosed => link.handle(now, Event::PeerClosed),
            Reset => link.handle(now, Event::Reset),
            Fin => link.handle(now, Event::Fin),
            Tick => link.handle(now, Event::Tick),
            Drain => link.handle(now, Event::Drain),
        }
        while let Some(command) = link.next_command() {
            out.push(
                match command {
                    Command::Connect => "connect",
                    Command::HalfClose => "half-close",
                    Command::Close => "close",
                }
                .to_owned(),
            );
        }
        link.log.audit();
    }
    out.join(" ")
}

fn pull(link: &mut StoreLink, now: Mono) -> String {
    let mut blocks = Vec::new();
    link.next_to_write(now, 1_000, 64, &mut blocks);
    blocks.iter().map(|block| char::from(block[0])).collect()
}

#[track_caller]
fn check(script: &[(u64, Do)], expected: &str, in_flight: u64, unconfirmed: u64, delivered: u64) -> StoreLink {
    check_with(settings(), script, expected, in_flight, unconfirmed, delivered)
}

#[track_caller]
fn check_with(
    settings: Settings,
    script: &[(u64, Do)],
    expected: &str,
    in_flight: u64,
    unconfirmed: u64,
    delivered: u64,
) -> StoreLink {
    let mut link = StoreLink::new(settings, 1);
    let done = play(&mut link, script);
    assert_eq!(done, expected);
    let books = link.books();
    assert_eq!(
        (books.in_flight, books.delivered_unconfirmed, books.delivered),
        (in_flight, unconfirmed, delivered),
        "in flight, unconfirmed, delivered"
    );
    link
}

/// Found by the simulator (seed 113): a final node is killed with old values on their way to a store that reads late.
#[test]
fn who_follows_another_life_says_everything_once_more_when_that_ones_bytes_have_gone() {
    let mut link = StoreLink::new(Settings { follows_a_life: true, ..settings() }, 1);
    let script = [(0, Tick), (0, Connected), (1, Offer("ab")), (1, Write), (59, Offer("c")), (59, Write), (60, Write)];
    assert_eq!(play(&mut link, &script), "connect ab c abc");
    let script = [(61, Tick), (61, Fin), (61, Connected), (200, Write)];
    assert_eq!(play(&mut link, &script), "half-close close connect", "not for ever");
}

#[test]
fn what_is_written_stays_unconfirmed_until_a_rotation_brings_a_fin() {
    let script = [(0, Tick), (0, Connected), (1, Offer("ab")), (1, Write), (60, Tick), (61, Tick)];
    let link = check(&script, "connect ab half-close", 0, 2, 0);
    assert_eq!(link.phase(), Phase::AwaitingReceipt);
    let script = [&script[..], &[(62, Offer("c")), (62, Write), (62, Fin), (62, Connected), (62, Write)]].concat();
    let link = check(&script, "connect ab half-close close connect c", 0, 1, 2);
    assert_eq!((link.receipts(), link.held_bytes()), (Receipts::Supported, 10));
}

#[test]
fn a_connection_without_anything_unconfirmed_is_not_rotated() {
    check(&[(0, Tick), (0, Connected), (600, Tick), (6_000, Tick)], "connect", 0, 0, 0);
}

#[test]
fn many_unconfirmed_bytes_rotate_before_the_time_has_come() {
    let settings = Settings { rotate_bytes: 20, ..settings() };
    let script = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Write), (0, Offer("c")), (0, Write)];
    check_with(settings, &script, "connect ab half-close", 1, 2, 0);
}

#[test]
fn nothing_is_half_closed_while_the_shell_holds_blocks() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (1, Offer("b")), (1, Hand), (70, Tick)];
    check(&script, "connect a b~", 1, 1, 0);
}

#[test]
fn a_reset_sends_the_unconfirmed_again_in_order_and_once_more_after_the_linger_bound() {
    let lost = [(0, Tick), (0, Connected), (0, Offer("abc")), (0, Write), (5, Offer("d")), (5, Reset)];
    let link = check(&lost, "connect abc close connect", 4, 0, 0);
    assert_eq!(link.books().resent, 3);
    let again = [&lost[..], &[(6, Connected), (6, Write), (20, Offer("e")), (20, Write), (64, Tick)]].concat();
    check(&again, "connect abc close connect abcd e", 0, 5, 0);
    let reasserted = [&again[..], &[(65, Write)]].concat();
    let link = check(&reasserted, "connect abc close connect abcd e abcde", 0, 5, 0);
    assert_eq!(link.books().reasserted, 5);
    // It is made once, not every minute.
    let receipt = [&reasserted[..], &[(66, Tick), (66, Fin), (66, Connected), (300, Write)]].concat();
    let link = check(&receipt, "connect abc close connect abcd e abcde half-close close connect", 0, 0, 5);
    assert_eq!(link.held_bytes(), 0);
}

#[test]
fn a_reassert_repeats_what_has_its_receipt_already() {
    let script = [
        (0, Tick),
        (0, Connected),
        (0, Offer("ab")),
        (0, Write),
        (30, PeerClosed),
        (30, Connected),
        (30, Write),
        (40, Offer("c")),
        (40, Write),
        // The rotation comes at 90, and so does the re-assert: first it, then its receipt.
        (89, Tick),
        (90, Write),
        (90, Fin),
        (90, Connected),
        (91, Write),
    ];
    check(&script, "connect ab close connect ab c abc half-close close connect", 0, 0, 3);
}

#[test]
fn a_store_that_was_away_longer_than_the_linger_bound_gets_everything_once() {
    let script = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Write), (1, Reset), (70, Connected), (70, Write)];
    check(&[&script[..], &[(100, Write)]].concat(), "connect ab close connect ab", 0, 2, 0);
}

#[test]
fn a_reassert_cut_short_begins_again_on_the_next_connection() {
    let script = [
        (0, Tick),
        (0, Connected),
        (0, Offer("ab")),
        (0, Write),
        (1, Reset),
        (1, Connected),
        (1, Write),
        (61, Hand),
        (61, Reset),
        (62, Connected),
        (62, Write),
    ];
    check(&script, "connect ab close connect ab ab~ close connect ab", 0, 2, 0);
}

#[test]
fn a_connection_lost_when_its_reassert_has_just_begun_is_a_loss_like_any_other() {
    let script = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Hand), (1, Reset), (1, Connected), (1, Write)];
    // At 61 the re-assert begins, nothing of it is written yet, and the bytes of 1 may linger till 121.
    let script =
        [&script[..], &[(61, Tick), (61, Reset), (61, Connected), (61, Write), (120, Tick), (121, Write)]].concat();
    check(&script, "connect ab~ close connect ab close connect ab ab half-close", 0, 2, 0);
}

#[test]
fn a_block_that_was_only_begun_is_sent_again_and_reasserted() {
    let script = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Hand), (1, Reset), (1, Connected), (1, Write)];
    check(&[&script[..], &[(61, Write)]].concat(), "connect ab~ close connect ab ab half-close", 0, 2, 0);
}

#[test]
fn no_fin_in_time_sends_everything_again_on_a_new_connection() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (60, Tick), (69, Tick), (70, Tick)];
    let link = check(&script, "connect a half-close close connect", 1, 0, 0);
    assert_eq!((link.receipts(), link.counters().receipts_missed), (Receipts::Unknown, 1));
}

#[test]
fn a_close_by_the_store_while_half_closed_is_no_receipt() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (60, Tick), (60, PeerClosed)];
    check(&script, "connect a half-close close connect", 1, 0, 0);
}

/// Two rotations without FIN; the second waits twice as long.
const TWO_MISSED: [(u64, Do); 9] = [
    (0, Tick),
    (0, Connected),
    (0, Offer("a")),
    (0, Write),
    (60, Tick),
    (70, Tick),
    (70, Connected),
    (70, Write),
    (130, Write),
];

/// Found by the simulator (seed 618): a store stood still, twice, and what the second connection had for it was lost.
#[test]
fn what_the_second_connection_without_receipt_took_goes_again_because_the_store_may_only_be_slow() {
    let script = [&TWO_MISSED[..], &[(149, Tick), (150, Tick)]].concat();
    let link = check(&script, "connect a half-close close connect a a half-close close connect", 1, 0, 0);
    assert_eq!((link.receipts(), link.counters().receipts_missed), (Receipts::Unsupported, 2));
    check(
        &[&script[..], &[(150, Connected), (150, Write)]].concat(),
        "connect a half-close close connect a a half-close close connect a",
        0,
        1,
        0,
    );
}

#[test]
fn a_store_that_never_answers_a_half_close_is_not_rotated_any_more() {
    let script = [
        &TWO_MISSED[..],
        &[(149, Tick), (150, Tick), (150, Connected), (150, Offer("b")), (150, Write), (209, Tick)],
        // As after any loss all goes once more, when bytes of the old connection can come no more. Then nothing more.
        &[(210, Write), (269, Tick), (1_000, Write)],
    ]
    .concat();
    let link = check(&script, "connect a half-close close connect a a half-close close connect ab ab", 0, 2, 0);
    assert_eq!((link.receipts(), link.held_bytes()), (Receipts::Unsupported, 0));
}

#[test]
fn each_connection_that_a_store_without_receipts_ends_costs_it_one_more_question_and_no_more() {
    let script = [
        &TWO_MISSED[..],
        &[(150, Tick), (150, Connected), (150, Write), (210, Write), (330, Tick)],
        &[
            (400, Offer("b")),
            (400, Write),
            (401, PeerClosed),
            (401, Connected),
            (401, Write),
            (461, Write),
            (500, Tick),
        ],
        &[(521, Tick), (521, Connected), (521, Write), (581, Write), (1_000, Write), (5_000, Write)],
    ]
    .concat();
    let expected = "connect a half-close close connect a a half-close close connect a a \
                    b close connect b b half-close close connect b b";
    let link = check(&script, expected, 0, 2, 0);
    assert_eq!((link.receipts(), link.held_bytes()), (Receipts::Unsupported, 0));
}

#[test]
fn a_store_without_receipts_still_gets_after_a_reset_what_it_got_until_a_dead_connection_is_noticed() {
    let script = [
        &TWO_MISSED[..],
        &[(150, Tick), (150, Connected), (150, Write), (210, Write), (330, Tick)],
        &[(380, Offer("b")), (380, Write), (420, Offer("c")), (420, Write)],
        // The socket is silent for a minute before it says that nobody is there any more.
        &[(510, Tick), (510, Reset), (510, Connected), (510, Write)],
    ]
    .concat();
    let expected = "connect a half-close close connect a a half-close close connect a a b c close connect c";
    let link = check(&script, expected, 0, 3, 0);
    assert_eq!(link.receipts(), Receipts::Unknown, "its restart may have made it another program");
}

/// Found under turmoil (seeds 17 and 103 of `stores`): a store without receipts ended its connection, or was killed, while it was
/// asked; that FIN was taken for its manner, and the rest was sent to it again and again, for ever.
#[test]
fn a_store_that_gave_one_fin_is_one_without_receipts_when_the_longest_patience_was_twice_in_vain() {
    let mut script = vec![(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (60, Tick), (60, Fin)];
    script.extend([(60, Connected), (60, Offer("b")), (60, Write), (120, Tick)]);
    // Asked a minute after each connection; the patience is 10 s, 20, 40, and then as long as bytes may linger.
    for (connected, asked) in [(130, 190), (210, 270), (310, 370), (430, 490)] {
        script.extend([(connected, Tick), (connected, Connected), (connected, Write), (asked, Write)]);
    }
    let asked =
        "connect a half-close close connect b half-close".to_owned() + &" close connect b b half-close".repeat(4);
    let mut link = check(&[&script[..], &[(549, Tick)]].concat(), &asked, 0, 1, 1);
    assert_eq!(link.receipts(), Receipts::Supported);
    let last = [(550, Tick), (550, Connected), (550, Write), (610, Write), (670, Tick), (5_000, Write)];
    assert_eq!(play(&mut link, &last), "close connect b b");
    assert_eq!((link.receipts(), link.held_bytes()), (Receipts::Unsupported, 0));
}

/// Found under turmoil (seeds 5 and 7 of `stores`): a store took a little longer than `receipt_timeout` for what waited; each
/// receipt that came in the second, doubled time was followed by one that was missed, and each of those by repetitions for it
/// to take time over.
#[test]
fn a_receipt_is_waited_for_twice_as_long_as_the_last_one_took() {
    let script = [
        &[(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (60, Tick), (69, Fin)][..],
        &[(69, Connected), (69, Offer("b")), (69, Write), (129, Tick), (146, Tick)],
    ]
    .concat();
    let asked = "connect a half-close close connect b half-close";
    check(&script, asked, 0, 1, 1);
    check(&[&script[..], &[(147, Tick)]].concat(), &format!("{asked} close connect"), 1, 0, 1);
    // A quick one makes it impatient again.
    let script = [&script[..], &[(129, Fin), (129, Connected), (129, Offer("c")), (129, Write), (189, Tick)]].concat();
    let asked = format!("{asked} close connect c half-close");
    check(&[&script[..], &[(198, Tick)]].concat(), &asked, 0, 1, 2);
    check(&[&script[..], &[(199, Tick)]].concat(), &format!("{asked} close connect"), 1, 0, 2);
}

#[test]
fn after_one_fin_two_missing_ones_do_not_make_a_store_one_without_receipts() {
    let script = [
        (0, Tick),
        (0, Connected),
        (0, Offer("a")),
        (0, Write),
        (60, Tick),
        (60, Fin),
        (60, Connected),
        (60, Offer("b")),
        (60, Write),
        (120, Tick),
        (130, Tick),
        (130, Connected),
        (130, Write),
        (190, Write),
        (210, Tick),
    ];
    let link = check(
        &script,
        "connect a half-close close connect b half-close close connect b b half-close close connect",
        1,
        0,
        1,
    );
    assert_eq!(link.receipts(), Receipts::Supported);
}

fn tight() -> Settings {
    Settings { retain_bytes: 40, rotate_bytes: 1_000, ..settings() }
}

#[test]
fn over_the_bound_a_dead_store_loses_the_oldest_and_the_books_say_so() {
    let script = [(0, Tick), (0, ConnectFailed), (1, Offer("abcde")), (4, Offer("ef"))];
    let link = check_with(tight(), &script, "connect connect refused", 4, 0, 0);
    assert_eq!((link.books().dropped_retain_full, link.held_bytes()), (2, 40));
    let script = [(0, Tick), (0, Offer("abcd")), (3, Offer("ef")), (4, Connected), (4, Write)];
    let link = check_with(tight(), &script, "connect cdef half-close", 0, 4, 0);
    assert_eq!(link.books().dropped_retain_full, 2);
}

#[test]
fn over_the_bound_a_living_store_gets_back_pressure_and_a_rotation() {
    let settings = Settings { rotate_bytes: 1_000, retain_bytes: 45, ..settings() };
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (1, Offer("bcde")), (1, Offer("f"))];
    // The rotation is asked for as soon as the bound is passed, before the rest is written.
    check_with(settings, &script, "connect a half-close refused", 4, 1, 0);
    let script = [&script[..], &[(2, Fin), (2, Offer("f")), (2, Connected), (2, Write)]].concat();
    let link = check_with(settings, &script, "connect a half-close refused close connect bcdef half-close", 0, 5, 1);
    assert_eq!(link.books().dropped_retain_full, 0);
}

#[test]
fn back_pressure_ends_when_the_store_takes_nothing_new_any_more() {
    let script = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Write), (1, Offer("cd")), (1, Offer("e"))];
    let link = check_with(tight(), &script, "connect ab half-close refused", 2, 2, 0);
    assert!(!link.accepts(mono(2)) && link.accepts(mono(3)), "back-pressure ends with the time-out, not before");
    let script = [&script[..], &[(3, Offer("e"))]].concat();
    let link = check_with(tight(), &script, "connect ab half-close refused", 2, 2, 0);
    assert_eq!(link.books().dropped_retain_full, 1, "c went");
}

#[test]
fn a_store_that_dies_after_each_send_buffer_of_repetitions_makes_no_progress() {
    let mut script = vec![(0, Tick), (0, Connected), (0, Offer("abcd")), (0, Write)];
    for second in 1..9 {
        script.extend([(second, Reset), (second, Connected), (second, Write)]);
    }
    let mut link = StoreLink::new(Settings { retain_bytes: 40, rotate_bytes: 1_000, ..settings() }, 1);
    play(&mut link, &script);
    assert!(link.accepts(mono(9)), "back-pressure for a store that only takes repetitions");
}

#[test]
fn over_the_bound_copies_for_a_reassert_go_first() {
    let settings = Settings { retain_bytes: 50, rotate_bytes: 20, ..settings() };
    let script = [
        (0, Tick),
        (0, Connected),
        (0, Offer("ab")),
        (0, Hand),
        (0, Reset),
        (0, Connected),
        (0, Write),
        (0, Fin),
        (0, Connected),
        (1, Offer("cdef")),
    ];
    let link = check_with(settings, &script, "connect ab~ close connect ab half-close close connect", 4, 0, 2);
    assert_eq!(link.books().reasserts_skipped, 1, "a went, b is kept");
    let script = [&script[..], &[(1, Write), (1, Fin), (1, Connected), (1, Write)]].concat();
    let script = [&script[..], &[(60, Write)]].concat();
    let link = check_with(
        settings,
        &script,
        "connect ab~ close connect ab half-close close connect cdef half-close close connect bcdef half-close",
        0,
        0,
        6,
    );
    assert_eq!(link.books().reasserted, 5);
}

#[test]
fn drain_ends_with_a_receipt_for_everything() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Drain), (0, Write), (1, Fin)];
    let link = check(&script, "connect a half-close close", 0, 0, 1);
    assert_eq!(link.phase(), Phase::Drained);
    assert_eq!(link.next_deadline(), None);
}

#[test]
fn drain_refuses_new_blocks_and_reconnects_for_old_ones() {
    let script = [
        (0, Tick),
        (0, Connected),
        (0, Offer("a")),
        (0, Drain),
        (0, Write),
        (1, Reset),
        (1, Offer("b")),
        (1, Connected),
    ];
    let script = [&script[..], &[(1, Write), (1, Fin)]].concat();
    let link = check(&script, "connect a half-close close connect refused a half-close close", 0, 0, 1);
    assert_eq!(link.phase(), Phase::Drained);
}

#[test]
fn drain_asks_a_store_without_receipts_for_a_last_time_and_believes_it_without_an_answer() {
    let script = [
        &TWO_MISSED[..],
        &[(150, Tick), (150, Connected), (150, Write), (160, Drain), (160, Tick), (199, Tick), (200, Tick)],
    ]
    .concat();
    let expected = "connect a half-close close connect a a half-close close connect a half-close close";
    let link = check(&script, expected, 0, 1, 0);
    assert_eq!(link.phase(), Phase::Drained);
}

#[test]
fn drain_with_nothing_to_do_ends_at_once() {
    let link = check(&[(0, Drain)], "", 0, 0, 0);
    assert_eq!(link.phase(), Phase::Drained);
}

#[test]
fn late_words_of_a_lost_connection_change_nothing() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (1, Reset), (1, PeerClosed), (1, Fin)];
    let script = [&script[..], &[(1, Offer("b")), (1, ConnectFailed)]].concat();
    let mut link = check(&script, "connect a close connect connect", 2, 0, 0);
    link.handle(mono(2), Event::Written { blocks: 3 });
    link.handle(mono(2), Event::PeerClosed);
    assert_eq!(link.books(), Books { owed: 2, in_flight: 2, resent: 1, ..Books::default() });
}

#[test]
fn reconnects_wait_a_random_time_under_a_doubling_ceiling() {
    let mut link = StoreLink::new(Settings::default(), 99);
    let (mut now, mut longest) = (Mono::ZERO, Duration::ZERO);
    for attempt in 0..30 {
        link.handle(now, Event::Tick);
        assert_eq!(link.next_command(), Some(Command::Connect));
        link.handle(now, Event::ConnectFailed);
        let until = link.next_deadline().unwrap();
        let ceiling = Duration::from_millis(50).saturating_mul(1 << attempt.min(10)).min(Duration::from_secs(5));
        assert!(until.since(now) <= ceiling, "attempt {attempt} waits {:?}", until.since(now));
        longest = longest.max(until.since(now));
        now = until;
    }
    assert!(longest > Duration::from_secs(3), "the ceiling was never used: {longest:?}");
}

mod spill;
