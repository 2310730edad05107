//! `spillway replay` against nodes that keep its settings as real ones do.

mod audit;
mod giving_up;
mod settings;
mod status;

use std::sync::Mutex;

use admin_api::{
    CursorAdvance, Gap, Refused, ReplayChange, ReplaySettings, ReplaySource, ReplayStatus, SpillDiscard, SpillLane,
    SpillLoss, SpillStatus,
};

use super::fake_node::{Asked, Reply, bad, good, unknown_path};
use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn ago(seconds: u64) -> u64 {
    u64::from(NOW.0) - seconds
}

fn source(relay: &str, destination: &str, rate: u64) -> ReplaySource {
    ReplaySource {
        source: relay.into(),
        destination: destination.into(),
        connected: true,
        rate_now: rate,
        done_points: rate * 10,
        limited_by: "operator".into(),
        ..ReplaySource::default()
    }
}

fn running(node: &str, sources: Vec<ReplaySource>) -> ReplayStatus {
    let rate_now = sources.iter().map(|source| source.rate_now).sum();
    ReplayStatus {
        node: node.into(),
        layer: "replayer".into(),
        settings: ReplaySettings {
            version: 3,
            changed_at: ago(120),
            changed_by: "bob@night".into(),
            ..ReplaySettings::default()
        },
        rate_now,
        ceiling_now: 50_000,
        limited_by: if rate_now > 0 { "operator".into() } else { "idle".into() },
        horizon_seconds: DAY,
        sources,
        ..ReplayStatus::default()
    }
}

fn lane(number: u16, destination: &str, points: u64, oldest: u64) -> SpillLane {
    SpillLane {
        lane: number,
        destination: destination.into(),
        pending_points: points,
        pending_batches: points / 1000,
        pending_bytes: points * 12,
        head: 40,
        tail: 40 + points / 1000,
        oldest: (points > 0).then_some(oldest),
        newest: (points > 0).then_some(oldest + HOUR),
        spilled_points: points + 500,
        settled_points: 500,
        ..SpillLane::default()
    }
}

fn spill(node: &str, lanes: Vec<SpillLane>) -> SpillStatus {
    SpillStatus {
        node: node.into(),
        mode: "ok".into(),
        mode_since: ago(HOUR),
        quota_bytes: 20 << 30,
        bytes: 1 << 30,
        free_bytes: 50 << 30,
        lanes,
        ..SpillStatus::default()
    }
}

/// A node that replays: `PUT` changes what `GET` says.
fn replaying(status: ReplayStatus) -> FakeNode {
    let state = Mutex::new(status);
    FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/replay" => good(&*state.lock().expect("whole")),
        "PUT /v1/replay" => put(&mut state.lock().expect("whole"), asked),
        _ => unknown_path(asked),
    })
}

fn put(status: &mut ReplayStatus, asked: &Asked) -> Reply {
    let change: ReplayChange = serde_json::from_slice(&asked.body).expect("a change");
    assert!(!change.by.is_empty(), "every change says who wants it");
    let settings = &mut status.settings;
    match &change.source {
        Some(source) => {
            let own = settings.sources.entry(source.clone()).or_default();
            own.rate = change.rate.or(own.rate);
            own.paused = change.paused.unwrap_or(own.paused);
        }
        None => {
            settings.rate = change.rate.unwrap_or(settings.rate);
            settings.paused = change.paused.unwrap_or(settings.paused);
        }
    }
    settings.adaptive = change.adaptive.unwrap_or(settings.adaptive);
    settings.canary_percent = change.canary_percent.unwrap_or(settings.canary_percent);
    if let Some(range) = change.range {
        (settings.from, settings.to) = (range.from, range.to);
    }
    if let Some(glob) = change.matching {
        settings.matching = Some(glob).filter(|glob| !glob.is_empty());
    }
    good(status)
}

/// A relay with this spill, which loses `loss` whatever it is asked to give up.
fn relay(status: SpillStatus, loss: SpillLoss) -> FakeNode {
    FakeNode::responding(move |asked| {
        let (dry_run, force) = match asked.what.as_str() {
            "GET /v1/spill" => return good(&status),
            "POST /v1/spill/discard" => {
                let asked: SpillDiscard = serde_json::from_slice(&asked.body).expect("a discard");
                (asked.dry_run, asked.force)
            }
            "POST /v1/spill/cursor" => {
                let asked: CursorAdvance = serde_json::from_slice(&asked.body).expect("an advance");
                (asked.dry_run, asked.force)
            }
            _ => return unknown_path(asked),
        };
        if !dry_run && !force && loss.points > 0 {
            let refused = Refused { error: "it would lose points".into(), would_lose: Some(loss.clone()) };
            return (409, String::new(), serde_json::to_vec(&refused).expect("encodes"));
        }
        good(&SpillLoss { done: !dry_run, ..loss.clone() })
    })
}

fn a_loss() -> SpillLoss {
    SpillLoss {
        batches: 12,
        points: 12_345,
        bytes: 150_000,
        oldest: Some(ago(2 * HOUR)),
        newest: Some(ago(HOUR)),
        done: false,
    }
}

/// A relay with nothing in its spill.
fn idle_relay() -> FakeNode {
    relay(spill("relay-1", vec![]), SpillLoss::default())
}

/// `spillway replay ARGUMENTS`
fn replay(file: &File, arguments: &[&str]) -> Said {
    let all: Vec<&str> = ["replay"].iter().chain(arguments).copied().chain(["--config", file.path()]).collect();
    spillway(&all)
}

#[track_caller]
fn check(said: &Said, exit: Exit, out: &str, err: &str) {
    assert_eq!((said.out.as_str(), said.err.as_str(), said.exit), (out, err, exit));
}
