//! A final partition whose store was damaged in any way: no panic, books that balance, nothing merged that was merged
//! before, and a checkpoint from which the next start finds the same.
//!
//! The input is a list of damages, six bytes each, to what the store holds of one partition.
#![no_main]

mod damage;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use damage::change;
use engine::batch::BatchId;
use engine::deltas::{Deltas, KeyTable};
use engine::final_node::{Books, Found, Mark, Partition, Snapshots, keys};
use engine::partial::{PointOrder, Shape};
use engine::rule::OutputKey;
use engine::time::UnixSeconds;
use engine::window::BlockId;
use engine::wire::{Flush, Group, Included, Lane};
use libfuzzer_sys::fuzz_target;

const PARTITION: u16 = 3;

#[derive(Clone, Default)]
struct Disk {
    log: Vec<Vec<u8>>,
    kv: BTreeMap<Vec<u8>, Vec<u8>>,
    mark: Option<Mark>,
}

impl Snapshots for &Disk {
    fn load(&mut self, id: BlockId) -> Option<Bytes> {
        self.kv.get(&keys::block_key(PARTITION, id)).map(|bytes| Bytes::from(bytes.clone()))
    }

    fn all(&mut self, visit: &mut dyn FnMut(BlockId, &[u8])) {
        for (key, bytes) in self.kv.iter().filter(|(key, _)| key.starts_with(b"w")) {
            if let Some((PARTITION, id)) = keys::block_of(key) {
                visit(id, bytes);
            }
        }
    }
}

impl Disk {
    fn found(&self) -> Found {
        let index = self.kv.iter().filter(|(key, _)| key.starts_with(b"x"));
        Found {
            metas: keys::meta_keys(PARTITION)
                .iter()
                .filter_map(|key| self.kv.get(key).map(|bytes| Bytes::from(bytes.clone())))
                .collect(),
            index: index
                .filter_map(|(key, bytes)| Some((keys::block_of(key)?.1, Bytes::from(bytes.clone()))))
                .collect(),
            records: self.log.iter().map(|bytes| Bytes::from(bytes.clone())).collect(),
            mark: self.mark,
        }
    }

    /// The partition; nothing when a newer program wrote the checkpoint.
    fn recover(&self) -> Option<Partition> {
        let (mut partition, _) = Partition::recover(PARTITION, &targets(), &self.found(), &mut { self }).ok()?;
        let (mut all, mut source) = (Vec::new(), self);
        source.all(&mut |id, bytes| all.push((id, bytes.to_vec())));
        for (id, bytes) in all {
            partition.loaded(id, Some(&bytes));
        }
        Some(partition)
    }

    fn commit(&mut self, partition: &mut Partition, flush: Flush) {
        let outcome = partition.flush(flush);
        self.log.extend(outcome.record);
        self.mark = Some(partition.mark());
        loop {
            let missing = partition.synced(outcome.after);
            if missing.is_empty() {
                return;
            }
            for id in missing {
                let mut source = &*self;
                let bytes = source.load(id);
                partition.loaded(id, bytes.as_deref());
            }
        }
    }

    fn checkpoint(&mut self, partition: &mut Partition, keep_log: bool) {
        let made = partition.checkpoint();
        self.kv.extend(made.puts);
        if !keep_log {
            self.log.retain(|bytes| {
                engine::final_node::record::place(bytes).is_some_and(|(_, number)| number >= made.log_from)
            });
        }
        self.mark = Some(partition.mark());
    }

    fn damage(&mut self, damage: &[u8]) {
        let [what, pick, how, at, at_high, byte] = *damage else { return };
        let (pick, at) = (usize::from(pick), usize::from(u16::from_le_bytes([at, at_high])));
        let key = self.kv.keys().nth(pick % self.kv.len().max(1)).cloned().unwrap_or_default();
        let record = pick % self.log.len().max(1);
        match what % 8 {
            0 => drop(self.kv.remove(&key)),
            1 if record < self.log.len() => drop(self.log.remove(record)),
            2 => self.log.truncate(record),
            3 => self.mark = None,
            4 | 5 => {
                if let Some(bytes) = self.log.get_mut(record) {
                    change(bytes, how, at, byte);
                }
            }
            _ => {
                if let Some(bytes) = self.kv.get_mut(&key) {
                    change(bytes, how, at, byte);
                }
            }
        }
    }

    /// A block's checksum is in its index entry; where that is gone, RocksDB's own makes a changed block unreadable.
    fn forget_blocks_without_checksum(&mut self) {
        let kv = &mut self.kv;
        let is_alone = |key: &Vec<u8>, kv: &BTreeMap<Vec<u8>, Vec<u8>>| {
            key.first() == Some(&b'w') && kv.get(key) != WHOLE.kv.get(key) && {
                let index = [b"x", key.get(1..).unwrap_or_default()].concat();
                kv.get(&index) != WHOLE.kv.get(&index)
            }
        };
        let gone: Vec<Vec<u8>> = kv.keys().filter(|key| is_alone(key, kv)).cloned().collect();
        gone.iter().for_each(|key| drop(kv.remove(key)));
    }
}

fn targets() -> Vec<String> {
    vec!["carbon/a:1".into(), "carbon/b:1".into()]
}

fn flush(number: u64) -> Flush {
    let window = UnixSeconds(1_000 + 10 * u32::try_from(number / 3).unwrap_or_default());
    let mut table = KeyTable::new();
    let mut deltas = Deltas::new();
    for name in ["out", "other"] {
        let output = OutputKey { rule: 0, name: name.as_bytes().to_vec().into() };
        let key = table.intern(&output, Shape::PLAIN).expect("interned");
        let order = PointOrder { ts: window.0, sender: 1, epoch: 1, seq: 0, index: 0 };
        deltas.fold(&table, key, window, 2.0, order, 0);
    }
    let mut bytes = Vec::new();
    deltas.encode(&table, &mut bytes);
    let seq = u32::try_from(number).unwrap_or_default();
    let included = vec![Included { id: BatchId { sender: 1, epoch: 1, seq }, nonce: 7, from: seq, points: 2 }];
    let group = Group { included, deltas: Bytes::from(bytes) };
    Flush { number, partition: PARTITION, lane: Lane::First, groups: vec![group] }
}

const FLUSHES: u64 = 12;

/// Two checkpoints, a log behind the second one, and of the first one's log a piece that is still there.
static WHOLE: LazyLock<Disk> = LazyLock::new(|| {
    let (mut disk, mut partition) = (Disk::default(), Partition::new(PARTITION, &targets()));
    for number in 0..FLUSHES {
        disk.commit(&mut partition, flush(number));
        match number {
            3 => disk.checkpoint(&mut partition, false),
            7 => disk.checkpoint(&mut partition, true),
            _ => {}
        }
    }
    partition.retire(1, 1);
    disk
});

#[track_caller]
fn balanced(partition: &Partition) -> Books {
    let books = partition.books();
    assert_eq!(books.received, books.merged + books.too_old + books.corrupt + books.pending, "{books:?}");
    books
}

fuzz_target!(|input: &[u8]| {
    let mut disk = WHOLE.clone();
    input.chunks_exact(6).take(24).for_each(|damage| disk.damage(damage));
    disk.forget_blocks_without_checksum();
    let Some(mut partition) = disk.recover() else { return };
    let before = balanced(&partition);

    // What comes again is merged at most once: whatever is known to be included changes nothing.
    (0..FLUSHES).for_each(|number| disk.commit(&mut partition, flush(number)));
    let once = balanced(&partition);
    // A block that is gone is only noticed when it is needed: merged may become corrupt, and nothing less than that.
    assert!(once.received >= before.received && once.corrupt >= before.corrupt, "{before:?} {once:?}");
    (0..FLUSHES).for_each(|number| disk.commit(&mut partition, flush(number)));
    let twice = balanced(&partition);
    assert_eq!((twice.merged, twice.received), (once.merged, once.received), "merged twice");

    disk.checkpoint(&mut partition, false);
    let Some(again) = disk.recover() else { panic!("what this program wrote is not of a newer one") };
    let again = balanced(&again);
    assert_eq!((again.merged, again.received, again.corrupt), (twice.merged, twice.received, twice.corrupt));
});
