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
//! * Blocks that are at rest can leave memory ([`Windows::evict`]) and come back when late data needs them; this keeps
//!   a horizon of a day within a memory budget. Merging into an absent block is refused until it was restored.
//! * After a crash, blocks come back with [`Windows::restore`] as they were encoded, with what was still to be emitted.
//!
//! Timestamps of emitted lines are the start of the window. Blocks are visited in the order of window and rule, keys in
//! the order in which they first met the block, so equal input gives equal output.

mod block;
mod emit;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::partial::Partial;
use crate::sketch::DecodeError;
use crate::time::UnixSeconds;

use block::Block;
use names::Names;

pub use emit::{Due, Emission, Emitted};

/// One rule's keys in one window. Ordered by time, then by rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The window's start.
    pub window: UnixSeconds,
    pub rule: u16,
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
    /// Blocks that only a snapshot holds, and their points.
    absent: BTreeMap<BlockId, u64>,
    /// Blocks that [`Windows::take_emissions`] has to look at.
    pending: BTreeSet<BlockId>,
    /// Blocks that differ from their snapshot.
    changed: BTreeSet<BlockId>,
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
            changed: BTreeSet::new(),
            names: Names::default(),
            sealed_before,
            corrections: 0,
        }
    }

    /// Merges one partial. `window`: the start. `name`: of the `OutputKey`.
    pub fn merge(&mut self, rule: u16, name: &[u8], window: UnixSeconds, partial: Partial) -> Merged {
        let id = BlockId { window, rule };
        if window < self.sealed_before {
            return Merged::TooOld;
        }
        if self.absent.contains_key(&id) {
            return Merged::Absent;
        }
        let block = self.blocks.entry(id).or_default();
        let corrected = block.merge(&mut self.names, name, partial);
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
        for (id, points) in std::mem::replace(&mut self.absent, kept) {
            sealed.blocks.push(id);
            sealed.points = sealed.points.saturating_add(points);
        }
        self.pending = self.pending.split_off(&first_kept);
        self.changed = self.changed.split_off(&first_kept);
        sealed.blocks.sort_unstable();
        sealed
    }

    /// Blocks that changed since the last call, for a checkpoint to encode. In order.
    pub fn take_changed(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// Says that a block's snapshot was not written after all: the next [`Windows::take_changed`] has it again.
    pub fn mark_changed(&mut self, id: BlockId) {
        if self.blocks.contains_key(&id) {
            self.changed.insert(id);
        }
    }

    /// Appends the snapshot of one block, drawn in `window::block`; `false` and nothing when it is not in memory.
    pub fn encode_block(&self, id: BlockId, out: &mut Vec<u8>) -> bool {
        let block = self.blocks.get(&id);
        if let Some(block) = block {
            block.encode(&self.names, out);
        }
        block.is_some()
    }

    /// Brings back a block from its snapshot. It must not be in memory; if it is, or if it is below the floor, nothing
    /// happens.
    ///
    /// # Errors
    /// When the bytes are no snapshot of a block. Nothing has changed then.
    pub fn restore(&mut self, id: BlockId, bytes: &[u8]) -> Result<(), DecodeError> {
        if id.window < self.sealed_before || self.blocks.contains_key(&id) {
            return Ok(());
        }
        let block = Block::decode(&mut self.names, bytes)?;
        if !block.is_at_rest() {
            self.pending.insert(id);
        }
        self.absent.remove(&id);
        self.blocks.insert(id, block);
        Ok(())
    }

    /// Takes a block out of memory, if its snapshot is up to date and it has nothing to emit. `false`: it stays.
    pub fn evict(&mut self, id: BlockId) -> bool {
        if self.changed.contains(&id) || self.pending.contains(&id) {
            return false;
        }
        let Some(block) = self.blocks.remove(&id) else { return false };
        self.absent.insert(id, block.points());
        block.release(&mut self.names);
        true
    }

    /// The oldest blocks that [`Windows::evict`] would take, at most `limit`.
    pub fn at_rest(&self, limit: usize) -> Vec<BlockId> {
        let rests = |id: &&BlockId| !self.changed.contains(id) && !self.pending.contains(id);
        self.blocks.keys().filter(rests).take(limit).copied().collect()
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

    /// Says at a start that a snapshot of a block exists which is left on disk. `points`: those in it
    /// ([`snapshot_points`]).
    pub fn set_absent(&mut self, id: BlockId, points: u64) {
        if id.window >= self.sealed_before && !self.blocks.contains_key(&id) {
            self.absent.insert(id, points);
        }
    }

    /// Has every key of the blocks in memory whose window starts in `from..until` emitted once more, for a store that
    /// may have lost them. Those count as no corrections. Returns how many keys that is.
    pub fn reassert(&mut self, from: UnixSeconds, until: UnixSeconds) -> u64 {
        let range = BlockId { window: from, rule: 0 }..BlockId { window: until.max(from), rule: 0 };
        let mut keys = 0;
        for (id, block) in self.blocks.range_mut(range) {
            keys += block.mark_emitted_dirty();
            self.pending.insert(*id);
            self.changed.insert(*id);
        }
        keys
    }

    /// Carries the state over to new rules. `numbers`: for each old rule its new number
    /// (`RuleSet::renumbering`). Blocks of a rule that is gone are dropped and returned like sealed ones. All kept
    /// blocks whose number changed are marked changed; all returned and all renumbered snapshots must be replaced in
    /// one write. Every block must be in memory or its number unchanged: an absent block that would change its number
    /// is returned in the second list and left as it was, and then nothing else happened either.
    ///
    /// # Errors
    /// The absent blocks that must be restored first.
    pub fn renumber(&mut self, numbers: &[Option<u16>]) -> Result<Sealed, Vec<BlockId>> {
        let number = |rule: u16| numbers.get(usize::from(rule)).copied().flatten();
        let stuck: Vec<BlockId> =
            self.absent.keys().filter(|id| number(id.rule).is_some_and(|new| new != id.rule)).copied().collect();
        if !stuck.is_empty() {
            return Err(stuck);
        }
        let mut gone = Sealed::default();
        let moved = |set: &BTreeSet<BlockId>| -> BTreeSet<BlockId> {
            set.iter().filter_map(|id| Some(BlockId { window: id.window, rule: number(id.rule)? })).collect()
        };
        (self.pending, self.changed) = (moved(&self.pending), moved(&self.changed));
        for (id, block) in std::mem::take(&mut self.blocks) {
            match number(id.rule) {
                Some(rule) => {
                    let new = BlockId { window: id.window, rule };
                    if new != id {
                        self.changed.insert(new);
                    }
                    self.blocks.insert(new, block);
                }
                None => {
                    gone.blocks.push(id);
                    gone.points = gone.points.saturating_add(block.points());
                    gone.unemitted += block.dirty_keys();
                    block.release(&mut self.names);
                }
            }
        }
        let absent = std::mem::take(&mut self.absent);
        for (id, points) in absent {
            if number(id.rule).is_some() {
                self.absent.insert(id, points);
            } else {
                gone.blocks.push(id);
                gone.points = gone.points.saturating_add(points);
            }
        }
        Ok(gone)
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
        self.names.bytes() + self.blocks.values().map(Block::bytes).sum::<usize>() + self.absent.len() * 24
    }
}

/// The points in the snapshot of a block, without restoring it.
///
/// # Errors
/// When the bytes are no snapshot of a block.
pub fn snapshot_points(bytes: &[u8]) -> Result<u64, DecodeError> {
    block::snapshot_points(bytes)
}
