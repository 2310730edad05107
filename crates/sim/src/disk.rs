//! The disk of one node: a store in memory, and the small files beside it. It outlives processes.

use store::MemDisk;

use crate::file::FileId;
use crate::rng::Rng;

const QUOTA: u64 = 1 << 40;

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Disk {
    pub store: MemDisk,
    /// The file beside the store that says how far it was; replaced atomically.
    pub witness: Option<Vec<u8>>,
    /// Sender and epoch of a relay; replaced atomically.
    pub identity: Option<(u64, u32)>,
    /// The cluster files that it was started with, and those that it was told of; replaced atomically.
    pub files: Vec<FileId>,
    /// Of a plain store: what it has read.
    pub values: crate::oracle::Lines,
    /// And of raw lines.
    pub raw: crate::oracle::Lines,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            store: MemDisk::new(QUOTA),
            witness: None,
            identity: None,
            files: Vec::new(),
            values: crate::oracle::Lines::new(),
            raw: crate::oracle::Lines::new(),
        }
    }
}

impl Disk {
    /// The power goes: of what was not synced a prefix is kept, by chance.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let unsynced = self.store.unsynced_batches();
        let kept = if rng.percent(50) { 0 } else { rng.index(unsynced + 1) };
        self.store.crash_keeping(kept);
    }

    /// A copy of what is on it now, as a backup takes it.
    pub fn copy(&self) -> Disk {
        Disk { store: self.store.copy(), ..self.clone() }
    }
}
