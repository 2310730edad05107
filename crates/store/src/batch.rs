//! What is written together: one buffer for all bytes and one small entry an operation, so that a batch that is cleared
//! and filled again does not allocate.

use std::ops::Range;

/// One operation of a batch, as a store reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets `key` to `value`, whether it was there or not.
    Put {
        /// Not empty, first byte below 0xff.
        key: &'a [u8],
        /// May be empty.
        value: &'a [u8],
    },
    /// Removes `key`; nothing happens when it is not there.
    Delete {
        /// Not empty, first byte below 0xff.
        key: &'a [u8],
    },
    /// Removes every key in `from..to`; nothing when `from >= to`.
    DeleteRange {
        /// The first key removed, if it is there.
        from: &'a [u8],
        /// The first key that stays.
        to: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    first: Range<usize>,
    second: Range<usize>,
}

/// Operations that take effect together, in the order in which they were added: a later one wins over an earlier one.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    data: Vec<u8>,
    entries: Vec<Entry>,
    frees: bool,
}

impl WriteBatch {
    /// A batch without operations. Writing it is allowed and changes nothing.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Sets `key` to `value`.
    ///
    /// # Panics
    /// When `key` is empty or begins with 0xff: key layouts are ours, never input.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        assert_key(key);
        self.push(Kind::Put, key, value);
    }

    /// Removes `key`.
    ///
    /// # Panics
    /// When `key` is empty or begins with 0xff: key layouts are ours, never input.
    pub fn delete(&mut self, key: &[u8]) {
        assert_key(key);
        self.push(Kind::Delete, key, &[]);
    }

    /// Removes every key in `from..to` (`to` excluded). An empty `from` is the beginning, [`crate::END`] the end.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        if from < to {
            self.push(Kind::DeleteRange, from, to);
        }
    }

    /// The operations in the order in which they were added.
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        self.entries.iter().map(|entry| {
            let (first, second) = (&self.data[entry.first.clone()], &self.data[entry.second.clone()]);
            match entry.kind {
                Kind::Put => Op::Put { key: first, value: second },
                Kind::Delete => Op::Delete { key: first },
                Kind::DeleteRange => Op::DeleteRange { from: first, to: second },
            }
        })
    }

    /// Bytes of all keys and values in the batch.
    pub fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether there is at least one put: only then can the batch make a store grow.
    pub fn puts_any(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.kind, Kind::Put))
    }

    /// Whether space can be freed when this is written.
    pub fn frees(&self) -> bool {
        self.frees
    }

    /// Says that space can be freed when this is written, small as it is: a store lets it go beyond the quota, and takes
    /// from what it keeps free.
    pub fn set_frees(&mut self) {
        self.frees = true;
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the operations and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.entries.clear();
        self.frees = false;
    }

    fn push(&mut self, kind: Kind, first: &[u8], second: &[u8]) {
        let start = self.data.len();
        self.data.extend_from_slice(first);
        let middle = self.data.len();
        self.data.extend_from_slice(second);
        self.entries.push(Entry { kind, first: start..middle, second: middle..self.data.len() });
    }
}

fn assert_key(key: &[u8]) {
    assert!(key.first().is_some_and(|first| *first != 0xff), "BUG: a key is not empty and does not begin with 0xff");
}
