//! What the simulator knows of raw lines: who took which, which store has read it, what of it is on a disk. The value of a line
//! is its number here, so that no two are the same.

use std::collections::{BTreeMap, BTreeSet};

use engine::spill::{Content, Header, Why};

use crate::setup::NodeId;

/// Stores in any run.
const STORES_MAX: usize = 2;

/// Name and timestamp.
pub type Key = (Vec<u8>, u32);

/// Of a line and a store, what its relay has to answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// The relay has it in memory, and perhaps on disk.
    Held,
    /// The relay let it go, because the store has read it or will.
    LetGo,
    /// Only the relay's disk has it.
    OnDisk,
    /// It was counted as dropped, or died with its relay or disk: it may be there or not.
    Doubtful,
}

#[derive(Clone, Debug)]
struct Line {
    node: NodeId,
    key: Key,
    to: Vec<usize>,
}

/// A block in a relay's spill, by what its record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    pub node: NodeId,
    pub epoch: u32,
    pub store: usize,
    pub is_journal: bool,
    pub number: u64,
}

impl Kept {
    /// The block that a record is of, if it is of one.
    pub fn of(header: &Header<'_>, node: NodeId, store: Option<usize>) -> Option<Kept> {
        let Content::Block { epoch, number } = header.content else { return None };
        Some(Kept { node, epoch, store: store?, is_journal: header.why == Why::Journal, number })
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Lines {
    all: Vec<Line>,
    owed: BTreeMap<(u64, usize), Owed>,
    read: BTreeSet<(u64, usize)>,
    on_disk: BTreeSet<(u64, usize)>,
    blocks: BTreeMap<Kept, Vec<u64>>,
    /// Of which relay and store a later write may not be the last one: hazard 9, or something was lost on the way.
    unordered: BTreeSet<(NodeId, usize)>,
    /// Stores of which somebody thinks that they give no receipts: released is not read.
    pub unsupported: BTreeSet<usize>,
}

impl Lines {
    /// A relay took a line. Gives its number, which is its value.
    pub fn accepted(&mut self, node: NodeId, key: Key, to: &[usize]) -> u64 {
        let id = self.all.len() as u64;
        self.all.push(Line { node, key, to: to.to_vec() });
        self.owed.extend(to.iter().map(|store| ((id, *store), Owed::Held)));
        id
    }

    /// A store has read a line. False: nobody sent it there.
    pub fn read(&mut self, store: usize, key: &Key, value: &str) -> bool {
        let Ok(id) = value.parse::<u64>() else { return false };
        let line = usize::try_from(id).ok().and_then(|at| self.all.get(at));
        self.read.insert((id, store));
        line.is_some_and(|line| line.key == *key && line.to.contains(&store))
    }

    /// The spill has a block in hand.
    pub fn taken(&mut self, kept: Kept, lines: &[u8]) {
        let value = |line: &[u8]| String::from_utf8_lossy(line).split(' ').nth(1).and_then(|text| text.parse().ok());
        let ids = lines.split(|byte| *byte == b'\n').filter_map(value).collect();
        self.blocks.insert(kept, ids);
    }

    /// The spill has a block, synced.
    pub fn on_disk(&mut self, kept: Kept) {
        let ids = self.blocks.get(&kept).cloned().unwrap_or_default();
        self.on_disk.extend(ids.into_iter().map(|id| (id, kept.store)));
    }

    /// Lines of this relay may reach this store in another order than they were sent in.
    pub fn order_is_lost(&mut self, node: NodeId, store: usize) {
        self.unordered.insert((node, store));
    }

    /// A sender will never send these again. How many are neither read nor on disk; `unsupported`: it has no receipts, so
    /// that they may still be on their way.
    pub fn let_go(&mut self, ids: &[u64], store: usize, unsupported: bool) -> u64 {
        let mut nowhere = 0;
        for id in ids {
            let at = (*id, store);
            let now = if self.on_disk.contains(&at) {
                Owed::OnDisk
            } else if self.read.contains(&at) || unsupported {
                Owed::LetGo
            } else {
                nowhere += 1;
                Owed::Doubtful
            };
            self.set(at, now);
        }
        nowhere
    }

    /// What is in doubt stays so.
    fn set(&mut self, at: (u64, usize), now: Owed) {
        if let Some(owed) = self.owed.get_mut(&at).filter(|owed| **owed != Owed::Doubtful) {
            *owed = now;
        }
    }

    /// A relay's process is gone, and what only its memory had.
    pub fn relay_died(&mut self, node: NodeId) {
        for ((id, store), owed) in &mut self.owed {
            let line = usize::try_from(*id).ok().and_then(|at| self.all.get(at));
            if *owed == Owed::Held && line.is_some_and(|line| line.node == node) {
                let on_disk = self.on_disk.contains(&(*id, *store));
                *owed = if on_disk { Owed::OnDisk } else { Owed::Doubtful };
            }
        }
        self.is_copied(node);
    }

    /// A spill of this relay may come by another way, and later, than what it sends.
    pub fn is_copied(&mut self, node: NodeId) {
        self.unordered.extend((0..STORES_MAX).map(|store| (node, store)));
    }

    /// A relay's disk is gone, or an older one is back.
    pub fn disk_died(&mut self, node: NodeId) {
        for ((id, _), owed) in &mut self.owed {
            let line = usize::try_from(*id).ok().and_then(|at| self.all.get(at));
            if matches!(owed, Owed::Held | Owed::OnDisk) && line.is_some_and(|line| line.node == node) {
                *owed = Owed::Doubtful;
            }
        }
    }

    /// A record cannot be read any more, or is dropped and counted.
    pub fn record_lost(&mut self, kept: Kept) {
        for id in self.blocks.get(&kept).cloned().unwrap_or_default() {
            self.set((id, kept.store), Owed::Doubtful);
        }
    }

    /// INV-2: what is settled as delivered, its store has read. Gives one that it has not.
    pub fn settled(&mut self, kept: Kept) -> Option<u64> {
        let ids = self.blocks.get(&kept).cloned().unwrap_or_default();
        if self.unsupported.contains(&kept.store) {
            return None;
        }
        ids.into_iter().find(|id| !self.read.contains(&(*id, kept.store)))
    }

    /// INV-4 in the end: every store has read what it is owed, and the last write is the last where that was promised.
    pub fn missing(&self, store: usize, values: &BTreeMap<Key, String>) -> Option<String> {
        for ((id, to), owed) in self.owed.iter().filter(|((_, to), _)| *to == store) {
            if *owed != Owed::Doubtful && !self.read.contains(&(*id, *to)) {
                return Some(format!("line {id} was never read, {owed:?} at its relay"));
            }
        }
        let mut last: BTreeMap<&Key, (u64, &Line)> = BTreeMap::new();
        for (id, line) in (0..).zip(&self.all).filter(|(_, line)| line.to.contains(&store)) {
            last.insert(&line.key, (id, line));
        }
        for (key, (id, line)) in last {
            let found = values.get(key).map(String::as_str);
            let is_promised = !self.unordered.contains(&(line.node, store));
            if is_promised && found != Some(id.to_string().as_str()) {
                return Some(format!("the last write of {key:?} is {id}, and {found:?} is there"));
            }
        }
        None
    }
}
