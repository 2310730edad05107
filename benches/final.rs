//! What a final node does with flushes, on one core: read them, check identities, make the log record, write and sync it in
//! RocksDB, merge, take checkpoints. Beside it, in the same run, a plain sequential write of the same bytes with as many
//! syncs.
//!
//! Each round is what comes within one flush interval: one flush for each partition. Rounds differ in the window, one in
//! ten goes to an old one.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; that is all it does")]
#![allow(clippy::print_stdout, reason = "a benchmark's output is its result")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use engine::batch::BatchId;
use engine::deltas::{Deltas, KeyTable};
use engine::final_node::{Partition, keys};
use engine::partial::{PointOrder, Shape};
use engine::rule::{Function, OutputKey};
use engine::time::UnixSeconds;
use engine::wire::{self, Flush, Frame, Group, Included, Lane};
use store::{Store, WriteBatch};
use store_rocksdb::{Options, RocksStore};

const PARTITIONS: u16 = 16;
const KEYS: u32 = 4_000;
const ROUNDS: u32 = 60;
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// The bytes of one flush, as they come from a link.
fn flush(partition: u16, round: u32) -> Vec<u8> {
    let shape = Shape::of(&[Function::Sum, Function::Count, Function::Min, Function::Max]);
    let mut keys = KeyTable::new();
    let mut deltas = Deltas::new();
    let window = UnixSeconds(1_700_000_000 + if round % 10 == 9 { 0 } else { round / 20 * 10 });
    for number in 0..KEYS {
        let name = format!("groups.g{number:06}.p{partition}.cpu.{{function}}").into_bytes().into();
        let Some(key) = keys.intern(&OutputKey { rule: 0, name }, shape) else { continue };
        let order = PointOrder { ts: window.0, sender: 1, epoch: 1, seq: round, index: number };
        deltas.fold(&keys, key, window, f64::from(number), order, 1);
    }
    let mut bytes = Vec::new();
    deltas.encode(&keys, &mut bytes);
    let id = BatchId { sender: 1, epoch: 1, seq: round };
    let included = vec![Included { id, nonce: 1, from: round, points: KEYS }];
    let groups = vec![Group { included, deltas: Bytes::from(bytes) }];
    let mut frame = Vec::new();
    wire::encode(&Frame::Flush(Flush { number: u64::from(round), partition, lane: Lane::First, groups }), &mut frame);
    frame
}

fn read(frame: &[u8]) -> Flush {
    let raw = wire::next_raw(&mut BytesMut::from(frame)).ok().flatten();
    match raw.map(wire::decode) {
        Some(Ok(Frame::Flush(flush))) => flush,
        other => panic!("our own frame: {other:?}"),
    }
}

fn main() {
    let dir = std::env::temp_dir().join(format!("spillway-bench-final-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let frames: Vec<Vec<Vec<u8>>> =
        (0..ROUNDS).map(|round| (0..PARTITIONS).map(|partition| flush(partition, round)).collect()).collect();
    let deltas = f64::from(KEYS) * f64::from(PARTITIONS) * f64::from(ROUNDS);
    let (seconds, cpu, written) = run(&dir, &frames);
    let plain = write_plainly(&dir, &written);
    let bytes: usize = written.iter().flatten().map(Vec::len).sum();
    let megabytes = bytes as f64 / 1e6;
    println!("final node, {PARTITIONS} partitions, {KEYS} keys each, {ROUNDS} rounds, a sync a round, one thread");
    println!("  merged, logged, synced   {:>12.0} deltas/s   {seconds:.2} s, {cpu:.2} CPU-s", deltas / seconds);
    println!("  per CPU-second           {:>12.0} deltas", deltas / cpu);
    println!("  log                      {:>12.1} MB         {:.1} bytes a delta", megabytes, bytes as f64 / deltas);
    println!("  plain write and fsync    {:>12.2} s          ratio {:.1}", plain, seconds / plain);
    if let Err(error) = fs::remove_dir_all(&dir) {
        println!("  left behind: {}: {error}", dir.display());
    }
}

/// Wall and CPU seconds, and the values written in each round.
fn run(dir: &Path, frames: &[Vec<Vec<u8>>]) -> (f64, f64, Vec<Vec<Vec<u8>>>) {
    let options = Options { quota_bytes: 8 << 30, families: keys::FAMILIES, reserve_bytes: 0 };
    let mut store = RocksStore::open(&dir.join("store"), options).unwrap_or_else(|error| panic!("{error}"));
    let mut partitions: Vec<Partition> = (0..PARTITIONS).map(|number| Partition::new(number, &[])).collect();
    let (mut written, mut ordinal) = (Vec::new(), 0);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for round in frames {
        let mut batch = WriteBatch::new();
        let mut values = Vec::new();
        let mut upto = Vec::new();
        for (partition, frame) in partitions.iter_mut().zip(round) {
            let outcome = partition.flush(read(frame));
            upto.push(outcome.after);
            let Some(record) = outcome.record else { panic!("nothing comes twice") };
            batch.put(&keys::log_key(ordinal), &record);
            ordinal += 1;
            values.push(record);
        }
        let mut write = |batch: &WriteBatch| store.write(batch).unwrap_or_else(|error| panic!("{error}"));
        write(&batch);
        for (partition, upto) in partitions.iter_mut().zip(upto) {
            assert!(partition.synced(upto).is_empty(), "all windows are in memory");
            if partition.log_bytes() >= CHECKPOINT_BYTES {
                let mut batch = WriteBatch::new();
                for (key, value) in partition.checkpoint().puts {
                    batch.put(&key, &value);
                    values.push(value);
                }
                write(&batch);
            }
        }
        store.sync().unwrap_or_else(|error| panic!("{error}"));
        written.push(values);
    }
    (start.elapsed().as_secs_f64(), cpu_seconds() - cpu, written)
}

fn write_plainly(dir: &Path, rounds: &[Vec<Vec<u8>>]) -> f64 {
    let start = Instant::now();
    let write = || -> std::io::Result<()> {
        let mut file = File::create(dir.join("plain"))?;
        for round in rounds {
            for value in round {
                file.write_all(value)?;
            }
            file.sync_data()?;
        }
        Ok(())
    };
    write().unwrap_or_else(|error| panic!("{error}"));
    start.elapsed().as_secs_f64()
}

/// CPU time of this process with all its threads, to 10 ms.
fn cpu_seconds() -> f64 {
    testkit::tree_cpu(std::process::id()).seconds()
}
