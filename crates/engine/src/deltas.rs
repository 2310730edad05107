//! What a shard of the partial layer has gathered since its last flush, for one final partition and lane.
//!
//! [`KeyTable`] (one for each partition of a shard, shared by its lanes) gives output keys dense numbers; [`Deltas`]
//! folds points under them. In the steady state a fold is two array reads and a comparison: no hash, no allocation.
//! Nothing here survives a crash, and nothing needs to: the raw batches are held until the final layer has the flush.
//!
//! Encoded, version 1, all of one flush of one partition and lane:
//!
//! ```text
//! version   u8 = 1
//! keys      varint                              how many keys follow
//!   rule    varint (u32, `RuleId`)
//!   shared  varint                              so many bytes of the previous key's name are the start of this one
//!   rest    length varint, bytes                the remaining bytes; a name has 1 to 65535 bytes
//!   windows varint, at least 1
//!     step  varint                              window start, less the previous one of this key (the first: less 0)
//!     state see `partial`
//! ```
//!
//! Keys stand in the order of their numbers, the windows of a key in ascending order; nothing may follow the last.
//! Equal folds in equal order give equal bytes.

mod encoding;
mod keys;
#[cfg(test)]
mod tests;

use hashbrown::HashTable;

use crate::partial::{Extra, Partial, PointOrder};
use crate::sketch::codec::put_varint;
use crate::time::UnixSeconds;

pub use encoding::{Delta, NAME_BYTES_MAX, Totals, check, decode};
pub(crate) use encoding::{NameReader, put_name};
pub use keys::{KeyId, KeyTable};

/// Number of no entry.
const NONE: u32 = u32::MAX;

/// Open partials; see the module's head.
#[derive(Debug, Default)]
pub struct Deltas {
    /// For each key the entry it used last.
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    /// Finds an entry by key and window, when it is not the one its key used last. Holds the indexed entries only:
    /// usually none.
    others: HashTable<u32>,
    /// Memory of components, from one flush to the next.
    #[allow(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    spare: Vec<Box<Extra>>,
    points: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    window: u32,
    entry: u32,
}

const EMPTY: Slot = Slot { window: 0, entry: NONE };

/// 64 bytes: one cache line.
#[derive(Debug)]
struct Entry {
    key: u32,
    window: u32,
    indexed: bool,
    partial: Partial,
}

impl Deltas {
    pub fn new() -> Deltas {
        Deltas::default()
    }

    /// Adds one point to the partial of `key` in the window that starts at `window`.
    ///
    /// `keys`: the table that gave `key`. `value`: finite. `series_hash`: of the input series.
    #[inline]
    pub fn fold(
        &mut self,
        keys: &KeyTable,
        key: KeyId,
        window: UnixSeconds,
        value: f64,
        order: PointOrder,
        series_hash: u64,
    ) {
        self.points += 1;
        if let Some(slot) = self.slots.get(key.0 as usize)
            && slot.window == window.0
            && let Some(entry) = self.entries.get_mut(slot.entry as usize)
        {
            entry.partial.fold(value, order, series_hash);
            return;
        }
        let at = self.entry_for(keys, key, window);
        self.entries[at as usize].partial.fold(value, order, series_hash);
    }

    /// How many points were folded since the last clear.
    pub fn points(&self) -> u64 {
        self.points
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many partials are open: pairs of key and window.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Memory held, in bytes. Takes time in proportion to the open partials: for once a batch or flush, not a point.
    pub fn bytes(&self) -> usize {
        let components: usize = self.entries.iter().map(|entry| entry.partial.heap_bytes()).sum();
        self.slots.capacity() * size_of::<Slot>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.others.capacity() * (size_of::<u32>() + 1)
            + self.spare.len() * size_of::<Extra>()
            + components
    }

    /// Appends the layout of this module. `keys`: the table that gave the keys.
    ///
    /// # Panics
    /// When a key is not of `keys`, which is a bug of the caller.
    pub fn encode(&self, keys: &KeyTable, out: &mut Vec<u8>) {
        let mut order: Vec<(u64, u32)> = (0u32..)
            .zip(&self.entries)
            .map(|(at, entry)| (u64::from(entry.key) << 32 | u64::from(entry.window), at))
            .collect();
        order.sort_unstable();
        let same_key = |left: &(u64, u32), right: &(u64, u32)| left.0 >> 32 == right.0 >> 32;
        out.push(encoding::VERSION);
        put_varint(out, order.chunk_by(same_key).count() as u64);
        let mut previous: &[u8] = &[];
        for windows in order.chunk_by(same_key) {
            let key = self.entries[windows[0].1 as usize].key;
            let (rule, name) = keys.get(KeyId(key));
            put_varint(out, u64::from(rule));
            put_name(out, previous, name);
            put_varint(out, windows.len() as u64);
            let mut start = 0;
            for (_, at) in windows {
                let entry = &self.entries[*at as usize];
                put_varint(out, u64::from(entry.window - start));
                entry.partial.encode(out);
                start = entry.window;
            }
            previous = name;
        }
    }

    /// Forgets everything that was folded, keeps the memory for the next flush.
    pub fn clear(&mut self) {
        let Deltas { slots, entries, others, spare, points } = self;
        for entry in entries.drain(..) {
            slots[entry.key as usize] = EMPTY;
            spare.extend(entry.partial.into_extra());
        }
        others.clear();
        *points = 0;
    }

    /// Gives back the memory, for after an unusually large flush or when the key table starts anew.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Deltas::default();
        }
    }

    /// The entry of a key that used another window last, or none.
    #[cold]
    fn entry_for(&mut self, keys: &KeyTable, key: KeyId, window: UnixSeconds) -> u32 {
        let at = key.0 as usize;
        if at >= self.slots.len() {
            self.slots.resize(at + 1, EMPTY);
        }
        let last = self.slots[at].entry;
        let entry = if last == NONE {
            self.open(keys, key, window)
        } else {
            self.index(last);
            let entries = &self.entries;
            let is_it = |other: &u32| {
                let entry = &entries[*other as usize];
                entry.key == key.0 && entry.window == window.0
            };
            match self.others.find(hash_of(key.0, window.0), is_it) {
                Some(found) => *found,
                None => self.open(keys, key, window),
            }
        };
        self.slots[at] = Slot { window: window.0, entry };
        entry
    }

    fn open(&mut self, keys: &KeyTable, key: KeyId, window: UnixSeconds) -> u32 {
        let shape = keys.shape(key);
        let spare = if shape == crate::partial::Shape::PLAIN { None } else { self.spare.pop() };
        // An entry takes 64 bytes: memory ends long before 32 bits do.
        let at = u32::try_from(self.entries.len()).unwrap_or(NONE);
        self.entries.push(Entry {
            key: key.0,
            window: window.0,
            indexed: false,
            partial: Partial::reusing(shape, spare),
        });
        at
    }

    /// Makes an entry that is about to leave its key's slot findable.
    fn index(&mut self, at: u32) {
        let Deltas { entries, others, .. } = self;
        let entry = &mut entries[at as usize];
        if !entry.indexed {
            entry.indexed = true;
            let hash = hash_of(entry.key, entry.window);
            others.insert_unique(hash, at, |other| {
                let entry = &entries[*other as usize];
                hash_of(entry.key, entry.window)
            });
        }
    }
}

/// Spreads key and window over all 64 bits; both are small numbers of our own making.
fn hash_of(key: u32, window: u32) -> u64 {
    let mixed = (u64::from(key) << 32 | u64::from(window)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
