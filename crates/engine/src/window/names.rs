//! Names of output keys, each held once for all windows of a partition, as long as a window in memory uses it.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Default)]
pub(super) struct Names {
    slots: Vec<Slot>,
    /// Slots without a user, used again last first.
    free: Vec<u32>,
    index: HashTable<u32>,
    name_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    name: Box<[u8]>,
    users: u32,
}

impl Names {
    /// The number of `name`, if any window uses it.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        self.index.find(xxh3_64(name), |at| *self.slots[*at as usize].name == *name).copied()
    }

    /// The number of `name`, with one user more.
    pub(super) fn acquire(&mut self, name: &[u8]) -> u32 {
        if let Some(at) = self.find(name) {
            self.slots[at as usize].users += 1;
            return at;
        }
        self.name_bytes += name.len();
        let slot = Slot { name: name.into(), users: 1 };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                // A slot takes 24 bytes and its name: memory ends before 32 bits do.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Names { slots, index, .. } = self;
        index.insert_unique(xxh3_64(name), at, |at| xxh3_64(&slots[*at as usize].name));
        at
    }

    /// Takes one user away; the last one takes the name with it.
    pub(super) fn release(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.users -= 1;
        if slot.users > 0 {
            return;
        }
        if let Ok(found) = self.index.find_entry(xxh3_64(&slot.name), |other| *other == at) {
            found.remove();
        }
        self.name_bytes -= slot.name.len();
        slot.name = Box::default();
        self.free.push(at);
    }

    pub(super) fn get(&self, at: u32) -> &[u8] {
        &self.slots[at as usize].name
    }

    pub(super) fn bytes(&self) -> usize {
        // 16: what the allocator adds to a small box, about.
        self.name_bytes
            + self.slots.capacity() * (size_of::<Slot>() + 16)
            + self.index.capacity() * (size_of::<u32>() + 1)
            + self.free.capacity() * size_of::<u32>()
    }
}
