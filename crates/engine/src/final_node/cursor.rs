//! What the stores may lack: for each address of a store (a target) the blocks of windows that it has not got, as far as
//! is known. A restart emits exactly these again, and the blocks that changed.
//!
//! ```text
//!  emitted --target is there--> handed (to its sender) --released (receipt)--> nothing is owed
//!     '-----target is away----> waiting --paced, newest first--> handed
//! ```
//!
//! * A block is owed while it waits or is handed. What is owed is written with the block's index entry at the next
//!   checkpoint, in the same atomic batch as the state that was emitted: before that checkpoint a crash leaves the block
//!   as not emitted at all. After a restart everything owed waits.
//! * A sender releases what it was offered in the order of offering. A block that is handed again before it is released
//!   is owed until its last copy is released.
//! * Nothing here is dropped: blocks leave unsent only with the horizon, and are counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::time::UnixSeconds;
use crate::window::BlockId;

/// Slots that a mask can tell apart; targets beyond share the last, which costs only repetitions.
const SLOTS: usize = 64;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Cursor {
    targets: Vec<Target>,
    /// Slot numbers stay what they are for the life of the store: masks on disk speak of them.
    slots: Vec<String>,
    changed: BTreeSet<BlockId>,
}

#[derive(Debug, Default)]
struct Target {
    slot: usize,
    /// Blocks to be emitted, and about how many lines each has.
    waiting: BTreeMap<BlockId, u64>,
    waiting_lines: u64,
    /// Blocks given to the sender, each with the number of offers after it, ascending.
    handed: VecDeque<(u64, BlockId)>,
    /// The last of those for each block.
    latest: BTreeMap<BlockId, u64>,
    /// Where the emission of a waiting block goes on.
    resume: Option<(BlockId, usize)>,
    expired_lines: u64,
}

/// What waits for one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub blocks: u64,
    /// About.
    pub lines: u64,
    pub oldest: Option<UnixSeconds>,
    pub newest: Option<UnixSeconds>,
    /// Lines that left with the horizon and were never emitted to this target, since the process started.
    pub expired_lines: u64,
}

impl Waiting {
    /// What waits here and there.
    pub fn and(self, other: Waiting) -> Waiting {
        Waiting {
            blocks: self.blocks + other.blocks,
            lines: self.lines + other.lines,
            oldest: self.oldest.into_iter().chain(other.oldest).min(),
            newest: self.newest.max(other.newest),
            expired_lines: self.expired_lines + other.expired_lines,
        }
    }
}

impl Cursor {
    /// For these targets, by names that do not change over restarts. `slots`: those of the checkpoint.
    pub fn new(targets: &[String], mut slots: Vec<String>) -> Cursor {
        let targets = targets.iter().map(|name| {
            let slot = slots.iter().position(|slot| slot == name).unwrap_or_else(|| {
                slots.push(name.clone());
                slots.len() - 1
            });
            Target { slot, ..Target::default() }
        });
        Cursor { targets: targets.collect(), slots, changed: BTreeSet::new() }
    }

    /// Names of the slots, for the checkpoint.
    pub fn slots(&self) -> &[String] {
        &self.slots
    }

    /// A block's lines were given to a target's sender; the sender had been offered `offered` blocks of lines then.
    pub fn handed(&mut self, target: usize, id: BlockId, offered: u64) {
        let Some(of) = self.targets.get_mut(target).filter(|_| !mutant!("cursor_skips")) else { return };
        if of.latest.insert(id, offered) != Some(offered) {
            of.handed.push_back((offered, id));
        }
        self.changed.insert(id);
    }

    /// A target lacks a block, of about so many lines. A block whose emission was under way begins anew.
    pub fn wait(&mut self, target: usize, id: BlockId, lines: u64) {
        let Some(of) = self.targets.get_mut(target) else { return };
        let before = of.waiting.insert(id, lines).unwrap_or(0);
        of.waiting_lines = (of.waiting_lines + lines).saturating_sub(before);
        of.resume.take_if(|(at, _)| *at == id);
        self.changed.insert(id);
    }

    /// The sender will never send its first `released` blocks of lines again.
    pub fn released(&mut self, target: usize, released: u64) {
        let Some(of) = self.targets.get_mut(target) else { return };
        while let Some((offered, id)) = of.handed.pop_front_if(|(offered, _)| *offered <= released) {
            if of.latest.get(&id) == Some(&offered) {
                of.latest.remove(&id);
                self.changed.insert(id);
            }
        }
    }

    /// The newest block that waits for a target, and the number of the key to go on with.
    pub fn newest(&self, target: usize) -> Option<(BlockId, usize)> {
        let of = self.targets.get(target)?;
        // A block that was begun is finished first: halves would be repeated as wholes.
        of.resume.or_else(|| of.waiting.last_key_value().map(|(id, _)| (*id, 0)))
    }

    /// A part of a waiting block was handed; it goes on with key `from`.
    pub fn resume_at(&mut self, target: usize, id: BlockId, from: usize) {
        if let Some(of) = self.targets.get_mut(target)
            && of.waiting.contains_key(&id)
        {
            of.resume = Some((id, from));
        }
    }

    /// A block does not wait for a target any more.
    pub fn done(&mut self, target: usize, id: BlockId) {
        let Some(of) = self.targets.get_mut(target) else { return };
        if let Some(lines) = of.waiting.remove(&id) {
            of.waiting_lines = of.waiting_lines.saturating_sub(lines);
            self.changed.insert(id);
        }
        of.resume.take_if(|(at, _)| *at == id);
    }

    /// Whether a block waits for a target.
    pub fn is_waiting(&self, target: usize, id: BlockId) -> bool {
        self.targets.get(target).is_some_and(|of| of.waiting.contains_key(&id))
    }

    /// The slots of the targets that may lack a block, for its index entry.
    pub fn owed(&self, id: BlockId) -> u64 {
        let owing = self.targets.iter().filter(|of| of.waiting.contains_key(&id) || of.latest.contains_key(&id));
        owing.fold(0, |mask, of| mask | bit(of.slot))
    }

    /// Takes up what an index entry says: the block waits for these slots. `lines`: about how many it has.
    pub fn restore(&mut self, id: BlockId, owed: u64, lines: u64) {
        for of in self.targets.iter_mut().filter(|of| owed & bit(of.slot) != 0) {
            if of.waiting.insert(id, lines).is_none() {
                of.waiting_lines += lines;
            }
        }
    }

    /// What is older is gone.
    pub fn seal_before(&mut self, floor: UnixSeconds) {
        let first = BlockId { window: floor, rule: 0 };
        for of in &mut self.targets {
            let kept = of.waiting.split_off(&first);
            let gone: u64 = std::mem::replace(&mut of.waiting, kept).values().sum();
            of.waiting_lines = of.waiting_lines.saturating_sub(gone);
            of.expired_lines += gone;
            of.latest = of.latest.split_off(&first);
            of.resume.take_if(|(at, _)| *at < first);
        }
        self.changed = self.changed.split_off(&first);
    }

    /// Whether any index entry is to be written anew.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Blocks whose index entry is to be written anew. In order.
    pub fn take_changed(&mut self) -> BTreeSet<BlockId> {
        std::mem::take(&mut self.changed)
    }

    /// What waits for a target.
    pub fn waiting(&self, target: usize) -> Waiting {
        let Some(of) = self.targets.get(target) else { return Waiting::default() };
        Waiting {
            blocks: of.waiting.len() as u64,
            lines: of.waiting_lines,
            oldest: of.waiting.first_key_value().map(|(id, _)| id.window),
            newest: of.waiting.last_key_value().map(|(id, _)| id.window),
            expired_lines: of.expired_lines,
        }
    }

    /// Memory held, in bytes, about.
    pub fn bytes(&self) -> usize {
        let entries = |of: &Target| (of.waiting.len() + of.latest.len()) * 32 + of.handed.len() * 16;
        self.targets.iter().map(entries).sum::<usize>() + self.changed.len() * 16
    }
}

fn bit(slot: usize) -> u64 {
    1 << slot.min(SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(window: u32) -> BlockId {
        BlockId { window: UnixSeconds(window), rule: 0 }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn two() -> Cursor {
        Cursor::new(&names(&["a", "b"]), Vec::new())
    }

    #[test]
    fn a_block_is_owed_until_its_last_copy_is_released() {
        let mut cursor = two();
        cursor.handed(0, id(10), 1);
        cursor.handed(1, id(10), 1);
        cursor.handed(0, id(10), 3); // corrected meanwhile
        assert_eq!(cursor.owed(id(10)), 0b11);
        cursor.released(0, 2);
        cursor.released(1, 1);
        assert_eq!(cursor.owed(id(10)), 0b01);
        cursor.released(0, 3);
        assert_eq!(cursor.owed(id(10)), 0);
        assert_eq!(cursor.take_changed(), BTreeSet::from([id(10)]));
    }

    #[test]
    fn what_waits_goes_newest_first_and_a_block_begun_is_finished() {
        let mut cursor = two();
        (1..=3).for_each(|n| cursor.wait(0, id(n * 10), 5));
        assert_eq!(cursor.newest(0), Some((id(30), 0)));
        cursor.resume_at(0, id(30), 2048);
        cursor.wait(0, id(40), 5);
        assert_eq!(cursor.newest(0), Some((id(30), 2048)));
        cursor.done(0, id(30));
        assert_eq!(cursor.newest(0), Some((id(40), 0)));
        let waiting = cursor.waiting(0);
        assert_eq!((waiting.blocks, waiting.lines), (3, 15));
        assert_eq!((waiting.oldest, waiting.newest), (Some(UnixSeconds(10)), Some(UnixSeconds(40))));
        cursor.seal_before(UnixSeconds(20));
        assert_eq!((cursor.waiting(0).lines, cursor.waiting(0).expired_lines), (10, 5));
    }

    #[test]
    fn a_block_that_waits_again_while_it_is_emitted_begins_anew() {
        let mut cursor = two();
        cursor.wait(0, id(10), 5);
        cursor.resume_at(0, id(10), 100);
        cursor.wait(0, id(10), 5);
        assert_eq!(cursor.newest(0), Some((id(10), 0)));
    }

    #[test]
    fn slots_keep_their_numbers_when_the_list_of_stores_changes() {
        let mut cursor = Cursor::new(&names(&["c", "b"]), names(&["a", "b"]));
        assert_eq!(cursor.slots(), names(&["a", "b", "c"]));
        cursor.restore(id(10), 0b011, 7);
        assert_eq!((cursor.newest(0), cursor.newest(1)), (None, Some((id(10), 0))), "a is gone, c owes nothing");
        assert_eq!(cursor.owed(id(10)), 0b010);
    }
}
