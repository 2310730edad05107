//! What a journal has of the blocks that are held ([`super::Settings::journal`]): each is written to disk when it is
//! offered, and is sent and held all the same.
//!
//! ```text
//!  offered -> Due -> InHand -> Done -+-> leaves the link for good: its ticket is settled
//!              ^-------+             +-> the link has no use for it: the spill takes it over, nothing is written again
//! ```
//!
//! A block that leaves while it is in hand was written for nothing: it is *gone*, and its ticket is settled as soon as it
//! is told. If the spill fails, what it had in hand is due again but *doubtful*: the disk may have it. The next life tells
//! what it finds before it says [`Journal::restarted`], and then nothing is in doubt any more.
//!
//! Blocks are known by their number in the order of offering.

use std::collections::{BTreeMap, BTreeSet};

use super::Block;
use crate::wire::Ticket;

/// Blocks remembered that left while in hand: far more than are ever in hand, so only what nobody tells falls out.
const GONE_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Due { is_doubtful: bool },
    InHand,
    Done(Ticket),
}

#[derive(Debug)]
struct Slot {
    block: Block,
    state: State,
}

/// The machine. See the module's head.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// One for each block that the link holds.
    slots: BTreeMap<u64, Slot>,
    /// Numbers of those that are due.
    due: BTreeSet<u64>,
    /// Points of what left while it was in hand, or in doubt.
    gone: BTreeMap<u64, u32>,
    /// To be settled, not taken yet.
    settled: BTreeMap<u64, Ticket>,
    journalled: u64,
    answered_here: u64,
}

impl Journal {
    /// A block is held from now on; or again, if it was in the spill's hand.
    pub(super) fn held(&mut self, number: u64, block: &Block) {
        let is_doubtful = self.gone.remove(&number).is_some();
        self.slots.insert(number, Slot { block: block.clone(), state: State::Due { is_doubtful } });
        self.due.insert(number);
    }

    /// The link has no use for the block any more: it was confirmed, given up or dropped, or it goes another way to disk.
    pub(super) fn left(&mut self, number: u64) {
        let Some(slot) = self.slots.remove(&number) else { return };
        let points = slot.block.points;
        match slot.state {
            State::Due { is_doubtful: false } => {
                self.due.remove(&number);
            }
            State::Due { is_doubtful: true } | State::InHand => {
                self.due.remove(&number);
                self.gone.insert(number, points);
                if self.gone.len() > GONE_MAX {
                    self.gone.pop_first();
                }
            }
            State::Done(ticket) => {
                self.journalled -= u64::from(points);
                self.answered_here += u64::from(points);
                self.settled.insert(number, ticket);
            }
        }
    }

    /// From here on the spill answers for the block. False: the disk does not have it, nothing has changed.
    pub(super) fn hand_over(&mut self, number: u64) -> bool {
        if !self.is_done(number) {
            return false;
        }
        let points = self.slots.remove(&number).map_or(0, |slot| slot.block.points);
        self.journalled -= u64::from(points);
        true
    }

    /// What is to be written, oldest first, about `max_bytes` of it and at least one, each with its number. It is in hand
    /// from now on.
    pub(super) fn take(&mut self, max_bytes: u64) -> Vec<(u64, Block)> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(number) = self.due.pop_first()
        {
            let Some(slot) = self.slots.get_mut(&number) else { continue };
            slot.state = State::InHand;
            bytes += slot.block.bytes.len() as u64;
            taken.push((number, slot.block.clone()));
        }
        taken
    }

    /// The block is on disk, synced. False: the link has let go of it or it is there twice, so this ticket is to be settled
    /// at once. Telling the same again changes nothing.
    pub(super) fn told(&mut self, number: u64, ticket: Ticket) -> bool {
        let Some(slot) = self.slots.get_mut(&number) else {
            // Unknown: it was told by a life that died over it, and is the spill's, or its ticket is settled already.
            let Some(points) = self.gone.remove(&number) else { return true };
            self.answered_here += u64::from(points);
            return false;
        };
        let points = u64::from(slot.block.points);
        match slot.state {
            State::Done(known) if known == ticket => true,
            State::Done(_) => {
                self.answered_here += points;
                false
            }
            State::Due { .. } | State::InHand => {
                slot.state = State::Done(ticket);
                self.due.remove(&number);
                self.journalled += points;
                true
            }
        }
    }

    /// The spill failed: what it had in hand is due again, and in doubt.
    pub(super) fn failed(&mut self) {
        self.ask_again(true);
    }

    /// The spill has told everything that it has, and has nothing in hand.
    pub(super) fn restarted(&mut self) {
        self.ask_again(false);
        self.gone.clear();
    }

    fn ask_again(&mut self, is_doubtful: bool) {
        for (number, slot) in &mut self.slots {
            match slot.state {
                State::InHand => {
                    slot.state = State::Due { is_doubtful };
                    self.due.insert(*number);
                }
                State::Due { is_doubtful: was } => slot.state = State::Due { is_doubtful: was && is_doubtful },
                State::Done(_) => {}
            }
        }
    }

    /// Tickets of blocks that left, each once.
    pub(super) fn take_settled(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.settled).into_values().collect()
    }

    /// Whether a record of this block is the link's: nobody else may send it or give it up.
    pub(super) fn holds(&self, number: u64) -> bool {
        self.slots.contains_key(&number) || self.settled.contains_key(&number)
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn is_in_hand(&self, number: u64) -> bool {
        self.slots.get(&number).is_some_and(|slot| slot.state == State::InHand)
    }

    pub(super) fn is_done(&self, number: u64) -> bool {
        self.slots.get(&number).is_some_and(|slot| matches!(slot.state, State::Done(_)))
    }

    /// Points on disk of blocks that the link still holds.
    pub(super) fn journalled(&self) -> u64 {
        self.journalled
    }

    /// Points on disk, ever, of which the link's own books say what became of them.
    pub(super) fn answered_here(&self) -> u64 {
        self.answered_here
    }

    /// Figures fit, and exactly these blocks are held. For tests: it walks over everything.
    #[cfg(test)]
    #[track_caller]
    pub(super) fn audit(&self, held: &BTreeSet<u64>) {
        let done = self.slots.values().filter(|slot| matches!(slot.state, State::Done(_)));
        assert_eq!(self.journalled, done.map(|slot| u64::from(slot.block.points)).sum::<u64>(), "journalled");
        let due = self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Due { .. }));
        assert_eq!(self.due, due.map(|(number, _)| *number).collect(), "due");
        assert_eq!(self.slots.keys().copied().collect::<BTreeSet<u64>>(), *held, "held by the link and by its journal");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use Do::{Failed, HandOver, Held, Left, Restarted, Settled, Take, Told};

    #[derive(Clone, Copy, Debug)]
    enum Do {
        Held(u64),
        Take,
        /// Number and ordinal.
        Told(u64, u64),
        Left(u64),
        HandOver(u64),
        Failed,
        Restarted,
        Settled,
    }

    fn ticket(ordinal: u64) -> Ticket {
        Ticket { lane: 1, ordinal }
    }

    /// What the script says, and then points journalled and answered here. A block has ten times its number, and one.
    #[track_caller]
    fn check(script: &[Do], said: &str, journalled: u64, answered_here: u64) {
        let mut journal = Journal::default();
        let mut out = Vec::new();
        for action in script {
            match *action {
                Held(number) => {
                    let points = u32::try_from(number).unwrap() * 10 + 1;
                    journal.held(number, &Block { bytes: Bytes::from_static(b"a 1 1\n"), points });
                }
                Take => out.push(format!("took{:?}", journal.take(12).iter().map(|taken| taken.0).collect::<Vec<_>>())),
                Told(number, ordinal) => {
                    out.push(if journal.told(number, ticket(ordinal)) { "kept" } else { "settle" }.to_owned())
                }
                Left(number) => journal.left(number),
                HandOver(number) => out.push(journal.hand_over(number).to_string()),
                Failed => journal.failed(),
                Restarted => journal.restarted(),
                Settled => {
                    let settled = journal.take_settled();
                    out.push(format!("settled{:?}", settled.iter().map(|ticket| ticket.ordinal).collect::<Vec<_>>()));
                }
            }
            journal.audit(&journal.slots.keys().copied().collect());
        }
        assert_eq!(out.join(" "), said);
        assert_eq!((journal.journalled(), journal.answered_here()), (journalled, answered_here));
    }

    #[test]
    fn a_block_is_written_once_oldest_first_and_its_ticket_is_settled_when_it_leaves() {
        let script = [Held(0), Held(1), Held(2), Take, Take, Take, Told(0, 7), Told(1, 8), Told(2, 9)];
        check(&script, "took[0, 1] took[2] took[] kept kept kept", 33, 0);
        let left = [&script[..], &[Left(0), Settled, Left(2), Left(2), Settled, Settled]].concat();
        check(&left, "took[0, 1] took[2] took[] kept kept kept settled[7] settled[9] settled[]", 11, 22);
    }

    #[test]
    fn what_leaves_before_it_is_in_hand_is_not_written() {
        check(&[Held(0), Held(1), Left(0), Take, Take], "took[1] took[]", 0, 0);
    }

    #[test]
    fn what_leaves_while_in_hand_is_settled_when_it_is_told_and_counted_once() {
        check(&[Held(1), Take, Left(1), Settled, Told(1, 7), Settled], "took[1] settled[] settle settled[]", 0, 11);
        check(&[Held(1), Take, Left(1), Told(1, 7), Told(1, 7)], "took[1] settle kept", 0, 11);
    }

    #[test]
    fn telling_again_changes_nothing() {
        check(&[Held(1), Take, Told(1, 7), Told(1, 7)], "took[1] kept kept", 11, 0);
        check(&[Held(1), Take, Told(1, 7), Left(1), Settled, Told(1, 7)], "took[1] kept settled[7] kept", 0, 11);
        // Settling it now would lose it.
        check(&[Held(1), Take, Told(1, 7), HandOver(1), Told(1, 7)], "took[1] kept true kept", 0, 0);
    }

    #[test]
    fn the_spill_takes_over_what_the_disk_has_and_nothing_else() {
        let script = [Held(1), HandOver(1), Take, HandOver(1), Told(1, 7), HandOver(1), HandOver(1), Settled];
        check(&script, "false took[1] false kept true false settled[]", 0, 0);
    }

    #[test]
    fn what_a_failed_spill_had_in_hand_is_due_again_unless_the_next_life_finds_it() {
        check(&[Held(0), Held(1), Take, Failed, Told(0, 7), Restarted, Take], "took[0, 1] kept took[1]", 1, 0);
        // It left in doubt, and the disk has it after all.
        check(&[Held(1), Take, Failed, Left(1), Told(1, 7), Restarted], "took[1] settle", 0, 11);
        // In doubt no more: what comes now is unknown, and not counted.
        check(&[Held(1), Take, Failed, Restarted, Left(1), Told(1, 7)], "took[1] kept", 0, 0);
        check(&[Held(1), Take, Left(1), Restarted, Told(1, 7)], "took[1] kept", 0, 0);
    }

    #[test]
    fn what_is_on_disk_twice_is_settled_once() {
        check(
            &[Held(1), Take, Failed, Take, Told(1, 7), Told(1, 8), Left(1), Settled],
            "took[1] took[1] kept settle settled[7]",
            0,
            22,
        );
    }

    #[test]
    fn what_comes_back_from_the_spill_is_due_and_its_doubt_comes_back_with_it() {
        check(&[Held(1), Left(1), Held(1), Take], "took[1]", 0, 0);
        check(&[Held(1), Take, Failed, Left(1), Held(1), Left(1), Told(1, 7)], "took[1] settle", 0, 11);
    }

    #[test]
    fn nobody_else_may_have_a_block_until_its_settled_ticket_was_taken() {
        let mut journal = Journal::default();
        journal.held(4, &Block { bytes: Bytes::from_static(b"a 1 1\n"), points: 1 });
        assert!(journal.holds(4) && !journal.holds(5));
        journal.take(1);
        journal.told(4, ticket(0));
        journal.left(4);
        assert!(journal.holds(4), "its ticket waits");
        journal.take_settled();
        assert!(!journal.holds(4));
    }

    #[test]
    fn what_nobody_ever_tells_is_forgotten_in_time() {
        let mut journal = Journal::default();
        for number in 0..(GONE_MAX as u64 + 10) {
            journal.held(number, &Block { bytes: Bytes::from_static(b"a 1 1\n"), points: 1 });
            journal.take(1);
            journal.left(number);
        }
        assert_eq!(journal.gone.len(), GONE_MAX);
    }
}
