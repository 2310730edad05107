//! What is due for the spill, what it does to the order, and how far the link says it is.

use super::*;
use crate::spill::Why;
use crate::wire::Ticket;

fn spilling() -> Settings {
    Settings { retain_bytes: 40, rotate_bytes: 1_000, overflow: Overflow::Spill, ..settings() }
}

/// A link whose spill is able, after a script that must give `expected`.
#[track_caller]
fn able(script: &[(u64, Do)], expected: &str) -> StoreLink {
    let mut link = StoreLink::new(spilling(), 1);
    link.set_spill(true);
    assert_eq!(play(&mut link, script), expected);
    link
}

/// Letters of what is taken, with the reason and the number of the last.
#[track_caller]
fn take(link: &mut StoreLink, second: u64, max_bytes: u64) -> String {
    let had = link.has_due(mono(second));
    let due = link.take_due(mono(second), max_bytes);
    link.log.audit();
    assert_eq!(had, !due.is_empty(), "has_due and take_due disagree");
    let letters: String = due.iter().map(|due| char::from(due.block.bytes[0])).collect();
    due.last().map_or("nothing".to_owned(), |last| format!("{}:{letters}:{}", last.why.as_str(), last.number))
}

#[test]
fn over_the_bound_the_oldest_unsent_blocks_are_due_and_no_client_waits() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Hand), (1, Offer("bcde"))];
    let mut link = able(&script, "connect a~");
    assert_eq!(take(&mut link, 1, 1), "memory:b:0");
    assert_eq!(take(&mut link, 1, 1), "nothing");
    assert!(!link.accepts(mono(1)), "50 of 40 bytes are held: the spill does not keep up");
    link.spilled(mono(1), 0);
    assert!(link.accepts(mono(1)));
    assert_eq!((link.books().spilled, link.books().in_flight, link.held_bytes()), (1, 4, 40));
}

#[test]
fn a_store_that_is_away_for_the_time_out_has_everything_unsent_due() {
    let mut link = able(&[(0, Tick), (0, ConnectFailed), (0, Offer("abc"))], "connect connect");
    assert_eq!(take(&mut link, 3, 100), "nothing");
    assert_eq!(take(&mut link, 4, 20), "no_peer:ab:1");
    assert_eq!(take(&mut link, 4, 100), "no_peer:c:2");
    link.spilled(mono(4), 1);
    assert_eq!((link.books().spilled, link.books().in_flight), (2, 1));
}

#[test]
fn a_rotation_is_no_absence() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (60, Tick), (60, Offer("b")), (69, Tick)];
    let mut link = able(&script, "connect a half-close");
    assert_eq!(take(&mut link, 69, 100), "nothing");
    play(&mut link, &[(69, Fin)]);
    assert_eq!(take(&mut link, 70, 100), "nothing");
    assert_eq!(take(&mut link, 73, 100), "no_peer:b:0", "but not to come back is");
}

#[test]
fn what_the_spill_did_not_tell_is_sent_where_it_stood() {
    let script = [(0, Tick), (0, ConnectFailed), (0, Offer("abcd"))];
    let mut link = able(&script, "connect connect");
    assert_eq!(take(&mut link, 4, 30), "no_peer:abc:2");
    link.spilled(mono(4), 0);
    link.spill_restarted();
    link.log.audit();
    assert_eq!(play(&mut link, &[(5, Connected), (5, Offer("e")), (5, Write)]), "bcde half-close");
    assert_eq!(link.books().spilled, 1);
    // Told after all, too late: they are no longer the spill's.
    link.spilled(mono(5), 2);
    link.log.audit();
    assert_eq!(link.books().spilled, 1);
}

#[test]
fn what_the_spill_has_in_hand_is_not_sent() {
    let mut link = able(&[(0, Tick), (0, ConnectFailed), (0, Offer("ab"))], "connect connect");
    assert_eq!(take(&mut link, 4, 10), "no_peer:a:0");
    assert_eq!(play(&mut link, &[(5, Connected), (5, Write)]), "b");
}

#[test]
fn a_spill_that_can_take_nothing_costs_the_oldest_under_a_name_of_its_own() {
    let mut link = able(&[(0, Tick), (0, ConnectFailed), (0, Offer("abcd"))], "connect connect");
    assert_eq!(take(&mut link, 4, 10), "no_peer:a:0");
    link.set_spill(false);
    assert_eq!(take(&mut link, 4, 100), "nothing");
    play(&mut link, &[(4, Offer("ef"))]);
    assert_eq!((link.books().dropped_spill_full, link.books().dropped_retain_full), (2, 0));
}

#[test]
fn who_refuses_never_drops() {
    let settings = Settings { overflow: Overflow::Refuse, ..tight() };
    let script = [(0, Tick), (0, ConnectFailed), (0, Offer("abcd")), (9, Offer("e")), (999, Offer("e"))];
    let mut link = check_with(settings, &script, "connect connect refused refused", 4, 0, 0);
    assert_eq!(
        play(&mut link, &[(999, Connected), (999, Write), (999, Fin), (999, Offer("e"))]),
        "abcd half-close close connect"
    );
    assert!(link.books().balance() && link.books().dropped_retain_full == 0);
}

#[test]
fn at_shutdown_what_has_no_receipt_is_due_and_nothing_is_sent() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (1, Offer("b")), (1, Hand), (1, Drain)];
    let mut link = able(&script, "connect a b~");
    link.drain_to_spill(mono(2));
    assert_eq!(play(&mut link, &[(2, Tick), (2, Write), (2, Offer("c"))]), "close refused");
    assert_eq!(take(&mut link, 2, 100), "shutdown:ab:1");
    assert_ne!(link.phase(), Phase::Drained, "the spill has not told");
    link.spilled(mono(3), 1);
    assert_eq!((link.phase(), link.books().spilled, link.books().in_flight), (Phase::Drained, 2, 0));
}

#[test]
fn at_shutdown_a_store_that_never_gives_receipts_keeps_what_was_written() {
    let script =
        [&TWO_MISSED[..], &[(150, Tick), (150, Connected), (150, Offer("b")), (150, Write), (151, Offer("c"))]];
    let mut link = able(&script.concat(), "connect a half-close close connect a a half-close close connect ab");
    link.drain_to_spill(mono(152));
    assert_eq!(take(&mut link, 152, 100), "shutdown:c:0");
    link.spilled(mono(152), 0);
    assert_eq!((link.phase(), link.books().delivered_unconfirmed, link.books().spilled), (Phase::Drained, 2, 1));
}

#[test]
fn a_shutdown_whose_spill_fails_goes_on_sending() {
    let mut link = able(&[(0, Tick), (0, Connected), (0, Offer("a"))], "connect");
    link.drain_to_spill(mono(1));
    link.set_spill(false);
    assert_eq!(play(&mut link, &[(2, Tick), (2, Connected), (2, Write), (2, Fin)]), "close connect a half-close close");
    assert_eq!(link.phase(), Phase::Drained);
}

#[track_caller]
fn progress(script: &[(u64, Do)], offered: u64, released: u64) {
    let mut link = StoreLink::new(settings(), 1);
    play(&mut link, script);
    assert_eq!(link.progress(), Progress { offered, released });
}

#[test]
fn a_block_is_released_when_it_will_never_be_sent_again() {
    progress(&[], 0, 0);
    let written = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Write)];
    progress(&written, 2, 0);
    progress(&[&written[..], &[(60, Tick), (61, Offer("c")), (61, Fin)]].concat(), 3, 2);
    // A loss at 61: what is then receipted is kept for the re-assert at 121, and released with that one's receipt.
    let lost = [&written[..], &[(60, Tick), (61, Reset), (62, Connected), (62, Write), (120, Tick)]].concat();
    progress(&lost, 2, 0);
    progress(&[&lost[..], &[(122, Write)]].concat(), 2, 0);
    progress(&[&lost[..], &[(122, Write), (123, Fin)]].concat(), 2, 2);
}

#[test]
fn without_receipts_a_block_is_released_after_the_linger_bound() {
    let script = [&TWO_MISSED[..], &[(150, Tick), (150, Connected), (150, Write), (210, Write)]].concat();
    let script = [&script[..], &[(211, Offer("b")), (211, Write), (329, Tick)]].concat();
    progress(&script, 2, 0);
    progress(&[&script[..], &[(330, Tick)]].concat(), 2, 1);
    progress(&[&script[..], &[(331, Tick)]].concat(), 2, 2);
}

#[test]
fn what_the_spill_has_in_hand_is_not_released_and_what_it_has_told_is() {
    let mut link = able(&[(0, Tick), (0, ConnectFailed), (0, Offer("ab"))], "connect connect");
    take(&mut link, 4, 100);
    assert_eq!(link.progress(), Progress { offered: 2, released: 0 });
    link.spilled(mono(4), 0);
    assert_eq!(link.progress(), Progress { offered: 2, released: 1 });
}

#[track_caller]
fn journalling(script: &[(u64, Do)], expected: &str) -> StoreLink {
    let mut link = StoreLink::new(Settings { journal: true, retain_bytes: 60, ..spilling() }, 1);
    link.set_spill(true);
    assert_eq!(play(&mut link, script), expected);
    link
}

/// Letters of what is taken, each with its number; upper case: for the journal.
#[track_caller]
fn take_all(link: &mut StoreLink, second: u64) -> String {
    let had = link.has_due(mono(second));
    let due = link.take_due(mono(second), 1_000);
    link.log.audit();
    assert!(had || due.is_empty(), "has_due knew of nothing");
    let shown = due.iter().map(|due| {
        let letter = char::from(due.block.bytes[0]);
        let letter = if due.why == Why::Journal { letter.to_ascii_uppercase() } else { letter };
        format!("{letter}{}", due.number)
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The journal has these numbers, under tickets of the same ordinals. How many were kept.
#[track_caller]
fn journal(link: &mut StoreLink, second: u64, numbers: std::ops::Range<u64>) -> usize {
    let kept = numbers.filter(|&number| link.journalled(mono(second), number, Ticket { lane: 1, ordinal: number }));
    let kept = kept.count();
    link.log.audit();
    kept
}

/// Journalled, answered here, spilled, in flight; and the ordinals that are to be settled.
#[track_caller]
fn figures(link: &mut StoreLink, expected: [u64; 4], settled: &[u64]) {
    let books = link.books();
    assert_eq!([books.journalled, books.answered_here, books.spilled, books.in_flight], expected);
    let found: Vec<u64> = link.take_settled().iter().map(|ticket| ticket.ordinal).collect();
    assert_eq!(found, settled);
    link.log.audit();
}

#[test]
fn a_journalled_block_is_sent_all_the_same_and_settled_with_its_receipt() {
    let mut link = journalling(&[(0, Tick), (0, Connected), (0, Offer("ab"))], "connect");
    assert_eq!(take_all(&mut link, 0), "A0 B1");
    assert_eq!(play(&mut link, &[(0, Write), (1, Offer("c"))]), "ab");
    assert_eq!(journal(&mut link, 1, 0..2), 2);
    figures(&mut link, [2, 0, 0, 1], &[]);
    assert_eq!(take_all(&mut link, 1), "C2");
    play(&mut link, &[(60, Tick), (60, Fin)]);
    assert!(link.holds(0) && link.holds(2), "its ticket waits");
    figures(&mut link, [0, 2, 0, 1], &[0, 1]);
    assert!(!link.holds(0) && link.holds(2));
}

#[test]
fn a_block_that_has_its_receipt_before_the_journal_is_written_for_nothing() {
    let mut link = journalling(&[(0, Tick), (0, Connected), (0, Offer("ab"))], "connect");
    assert_eq!(link.take_due(mono(0), 1).len(), 1);
    play(&mut link, &[(0, Write), (60, Tick), (60, Fin)]);
    assert_eq!(take_all(&mut link, 60), "", "b is not written any more");
    assert_eq!(journal(&mut link, 60, 0..1), 0);
    figures(&mut link, [0, 1, 0, 0], &[]);
}

#[test]
fn a_receipted_copy_that_a_reassert_wants_is_still_the_links() {
    let script = [(0, Tick), (0, Connected), (0, Offer("a")), (0, Write), (1, Reset), (1, Connected), (1, Write)];
    let mut link = journalling(&script, "connect a close connect a");
    assert_eq!((take_all(&mut link, 1), journal(&mut link, 1, 0..1)), ("A0".to_owned(), 1));
    // At 61 comes the re-assert, and with its receipt the end.
    play(&mut link, &[(60, Tick), (61, Write)]);
    figures(&mut link, [1, 0, 0, 0], &[]);
    play(&mut link, &[(62, Tick), (62, Fin)]);
    figures(&mut link, [0, 1, 0, 0], &[0]);
}

#[test]
fn without_receipts_a_journalled_block_is_settled_after_the_linger_bound() {
    let script = [&TWO_MISSED[..], &[(150, Tick), (150, Connected), (150, Offer("b")), (150, Write)]].concat();
    let mut link = journalling(&script, "connect a half-close close connect a a half-close close connect ab");
    assert_eq!((take_all(&mut link, 151), journal(&mut link, 151, 0..2)), ("A0 B1".to_owned(), 2));
    assert_eq!(play(&mut link, &[(210, Write), (329, Tick)]), "ab");
    figures(&mut link, [2, 0, 0, 0], &[]);
    play(&mut link, &[(330, Tick)]);
    figures(&mut link, [0, 2, 0, 0], &[0, 1]);
    assert_eq!(link.books().delivered_unconfirmed, 2);
}

#[test]
fn what_is_due_and_journalled_goes_over_to_the_spill_without_being_written_again() {
    let mut link = journalling(&[(0, Tick), (0, ConnectFailed), (0, Offer("abc"))], "connect connect");
    assert_eq!((take_all(&mut link, 1), journal(&mut link, 1, 0..2)), ("A0 B1 C2".to_owned(), 2));
    figures(&mut link, [2, 0, 0, 3], &[]);
    // No connection for the time-out: c is still in the journal's hand.
    assert_eq!(take_all(&mut link, 4), "");
    figures(&mut link, [0, 0, 2, 1], &[]);
    assert_eq!(journal(&mut link, 4, 2..3), 1);
    figures(&mut link, [0, 0, 3, 0], &[]);
    assert_eq!(link.held_bytes(), 0);
}

#[test]
fn over_the_bound_what_is_journalled_makes_room_at_once() {
    let mut link = journalling(&[(0, Tick), (0, Connected), (0, Offer("abcd"))], "connect");
    assert_eq!((take_all(&mut link, 0), journal(&mut link, 0, 0..4)), ("A0 B1 C2 D3".to_owned(), 4));
    play(&mut link, &[(0, Offer("efgh"))]);
    assert_eq!(link.held_bytes(), 60);
    figures(&mut link, [2, 0, 2, 6], &[]);
    assert_eq!(play(&mut link, &[(0, Write)]), "cdefgh half-close");
}

#[test]
fn what_is_due_and_not_in_the_journal_yet_is_written_once() {
    let mut link = journalling(&[(0, Tick), (0, ConnectFailed), (0, Offer("ab"))], "connect connect");
    assert_eq!(take_all(&mut link, 4), "a0 b1");
    link.spilled(mono(4), 0);
    figures(&mut link, [0, 0, 1, 1], &[]);
    // The spill's thread dies with b in its hand: it is to be sent, and to be journalled.
    link.spill_restarted();
    play(&mut link, &[(4, Connected)]);
    assert_eq!(take_all(&mut link, 4), "B1");
    assert_eq!(play(&mut link, &[(4, Write)]), "b");
}

#[test]
fn a_spill_that_can_take_nothing_costs_only_what_is_not_journalled() {
    let mut link = journalling(&[(0, Tick), (0, ConnectFailed), (0, Offer("ab"))], "connect connect");
    assert_eq!((take_all(&mut link, 1), journal(&mut link, 1, 0..1)), ("A0 B1".to_owned(), 1));
    link.set_spill(false);
    play(&mut link, &[(4, Offer("cdefgh"))]);
    assert_eq!((link.books().spilled, link.books().dropped_spill_full), (1, 1));
    // b was on its way to disk when it was dropped, and has got there.
    assert_eq!(journal(&mut link, 5, 1..2), 0);
    figures(&mut link, [0, 1, 1, 6], &[]);
    link.spill_restarted();
    link.set_spill(true);
    play(&mut link, &[(5, Connected)]);
    assert_eq!(take_all(&mut link, 5), "C2 D3 E4 F5 G6 H7");
}

#[test]
fn at_shutdown_what_has_no_receipt_is_the_spills_and_written_once() {
    let script = [(0, Tick), (0, Connected), (0, Offer("ab")), (0, Write)];
    let mut link = journalling(&script, "connect ab");
    assert_eq!((take_all(&mut link, 0), journal(&mut link, 0, 0..1)), ("A0 B1".to_owned(), 1));
    play(&mut link, &[(1, Offer("c"))]);
    link.drain_to_spill(mono(2));
    assert_eq!(take_all(&mut link, 2), "c0");
    link.spilled(mono(2), 0);
    assert_ne!(link.phase(), Phase::Drained, "b is in the journal's hand");
    assert_eq!(journal(&mut link, 2, 1..2), 1);
    figures(&mut link, [0, 0, 3, 0], &[]);
    assert_eq!(link.phase(), Phase::Drained);
}

#[test]
fn without_a_journal_nothing_is_due_for_it() {
    let mut link = able(&[(0, Tick), (0, Connected), (0, Offer("ab"))], "connect");
    assert_eq!(take_all(&mut link, 0), "");
    assert!(!link.holds(0));
    assert!(link.journalled(mono(0), 0, Ticket { lane: 1, ordinal: 0 }), "nobody here may say that it is done");
    figures(&mut link, [0, 0, 0, 2], &[]);
}
