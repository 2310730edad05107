use std::collections::BTreeMap;

use super::*;
use crate::batch::BatchId;
use crate::deltas::{Deltas, KeyTable};
use crate::partial::{PointOrder, Shape};
use crate::rule::OutputKey;
use crate::wire::Lane;

const WINDOW: UnixSeconds = UnixSeconds(1000);
const BLOCK: BlockId = BlockId { window: WINDOW, rule: 0 };

/// What a store would hold.
#[derive(Default)]
struct Disk {
    log: BTreeMap<u64, Vec<u8>>,
    kv: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn deltas(values: &[f64]) -> Bytes {
    let mut keys = KeyTable::new();
    let key = keys.intern(&OutputKey { rule: 0, name: b"out".to_vec().into() }, Shape::PLAIN).expect("interned");
    let mut deltas = Deltas::new();
    let order = PointOrder { ts: 1000, sender: 1, epoch: 1, seq: 0, index: 0 };
    values.iter().for_each(|value| deltas.fold(&keys, key, WINDOW, *value, order, 0));
    let mut bytes = Vec::new();
    deltas.encode(&keys, &mut bytes);
    Bytes::from(bytes)
}

fn member(seq: u32) -> Included {
    Included { id: BatchId { sender: 1, epoch: 1, seq }, nonce: 7, from: seq, points: 1 }
}

fn flush(number: u64, lane: Lane, groups: &[(&[u32], &[f64])]) -> Flush {
    let groups = groups
        .iter()
        .map(|(seqs, values)| Group { included: seqs.iter().map(|seq| member(*seq)).collect(), deltas: deltas(values) })
        .collect();
    Flush { number, partition: 3, lane, groups }
}

fn commit(partition: &mut Partition, disk: &mut Disk, flush: Flush) -> FlushReply {
    let outcome = partition.flush(flush);
    if let Some(record) = outcome.record {
        disk.log.insert(outcome.after, record);
    }
    partition.synced(outcome.after, &mut |_| None);
    outcome.reply
}

fn total(partition: &mut Partition) -> (u64, f64) {
    let found = partition.windows().get(BLOCK, b"out");
    found.map_or((0, 0.0), |p| (p.points(), p.value(crate::rule::Function::Sum, 10).expect("a sum")))
}

fn restarted(disk: &Disk) -> Partition {
    let mut partition = Partition::new(3);
    if let Some(meta) = disk.kv.get(&meta_key(3)) {
        partition.restore(meta).expect("meta");
    }
    let (from, to) = block_range(3);
    for (key, bytes) in disk.kv.range(from..to) {
        partition.restore_block(block_of_key(key).expect("key"), bytes).expect("block");
    }
    for (number, bytes) in &disk.log {
        partition.replay(*number, bytes, &mut |_| None).expect("record");
    }
    partition
}

fn checkpoint(partition: &mut Partition, disk: &mut Disk) {
    let made = partition.checkpoint().expect("nothing pending");
    disk.kv.extend(made.puts);
    made.deletes.iter().for_each(|key| {
        disk.kv.remove(key);
    });
    let (from, to) = (number_of_log_key(&made.log.0).expect("key"), number_of_log_key(&made.log.1).expect("key"));
    disk.log.retain(|number, _| !(from..to).contains(number));
}

#[test]
fn a_batch_is_merged_once_however_often_it_comes() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    let first = commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0, 1], &[1.0, 2.0])]));
    assert_eq!(first.groups, [GroupReply::Merged]);
    let again = commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0, 1], &[1.0, 2.0])]));
    assert_eq!(again.groups, [GroupReply::Refused { included: vec![member(0).id, member(1).id] }]);
    assert_eq!(total(&mut partition), (2, 3.0));
}

#[test]
fn lane_f_is_all_or_nothing_and_lane_s_takes_what_is_new() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0], &[1.0])]));
    let mixed = commit(&mut partition, &mut disk, flush(2, Lane::First, &[(&[0, 1], &[1.0, 10.0])]));
    assert_eq!(mixed.groups, [GroupReply::Refused { included: vec![member(0).id] }]);
    assert_eq!(total(&mut partition), (1, 1.0));
    let suspects = commit(&mut partition, &mut disk, flush(3, Lane::Suspect, &[(&[0], &[1.0]), (&[1], &[10.0])]));
    assert_eq!(suspects.groups, [GroupReply::Refused { included: vec![member(0).id] }, GroupReply::Merged]);
    assert_eq!(total(&mut partition), (2, 11.0));
}

#[test]
fn nothing_is_visible_before_its_record_is_synced() {
    let mut partition = Partition::new(3);
    let outcome = partition.flush(flush(1, Lane::First, &[(&[0], &[5.0])]));
    assert_eq!((total(&mut partition), partition.books().pending), ((0, 0.0), 1));
    let again = partition.flush(flush(1, Lane::First, &[(&[0], &[5.0])]));
    assert_eq!((again.record, again.after), (None, outcome.after), "'included already' waits for the same sync");
    partition.synced(outcome.after, &mut |_| None);
    assert_eq!(total(&mut partition), (1, 5.0));
}

#[test]
fn a_restart_at_any_record_gives_what_was_synced() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    for seq in 0..6u32 {
        if seq == 3 {
            checkpoint(&mut partition, &mut disk);
        }
        commit(&mut partition, &mut disk, flush(u64::from(seq), Lane::First, &[(&[seq], &[f64::from(seq)])]));
        let mut again = restarted(&disk);
        assert_eq!(total(&mut again), total(&mut partition), "after record {seq}");
        assert_eq!(again.books(), partition.books(), "after record {seq}");
        let refused = again.flush(flush(99, Lane::First, &[(&[seq], &[1.0])]));
        assert_eq!(refused.reply.groups, [GroupReply::Refused { included: vec![member(seq).id] }]);
    }
}

#[test]
fn a_checkpoint_waits_for_what_is_pending_and_then_replaces_the_log() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0], &[5.0])]));
    let outcome = partition.flush(flush(2, Lane::First, &[(&[1], &[6.0])]));
    assert_eq!(partition.checkpoint(), None);
    disk.log.insert(outcome.after, outcome.record.expect("record"));
    partition.synced(outcome.after, &mut |_| None);
    checkpoint(&mut partition, &mut disk);
    assert!(disk.log.is_empty());
    assert_eq!(total(&mut restarted(&disk)), (2, 11.0));
}

#[test]
fn a_retired_epoch_stays_retired_over_a_restart() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    let (number, record) = partition.retire(1, 1).expect("news");
    disk.log.insert(number, record);
    assert_eq!(partition.retire(1, 1), None);
    for mut partition in [restarted(&disk), partition] {
        let ghost = partition.flush(flush(1, Lane::First, &[(&[7], &[1.0])]));
        assert_eq!(ghost.reply.groups, [GroupReply::Retired { ids: vec![member(7).id], floor: 1 }]);
    }
}

#[test]
fn deltas_that_cannot_be_read_are_refused_and_nothing_is_included() {
    let mut partition = Partition::new(3);
    let mut bad = flush(1, Lane::First, &[(&[0], &[1.0])]);
    bad.groups[0].deltas = Bytes::from_static(b"\xff\xff");
    assert_eq!(partition.flush(bad).reply.groups, [GroupReply::Malformed]);
    let good = partition.flush(flush(2, Lane::First, &[(&[0], &[1.0])]));
    assert_eq!(good.reply.groups, [GroupReply::Merged]);
}

#[test]
fn points_past_the_horizon_are_counted_and_change_nothing() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0], &[1.0])]));
    partition.seal_before(UnixSeconds(2000));
    commit(&mut partition, &mut disk, flush(2, Lane::First, &[(&[1], &[1.0, 1.0])]));
    let books = partition.books();
    assert_eq!((books.received, books.merged, books.too_old), (3, 1, 2));
    checkpoint(&mut partition, &mut disk);
    assert_eq!(restarted(&disk).windows().sealed_before(), UnixSeconds(2000));
}

#[test]
fn an_evicted_window_comes_back_for_late_points() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0], &[1.0])]));
    checkpoint(&mut partition, &mut disk);
    // Only a window with nothing to emit leaves; this one was never emitted, so take it out by restarting without it.
    let mut cold = Partition::new(3);
    cold.restore(&disk.kv[&meta_key(3)]).expect("meta");
    cold.windows().set_absent(BLOCK, 1);
    let outcome = cold.flush(flush(2, Lane::First, &[(&[1], &[4.0])]));
    cold.synced(outcome.after, &mut |id| disk.kv.get(&block_key(3, id)).cloned());
    assert_eq!(total(&mut cold), (2, 5.0));
}

#[test]
fn damaged_records_are_said_to_be_damaged() {
    let (mut partition, mut disk) = (Partition::new(3), Disk::default());
    commit(&mut partition, &mut disk, flush(1, Lane::First, &[(&[0], &[1.0])]));
    let mut record = disk.log[&0].clone();
    let last = record.len() - 1;
    record[last] ^= 1;
    let damaged = RestoreError::Damaged { partition: 3, what: "a log record" };
    assert_eq!(Partition::new(3).replay(0, &record, &mut |_| None), Err(damaged.clone()));
    assert_eq!(
        Partition::new(3).replay(1, &disk.log[&0], &mut |_| None),
        Err(damaged),
        "a record is missing before it"
    );
    assert!(matches!(Partition::new(3).restore(&[9, 0]), Err(RestoreError::NewerFormat { version: 9, .. })));
}
