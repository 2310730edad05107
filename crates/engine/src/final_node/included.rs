//! Which batches one partition has merged. This never forgets by time (INV-3): it compacts to intervals, and whole
//! epochs retire to one number per sender.

use std::collections::BTreeMap;

use crate::batch::BatchId;
use crate::ivset::IntervalSet;
use crate::wire::Included;

/// Why a group may not be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// These are in already; never empty.
    Already(Vec<BatchId>),
    /// These are of a sender whose epoch is known under another nonce; never empty.
    DuplicateSender(Vec<BatchId>),
    /// These are of epochs up to `floor` that their sender has retired; never empty. A relay retires what it will never
    /// send again, so it must hear of this: its disk was rolled back, or it is a ghost.
    Retired { ids: Vec<BatchId>, floor: u32 },
    /// These would open more holes than are remembered; never empty.
    TooManyHoles(Vec<BatchId>),
}

/// What is known of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest epoch that was merged or retired.
    pub epoch: u32,
    /// Epochs up to this one are retired; 0: none is.
    pub floor: u32,
}

impl Known {
    /// What is known of it here and there.
    pub fn or_more(self, other: Known) -> Known {
        Known { epoch: self.epoch.max(other.epoch), floor: self.floor.max(other.floor) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stream {
    nonce: u64,
    seqs: IntervalSet,
}

/// The included set of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncludedSet {
    streams: BTreeMap<(u64, u32), Stream>,
    retired: BTreeMap<u64, u32>,
}

impl IncludedSet {
    /// Nothing is included.
    pub fn new() -> IncludedSet {
        IncludedSet::default()
    }

    /// Whether a batch is known to be merged. Of retired epochs that is not known any more: see
    /// [`IncludedSet::floor`].
    pub fn contains(&self, id: BatchId) -> bool {
        self.streams.get(&(id.sender, id.epoch)).is_some_and(|stream| stream.seqs.contains(id.seq))
    }

    /// Up to which epoch nothing of a sender is taken any more: a ghost's late copy must not come in again.
    pub fn floor(&self, sender: u64) -> Option<u32> {
        self.retired.get(&sender).copied()
    }

    /// Every sender that is known, with the highest epoch that was merged or retired, and the floor (0: none).
    pub fn senders(&self) -> BTreeMap<u64, Known> {
        let mut senders: BTreeMap<u64, Known> =
            self.retired.iter().map(|(sender, floor)| (*sender, Known { epoch: *floor, floor: *floor })).collect();
        for &(sender, epoch) in self.streams.keys() {
            let known = senders.entry(sender).or_default();
            known.epoch = known.epoch.max(epoch);
        }
        senders
    }

    /// What speaks against merging these together. Two entries of one batch in a group count as "already", too.
    ///
    /// # Errors
    /// The gravest objection, with all batches that it is about: an impostor, else a retired epoch, else what is in
    /// already, else holes. The others of the group are not to blame and may come again.
    pub fn check(&self, group: &[Included]) -> Result<(), Objection> {
        let (mut impostors, mut already, mut holes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut retired, mut highest) = (Vec::new(), 0);
        for (index, member) in group.iter().enumerate() {
            let stream = self.streams.get(&(member.id.sender, member.id.epoch));
            let twice = group.iter().take(index).any(|before| before.id == member.id);
            if stream.is_some_and(|stream| stream.nonce != member.nonce) {
                impostors.push(member.id);
            } else if let Some(floor) = self.floor(member.id.sender).filter(|floor| member.id.epoch <= *floor) {
                retired.push(member.id);
                highest = highest.max(floor);
            } else if (twice || self.contains(member.id)) && !mutant!("no_dedupe") {
                already.push(member.id);
            } else if stream.is_some_and(|stream| stream.seqs.would_exceed(member.from, member.id.seq)) {
                holes.push(member.id);
            }
        }
        if !impostors.is_empty() {
            return Err(Objection::DuplicateSender(impostors));
        }
        if !retired.is_empty() {
            return Err(Objection::Retired { ids: retired, floor: highest });
        }
        if !already.is_empty() {
            return Err(Objection::Already(already));
        }
        if holes.is_empty() { Ok(()) } else { Err(Objection::TooManyHoles(holes)) }
    }

    /// Marks a batch as merged.
    pub fn insert(&mut self, member: &Included) {
        let stream = self
            .streams
            .entry((member.id.sender, member.id.epoch))
            .or_insert_with(|| Stream { nonce: member.nonce, seqs: IntervalSet::new() });
        stream.seqs.insert(member.from, member.id.seq);
    }

    /// Takes nothing of `sender` with an epoch up to `floor` any more. True if that is news.
    pub fn retire(&mut self, sender: u64, floor: u32) -> bool {
        if self.retired.get(&sender).copied().unwrap_or(0) >= floor {
            return false;
        }
        if !mutant!("retired_forgotten") {
            self.retired.insert(sender, floor);
        }
        self.streams.retain(|&(of, epoch), _| of != sender || epoch > floor);
        true
    }

    /// How many intervals are remembered in all.
    pub fn intervals(&self) -> usize {
        self.streams.values().map(|stream| stream.seqs.runs().len()).sum()
    }

    /// Appends everything, for a snapshot:
    /// `n u32, n x (sender u64, floor u32), m u32, m x (sender u64, epoch u32, nonce u64, k u32, k x (lo u32, hi u32))`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_len(self.retired.len(), out);
        for (sender, floor) in &self.retired {
            out.extend_from_slice(&sender.to_le_bytes());
            out.extend_from_slice(&floor.to_le_bytes());
        }
        put_len(self.streams.len(), out);
        for ((sender, epoch), stream) in &self.streams {
            out.extend_from_slice(&sender.to_le_bytes());
            out.extend_from_slice(&epoch.to_le_bytes());
            out.extend_from_slice(&stream.nonce.to_le_bytes());
            put_len(stream.seqs.runs().len(), out);
            for (lo, hi) in stream.seqs.runs() {
                out.extend_from_slice(&lo.to_le_bytes());
                out.extend_from_slice(&hi.to_le_bytes());
            }
        }
    }

    /// Reads what [`IncludedSet::encode`] wrote; `None` if the bytes are something else. Takes them off the front.
    pub fn decode(bytes: &mut &[u8]) -> Option<IncludedSet> {
        let mut set = IncludedSet::new();
        for _ in 0..take_u32(bytes)? {
            let sender = take_u64(bytes)?;
            set.retired.insert(sender, take_u32(bytes)?);
        }
        for _ in 0..take_u32(bytes)? {
            let key = (take_u64(bytes)?, take_u32(bytes)?);
            let mut stream = Stream { nonce: take_u64(bytes)?, seqs: IntervalSet::new() };
            for _ in 0..take_u32(bytes)? {
                let lo = take_u32(bytes)?;
                stream.seqs.insert(lo, take_u32(bytes)?);
            }
            set.streams.insert(key, stream);
        }
        Some(set)
    }
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (front, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*front))
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (front, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*front))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(epoch: u32, from: u32, seq: u32) -> Included {
        Included { id: BatchId { sender: 1, epoch, seq }, nonce: 7, from, points: 1 }
    }

    fn id(epoch: u32, seq: u32) -> BatchId {
        BatchId { sender: 1, epoch, seq }
    }

    #[test]
    fn what_is_in_is_never_taken_again() {
        let mut set = IncludedSet::new();
        assert_eq!(set.check(&[member(1, 0, 3)]), Ok(()));
        set.insert(&member(1, 0, 3));
        assert_eq!(set.check(&[member(1, 4, 9), member(1, 0, 3)]), Err(Objection::Already(vec![id(1, 3)])));
        assert_eq!(set.check(&[member(1, 4, 9)]), Ok(()));
    }

    #[test]
    fn one_batch_twice_in_a_group_is_an_objection() {
        let set = IncludedSet::new();
        let group = [member(1, 0, 3), member(1, 0, 3)];
        assert_eq!(set.check(&group), Err(Objection::Already(vec![id(1, 3)])));
    }

    #[test]
    fn claims_keep_a_sparse_stream_one_interval() {
        let mut set = IncludedSet::new();
        for (from, seq) in [(0, 3), (4, 19), (20, 20), (21, 300)] {
            set.insert(&member(1, from, seq));
        }
        assert_eq!(set.intervals(), 1);
    }

    #[test]
    fn a_batch_that_comes_late_finds_its_hole_open() {
        let mut set = IncludedSet::new();
        set.insert(&member(1, 0, 3));
        set.insert(&member(1, 10, 19)); // 4..=9 is claimed by a batch that is still on its way
        assert!(!set.contains(id(1, 9)));
        assert_eq!(set.check(&[member(1, 4, 9)]), Ok(()));
        set.insert(&member(1, 4, 9));
        assert_eq!(set.intervals(), 1);
    }

    #[test]
    fn a_retired_epoch_is_refused_by_that_name_and_costs_nothing() {
        let mut set = IncludedSet::new();
        set.insert(&member(1, 0, 0));
        set.insert(&member(2, 0, 0));
        assert!(set.retire(1, 1));
        assert!(!set.retire(1, 1));
        let refused = Objection::Retired { ids: vec![id(1, 999)], floor: 1 };
        assert_eq!(set.check(&[member(2, 1, 1), member(1, 999, 999)]), Err(refused));
        assert_eq!(set.check(&[member(2, 1, 1)]), Ok(()));
        assert_eq!(set.intervals(), 1);
        set.retire(9, 4);
        let known = [(1, Known { epoch: 2, floor: 1 }), (9, Known { epoch: 4, floor: 4 })];
        assert_eq!(set.senders(), BTreeMap::from(known));
    }

    #[test]
    fn a_cloned_disk_is_noticed_by_its_nonce() {
        let mut set = IncludedSet::new();
        set.insert(&member(1, 0, 0));
        let clone = Included { nonce: 8, ..member(1, 1, 1) };
        assert_eq!(set.check(&[member(2, 0, 0), clone]), Err(Objection::DuplicateSender(vec![clone.id])));
    }

    #[test]
    fn a_snapshot_reads_back_the_same_and_a_cut_one_not_at_all() {
        let mut set = IncludedSet::new();
        set.insert(&member(2, 0, 5));
        set.insert(&member(2, 9, 9));
        set.retire(4, 3);
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        assert_eq!(IncludedSet::decode(&mut bytes.as_slice()), Some(set));
        for cut in 0..bytes.len() {
            assert_eq!(IncludedSet::decode(&mut &bytes[..cut]), None, "cut at {cut}");
        }
    }
}
