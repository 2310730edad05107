//! Spilling and reading back: points per second as `relay.spill` does it (append, write, sync every 50 ms; then lend and
//! decompress), beside a plain sequential write of the same lines in the same run. 63-byte lines, batches of 256 KiB.
//!
//! `SPILLWAY_SPILL_POINTS` (default 4,000,000) and `SPILLWAY_SPILL_DIR` (default: the temporary folder) change it.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod harness;

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::batch::{Batch, Builder, Claim, Incarnation, PartitionSet, Versions};
use engine::spill::{AGGREGATE, Entry, FAMILIES, Offered, Op, Spill, Why};
use engine::time::{Mono, UnixSeconds};
use engine::wire::LeaseRequest;
use store::{Store, StoreError, WriteBatch};
use store_rocksdb::{Options, RocksStore};

const LINES: u32 = 4_000;
const SYNC_EVERY: Duration = Duration::from_millis(50);
const WRITE_BYTES: u64 = 1 << 20;

fn main() {
    let points: u64 = variable("SPILLWAY_SPILL_POINTS").and_then(|text| text.parse().ok()).unwrap_or(4_000_000);
    let folder = variable("SPILLWAY_SPILL_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("spillway-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("make the folder");
    let batches: Vec<Batch> = (0..64).map(batch).collect();
    let rounds = points / u64::from(LINES);
    let raw = u64::try_from(batches[0].bytes().len()).expect("small") * rounds;

    let plain = plain(&folder, &batches, rounds);
    let path = folder.join("spill");
    let before = written_bytes();
    let (stored, spilling) = spill(&path, &batches, rounds);
    let after = written_bytes();
    let reading = read_back(&path, rounds);
    fs::remove_dir_all(&folder).expect("remove the folder");

    let rate = |time: Duration| points as f64 / time.as_secs_f64() / 1e6;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "\nspill, {points} points of 63 bytes: {:.0} MiB, {:.0} MiB as records",
        mebibytes(raw),
        mebibytes(stored)
    );
    println!("{:44} {:>12} {:>9}", "", "M points/s", "x plain");
    for (name, time) in [
        ("plain sequential write, synced (floor)", plain),
        ("spill, synced every 50 ms", spilling),
        ("read back", reading),
    ] {
        println!("{name:44} {:>12.2} {:>9.2}", rate(time), time.as_secs_f64() / plain.as_secs_f64());
    }
    println!("written to disk for a byte of records: {:.2}", (after - before) as f64 / stored as f64);
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn batch(number: u32) -> Batch {
    let mut builder = Builder::new(PartitionSet(1), 300 << 10);
    let at = UnixSeconds(1_700_000_000 + number);
    let mut random = number.wrapping_mul(2_654_435_761) | 1;
    for _ in 0..LINES {
        // Xorshift: series without order and values without repetition, as a cache of many senders sees them.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let (series, value) = (random % 100_000, random / 7 % 100_000);
        let line = format!("{} {}.{:02} {}\n", harness::name(series), value / 100, value % 100, at.0);
        builder.append(line.as_bytes(), 1, at, at);
    }
    let me = Incarnation { sender: 1, epoch: 1, nonce: 1 };
    builder.seal(me, number, Versions::default(), &[Claim { partition: 0, from: number }])
}

/// What a plain program would do: write, and sync once in a while.
fn plain(folder: &Path, batches: &[Batch], rounds: u64) -> Duration {
    let mut file = File::create(folder.join("plain")).expect("make a file");
    let start = Instant::now();
    let mut synced = Instant::now();
    for (_, batch) in (0..rounds).zip(batches.iter().cycle()) {
        file.write_all(batch.bytes()).expect("write");
        if synced.elapsed() >= SYNC_EVERY {
            file.sync_data().expect("sync");
            synced = Instant::now();
        }
    }
    file.sync_data().expect("sync");
    start.elapsed()
}

fn open(path: &Path) -> RocksStore {
    RocksStore::open(path, Options { quota_bytes: 1 << 40, families: &FAMILIES, reserve_bytes: 0 }).expect("open")
}

fn load(store: &RocksStore) -> Spill {
    let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
    let (from, to) = engine::spill::books_range();
    let kept = store.scan(&from, &to, &mut |key, value| {
        entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    });
    kept.expect("read the books");
    let mut spill = Spill::load(1, "bench", &entries, None).expect("load");
    spill.loaded(UnixSeconds(1));
    spill
}

fn spill(path: &Path, batches: &[Batch], rounds: u64) -> (u64, Duration) {
    let mut store = open(path);
    let mut spill = load(&store);
    let mut write = WriteBatch::new();
    let start = Instant::now();
    let mut synced = Instant::now();
    for (_, batch) in (0..rounds).zip(batches.iter().cycle()) {
        spill.append(&Entry::batch(AGGREGATE, batch, Why::Memory));
        if spill.staged_bytes() >= WRITE_BYTES {
            put(&mut store, &mut spill, &mut write);
        }
        if synced.elapsed() >= SYNC_EVERY {
            put(&mut store, &mut spill, &mut write);
            store.sync().expect("sync");
            synced = Instant::now();
        }
    }
    put(&mut store, &mut spill, &mut write);
    store.sync().expect("sync");
    (spill.lanes()[0].spilled.bytes, start.elapsed())
}

fn put(store: &mut RocksStore, spill: &mut Spill, write: &mut WriteBatch) {
    write.clear();
    for op in spill.ops() {
        match op {
            Op::Put { key, value } => write.put(&key, &value),
            Op::Delete { key } => write.delete(&key),
        }
    }
    spill.records().for_each(|(key, value)| write.put(key, value));
    while let Err(error) = store.write(write) {
        assert!(matches!(error, StoreError::Busy), "{error}");
        std::thread::sleep(Duration::from_millis(2));
    }
    spill.written();
}

fn read_back(path: &Path, rounds: u64) -> Duration {
    let store = open(path);
    let mut spill = load(&store);
    let request = LeaseRequest {
        number: 1,
        lane: 0,
        max_bytes: u32::MAX,
        max_points: u32::MAX,
        from: UnixSeconds(0),
        to: UnixSeconds(u32::MAX),
        matching: String::new(),
    };
    let start = Instant::now();
    let mut read = 0;
    let mut grant = spill.grant(1, &request).expect("no glob");
    while let Some((from, to)) = spill.grant_range(&mut grant, &|_| None) {
        let scanned =
            store.scan(
                &from,
                &to,
                &mut |key, value| match spill.offer(&mut grant, key, value, &|_| false, Mono::ZERO) {
                    Offered::Lent(_) => {
                        read += 1;
                        ControlFlow::Continue(())
                    }
                    Offered::Skipped => ControlFlow::Continue(()),
                    Offered::Jump | Offered::Enough => ControlFlow::Break(()),
                },
            );
        scanned.expect("read");
        spill.grant_ended(&mut grant);
    }
    assert_eq!(read, rounds, "everything is read back");
    start.elapsed()
}

/// Bytes that this process made the system write to disks.
fn written_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
