//! How fast a store takes records and what it writes for them:
//! `cargo run --release -p store-rocksdb --example throughput -- <directory> [MiB a run, default 1024]`.
//!
//! Records of 64 KiB and 256 KiB that cannot be compressed go in turns to 1, 8 and 64 families, with books in the shared
//! family as a spill writes them; a sync every 8 MiB; a reader forgets all but the newest 64 MiB. Figures: MB a second of
//! record bytes; bytes given to the disk for each (from /proc/self/io: log, tables, lists); memory in use at the end and
//! at most; bytes in the directory, with the
//! ballast of 128 MiB, at most and at the end.

#![allow(clippy::print_stdout, reason = "figures for people")]

use std::fs;
use std::path::Path;
use std::time::Duration;
use store::{Store, StoreError, WriteBatch};
use store_rocksdb::{Options, open};

const LANES: &[u8] = &{
    let mut lanes = [0; 64];
    let mut lane = 0;
    while lane < 64 {
        lanes[lane as usize] = 0x80 + lane;
        lane += 1;
    }
    lanes
};
const KEPT_BYTES: u64 = 64 << 20;

fn figure(path: &str, field: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Seconds since the machine started, to a hundredth.
fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

fn directory_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn key(lane: u8, ordinal: u64) -> [u8; 9] {
    let mut key = [lane; 9];
    key[1..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

fn run(path: &Path, total_bytes: u64, record_bytes: usize, lanes: usize) -> Result<(), StoreError> {
    let options = Options { quota_bytes: 8 << 30, families: LANES, reserve_bytes: 256 << 20 };
    let mut store = open(path, &options)?.store;
    let mut noise = 1_u64;
    let mut record: Vec<u8> = Vec::with_capacity(record_bytes);
    while record.len() < record_bytes {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        record.extend_from_slice(&noise.to_be_bytes()[..4]);
    }
    let written_before = figure("/proc/self/io", "write_bytes:");
    let records = total_bytes / record_bytes as u64;
    let kept = KEPT_BYTES / record_bytes as u64 / lanes as u64;
    let (mut batch, mut busy, mut longest, mut peak, mut peak_memory) = (WriteBatch::new(), 0_u64, 0_f64, 0, 0);
    let start = uptime();
    for n in 0..records {
        let lane = LANES[usize::try_from(n % lanes as u64).unwrap_or(0)];
        let ordinal = n / lanes as u64;
        record[..8].copy_from_slice(&n.to_be_bytes());
        batch.clear();
        batch.put(&key(lane, ordinal), &record);
        batch.put(&[b'b', 0, lane], &[lane; 200]);
        let before = uptime();
        while let Err(error) = store.write(&batch) {
            if !matches!(error, StoreError::Busy) {
                return Err(error);
            }
            busy += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        longest = longest.max(uptime() - before);
        if n % (8 << 20 >> record_bytes.ilog2()) == 0 {
            store.sync()?;
            peak = peak.max(directory_bytes(path));
            peak_memory = peak_memory.max(figure("/proc/self/status", "VmRSS:"));
        }
        if ordinal % 16 == 15 && ordinal > kept {
            store.forget(&key(lane, 0), &key(lane, ordinal - kept))?;
        }
    }
    store.sync()?;
    let seconds = uptime() - start;
    // What is written back later counts as well: closing syncs nothing, but this does.
    let written = figure("/proc/self/io", "write_bytes:") - written_before;
    println!(
        "{:>4} KiB {lanes:>2} families: {:>5.0} MB/s, {:.2} bytes written a byte, longest write {:>4.0} ms, busy {busy:>4}, \
         memory {:>3} MiB at most, disk {:>3} MiB at most, {:>3} MiB at the end for {} MiB kept",
        record_bytes >> 10,
        total_bytes as f64 / 1e6 / seconds,
        written as f64 / total_bytes as f64,
        longest * 1e3,
        peak_memory >> 10,
        peak >> 20,
        directory_bytes(path) >> 20,
        KEPT_BYTES >> 20,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: throughput <directory> [MiB a run]")?;
    let mebibytes: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    for record_bytes in [64 << 10, 256 << 10] {
        for lanes in [1, 8, 64] {
            let path = Path::new(&directory).join(format!("{record_bytes}-{lanes}"));
            run(&path, mebibytes << 20, record_bytes, lanes)?;
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}
