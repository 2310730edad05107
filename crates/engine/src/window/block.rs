//! The keys of one rule in one window.
//!
//! Snapshot, version 1:
//!
//! ```text
//! version  u8 = 1
//! as_of    varint records of the log below this number are in it
//! phase    u8     0 not emitted yet, 1 emitted, 2 emitted and known to be complete
//! points   varint
//! keys     varint
//!   shared varint, rest length varint, rest       the name, as in `deltas`
//!   flags  u8     bit 0 emitted once, bit 1 to be emitted, bit 2 changed since it was emitted
//!   state  see `partial`
//! ```
//!
//! Keys stand in the order in which they first met the block; nothing may follow the last.

use hashbrown::HashTable;

use super::names::Names;
use super::rest::Rest;
use crate::deltas::{NameReader, put_name};
use crate::partial::Partial;
use crate::sketch::codec::{DecodeError, Reader, put_varint};
use crate::time::Mono;

const VERSION: u8 = 1;
/// The key's values were emitted at least once.
const EMITTED: u8 = 1;
/// The key is in `dirty`.
const DIRTY: u8 = 2;
/// The key's values differ from those emitted last.
const CHANGED: u8 = 4;
const FLAGS: u8 = EMITTED | DIRTY | CHANGED;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Open,
    /// `next_at`: not before this may changed keys be emitted. `complete`: the watermark had passed when the keys were
    /// emitted last.
    Emitted { next_at: Mono, complete: bool },
}

#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) phase: Phase,
    entries: Vec<Entry>,
    /// Entries by key. Keys are small numbers, unique in the block.
    index: HashTable<u32>,
    /// Entries to be emitted, oldest change first.
    dirty: Vec<u32>,
    points: u64,
    /// Of the latest snapshot: records of the log below this number are in it, and its CRC32C.
    pub(super) as_of: u64,
    pub(super) crc: u32,
}

/// 56 bytes.
#[derive(Debug)]
struct Entry {
    name: u32,
    flags: u8,
    partial: Partial,
}

/// A key that is being emitted.
pub(super) struct Taken<'b> {
    pub(super) name: u32,
    pub(super) partial: &'b Partial,
    pub(super) correction: bool,
}

impl Block {
    /// Whether a correction of emitted values will follow.
    pub(super) fn merge(&mut self, names: &mut Names, name: &[u8], partial: Partial) -> bool {
        self.points = self.points.saturating_add(partial.points());
        let found = names.find(name).and_then(|key| self.find(key));
        let at = match found {
            Some(at) => {
                self.entries[at as usize].partial.merge(&partial);
                at
            }
            None => self.insert(names.acquire(name), 0, partial),
        };
        let entry = &mut self.entries[at as usize];
        if entry.flags & DIRTY == 0 {
            self.dirty.push(at);
        }
        entry.flags |= DIRTY | CHANGED;
        entry.flags & EMITTED != 0
    }

    pub(super) fn get(&self, names: &Names, name: &[u8]) -> Option<&Partial> {
        self.find(names.find(name)?).map(|at| &self.entries[at as usize].partial)
    }

    pub(super) fn points(&self) -> u64 {
        self.points
    }

    pub(super) fn keys(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// As the latest snapshot has it, if nothing has changed since.
    pub(super) fn rest(&self) -> Rest {
        Rest {
            points: self.points,
            keys: self.keys(),
            emitted: self.phase != Phase::Open,
            complete: matches!(self.phase, Phase::Emitted { complete: true, .. }),
            dirty: !self.dirty.is_empty(),
            as_of: self.as_of,
            crc: self.crc,
        }
    }

    /// The keys from `from` on, at most `limit`, as they are now.
    pub(super) fn entries(&self, from: usize, limit: usize) -> impl Iterator<Item = Taken<'_>> {
        let entries = self.entries.iter().skip(from).take(limit);
        entries.map(|entry| Taken { name: entry.name, partial: &entry.partial, correction: false })
    }

    pub(super) fn dirty_keys(&self) -> u64 {
        self.dirty.len() as u64
    }

    /// Whether there is nothing to emit and nothing to wait for, so far as the block itself knows.
    pub(super) fn is_at_rest(&self) -> bool {
        match self.phase {
            Phase::Open | Phase::Emitted { complete: false, .. } => false,
            Phase::Emitted { complete: true, .. } => self.dirty.is_empty(),
        }
    }

    /// Marks everything that was emitted to be emitted again, and says how many keys that are.
    pub(super) fn mark_emitted_dirty(&mut self) -> u64 {
        let mut marked = 0;
        for (at, entry) in (0u32..).zip(&mut self.entries) {
            if entry.flags & EMITTED == 0 {
                continue;
            }
            marked += 1;
            if entry.flags & DIRTY == 0 {
                entry.flags |= DIRTY;
                self.dirty.push(at);
            }
        }
        marked
    }

    /// Takes up to `limit` keys to emit, oldest change first. The caller emits all of them.
    pub(super) fn take_dirty(&mut self, limit: usize, mut visit: impl FnMut(Taken<'_>)) -> usize {
        let count = limit.min(self.dirty.len());
        for at in self.dirty.drain(..count) {
            let entry = &mut self.entries[at as usize];
            let correction = entry.flags & (EMITTED | CHANGED) == EMITTED | CHANGED;
            entry.flags = EMITTED;
            visit(Taken { name: entry.name, partial: &entry.partial, correction });
        }
        if self.dirty.is_empty() {
            self.dirty = Vec::new();
        }
        count
    }

    /// Gives the names back; the block is dropped.
    pub(super) fn release(self, names: &mut Names) {
        for entry in self.entries {
            names.release(entry.name);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let components: usize = self.entries.iter().map(|entry| entry.partial.heap_bytes()).sum();
        size_of::<Block>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.index.capacity() * (size_of::<u32>() + 1)
            + self.dirty.capacity() * size_of::<u32>()
            + components
    }

    pub(super) fn encode(&self, names: &Names, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.as_of);
        out.push(match self.phase {
            Phase::Open => 0,
            Phase::Emitted { complete: false, .. } => 1,
            Phase::Emitted { complete: true, .. } => 2,
        });
        put_varint(out, self.points);
        put_varint(out, self.entries.len() as u64);
        let mut previous: &[u8] = &[];
        for entry in &self.entries {
            let name = names.get(entry.name);
            put_name(out, previous, name);
            out.push(entry.flags);
            entry.partial.encode(out);
            previous = name;
        }
    }

    /// Reads a snapshot; takes names only if all of it is good.
    pub(super) fn decode(names: &mut Names, bytes: &[u8]) -> Result<Block, DecodeError> {
        let mut keys: Vec<(Box<[u8]>, u8, Partial)> = Vec::new();
        let head = read(bytes, |name, flags, partial| keys.push((name.into(), flags, partial)))?;
        let mut block = Block { phase: head.phase, points: head.points, as_of: head.as_of, ..Block::default() };
        for (name, flags, partial) in keys {
            let key = names.acquire(&name);
            if let Some(at) = block.find(key) {
                // A name that stands twice is no snapshot of ours; its points still count once each.
                names.release(key);
                block.entries[at as usize].partial.merge(&partial);
                continue;
            }
            let at = block.insert(key, flags, partial);
            if flags & DIRTY != 0 {
                block.dirty.push(at);
            }
        }
        Ok(block)
    }

    fn find(&self, name: u32) -> Option<u32> {
        self.index.find(hash_of(name), |at| self.entries[*at as usize].name == name).copied()
    }

    fn insert(&mut self, name: u32, flags: u8, partial: Partial) -> u32 {
        // An entry takes 56 bytes: memory ends before 32 bits do.
        let at = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { name, flags, partial });
        let Block { entries, index, .. } = self;
        index.insert_unique(hash_of(name), at, |at| hash_of(entries[*at as usize].name));
        at
    }
}

struct Head {
    as_of: u64,
    phase: Phase,
    points: u64,
    keys: u32,
    dirty: bool,
}

fn read(bytes: &[u8], mut visit: impl FnMut(&[u8], u8, Partial)) -> Result<Head, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let as_of = reader.varint()?;
    let phase = match reader.u8()? {
        0 => Phase::Open,
        1 => Phase::Emitted { next_at: Mono::ZERO, complete: false },
        2 => Phase::Emitted { next_at: Mono::ZERO, complete: true },
        _ => return Err(DecodeError::Malformed("an unknown phase of a block")),
    };
    let points = reader.varint()?;
    let mut names = NameReader::default();
    let keys = reader.varint_u32()?;
    let mut dirty = false;
    for _ in 0..keys {
        names.next(&mut reader)?;
        let flags = reader.u8()?;
        if flags & !FLAGS != 0 {
            return Err(DecodeError::Malformed("unknown flags of a key"));
        }
        dirty |= flags & DIRTY != 0;
        visit(names.name(), flags, Partial::decode(&mut reader)?);
    }
    if reader.remaining() > 0 {
        return Err(DecodeError::Malformed("bytes behind the last key"));
    }
    Ok(Head { as_of, phase, points, keys, dirty })
}

pub(super) fn snapshot_rest(bytes: &[u8]) -> Result<Rest, DecodeError> {
    let Head { as_of, phase, points, keys, dirty } = read(bytes, |_, _, _| ())?;
    let complete = matches!(phase, Phase::Emitted { complete: true, .. });
    Ok(Rest { points, keys, emitted: phase != Phase::Open, complete, dirty, as_of, crc: crc32c::crc32c(bytes) })
}

fn hash_of(name: u32) -> u64 {
    let mixed = u64::from(name).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
