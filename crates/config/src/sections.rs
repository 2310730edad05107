//! The sections of plain values. Ranges keep out what cannot work; what merely is unwise is the operator's to choose.

use std::time::Duration;

use crate::cluster::{Final, Health, Output, OwnMetrics, Receive, Replay, Sending, Spill, Supervise, Telemetry};
use crate::document::Section;
use crate::setting::{Bytes, Percent};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// `[health]`
pub(crate) fn health(mut section: Section<'_, '_>) -> Health {
    let default = Health::default();
    let read = Health {
        mode: section.or("mode", default.mode),
        proof: section.within("proof", default.proof, SECOND..=24 * HOUR),
        recover: section.within("recover", default.recover, SECOND..=24 * HOUR),
        // INV-8: no check may empty a pool, so the floor is never 0 %.
        floor_percent: section.within("floor", Percent(default.floor_percent), Percent(1)..=Percent(100)).0,
        max_ejected_percent: section
            .within("max_ejected", Percent(default.max_ejected_percent), Percent(0)..=Percent(50))
            .0,
    };
    section.finish();
    read
}

/// `[send]`
pub(crate) fn send(mut section: Section<'_, '_>) -> Sending {
    let default = Sending::default();
    let read = Sending {
        linger: section.within("linger", default.linger, MS..=10 * SECOND),
        batch_bytes: memory(&mut section, "batch", default.batch_bytes, KIB, 16 * MIB),
        ack_timeout: section.within("ack_timeout", default.ack_timeout, 100 * MS..=60 * SECOND),
        retain_bytes: memory(&mut section, "retain", default.retain_bytes, MIB, TIB),
        journal: section.or("journal", default.journal),
    };
    section.finish();
    read
}

/// `[spill]`
pub(crate) fn spill(mut section: Section<'_, '_>) -> Spill {
    let default = Spill::default();
    let read = Spill {
        quota_bytes: section.within("quota", Bytes(default.quota_bytes), Bytes(64 * MIB)..=Bytes(1024 * TIB)).0,
        sync: section.or("sync", default.sync),
    };
    section.finish();
    read
}

/// `[final]`
pub(crate) fn final_(mut section: Section<'_, '_>) -> Final {
    let default = Final::default();
    let read = Final {
        horizon: section.within("horizon", default.horizon, Duration::from_secs(60)..=90 * 24 * HOUR),
        flush: section.within("flush", default.flush, 10 * MS..=10 * SECOND),
        memory_bytes: memory(&mut section, "memory", default.memory_bytes, 16 * MIB, TIB),
        quota_bytes: section.within("quota", Bytes(default.quota_bytes), Bytes(256 * MIB)..=Bytes(1024 * TIB)).0,
    };
    section.finish();
    read
}

/// `[replay]`
pub(crate) fn replay(mut section: Section<'_, '_>) -> Replay {
    let default = Replay::default();
    let read = Replay {
        rate: section.or("rate", default.rate),
        adaptive: section.or("adaptive", default.adaptive),
        start: section.or("start", default.start),
        floor: section.or("floor", default.floor),
        large_points: section.or("large", default.large_points),
    };
    section.finish();
    read
}

/// `[receive]`
pub(crate) fn receive(mut section: Section<'_, '_>) -> Receive {
    let default = Receive::default();
    let max_connections = section.within("max_connections", count(default.max_connections), 1..=1_000_000);
    let read = Receive {
        max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
        max_line_bytes: memory(&mut section, "max_line", default.max_line_bytes, 128, MIB),
        max_name_bytes: memory(&mut section, "max_name", default.max_name_bytes, 64, 32 * KIB),
        two_fields: section.or("two_fields", default.two_fields),
        idle_timeout: section.or("idle_timeout", default.idle_timeout),
        line_timeout: section.within("line_timeout", default.line_timeout, SECOND..=HOUR),
        buffer_bytes: memory(&mut section, "buffer", default.buffer_bytes, MIB, TIB),
    };
    section.finish();
    read
}

/// `[output]`
pub(crate) fn output(mut section: Section<'_, '_>) -> Output {
    let default = Output::default();
    let notsent = Bytes(u64::from(default.notsent_lowat_bytes));
    let notsent_lowat = section.within("notsent_lowat", notsent, Bytes(4 * KIB)..=Bytes(64 * MIB)).0;
    let read = Output {
        rotate: section.within("rotate", default.rotate, SECOND..=24 * HOUR),
        rotate_bytes: section.within("rotate_bytes", Bytes(default.rotate_bytes), Bytes(64 * KIB)..=Bytes(TIB)).0,
        linger_bound: section.within("linger_bound", default.linger_bound, SECOND..=24 * HOUR),
        receipt_timeout: section.within("receipt_timeout", default.receipt_timeout, 100 * MS..=600 * SECOND),
        notsent_lowat_bytes: u32::try_from(notsent_lowat).unwrap_or(u32::MAX),
    };
    section.finish();
    read
}

/// `[supervise]`
pub(crate) fn supervise(mut section: Section<'_, '_>) -> Supervise {
    let default = Supervise::default();
    let restarts = section.within("restarts", u64::from(default.restarts), 1..=1000);
    let read = Supervise {
        restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
        within: section.within("within", default.within, SECOND..=HOUR),
        watchdog: section.within("watchdog", default.watchdog, 100 * MS..=60 * SECOND),
    };
    section.finish();
    read
}

/// `[telemetry]`; the store's name is looked up by the caller, once all stores are known.
pub(crate) fn telemetry(mut section: Section<'_, '_>) -> (Telemetry, OwnMetrics<String>) {
    let default = Telemetry::default();
    let read = Telemetry {
        interval: section.within("interval", default.interval, SECOND..=HOUR),
        prefix: section.or("prefix", default.prefix),
        graphite: default.graphite,
    };
    let graphite = section.or("graphite", OwnMetrics::Off);
    section.finish();
    (read, graphite)
}

/// A budget of memory, in bytes.
fn memory(section: &mut Section<'_, '_>, key: &'static str, default: usize, least: u64, most: u64) -> usize {
    let read = section.within(key, Bytes(count(default)), Bytes(least)..=Bytes(most));
    usize::try_from(read.0).unwrap_or(usize::MAX)
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
