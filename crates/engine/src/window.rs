//! The window state of one partition at a final node: what was merged, what must be emitted, what is past the horizon.
//!
//! State is kept in blocks, one for each rule and window. Nothing here decides what may be merged (the final node's
//! ledger of included batches does) or when it is durable: **call [`Windows::take_emissions`] only for state whose log
//! record is on disk.**
//!
//! * A block is first emitted when the watermark has reached its window's end, or `grace` seconds after that end at the
//!   latest. After that, a key that changes is emitted again with all its functions (stores overwrite), at most every
//!   five seconds for each block, newest windows first.
//! * The floor ([`Windows::sealed_before`]) only rises. What is older is refused, never merged and never emitted: a
//!   value of only some of its points would overwrite a good one.
//! * Blocks whose snapshot is up to date can leave memory ([`Windows::evict`]) and come back when late data, or an
//!   emission, needs them; this keeps a horizon of a day within a memory budget. What is known of an absent block is its
//!   [`Rest`]. Merging into it is refused until it was restored.
//! * A block whose snapshot was damaged is lost, and said to be. If it was emitted, nothing is merged into it again.
//! * After a crash, blocks come back with [`Windows::restore`] as they were encoded, with what was still to be emitted.
//!
//! Timestamps of emitted lines are the start of the window. Blocks are visited in the order of window and rule, keys in
//! the order in which they first met the block, so equal input gives equal output.

mod block;
mod emit;
mod names;
mod rest;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::partial::Partial;
use crate::rule::RuleId;
use crate::sketch::DecodeError;
use crate::time::UnixSeconds;

use block::Block;
use names::Names;

/// Memory of an absent block: identity, rest, and their share of a tree's node.
const ABSENT_BYTES: usize = 56;

pub use emit::{Again, Due, Emission, Emitted};
pub use rest::Rest;

/// One rule's keys in one window. Ordered by time, then by rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The window's start.
    pub window: UnixSeconds,
    pub rule: RuleId,
}

/// What became of a partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// `corrected`: the key's values for this window were emitted before and will be emitted again.
    Applied { corrected: bool },
    /// Past the horizon; nothing changed. The points belong to the dead letters.
    TooOld,
    /// The block is not in memory; nothing changed. Restore it, then merge again.
    Absent,
    /// The block was damaged after it had been emitted; nothing changed. A value of only its later points would
    /// overwrite a good one.
    Lost,
}

/// What left with [`Windows::seal_before`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The blocks that are gone, also those that were not in memory: their snapshots can be deleted.
    pub blocks: Vec<BlockId>,
    /// The points in them.
    pub points: u64,
    /// Keys whose latest values were never emitted. Not zero means that emission is further behind than the horizon.
    pub unemitted: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Windows {
    blocks: BTreeMap<BlockId, Block>,
    /// Blocks that only a snapshot holds.
    absent: BTreeMap<BlockId, Rest>,
    /// Blocks that [`Windows::take_emissions`] has to look at, in memory or not.
    pending: BTreeSet<BlockId>,
    /// Absent blocks that are due.
    wanted: BTreeSet<BlockId>,
    /// Blocks that were damaged after they had been emitted.
    lost: BTreeSet<BlockId>,
    /// Blocks that differ from their snapshot.
    changed: BTreeSet<BlockId>,
    /// Blocks whose damaged snapshot is to be taken out of the store, or they would be lost again at every start.
    gone: BTreeSet<BlockId>,
    names: Names,
    sealed_before: UnixSeconds,
    corrections: u64,
}

impl Windows {
    /// No windows yet. `sealed_before`: the persisted floor, zero at the first start.
    pub fn new(sealed_before: UnixSeconds) -> Windows {
        Windows {
            blocks: BTreeMap::new(),
            absent: BTreeMap::new(),
            pending: BTreeSet::new(),
            wanted: BTreeSet::new(),
            lost: BTreeSet::new(),
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            names: Names::default(),
            sealed_before,
            corrections: 0,
        }
    }

    /// Merges one partial. `window`: the start. `name`: of the `OutputKey`.
    pub fn merge(&mut self, rule: RuleId, name: &[u8], window: UnixSeconds, partial: Partial) -> Merged {
        let id = BlockId { window, rule };
        let is_late = mutant!("late_dropped") && self.blocks.get(&id).is_some_and(Block::is_at_rest);
        if window < self.sealed_before || is_late {
            return Merged::TooOld;
        }
        if self.absent.contains_key(&id) {
            return Merged::Absent;
        }
        if self.lost.contains(&id) {
            return Merged::Lost;
        }
        let block = self.blocks.entry(id).or_default();
        let corrected = block.merge(&mut self.names, name, partial);
        if corrected && mutant!("corrections_not_emitted") {
            return Merged::Applied { corrected };
        }
        self.pending.insert(id);
        self.changed.insert(id);
        Merged::Applied { corrected }
    }

    /// Windows that start before this are refused.
    pub fn sealed_before(&self) -> UnixSeconds {
        self.sealed_before
    }

    /// Raises the floor and drops the windows below it. A floor below the present one changes nothing.
    ///
    /// The caller persists the floor no later than it deletes the snapshots of the blocks.
    pub fn seal_before(&mut self, floor: UnixSeconds) -> Sealed {
        if floor <= self.sealed_before {
            return Sealed::default();
        }
        self.sealed_before = floor;
        let mut sealed = Sealed::default();
        let first_kept = BlockId { window: floor, rule: 0 };
        let kept = self.blocks.split_off(&first_kept);
        for (id, block) in std::mem::replace(&mut self.blocks, kept) {
            sealed.blocks.push(id);
            sealed.points = sealed.points.saturating_add(block.points());
            sealed.unemitted += block.dirty_keys();
            block.release(&mut self.names);
        }
        let kept = self.absent.split_off(&first_kept);
        for (id, rest) in std::mem::replace(&mut self.absent, kept) {
            sealed.blocks.push(id);
            sealed.points = sealed.points.saturating_add(rest.points);
            sealed.unemitted += if rest.dirty { u64::from(rest.keys) } else { 0 };
        }
        self.pending = self.pending.split_off(&first_kept);
        self.wanted = self.wanted.split_off(&first_kept);
        self.lost = self.lost.split_off(&first_kept);
        self.changed = self.changed.split_off(&first_kept);
        self.gone = self.gone.split_off(&first_kept);
        sealed.blocks.sort_unstable();
        sealed
    }

    /// Whether any block changed since [`Windows::take_changed`], or was lost since [`Windows::take_gone`].
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// Blocks that were lost since the last call, for a checkpoint to take out of the store. In order.
    pub fn take_gone(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.gone).into_iter().collect()
    }

    /// Blocks that changed since the last call, for a checkpoint to encode. In order.
    pub fn take_changed(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// Says that the store has lost all snapshots: those of the blocks in memory are to be written again.
    pub fn mark_all_changed(&mut self) {
        self.changed.extend(self.blocks.keys());
    }

    /// Says that a block's snapshot was not written after all: the next [`Windows::take_changed`] has it again.
    pub fn mark_changed(&mut self, id: BlockId) {
        if self.blocks.contains_key(&id) {
            self.changed.insert(id);
        }
    }

    /// Appends the snapshot of one block, drawn in `window::block`, and says what is in it; `None` and nothing when it is
    /// not in memory. `as_of`: records of the log below this number are in it.
    pub fn encode_block(&mut self, id: BlockId, as_of: u64, out: &mut Vec<u8>) -> Option<Rest> {
        let block = self.blocks.get_mut(&id)?;
        block.as_of = as_of;
        let start = out.len();
        block.encode(&self.names, out);
        block.crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        Some(block.rest())
    }

    /// What the latest snapshot of a block holds, if the block has not changed since.
    pub fn rest(&self, id: BlockId) -> Option<Rest> {
        if self.changed.contains(&id) {
            return None;
        }
        self.blocks.get(&id).map(Block::rest).or_else(|| self.absent.get(&id).copied())
    }

    /// Records of the log below this number are in a block already, as its snapshot says; 0 if there is none.
    pub fn as_of(&self, id: BlockId) -> u64 {
        let absent = || self.absent.get(&id).map(|rest| rest.as_of);
        self.blocks.get(&id).map(|block| block.as_of).or_else(absent).unwrap_or(0)
    }

    /// The highest [`Windows::as_of`] of all blocks.
    pub fn newest_record(&self) -> u64 {
        let live = self.blocks.values().map(|block| block.as_of);
        live.chain(self.absent.values().map(|rest| rest.as_of)).max().unwrap_or(0)
    }

    /// Keys of a block, in memory or not; 0 if there is none.
    pub fn keys(&self, id: BlockId) -> u32 {
        self.blocks.get(&id).map(Block::keys).or_else(|| self.absent.get(&id).map(|rest| rest.keys)).unwrap_or(0)
    }

    /// Brings back a block from its snapshot. It must not be in memory; if it is, or if it is below the floor, nothing
    /// happens.
    ///
    /// # Errors
    /// When the bytes are no snapshot of a block, or not the one that its [`Rest`] speaks of. Nothing has changed then.
    pub fn restore(&mut self, id: BlockId, bytes: &[u8]) -> Result<(), DecodeError> {
        if id.window < self.sealed_before || self.blocks.contains_key(&id) {
            return Ok(());
        }
        let crc = crc32c::crc32c(bytes);
        if self.absent.get(&id).is_some_and(|rest| rest.crc != crc) {
            return Err(DecodeError::Malformed("another snapshot than the one that was written last"));
        }
        let mut block = Block::decode(&mut self.names, bytes)?;
        block.crc = crc;
        if !block.is_at_rest() && !mutant!("restored_is_clean") {
            self.pending.insert(id);
        }
        self.absent.remove(&id);
        self.wanted.remove(&id);
        self.blocks.insert(id, block);
        Ok(())
    }

    /// Says that the snapshot of an absent block cannot be read. Returns the points in it; zero if it is not absent.
    pub fn lose(&mut self, id: BlockId) -> u64 {
        let Some(rest) = self.absent.remove(&id) else { return 0 };
        self.gone.insert(id);
        self.pending.remove(&id);
        self.wanted.remove(&id);
        if rest.emitted {
            self.lost.insert(id);
        }
        rest.points
    }

    /// The blocks that were damaged after they had been emitted.
    pub fn lost(&self) -> impl Iterator<Item = BlockId> {
        self.lost.iter().copied()
    }

    /// Says at a start that a block was damaged in a former life.
    pub fn set_lost(&mut self, id: BlockId) {
        if id.window >= self.sealed_before {
            self.lost.insert(id);
        }
    }

    /// Takes a block out of memory, if its snapshot is up to date. `false`: it stays.
    pub fn evict(&mut self, id: BlockId) -> bool {
        if self.changed.contains(&id) {
            return false;
        }
        let Some(block) = self.blocks.remove(&id) else { return false };
        self.absent.insert(id, block.rest());
        block.release(&mut self.names);
        true
    }

    /// The oldest blocks that [`Windows::evict`] would take, at most `limit`; `all`: also those that are to be emitted
    /// yet, behind the others.
    pub fn evictable(&self, limit: usize, all: bool) -> Vec<BlockId> {
        let written = || self.blocks.keys().filter(|id| !self.changed.contains(id));
        let at_rest = written().filter(|id| !self.pending.contains(id));
        let pending = written().filter(|id| all && self.pending.contains(id));
        at_rest.chain(pending).take(limit).copied().collect()
    }

    /// Absent blocks that have to be restored before they can be emitted; each is named until it is.
    pub fn wanted(&self) -> impl Iterator<Item = BlockId> {
        self.wanted.iter().copied()
    }

    /// The start of the oldest window, in memory or not.
    pub fn oldest(&self) -> Option<UnixSeconds> {
        let live = self.blocks.keys().next().map(|id| id.window);
        let absent = self.absent.keys().next().map(|id| id.window);
        [live, absent].into_iter().flatten().min()
    }

    /// Whether a block is left on disk: it must be restored before anything is merged into it.
    pub fn is_absent(&self, id: BlockId) -> bool {
        self.absent.contains_key(&id)
    }

    /// Whether any block is left on disk.
    pub fn has_absent(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Says at a start that a snapshot of a block exists which is left on disk.
    pub fn set_absent(&mut self, id: BlockId, rest: Rest) {
        if id.window >= self.sealed_before && !self.blocks.contains_key(&id) {
            self.absent.insert(id, rest);
            if !rest.is_at_rest() && !mutant!("restored_is_clean") {
                self.pending.insert(id);
            }
        }
    }

    /// Points in all blocks, in memory or not.
    pub fn points(&self) -> u64 {
        let live: u64 = self.blocks.values().map(Block::points).sum();
        live + self.absent.values().map(|rest| rest.points).sum::<u64>()
    }

    /// How many keys were emitted again because their values had changed, since the start of the process.
    pub fn corrections(&self) -> u64 {
        self.corrections
    }

    /// Blocks in memory.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.absent.is_empty()
    }

    /// The merged partial of one key, if its block is in memory.
    pub fn get(&self, id: BlockId, name: &[u8]) -> Option<&Partial> {
        self.blocks.get(&id)?.get(&self.names, name)
    }

    /// Memory held, in bytes, about. Takes time in proportion to the keys in memory when their rules have components
    /// on the heap: for once a checkpoint.
    pub fn bytes(&self) -> usize {
        self.names.bytes() + self.blocks.values().map(Block::bytes).sum::<usize>() + self.absent.len() * ABSENT_BYTES
    }
}

/// What the snapshot of a block holds, without restoring it.
///
/// # Errors
/// When the bytes are no snapshot of a block.
pub fn snapshot_rest(bytes: &[u8]) -> Result<Rest, DecodeError> {
    block::snapshot_rest(bytes)
}
