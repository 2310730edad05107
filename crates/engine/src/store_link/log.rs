//! What one store address is owed, in order of offering, with four marks in it.
//!
//! ```text
//!   front        unreceipted        written   handed                end
//!     |   copies      |  sent, no receipt |  hand  |  to be sent      |
//! ```
//!
//! * `front..unreceipted`: receipted blocks, kept only because a re-assert may want them (all `Delivered`).
//! * `unreceipted..written`: what the connection took, without a receipt for its latest writing. A lost connection
//!   puts `written` back to `unreceipted`: this is the whole rule of re-sending, and it keeps the order by itself.
//! * `written..handed`: what the shell is writing at this moment.
//! * `handed..end`: to be sent; in the course of a re-assert these are also blocks that were sent before.
//!
//! A re-assert puts `written` (and, if need be, `unreceipted`) back to where the lost connection's data began. From its
//! first block on its copies may no longer be given up, because the store may then hold an old value of a series whose
//! newer value stands further on; before its first block any *prefix* may be, never a middle part.
//!
//! Positions count blocks since the link began. Dropping a block in the middle moves the positions after it down by one.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::journal::Journal;
use super::{Block, Books, Progress};
use crate::time::Mono;

/// More re-asserts than this wait as one, because each lost connection adds at most one.
const REASSERTS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Never written, or written to a connection that was lost: `in_flight` in the books.
    Owed,
    /// Written, without a receipt.
    Unconfirmed,
    /// A receipt was taken; what is kept is a copy.
    Delivered,
}

#[derive(Debug)]
struct Entry {
    /// In the order of offering, from 0.
    number: u64,
    block: Block,
    class: Class,
    written_at: Mono,
}

/// From `due` on everything since `from` is to be sent once more.
#[derive(Clone, Copy, Debug)]
struct Reassert {
    from: u64,
    due: Mono,
}

/// A block that the spill is writing. Its class is [`Class::Owed`].
#[derive(Debug)]
struct Taken {
    /// In the order of taking, from 0.
    turn: u64,
    number: u64,
    block: Block,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    front: u64,
    unreceipted: u64,
    written: u64,
    handed: u64,
    /// This connection may carry bytes. The marks do not tell: a re-assert that has just begun has put them back.
    is_touched: bool,
    /// The end of what was ever written: writing beyond it is new, not a repetition.
    written_max: u64,
    bytes: u64,
    /// Bytes of `front..unreceipted` and of `unreceipted..written`.
    copy_bytes: u64,
    unreceipted_bytes: u64,
    reasserts: VecDeque<Reassert>,
    /// What the spill has in hand, in the order of taking.
    taken: VecDeque<Taken>,
    taken_bytes: u64,
    turns: u64,
    offered: u64,
    books: Books,
    pub(super) journal: Option<Journal>,
}

impl Log {
    pub(super) fn new(has_journal: bool) -> Log {
        Log { journal: has_journal.then(Journal::default), ..Log::default() }
    }

    pub(super) fn books(&self) -> Books {
        let figures = self.journal.as_ref().map(|journal| (journal.journalled(), journal.answered_here()));
        let (journalled, answered_here) = figures.unwrap_or_default();
        Books { journalled, answered_here, ..self.books }
    }

    /// Bytes of all blocks held, for whatever reason, but for those that the spill has in hand.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of what the spill has in hand.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Bytes of the copies at the front, which may be given up.
    pub(super) fn copy_bytes(&self) -> u64 {
        self.copy_bytes
    }

    /// Bytes of what was written without a receipt.
    pub(super) fn unreceipted_bytes(&self) -> u64 {
        self.unreceipted_bytes
    }

    pub(super) fn has_unreceipted(&self) -> bool {
        self.unreceipted < self.written
    }

    pub(super) fn hand_is_empty(&self) -> bool {
        self.written == self.handed
    }

    /// Nothing waits to be written (a re-assert under way included).
    pub(super) fn all_written(&self) -> bool {
        self.written == self.end()
    }

    pub(super) fn push(&mut self, block: Block) {
        self.books.owed += u64::from(block.points);
        self.books.in_flight += u64::from(block.points);
        self.bytes += byte_count(&block);
        if let Some(journal) = &mut self.journal {
            journal.held(self.offered, &block);
        }
        let entry = Entry { number: self.offered, block, class: Class::Owed, written_at: Mono::ZERO };
        self.offered += 1;
        self.entries.push_back(entry);
    }

    pub(super) fn progress(&self) -> Progress {
        // Without a spill nothing ever changes its place.
        let looked_at = if self.turns == 0 { self.entries.len().min(1) } else { self.entries.len() };
        let first = self.entries.range(..looked_at).map(|entry| entry.number).min();
        let taken = self.taken.iter().map(|taken| taken.number).min();
        let released = [first, taken].into_iter().flatten().min().unwrap_or(self.offered);
        Progress { offered: self.offered, released }
    }

    /// Hands out the next blocks, at least one if there is one, otherwise within both limits. Only with an empty hand.
    pub(super) fn hand(&mut self, bytes_max: usize, blocks_max: usize, out: &mut Vec<Bytes>) {
        debug_assert!(self.hand_is_empty(), "BUG: blocks handed out while the shell still holds some");
        let from = self.index(self.written);
        let mut bytes = 0;
        for entry in self.entries.range(from..).take(blocks_max) {
            bytes += entry.block.bytes.len();
            if bytes > bytes_max && self.handed > self.written {
                break;
            }
            out.push(entry.block.bytes.clone());
            self.handed += 1;
            self.is_touched = true;
        }
    }

    /// The first `blocks` of the hand are wholly written. True if at least one of them had never been before.
    pub(super) fn wrote(&mut self, blocks: u64, now: Mono) -> bool {
        let to = (self.written + blocks).min(self.handed);
        let (first, last) = (self.index(self.written), self.index(to));
        for entry in self.entries.range_mut(first..last) {
            let points = u64::from(entry.block.points);
            entry.written_at = now;
            self.unreceipted_bytes += byte_count(&entry.block);
            match entry.class {
                Class::Owed => {
                    entry.class = Class::Unconfirmed;
                    self.books.in_flight -= points;
                    self.books.delivered_unconfirmed += points;
                }
                Class::Unconfirmed | Class::Delivered => self.books.reasserted += points,
            }
        }
        self.written = to;
        let is_new = to > self.written_max;
        self.written_max = self.written_max.max(to);
        is_new
    }

    /// The connection is gone and its data may be lost: all of it is owed again, in order. With `reassert_due` it is
    /// also sent once more after that moment, because bytes of the lost connection may still reach the store till then.
    pub(super) fn lose(&mut self, reassert_due: Option<Mono>) {
        if mutant!("not_sent_again") {
            (self.handed, self.is_touched) = (self.written, false);
            return;
        }
        // The hand counts: a block may have reached the store in part.
        let was_touched = std::mem::take(&mut self.is_touched);
        if let Some(due) = reassert_due.filter(|_| was_touched && !mutant!("no_reassert")) {
            self.want_reassert(Reassert { from: self.unreceipted, due });
        }
        let from = self.index(self.unreceipted);
        for entry in self.entries.range_mut(from..) {
            if entry.class == Class::Unconfirmed {
                let points = u64::from(entry.block.points);
                entry.class = Class::Owed;
                self.books.delivered_unconfirmed -= points;
                self.books.in_flight += points;
                self.books.resent += points;
            }
        }
        self.written = self.unreceipted;
        self.handed = self.unreceipted;
        self.unreceipted_bytes = 0;
    }

    /// The store has read all that was written.
    pub(super) fn receipt(&mut self) {
        self.is_touched = false;
        let (from, to) = (self.index(self.unreceipted), self.index(self.written));
        for entry in self.entries.range_mut(from..to) {
            if entry.class == Class::Unconfirmed {
                let points = u64::from(entry.block.points);
                entry.class = Class::Delivered;
                self.books.delivered_unconfirmed -= points;
                self.books.delivered += points;
            }
        }
        self.unreceipted = self.written;
        self.copy_bytes += std::mem::take(&mut self.unreceipted_bytes);
        self.release();
    }

    /// When the first re-assert wants to begin.
    pub(super) fn reassert_due(&self) -> Option<Mono> {
        self.reasserts.front().map(|reassert| reassert.due)
    }

    /// Begins every re-assert that is due, as one. Only with an empty hand.
    pub(super) fn begin_reasserts(&mut self, now: Mono) {
        debug_assert!(self.hand_is_empty(), "BUG: a re-assert began while the shell still holds blocks");
        while let Some(reassert) = self.reasserts.front().copied().filter(|first| first.due <= now) {
            self.reasserts.pop_front();
            let from = reassert.from.max(self.front);
            // What stands at or after the write mark will be sent after this moment anyway.
            if from < self.written {
                self.written = from;
                self.handed = from;
                self.unreceipted = self.unreceipted.min(from);
                self.copy_bytes = self.range_bytes(self.front, self.unreceipted);
                self.unreceipted_bytes = self.range_bytes(self.unreceipted, self.written);
            }
        }
        self.release();
    }

    /// No re-assert will be made any more; the points of copies that it would have sent are counted as skipped.
    pub(super) fn forget_reasserts(&mut self) {
        self.reasserts.clear();
        while self.front < self.unreceipted {
            self.pop_front_copy();
        }
    }

    /// Gives up receipted copies, oldest first, until at most `bytes_max` are held.
    pub(super) fn give_up_copies(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max && self.front < self.unreceipted {
            self.pop_front_copy();
        }
    }

    /// For a store without receipts, under pressure: gives up written blocks too. Their class does not change.
    pub(super) fn give_up_written(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max && self.front < self.written {
            self.pop_front_copy();
        }
    }

    /// For a store without receipts: forgets what was written `age` ago. Its class does not change.
    pub(super) fn release_written(&mut self, now: Mono, age: Duration) {
        while self.written_release_at(age).is_some_and(|at| at <= now) {
            self.pop_front();
        }
    }

    /// When `release_written` has something to do next.
    pub(super) fn written_release_at(&self, age: Duration) -> Option<Mono> {
        let wanted = self.reasserts.iter().any(|reassert| reassert.from <= self.front);
        let first = self.entries.front().filter(|_| self.front < self.written && !wanted)?;
        Some(first.written_at + age)
    }

    /// Drops the oldest block that is owed and in nobody's hand; what is journalled goes over to the spill instead. False
    /// if there is none.
    pub(super) fn drop_oldest_owed(&mut self, for_want_of_a_spill: bool) -> bool {
        if self.hand_over_oldest() {
            return true;
        }
        let Some(entry) = self.remove_oldest_owed() else { return false };
        let points = u64::from(entry.block.points);
        self.books.in_flight -= points;
        if for_want_of_a_spill {
            self.books.dropped_spill_full += points;
        } else {
            self.books.dropped_retain_full += points;
        }
        true
    }

    /// Whether there is a block that is owed and in nobody's hand.
    pub(super) fn has_owed(&self) -> bool {
        self.oldest_owed().is_some()
    }

    /// Gives the oldest block that is owed, and in nobody's hand, into the hand of the spill, with its turn.
    pub(super) fn take_oldest_owed(&mut self) -> Option<(u64, Block)> {
        let Entry { number, block, .. } = self.remove_oldest_owed()?;
        let turn = self.turns;
        self.turns += 1;
        self.taken_bytes += byte_count(&block);
        self.taken.push_back(Taken { turn, number, block: block.clone() });
        Some((turn, block))
    }

    /// The spill answers for the oldest block that is owed, and in nobody's hand, if its journal has it: nothing is
    /// written again. False: there is no such block, nothing has changed.
    pub(super) fn hand_over_oldest(&mut self) -> bool {
        let Some((position, number)) = self.oldest_owed().filter(|_| self.journal.is_some()) else { return false };
        if !self.journal.as_mut().is_some_and(|journal| journal.hand_over(number)) {
            return false;
        }
        if let Some(entry) = self.remove(position) {
            let points = u64::from(entry.block.points);
            self.books.in_flight -= points;
            self.books.spilled += points;
        }
        true
    }

    /// The spill has everything that it took up to this turn.
    pub(super) fn spilled(&mut self, upto_turn: u64) {
        while let Some(done) = self.taken.pop_front_if(|taken| taken.turn <= upto_turn) {
            let points = u64::from(done.block.points);
            self.taken_bytes -= byte_count(&done.block);
            self.books.in_flight -= points;
            self.books.spilled += points;
        }
    }

    /// What the spill has in hand is to be sent again, where it stood; at the earliest behind the shell's hand.
    pub(super) fn put_back(&mut self) {
        self.taken_bytes = 0;
        for Taken { number, block, .. } in std::mem::take(&mut self.taken) {
            let from = self.index(self.handed);
            let offset = self.entries.range(from..).position(|entry| entry.number > number);
            let index = offset.map_or(self.entries.len(), |offset| from + offset);
            let position = self.front + index as u64;
            for reassert in &mut self.reasserts {
                reassert.from += u64::from(reassert.from > position);
            }
            self.written_max += u64::from(self.written_max > position);
            self.bytes += byte_count(&block);
            if let Some(journal) = &mut self.journal {
                journal.held(number, &block);
            }
            self.entries.insert(index, Entry { number, block, class: Class::Owed, written_at: Mono::ZERO });
        }
    }

    /// Position and number of the oldest block that is owed, and in nobody's hand: neither the shell's nor the journal's,
    /// which will tell of it soon.
    fn oldest_owed(&self) -> Option<(u64, u64)> {
        let in_hand = |number| self.journal.as_ref().is_some_and(|journal| journal.is_in_hand(number));
        let mut behind_hand = (self.handed..).zip(self.entries.range(self.index(self.handed)..));
        let found = behind_hand.find(|(_, entry)| entry.class == Class::Owed && !in_hand(entry.number));
        found.map(|(position, entry)| (position, entry.number))
    }

    fn remove_oldest_owed(&mut self) -> Option<Entry> {
        let (position, _) = self.oldest_owed()?;
        self.remove(position)
    }

    /// Takes out a block that is owed and behind the shell's hand.
    fn remove(&mut self, position: u64) -> Option<Entry> {
        let entry = self.entries.remove(self.index(position))?;
        for reassert in &mut self.reasserts {
            reassert.from -= u64::from(reassert.from > position);
        }
        self.written_max -= u64::from(self.written_max > position);
        self.bytes -= byte_count(&entry.block);
        if let Some(journal) = &mut self.journal {
            journal.left(entry.number);
        }
        Some(entry)
    }

    /// Everything from the first block on is sent once more after `due`.
    pub(super) fn assert_from_start(&mut self, due: Mono) {
        self.want_reassert(Reassert { from: 0, due });
    }

    fn want_reassert(&mut self, new: Reassert) {
        // A later one that begins no later does the work of the earlier one.
        self.reasserts.retain(|old| old.from < new.from);
        if self.reasserts.len() < REASSERTS_MAX {
            self.reasserts.push_back(new);
        } else if let Some(last) = self.reasserts.back_mut() {
            last.due = new.due;
        }
    }

    /// Forgets copies that no re-assert wants.
    fn release(&mut self) {
        let wanted = self.reasserts.iter().map(|reassert| reassert.from).min().unwrap_or(self.unreceipted);
        while self.front < self.unreceipted.min(wanted) {
            self.pop_front();
        }
    }

    fn pop_front_copy(&mut self) {
        if let Some(points) = self.pop_front() {
            self.books.reasserts_skipped += u64::from(points);
        }
    }

    fn pop_front(&mut self) -> Option<u32> {
        let entry = self.entries.pop_front()?;
        let bytes = byte_count(&entry.block);
        if let Some(journal) = &mut self.journal {
            journal.left(entry.number);
        }
        if self.front < self.unreceipted {
            self.copy_bytes -= bytes;
        } else {
            self.unreceipted += 1;
            self.unreceipted_bytes -= bytes;
        }
        self.front += 1;
        self.bytes -= bytes;
        Some(entry.block.points)
    }

    fn end(&self) -> u64 {
        self.front + self.entries.len() as u64
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position - self.front).unwrap_or(usize::MAX).min(self.entries.len())
    }

    fn range_bytes(&self, from: u64, to: u64) -> u64 {
        self.entries.range(self.index(from)..self.index(to)).map(|entry| byte_count(&entry.block)).sum()
    }

    /// Marks in order, books balanced and equal to what is held. For tests: it walks over everything.
    #[cfg(test)]
    #[track_caller]
    pub(super) fn audit(&self) {
        let marks = [self.front, self.unreceipted, self.written, self.handed, self.end()];
        assert!(marks.is_sorted(), "marks out of order: {marks:?}");
        assert!(self.books.balance(), "books do not balance: {:?}", self.books);
        let held = |class| {
            let of_class = self.entries.iter().filter(|entry| entry.class == class);
            of_class.map(|entry| u64::from(entry.block.points)).sum::<u64>()
        };
        let taken: u64 = self.taken.iter().map(|taken| u64::from(taken.block.points)).sum();
        assert_eq!(self.books.in_flight, held(Class::Owed) + taken, "in flight is what is held and owed");
        assert_eq!(self.taken_bytes, self.taken.iter().map(|taken| byte_count(&taken.block)).sum::<u64>());
        let is_sorted = self.entries.iter().map(|entry| entry.number).is_sorted();
        assert!(is_sorted || self.turns > 0, "blocks out of the order of offering");
        assert!(
            self.books.delivered_unconfirmed >= held(Class::Unconfirmed),
            "held without receipt but not in the books"
        );
        assert_eq!(self.bytes, self.range_bytes(self.front, self.end()));
        assert_eq!(self.copy_bytes, self.range_bytes(self.front, self.unreceipted));
        assert_eq!(self.unreceipted_bytes, self.range_bytes(self.unreceipted, self.written));
        let copies = self.entries.range(..self.index(self.unreceipted));
        assert!(copies.into_iter().all(|entry| entry.class != Class::Owed), "an owed block stands among the copies");
        if let Some(journal) = &self.journal {
            journal.audit(&self.entries.iter().map(|entry| entry.number).collect());
        }
    }
}

fn byte_count(block: &Block) -> u64 {
    block.bytes.len() as u64
}
