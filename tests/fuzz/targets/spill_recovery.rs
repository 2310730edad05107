//! A relay's spill whose store was damaged in any way: no panic, no endless start, and books that balance, which the
//! next start finds as this one left them.
//!
//! The input is a list of damages, six bytes each, to the store of one relay: what, where, and with which byte.
#![no_main]

mod damage;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use damage::change;
use engine::batch::{Builder, Claim, Incarnation, PartitionSet, Versions};
use engine::spill::{Entry, LaneView, LoadError, Lost, Offered, Op, Spill, Why};
use engine::time::{Mono, UnixSeconds};
use engine::wire::LeaseRequest;
use libfuzzer_sys::fuzz_target;

const OWN: u64 = 7;

#[derive(Clone, Default)]
struct Disk {
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    witness: Vec<u8>,
}

impl Disk {
    fn range(&self, range: (Vec<u8>, Vec<u8>)) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        let end = range.1.max(range.0.clone());
        self.keys.range(range.0..end)
    }

    fn load(&self) -> Result<Spill, LoadError> {
        let entries: Vec<(Bytes, Bytes)> = self
            .range(engine::spill::books_range())
            .map(|(key, value)| (Bytes::from(key.clone()), Bytes::from(value.clone())))
            .collect();
        let mut spill = Spill::load(OWN, "fuzz", &entries, Some(&self.witness))?;
        for range in spill.beyond_books() {
            self.range(range).for_each(|(key, value)| spill.found(key, value));
        }
        spill.loaded(UnixSeconds(5_000));
        while let Some((lane, range)) = spill.check_range() {
            self.range(range).for_each(|(_, value)| spill.checked(lane, value));
            spill.checked_all(lane);
        }
        Ok(spill)
    }

    /// What the thread does: write, sync, witness, and forget what is behind the head.
    fn sync(&mut self, spill: &mut Spill) {
        for op in spill.ops() {
            match op {
                Op::Put { key, value } => drop(self.keys.insert(key, value)),
                Op::Delete { key } => drop(self.keys.remove(&key)),
            }
        }
        self.keys.extend(spill.records().map(|(key, value)| (key.to_vec(), value.to_vec())));
        spill.written();
        for range in spill.synced() {
            let gone: Vec<Vec<u8>> = self.range(range).map(|(key, _)| key.clone()).collect();
            gone.iter().for_each(|key| drop(self.keys.remove(key)));
        }
        self.witness = spill.witness();
    }

    /// RocksDB's checksums and the witness' own turn a changed bit in keys, books and the witness into "cannot be read";
    /// records are judged by us.
    fn damage(&mut self, damage: &[u8]) {
        let [what, pick, pick_high, at, at_high, byte] = *damage else { return };
        let at = usize::from(u16::from_le_bytes([at, at_high]));
        let pick = usize::from(u16::from_le_bytes([pick, pick_high])) % self.keys.len().max(1);
        let Some(key) = self.keys.keys().nth(pick).cloned() else { return };
        let is_record = engine::spill::all_records().0 <= key;
        match (what % 8, self.keys.get_mut(&key)) {
            (0, _) => self.witness.clear(),
            (1, _) => drop(self.keys.split_off(&key)),
            (2..6, Some(value)) if is_record => change(value, what / 8, at, byte),
            _ => drop(self.keys.remove(&key)),
        }
    }
}

fn request() -> LeaseRequest {
    let (from, to) = (UnixSeconds(0), UnixSeconds(u32::MAX));
    LeaseRequest { number: 1, lane: 0, max_bytes: 1 << 20, max_points: 1 << 20, from, to, matching: String::new() }
}

/// Three lanes, some of it settled, a hole, a dead letter.
static WHOLE: LazyLock<Disk> = LazyLock::new(|| {
    let mut disk = Disk::default();
    let mut spill = disk.load().expect("an empty one");
    for seq in 0..24_u32 {
        let mut builder = Builder::new(PartitionSet(1), 0);
        let at = UnixSeconds(1_000 + seq);
        builder.append(format!("a.b{seq} 1 {}\n", at.0).as_bytes(), 1, at, at);
        let claims = [Claim { partition: 0, from: seq }];
        let incarnation = Incarnation { sender: OWN, epoch: 1 + seq / 8, nonce: 1 };
        let batch = builder.seal(incarnation, seq, Versions::default(), &claims);
        let destination = ["aggregate", "aggregate:final-1"][seq as usize % 2];
        spill.append(&Entry::batch(destination, &batch, Why::Timeout));
        spill.append(&Entry::block("store/h:1", b"a.b 1 1000\n", 1, 1, u64::from(seq), Why::Timeout));
        if seq % 6 == 5 {
            disk.sync(&mut spill);
        }
    }
    disk.sync(&mut spill);
    let mut grant = spill.grant(1, &request()).expect("no glob");
    let mut leased = Vec::new();
    while let Some(range) = spill.grant_range(&mut grant, &|_| None) {
        for (key, value) in disk.range(range) {
            if let Offered::Lent(lent) = spill.offer(&mut grant, key, value, &|_| false, Mono::ZERO) {
                leased.push((lent.ticket, value.clone()));
            }
        }
        spill.grant_ended(&mut grant);
    }
    for (at, (ticket, value)) in leased.iter().enumerate() {
        let Some(meta) = spill.leased_meta(*ticket) else { continue };
        match at % 9 {
            0..3 | 5 => drop(spill.settle(*ticket, meta)),
            7 => drop(spill.bury(*ticket, meta, Lost::TooOld, Some(value))),
            _ => {}
        }
    }
    disk.sync(&mut spill);
    disk
});

fn balanced(lanes: &[LaneView]) {
    for lane in lanes {
        let mut sum = lane.pending;
        sum.add(lane.settled);
        lane.dropped.iter().for_each(|(_, tally)| sum.add(*tally));
        assert_eq!(sum, lane.spilled, "{lane:?}");
        assert!(lane.head <= lane.tail, "{lane:?}");
        assert!(!lane.checking, "{lane:?}");
    }
}

/// Everything that can be lent is read to its last byte, as a replayer's request would.
fn lend(disk: &Disk, spill: &mut Spill) {
    let mut grant = spill.grant(1, &request()).expect("no glob");
    'grant: while let Some(range) = spill.grant_range(&mut grant, &|_| None) {
        for (key, value) in disk.range(range) {
            match spill.offer(&mut grant, key, value, &|_| false, Mono::ZERO) {
                Offered::Lent(_) | Offered::Skipped => {}
                Offered::Jump => continue 'grant,
                Offered::Enough => break 'grant,
            }
        }
        spill.grant_ended(&mut grant);
    }
    spill.granted(grant);
}

fuzz_target!(|input: &[u8]| {
    let mut disk = WHOLE.clone();
    input.chunks_exact(6).take(32).for_each(|damage| disk.damage(damage));
    let Ok(mut spill) = disk.load() else { return };
    let lanes = spill.lanes();
    balanced(&lanes);
    disk.sync(&mut spill);
    lend(&disk, &mut spill);
    let Ok(again) = disk.load() else { panic!("what this program wrote is not of a newer one") };
    balanced(&again.lanes());
    let books = |lanes: Vec<LaneView>| -> Vec<_> {
        lanes
            .into_iter()
            .map(|lane| (lane.destination, lane.spilled, lane.pending, lane.settled, lane.dropped))
            .collect()
    };
    assert_eq!(books(again.lanes()), books(spill.lanes()), "a start without damage changes no books");
});
