//! One picture of all that waits: the lanes of the relays' spills as the relays know them, what the replayers do with
//! them, and the windows that final nodes have to catch up with. Every relay is seen by every replayer, so backlog is
//! counted at its source and speed is added up over the replayers.

use std::collections::BTreeMap;

use admin_api::{ReplaySource, ReplayStatus, SpillLane, SpillStatus, paths};
use config::{Layer, Node};
use serde::Serialize;

use super::RUNBOOK;
use crate::client::{Answer, Fault, Reply, Request, exit_of_results, silent};
use crate::context::Context;
use crate::exit::Exit;

/// What all nodes said at one time.
#[derive(Debug)]
pub(crate) struct Picture<'c> {
    /// Replayers, and those final nodes that catch up.
    pub(crate) replays: Vec<Answer<'c, ReplayStatus>>,
    /// Relays.
    pub(crate) spills: Vec<Answer<'c, SpillStatus>>,
}

/// One lane of a relay, or the windows that one store missed.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) source: String,
    pub(crate) destination: String,
    /// `away`, `no replayer`, `paused`, what limits it, or `idle`.
    pub(crate) state: String,
    /// Without what the live path still holds itself.
    pub(crate) pending_points: u64,
    pub(crate) pending_bytes: u64,
    pub(crate) pending_batches: u64,
    /// Timestamps, seconds since 1970.
    pub(crate) oldest: Option<u64>,
    pub(crate) newest: Option<u64>,
    /// Share of the horizon that the oldest point has used up; only what goes into windows has a horizon.
    pub(crate) horizon_used_percent: Option<u64>,
    /// Points that will be past the horizon when their turn comes: at the rate of now; while all is paused, if it were
    /// resumed now; while nothing moves, those that are past it already.
    pub(crate) late_points: u64,
    pub(crate) rate_now: u64,
    /// Since the replayers' start.
    pub(crate) done_points: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) head: u64,
    pub(crate) tail: u64,
    pub(crate) gaps: usize,
    pub(crate) gap_points: u64,
    pub(crate) error: Option<String>,
}

impl<'c> Picture<'c> {
    pub(crate) fn take(context: &Context<'c>) -> Picture<'c> {
        let relays = context.nodes(&[Layer::Relay]).into_iter().map(|node| (node, Request::get(paths::SPILL)));
        let replaying = context.nodes(&[Layer::Replayer, Layer::Final]);
        let requests = replaying.into_iter().map(|node| (node, Request::get(paths::REPLAY))).chain(relays).collect();
        let mut picture = Picture { replays: Vec::new(), spills: Vec::new() };
        for answer in context.client.exchange(requests) {
            match answer.node.layer {
                Layer::Relay => picture.spills.push(answer.decoded()),
                Layer::Final if has_nothing(&answer) => {}
                Layer::Final | Layer::Replayer | Layer::Partial => picture.replays.push(answer.decoded()),
            }
        }
        picture
    }

    pub(crate) fn exit(&self) -> Exit {
        exit_of_results(self.faults())
    }

    fn faults(&self) -> impl Iterator<Item = Option<&Fault>> {
        let replays = self.replays.iter().map(|answer| answer.result.as_ref().err());
        replays.chain(self.spills.iter().map(|answer| answer.result.as_ref().err()))
    }

    /// One line for each node that did not answer.
    pub(crate) fn silent(&self) -> String {
        silent(&self.replays) + &silent(&self.spills)
    }

    /// The nodes of one layer that answered, in the order of the file.
    pub(crate) fn said(&self, layer: Layer) -> impl Iterator<Item = (&'c Node, &ReplayStatus)> {
        let answered = self.replays.iter().filter_map(|answer| Some((answer.node, answer.result.as_ref().ok()?)));
        answered.filter(move |(node, _)| node.layer == layer)
    }

    /// Seconds; as the nodes say, else as the cluster file does.
    pub(crate) fn horizon(&self, context: &Context<'_>) -> u64 {
        let said = self.replays.iter().filter_map(|answer| answer.result.as_ref().ok());
        let said = said.map(|status| status.horizon_seconds).filter(|horizon| *horizon > 0).min();
        said.unwrap_or(context.cluster.final_.horizon.as_secs())
    }

    /// Whether every replayer that answers is paused; then the rate to which it is set.
    pub(crate) fn paused_at(&self) -> Option<u64> {
        let mut settings = self.said(Layer::Replayer).map(|(_, status)| &status.settings).peekable();
        settings.peek()?;
        settings.try_fold(0, |most, settings| settings.paused.then_some(settings.rate.max(most)))
    }

    /// Until the oldest point that has a horizon passes it; zero when it has. `None`: none has one.
    pub(crate) fn horizon_left(&self, context: &Context<'_>, rows: &[Row]) -> Option<u64> {
        let oldest = rows.iter().filter(|row| row.horizon_used_percent.is_some()).filter_map(|row| row.oldest).min()?;
        Some(self.horizon(context).saturating_sub(context.age(oldest)))
    }

    /// All sources, the abnormal ones first, then by what waits.
    pub(crate) fn rows(&self, context: &Context<'_>) -> Vec<Row> {
        let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
        for answer in &self.spills {
            let Ok(spill) = &answer.result else { continue };
            for lane in &spill.lanes {
                let key = (answer.node.name.clone(), lane.destination.clone());
                rows.insert(key, of_lane(&answer.node.name, lane));
            }
        }
        let known_by_relay = rows.clone();
        for (node, status) in self.said(Layer::Replayer).chain(self.said(Layer::Final)) {
            for source in &status.sources {
                let key = (source.source.clone(), source.destination.clone());
                let counted = known_by_relay.contains_key(&key);
                let row = rows.entry(key).or_insert_with(|| Row {
                    source: source.source.clone(),
                    destination: source.destination.clone(),
                    ..Row::default()
                });
                see(row, source, status, counted, node);
            }
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        self.finish(&mut rows, context);
        rows
    }

    /// What can be said only when all rows are there.
    fn finish(&self, rows: &mut [Row], context: &Context<'_>) {
        let horizon = self.horizon(context);
        let drain = match self.paused_at() {
            Some(rate) => at_best_seconds(rows, rate),
            None => drain_seconds(rows).unwrap_or(0),
        };
        for row in rows.iter_mut() {
            let away = self.spills.iter().any(|spill| spill.node.name == row.source && spill.result.is_err());
            if row.pending_points == 0 && row.error.is_none() && !away {
                row.state = "idle".into();
            } else if away && (row.state.is_empty() || row.rate_now == 0) {
                row.state = "away".into();
            } else if row.state.is_empty() {
                row.state = "no replayer".into();
            }
            let (Some(oldest), true) = (row.oldest, goes_into_windows(&row.destination)) else { continue };
            let newest = row.newest.unwrap_or(oldest).max(oldest);
            let ages = (context.age(oldest), context.age(newest));
            row.horizon_used_percent = Some(ages.0.saturating_mul(100) / horizon.max(1));
            row.late_points = late(row.pending_points, ages, drain, horizon);
        }
        rows.sort_by_key(|row| (rank(row), u64::MAX - row.pending_points));
    }
}

/// A final node that has never missed an emission, or of a version that keeps none.
fn has_nothing(answer: &Answer<'_, Reply>) -> bool {
    answer.result.as_ref().is_err_and(Fault::is_not_here)
}

fn of_lane(relay: &str, lane: &SpillLane) -> Row {
    let pending_points = lane.pending_points.saturating_sub(lane.held_points);
    let waits = pending_points > 0;
    Row {
        source: relay.to_owned(),
        destination: lane.destination.clone(),
        pending_points,
        pending_bytes: if waits { lane.pending_bytes } else { 0 },
        pending_batches: if waits { lane.pending_batches } else { 0 },
        oldest: lane.oldest.filter(|_| waits),
        newest: lane.newest.filter(|_| waits),
        head: lane.head,
        tail: lane.tail,
        gaps: lane.gaps.len(),
        gap_points: lane.gaps.iter().fold(0, |sum, gap| sum.saturating_add(gap.points)),
        ..Row::default()
    }
}

/// Adds what one node does with a source. `counted`: what waits is known from the source itself.
fn see(row: &mut Row, source: &ReplaySource, status: &ReplayStatus, counted: bool, node: &Node) {
    if !counted && source.pending_points >= row.pending_points {
        row.pending_points = source.pending_points;
        row.pending_bytes = source.pending_bytes;
        row.pending_batches = source.pending_batches;
        (row.oldest, row.newest) = (source.oldest, source.newest);
        (row.head, row.tail) = (source.head, source.tail);
    }
    row.rate_now = row.rate_now.saturating_add(source.rate_now);
    row.done_points = row.done_points.saturating_add(source.done_points);
    for (reason, points) in &source.refused {
        *row.refused.entry(reason.clone()).or_default() += points;
    }
    if row.error.is_none() {
        row.error = source.last_error.as_ref().map(|error| format!("{}: {error}", node.name));
    }
    let state = if status.settings.paused || source.paused {
        "paused"
    } else if !source.connected {
        "away"
    } else {
        source.limited_by.as_str()
    };
    // Of several replayers the one that gets on says how it goes.
    if row.state.is_empty() || source.rate_now > 0 || matches!(row.state.as_str(), "away" | "paused" | "idle") {
        row.state = state.to_owned();
    }
}

/// Windows have a horizon; lines for a store are as good later.
fn goes_into_windows(destination: &str) -> bool {
    destination == "aggregate" || destination.starts_with("aggregate:")
}

/// Until nothing waits, at the rate of now; `None` when nothing moves.
pub(crate) fn drain_seconds(rows: &[Row]) -> Option<u64> {
    let pending = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.pending_points));
    let rate = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.rate_now));
    if pending == 0 {
        return Some(0);
    }
    (rate > 0).then(|| pending.div_ceil(rate))
}

/// Until nothing waits, at this rate.
pub(crate) fn at_best_seconds(rows: &[Row], rate: u64) -> u64 {
    let pending = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.pending_points));
    pending.div_ceil(rate.max(1))
}

/// Of `points` spread evenly over `ages` (oldest, newest; seconds) and replayed oldest first within `drain` seconds, how
/// many are older than `horizon` when their turn comes.
///
/// The point at fraction `f` from the oldest has the age `oldest - f x span + f x drain` then.
fn late(points: u64, ages: (u64, u64), drain: u64, horizon: u64) -> u64 {
    let (oldest, newest) = ages;
    let span = oldest.saturating_sub(newest);
    let share = |part: u64, of: u64| {
        let late = u128::from(points) * u128::from(part.min(of)) / u128::from(of.max(1));
        u64::try_from(late).unwrap_or(points)
    };
    match (oldest > horizon, drain.cmp(&span)) {
        (true, std::cmp::Ordering::Less) => share(oldest - horizon, span - drain),
        (true, std::cmp::Ordering::Equal | std::cmp::Ordering::Greater) => points,
        (false, std::cmp::Ordering::Greater) => points - share(horizon - oldest, drain - span),
        (false, std::cmp::Ordering::Less | std::cmp::Ordering::Equal) => 0,
    }
}

/// What a person should look at first.
fn rank(row: &Row) -> u8 {
    let used = row.horizon_used_percent.unwrap_or(0);
    match row.state.as_str() {
        "away" => 0,
        "no replayer" => 1,
        _ if row.error.is_some() => 2,
        "idle" => 6,
        _ if used >= 50 => 3,
        "paused" => 4,
        _ => 5,
    }
}

/// What the age of the oldest point means. Nothing below half of the horizon.
pub(crate) fn alarm(used_percent: u64) -> Option<String> {
    let what = match used_percent {
        0..50 => return None,
        50..80 => "more than half of the horizon is used up: find out why it waits, or raise the rate",
        80..100 => "soon too late: raise the rate now (`spillway replay rate max`), or raise final.horizon",
        100.. => "too late for the oldest points: the final layer refuses them as too_old; raise the rate for the rest",
    };
    Some(format!("ALARM: {what} ({RUNBOOK}#horizon)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_late_is_known_beforehand() {
        // points, (oldest, newest), drain, horizon, late
        let cases = [
            (1000, (50, 0), 10, 100, 0),
            // Replayed slower than it came: the last third comes when the horizon has passed.
            (900, (100, 0), 250, 200, 300),
            (900, (100, 0), 100, 100, 0),
            // The oldest half is past it already and it goes at once; slower, more.
            (1000, (200, 0), 0, 100, 500),
            (1000, (200, 0), 100, 100, 1000),
            (1000, (200, 0), 300, 100, 1000),
            // All at one time.
            (10, (101, 101), 0, 100, 10),
            (10, (99, 99), 1, 100, 0),
            (10, (99, 99), 2, 100, 5),
            (0, (5, 5), 1, 100, 0),
            (u64::MAX, (u64::MAX, 0), 1, 0, u64::MAX),
        ];
        for (points, ages, drain, horizon, expected) in cases {
            assert_eq!(late(points, ages, drain, horizon), expected, "{points} {ages:?} {drain} {horizon}");
        }
    }

    #[test]
    fn alarms_come_at_half_and_at_four_fifths() {
        let steps = [0, 49, 50, 79, 80, 99, 100, u64::MAX].map(alarm);
        assert!(steps[..2].iter().all(Option::is_none));
        for (step, words) in [(2, "half"), (3, "half"), (4, "soon"), (5, "soon"), (6, "too_old"), (7, "too_old")] {
            assert!(steps[step].as_deref().is_some_and(|text| text.contains(words)), "{step}: {steps:?}");
        }
    }
}
