//! Output keys as dense numbers.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::encoding::NAME_BYTES_MAX;
use crate::partial::Shape;
use crate::rule::{OutputKey, RuleId};

/// A key's number in its [`KeyTable`]: 0, 1, 2, ... in order of interning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// The keys that one shard has met for one final partition, under one version of the rules.
///
/// Keys are never removed one by one: when the table has grown past its budget (series that came and went), its owner
/// flushes, then drops the table together with the series cache that holds its numbers, and starts a new one.
#[derive(Debug, Default)]
pub struct KeyTable {
    keys: Vec<Key>,
    /// All names, one behind the other.
    names: Vec<u8>,
    index: HashTable<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    /// Where the name ends; it starts where the previous one ends.
    end: u32,
    rule: RuleId,
    shape: Shape,
}

impl KeyTable {
    pub fn new() -> KeyTable {
        KeyTable::default()
    }

    /// The number of `key`, a new one if it was not met before; none when the table is full (4 GiB of names)
    /// or the name is empty or longer than 65,535 bytes. `shape`: what its rule needs.
    pub fn intern(&mut self, key: &OutputKey, shape: Shape) -> Option<KeyId> {
        if key.name.is_empty() || key.name.len() > NAME_BYTES_MAX {
            return None;
        }
        let hash = hash_of(key.rule, &key.name);
        if let Some(found) = self.index.find(hash, |at| self.get(KeyId(*at)) == (key.rule, &key.name)) {
            return Some(KeyId(*found));
        }
        let end = u32::try_from(self.names.len() + key.name.len()).ok()?;
        let at = u32::try_from(self.keys.len()).ok()?;
        self.names.extend_from_slice(&key.name);
        self.keys.push(Key { end, rule: key.rule, shape });
        let KeyTable { keys, names, index } = self;
        index.insert_unique(hash, at, |at| {
            let (rule, name) = look_up(keys, names, *at);
            hash_of(rule, name)
        });
        Some(KeyId(at))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Rule and name of a key.
    ///
    /// # Panics
    /// When `key` is not of this table, which is a bug of the caller.
    pub fn get(&self, key: KeyId) -> (RuleId, &[u8]) {
        look_up(&self.keys, &self.names, key.0)
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Key>() + self.names.capacity() + self.index.capacity() * (size_of::<u32>() + 1)
    }

    pub(super) fn shape(&self, key: KeyId) -> Shape {
        self.keys[key.0 as usize].shape
    }
}

fn look_up<'t>(keys: &[Key], names: &'t [u8], at: u32) -> (RuleId, &'t [u8]) {
    let at = at as usize;
    let start = if at == 0 { 0 } else { keys[at - 1].end };
    let key = keys[at];
    (key.rule, &names[start as usize..key.end as usize])
}

fn hash_of(rule: RuleId, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, u64::from(rule))
}
