//! The order of the log: which record has which ordinal, which are still needed, and how far every partition is.
//!
//! It outlives the lives of the log thread. What was taken in hand keeps its ordinals, so that writing it again after a
//! failure changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use engine::final_node::{Checkpoint, Mark, keys, record};
use engine::time::UnixSeconds;
use engine::window::BlockId;
use store::{Store, StoreError, WriteBatch};

/// Bytes of a batch, about: what stands in one append is not split.
const BATCH_BYTES: u64 = 4 << 20;
/// What is written in one batch of a checkpoint, about: appends of other partitions come in between. One block may be more.
const CHECKPOINT_BATCH_BYTES: usize = 2 << 20;

/// A write that the log makes durable.
#[derive(Debug, Default)]
pub struct Append {
    pub shard: usize,
    /// Which life of the shard; the log refuses those of former lives.
    pub generation: u64,
    pub token: u64,
    /// A record of the log, and its place in it once it was taken in hand.
    pub record: Option<Vec<u8>>,
    pub ordinal: Option<u64>,
    /// Written in one batch.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Once this is durable: records of the partition below the number, and its windows before the time, are not needed.
    pub covers: Option<(u16, u64, UnixSeconds)>,
    /// How far the partition is with this.
    pub mark: Option<(u16, Mark)>,
    /// Snapshots to read.
    pub loads: Vec<(u16, BlockId)>,
}

impl Append {
    /// Whether anything is to be written.
    pub fn writes(&self) -> bool {
        self.record.is_some() || !self.puts.is_empty()
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        let puts: usize = self.puts.iter().map(|(key, value)| key.len() + value.len()).sum();
        (self.record.as_ref().map_or(0, Vec::len) + puts) as u64
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Journal {
    next: u64,
    /// Records that may be needed: ordinal, partition, number.
    live: VecDeque<(u64, u16, u64)>,
    /// For each partition the first record that its checkpoint does not hold.
    covered: BTreeMap<u16, u64>,
    floors: BTreeMap<u16, UnixSeconds>,
    marks: BTreeMap<u16, Mark>,
    head_written: u64,
    /// In a batch that may not be durable.
    head_staged: u64,
    forgotten: (u64, UnixSeconds),
}

impl Journal {
    /// From what a store holds. `marks`: what the witness file says.
    ///
    /// What is read is synced first: a process that was killed may have left writes in the kernel only, and whoever
    /// recovers from them answers "included already" without a write of its own. A power cut must not take that back.
    ///
    /// # Errors
    /// When the store cannot be synced, or read at all; damage is passed over.
    pub fn open(store: &mut dyn Store, marks: BTreeMap<u16, Mark>) -> Result<Journal, StoreError> {
        if !engine::mutant!("no_sync_at_open") {
            store.sync()?;
        }
        let head = head(store)?;
        let mut live = VecDeque::new();
        store.salvage(&keys::log_key(head), &keys::log_key(u64::MAX), &mut |key, bytes| {
            if let (Some(ordinal), Some((partition, number))) = (keys::ordinal_of(key), record::place(bytes)) {
                live.push_back((ordinal, partition, number));
            }
            ControlFlow::Continue(())
        })?;
        let next = live.back().map_or(head, |(ordinal, ..)| ordinal + 1).max(head);
        Ok(Journal { next, live, marks, head_written: head, forgotten: (head, UnixSeconds(0)), ..Journal::default() })
    }

    /// Gives an append its place.
    pub fn take(&mut self, append: &mut Append) {
        if let Some(record) = &append.record
            && append.ordinal.is_none()
        {
            append.ordinal = Some(self.next);
            let (partition, number) = record::place(record).unwrap_or_default();
            self.live.push_back((self.next, partition, number));
            self.next += 1;
        }
    }

    /// What to write for these, in order.
    pub fn batches(&mut self, appends: &[Append]) -> Vec<WriteBatch> {
        let mut batches = Vec::new();
        let mut batch = WriteBatch::new();
        if self.head() != self.head_written && appends.iter().any(Append::writes) {
            self.head_staged = self.head();
            batch.put(keys::HEAD, &self.head_staged.to_be_bytes());
        }
        for append in appends.iter().filter(|append| append.writes()) {
            if batch.bytes() > 0 && batch.bytes() + append.bytes() > BATCH_BYTES {
                batches.push(std::mem::take(&mut batch));
            }
            if let (Some(ordinal), Some(record)) = (append.ordinal, &append.record) {
                batch.put(&keys::log_key(ordinal), record);
            }
            append.puts.iter().for_each(|(key, value)| batch.put(key, value));
        }
        batches.push(batch);
        batches.retain(|batch| !batch.is_empty());
        batches
    }

    /// What says where the log begins now, when nothing that was written does. It frees the space before; when it is
    /// durable, [`Journal::done`] with no appends.
    pub fn head_to_write(&mut self) -> Option<WriteBatch> {
        if self.head() == self.head_written {
            return None;
        }
        self.head_staged = self.head();
        let mut batch = WriteBatch::new();
        batch.put(keys::HEAD, &self.head_staged.to_be_bytes());
        batch.set_frees();
        Some(batch)
    }

    /// These are durable.
    pub fn done(&mut self, appends: &[Append]) {
        self.head_written = self.head_written.max(self.head_staged);
        for append in appends {
            if let Some((partition, from, floor)) = append.covers {
                self.covered.insert(partition, from);
                self.floors.insert(partition, floor);
            }
            self.marks.extend(append.mark);
        }
        let covered = &self.covered;
        let needless =
            |(_, partition, number): &mut (u64, u16, u64)| covered.get(partition).is_some_and(|from| *number < *from);
        while self.live.pop_front_if(needless).is_some() {}
        if engine::mutant!("log_head_too_far") {
            self.live.clear();
        }
    }

    /// Gives back the space of what nobody needs any more. `partitions`: how many the node owns.
    ///
    /// # Errors
    /// As [`Store::forget`]; what was not given back is named again next time.
    pub fn forget(&mut self, store: &mut dyn Store, partitions: usize) -> Result<(), StoreError> {
        // From the very beginning each time: a file goes only when it lies in the range as a whole.
        let (head, floor) = self.forgotten;
        if self.head_written > head {
            store.forget(&keys::log_key(0), &keys::log_key(self.head_written))?;
            self.forgotten.0 = self.head_written;
        }
        let lowest = self.floors.values().copied().min().unwrap_or(UnixSeconds(0));
        if lowest > floor && self.floors.len() == partitions {
            for family in [b'w', b'x'] {
                let (from, until) = keys::window_range(family, UnixSeconds(0), Some(lowest));
                store.forget(&from, &until)?;
            }
            self.forgotten.1 = lowest;
        }
        Ok(())
    }

    /// The first ordinal that may be needed.
    pub fn head(&self) -> u64 {
        self.live.front().map_or(self.next, |(ordinal, ..)| *ordinal)
    }

    /// How far each partition is.
    pub fn marks(&self) -> &BTreeMap<u16, Mark> {
        &self.marks
    }
}

/// A checkpoint as appends: a block and its index entry stay together, and the checkpoint itself comes last.
pub fn appends(partition: u16, made: Checkpoint, mark: Mark) -> Vec<Append> {
    let mut all = Vec::new();
    let (mut puts, mut bytes) = (Vec::new(), 0);
    for (key, value) in made.puts {
        if bytes >= CHECKPOINT_BATCH_BYTES && key.first() == Some(&b'w') {
            all.push(Append { puts: std::mem::take(&mut puts), ..Append::default() });
            bytes = 0;
        }
        bytes += key.len() + value.len();
        puts.push((key, value));
    }
    let covers = Some((partition, made.log_from, made.floor));
    all.push(Append { puts, covers, mark: Some((partition, mark)), ..Append::default() });
    all
}

/// Where the log begins, as the store says it.
///
/// # Errors
/// When the store cannot be read now.
pub fn head(store: &dyn Store) -> Result<u64, StoreError> {
    match store.get(keys::HEAD) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)),
        // It only saves reading what was forgotten.
        Err(StoreError::Corrupt { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Marks for the witness file: `n u16, n x (partition u16, next, received, too_old, corrupt, sealed u64)`.
pub fn encode_marks(marks: &BTreeMap<u16, Mark>) -> Vec<u8> {
    let mut out = u16::try_from(marks.len()).unwrap_or(u16::MAX).to_le_bytes().to_vec();
    for (partition, Mark { next, received, too_old, corrupt, sealed }) in marks {
        out.extend_from_slice(&partition.to_le_bytes());
        [next, received, too_old, corrupt, sealed].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    }
    out
}

/// Reads what [`encode_marks`] wrote; nothing if it is something else (the file has a checksum of its own).
pub fn decode_marks(bytes: &[u8]) -> BTreeMap<u16, Mark> {
    let entries = bytes.get(2..).unwrap_or_default().chunks_exact(42);
    entries
        .filter_map(|entry| {
            let (partition, rest) = entry.split_first_chunk::<2>()?;
            let mut numbers = rest.chunks_exact(8).filter_map(|n| n.try_into().ok()).map(u64::from_le_bytes);
            let mut next = || numbers.next();
            let mark = Mark { next: next()?, received: next()?, too_old: next()?, corrupt: next()?, sealed: next()? };
            Some((u16::from_le_bytes(*partition), mark))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::MemDisk;

    fn record(partition: u16, number: u64) -> Append {
        let mut bytes = vec![1, 1];
        bytes.extend_from_slice(&partition.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        Append { record: Some(bytes), ..Append::default() }
    }

    fn write(journal: &mut Journal, store: &mut dyn Store, mut appends: Vec<Append>) {
        appends.iter_mut().for_each(|append| journal.take(append));
        for batch in journal.batches(&appends) {
            store.write(&batch).expect("room");
        }
        store.sync().expect("a disk without faults");
        journal.done(&appends);
        journal.forget(store, 2).expect("forgets");
    }

    #[test]
    fn the_head_goes_as_far_as_every_partition_lets_it_and_survives_a_restart() {
        let disk = MemDisk::new(1 << 20);
        let mut store = disk.open();
        let mut journal = Journal::open(&mut store, BTreeMap::new()).expect("an empty store");
        write(&mut journal, &mut store, vec![record(0, 0), record(1, 0), record(0, 1)]);
        let covers = |partition, from| Append {
            covers: Some((partition, from, UnixSeconds(0))),
            puts: vec![(vec![b'm', 0], Vec::new())],
            ..Append::default()
        };
        write(&mut journal, &mut store, vec![covers(0, 2)]);
        assert_eq!(journal.head(), 1, "partition 1 needs its record");
        write(&mut journal, &mut store, vec![covers(1, 1)]);
        assert_eq!(journal.head(), 3);
        write(&mut journal, &mut store, vec![record(0, 2)]);
        let again = Journal::open(&mut store, BTreeMap::new()).expect("reads");
        assert_eq!((again.head(), again.next), (3, 4));
        let mut left = Vec::new();
        store
            .scan(b"l", b"m", &mut |key, _| {
                left.extend(keys::ordinal_of(key));
                ControlFlow::Continue(())
            })
            .expect("scans");
        assert_eq!(left, [3]);
    }

    #[test]
    fn a_head_that_was_not_written_is_written_with_the_next_try_or_alone() {
        let disk = MemDisk::new(1 << 20);
        let mut store = disk.open();
        let mut journal = Journal::open(&mut store, BTreeMap::new()).expect("an empty store");
        let covers = Append { covers: Some((0, 2, UnixSeconds(0))), ..Append::default() };
        write(&mut journal, &mut store, vec![record(0, 0), record(0, 1), covers]);
        // A write that fails: its batches are made again.
        let mut more = vec![record(0, 2)];
        more.iter_mut().for_each(|append| journal.take(append));
        let holds_head = |batches: &[WriteBatch]| {
            let mut ops = batches.iter().flat_map(WriteBatch::ops);
            ops.any(|op| matches!(op, store::Op::Put { key, .. } if key == keys::HEAD))
        };
        assert!(holds_head(&journal.batches(&more)));
        assert!(holds_head(&journal.batches(&more)), "the first one failed");
        let alone = journal.head_to_write().expect("nothing says it yet");
        store.write(&alone).expect("room");
        store.sync().expect("a disk without faults");
        journal.done(&[]);
        journal.forget(&mut store, 1).expect("forgets");
        assert!(!holds_head(&journal.batches(&more)) && journal.head_to_write().is_none());
        assert_eq!(head(&store).expect("reads"), 2);
    }

    /// Found by the simulator (seed 930): kill -9, a start, "included already", and then the power goes.
    #[test]
    fn what_a_killed_process_left_unsynced_is_durable_once_it_was_read() {
        let disk = MemDisk::new(1 << 20);
        let mut batch = WriteBatch::new();
        batch.put(&keys::log_key(0), &[1; 12]);
        disk.open().write(&batch).expect("room");
        let mut store = disk.open();
        let journal = Journal::open(&mut store, BTreeMap::new()).expect("reads");
        disk.crash();
        assert_eq!(journal.next, 1);
        assert!(disk.open().get(&keys::log_key(0)).expect("reads").is_some());
    }

    #[test]
    fn a_record_that_is_written_again_keeps_its_place() {
        let mut journal = Journal::default();
        let mut append = record(0, 0);
        journal.take(&mut append);
        journal.take(&mut append);
        assert_eq!((append.ordinal, journal.next), (Some(0), 1));
    }

    #[test]
    fn marks_read_back() {
        let mark = Mark { next: 1, received: 2, too_old: 3, corrupt: 4, sealed: 5 };
        let marks = BTreeMap::from([(3, mark), (9, Mark::default())]);
        assert_eq!(decode_marks(&encode_marks(&marks)), marks);
    }
}
