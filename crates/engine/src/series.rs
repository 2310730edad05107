//! What is already known of each series: a table from name to a small value, such as a cached route decision.
//!
//! Two generations bound the memory: new names go to the young one; when that would pass half of the budget it becomes
//! the old one, and what was old is forgotten. A name found in the old generation moves to the young one, so what is in
//! use stays and what is not is gone after two turns. Forgetting is harmless: the caller decides again.
//!
//! Layout, for a million series where cache misses are all that counts: a lookup touches one group of control bytes, one
//! entry (12 bytes for a 4-byte value) and the name itself. Entries hold 32 bits of the hash, from which the place in
//! the table follows, so neither a wrong candidate nor a growing table reads names. Names lie in chunks that never move.

use hashbrown::HashTable;

/// Smallest budget that is honoured, in bytes; a smaller one is taken as this.
pub const BUDGET_BYTES_MIN: usize = 64 * 1024;

/// The hash of a name: xxh3, the same in every process and version. Also good for spreading series over shards.
#[inline]
pub fn hash(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name)
}

/// Names to values, bounded in bytes.
#[derive(Debug)]
pub struct SeriesTable<T: Copy> {
    young: Generation<T>,
    old: Generation<T>,
    /// Of one generation.
    bytes_max: usize,
    /// A chunk of names has two to the power of this bytes.
    chunk_shift: u32,
    turns: u64,
}

#[derive(Debug)]
struct Generation<T> {
    entries: HashTable<Entry<T>>,
    names: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    check: u32,
    /// Where the name stands: chunk number times the size of a chunk, plus the offset in it.
    at: u32,
    value: T,
}

/// Largest chunk of names. Big enough that a million names need few of them, so their list stays in the cache.
const CHUNK_BYTES_MAX: usize = 256 * 1024;
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Bytes before each name that hold its length.
const LENGTH_BYTES: usize = 2;

impl<T: Copy> SeriesTable<T> {
    /// An empty table, which owns no memory yet.
    ///
    /// `budget_bytes`: both generations together; 140 bytes a series keep a set of 40-byte names in one generation.
    pub fn new(budget_bytes: usize) -> SeriesTable<T> {
        let budget_bytes = budget_bytes.max(BUDGET_BYTES_MIN);
        let chunk_bytes = (budget_bytes / 32).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        SeriesTable {
            young: Generation::empty(),
            old: Generation::empty(),
            // `Entry::at` reaches 4 GiB.
            bytes_max: (budget_bytes / 2).min(1 << 32),
            chunk_shift: chunk_bytes.ilog2(),
            turns: 0,
        }
    }

    /// The value of `name`, if it is known. `hash`: that of `name` by [`hash`].
    #[inline]
    pub fn get(&mut self, name: &[u8], hash: u64) -> Option<T> {
        let check = check_of(hash);
        if let Some(value) = self.young.get(name, check, self.chunk_shift) {
            return Some(value);
        }
        if self.old.entries.is_empty() { None } else { self.get_old(name, check) }
    }

    /// Keeps `value` for `name`, instead of what was known before. `hash`: that of `name` by [`hash`].
    ///
    /// Names of more than a few kilobytes (the least: 4094 bytes) are not kept.
    pub fn insert(&mut self, name: &[u8], hash: u64, value: T) {
        let check = check_of(hash);
        if self.young.set(name, check, self.chunk_shift, value) {
            return;
        }
        self.old.take(name, check, self.chunk_shift);
        self.insert_young(name, check, value);
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.young.entries.len() + self.old.entries.len()
    }

    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of heap memory in use, never more than the budget.
    pub fn bytes(&self) -> usize {
        self.young.bytes(self.chunk_shift) + self.old.bytes(self.chunk_shift)
    }

    /// How often the young generation became the old one. Rising with a steady set of series: the budget is too small.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Forgets every name and frees the memory, for when the decisions are no longer right.
    pub fn clear(&mut self) {
        self.young = Generation::empty();
        self.old = Generation::empty();
    }

    #[inline(never)]
    fn get_old(&mut self, name: &[u8], check: u32) -> Option<T> {
        let value = self.old.take(name, check, self.chunk_shift)?;
        self.insert_young(name, check, value);
        Some(value)
    }

    fn insert_young(&mut self, name: &[u8], check: u32, value: T) {
        if name.len() + LENGTH_BYTES > 1 << self.chunk_shift || name.len() > usize::from(u16::MAX) {
            return;
        }
        if self.young.bytes_with(name.len(), self.chunk_shift) > self.bytes_max {
            self.old = std::mem::replace(&mut self.young, Generation::empty());
            self.turns += 1;
        }
        self.young.add(name, check, self.chunk_shift, value);
    }
}

/// The part of the hash that an entry holds. The upper half, so that shards may be chosen by the lower.
#[inline]
fn check_of(hash: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the upper 32 of 64 bits fit")]
    let check = (hash >> 32) as u32;
    check
}

/// What the table is told: it takes the place from the low bits and seven more from the top, so 32 bits are spread.
#[inline]
fn spread(check: u32) -> u64 {
    u64::from(check).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<T: Copy> Generation<T> {
    fn empty() -> Generation<T> {
        Generation { entries: HashTable::new(), names: Vec::new() }
    }

    #[inline]
    fn get(&self, name: &[u8], check: u32, chunk_shift: u32) -> Option<T> {
        let names = &self.names;
        self.entries
            .find(spread(check), |entry| entry.check == check && stands_at(names, entry.at, chunk_shift, name))
            .map(|entry| entry.value)
    }

    /// Replaces the value of a known name.
    fn set(&mut self, name: &[u8], check: u32, chunk_shift: u32, value: T) -> bool {
        let names = &self.names;
        let found = self
            .entries
            .find_mut(spread(check), |entry| entry.check == check && stands_at(names, entry.at, chunk_shift, name));
        found.map(|entry| entry.value = value).is_some()
    }

    /// Removes a name; its bytes stay until the generation goes.
    fn take(&mut self, name: &[u8], check: u32, chunk_shift: u32) -> Option<T> {
        let names = &self.names;
        let found = self
            .entries
            .find_entry(spread(check), |entry| entry.check == check && stands_at(names, entry.at, chunk_shift, name));
        found.ok().map(|entry| entry.remove().0.value)
    }

    /// Adds a name that is not there and fits into a chunk.
    fn add(&mut self, name: &[u8], check: u32, chunk_shift: u32, value: T) {
        let chunk_bytes = 1_usize << chunk_shift;
        let fits = self.names.last().is_some_and(|chunk| chunk.len() + LENGTH_BYTES + name.len() <= chunk_bytes);
        if !fits {
            self.names.push(Vec::with_capacity(chunk_bytes));
        }
        let number = self.names.len() - 1;
        let Ok(length) = u16::try_from(name.len()) else { return };
        let Some(chunk) = self.names.last_mut() else { return };
        let Ok(at) = u32::try_from((number << chunk_shift) + chunk.len()) else { return };
        chunk.extend_from_slice(&length.to_le_bytes());
        chunk.extend_from_slice(name);
        self.entries.insert_unique(spread(check), Entry { check, at, value }, |entry| spread(entry.check));
    }

    fn bytes(&self, chunk_shift: u32) -> usize {
        self.entries.allocation_size() + (self.names.len() << chunk_shift)
    }

    /// What [`Generation::bytes`] will be at most once a name of `length` bytes is added.
    fn bytes_with(&self, length: usize, chunk_shift: u32) -> usize {
        let chunk_bytes = 1_usize << chunk_shift;
        let fits = self.names.last().is_some_and(|chunk| chunk.len() + LENGTH_BYTES + length <= chunk_bytes);
        let names = (self.names.len() + usize::from(!fits)) << chunk_shift;
        let entries = if self.entries.len() < self.entries.capacity() {
            self.entries.allocation_size()
        } else {
            // A full table doubles; the smallest has 4 entries and 32 control bytes at most.
            (self.entries.allocation_size() * 2).max(4 * size_of::<Entry<T>>() + 64)
        };
        names + entries
    }
}

/// Whether the name at `at` is `name`.
#[inline]
fn stands_at(names: &[Vec<u8>], at: u32, chunk_shift: u32, name: &[u8]) -> bool {
    let at = at as usize;
    let start = at & ((1 << chunk_shift) - 1);
    let Some(record) = names.get(at >> chunk_shift).and_then(|chunk| chunk.get(start..)) else { return false };
    match record.split_first_chunk::<LENGTH_BYTES>() {
        Some((length, rest)) => {
            usize::from(u16::from_le_bytes(*length)) == name.len() && rest.get(..name.len()) == Some(name)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests;
