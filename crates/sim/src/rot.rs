//! A final node's store goes bad: a part of it cannot be read any more, or all of it is gone. What cannot be read is as if it
//! were not there, so it is taken away while no process runs.

use std::ops::ControlFlow;

use engine::final_node::keys;
use engine::time::UnixSeconds;
use store::{MemStore, Store, WriteBatch};

use crate::disk::Disk;
use crate::faults::Rotten;
use crate::setup::{NodeId, Role};
use crate::world::World;

impl World {
    /// The process dies, and finds that when it begins again.
    pub fn rot(&mut self, node: NodeId, what: Rotten, pick: usize, down_ms: u64) {
        let Role::Final(index) = self.setup.nodes[node] else { return };
        if self.hosts[node].process.is_none() {
            return;
        }
        let mine: Vec<u16> =
            self.setup.owners.iter().zip(0..).filter(|(owner, _)| **owner == index).map(|(_, number)| number).collect();
        match what {
            Rotten::Checkpoint => mine.iter().for_each(|partition| self.truth.scratched(*partition)),
            Rotten::Index => {}
            Rotten::Store { witness } => mine.iter().for_each(|partition| self.truth.lost(*partition, witness)),
        }
        self.fell(node, down_ms, false, |disk, _| match what {
            Rotten::Checkpoint => {
                // Never the second of two: without both nobody knows what was merged.
                let store = disk.store.copy().open();
                let is_there = |key: &Vec<u8>| store.get(key).is_ok_and(|value| value.is_some());
                let both =
                    mine.iter().map(|partition| keys::meta_keys(*partition)).filter(|keys| keys.iter().all(is_there));
                let found = both.flatten().collect();
                take_one(disk, found, pick);
            }
            Rotten::Index => {
                let mut found = Vec::new();
                let (from, to) = keys::window_range(b'x', UnixSeconds(0), None);
                let read = disk.store.copy().open().salvage(&from, &to, &mut |key, _| {
                    found.push(key.to_vec());
                    ControlFlow::Continue(())
                });
                drop(read);
                take_one(disk, found, pick);
            }
            Rotten::Store { witness } => {
                let kept = disk.witness.take().filter(|_| witness);
                *disk = Disk { witness: kept, files: disk.files.clone(), ..Disk::default() };
            }
        });
    }
}

fn take_one(disk: &mut Disk, found: Vec<Vec<u8>>, pick: usize) {
    let mut store: MemStore = disk.store.open();
    let is_there = |key: &Vec<u8>| store.get(key).is_ok_and(|value| value.is_some());
    let found: Vec<Vec<u8>> = found.into_iter().filter(is_there).collect();
    if let Some(key) = found.get(pick % found.len().max(1)) {
        let mut batch = WriteBatch::new();
        batch.delete(key);
        drop(store.write(&batch));
    }
}
