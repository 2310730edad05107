//! `spillway replay status`: one screen for who was woken up. What state it is in, how fast, how much, how old, how long
//! still; then who replays, then the sources, the abnormal ones first.

use std::time::Duration;

use admin_api::{ReplaySettings, ReplayStatus};
use config::Layer;
use engine::rate;
use serde::Serialize;

use super::RUNBOOK;
use super::arguments::Watch;
use super::picture::{Picture, Row, alarm, at_best_seconds, drain_seconds};
use super::source;
use crate::amount::{bytes, count};
use crate::client::Answer;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::screen::Screen;
use crate::table::{Table, duration};

/// More rows than this do not help at 3 a.m.; `--json` has them all.
const ROWS_MAX: usize = 30;

/// Everything, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    cluster: &'a str,
    state: &'a str,
    rate_now: u64,
    backlog_points: u64,
    backlog_bytes: u64,
    eta_seconds: Option<u64>,
    horizon_seconds: u64,
    horizon_used_percent: Option<u64>,
    /// Until the oldest point that has a horizon passes it.
    horizon_left_seconds: Option<u64>,
    late_points: u64,
    sources: &'a [Row],
    notes: &'a [String],
    nodes: Vec<NodeEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeEntry<'a> {
    node: &'a str,
    layer: &'static str,
    answers: bool,
    error: Option<String>,
    replay: Option<&'a ReplayStatus>,
    /// Of a relay's spill.
    spill_mode: Option<&'a str>,
}

/// Shows it once, or again and again.
///
/// # Errors
/// When nothing can be printed.
pub(super) fn run(context: &mut Context<'_>, watch: Watch, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let mut looks = 0;
    loop {
        let picture = Picture::take(context);
        let mut rows = picture.rows(context);
        if let Some(source) = &watch.source {
            source::only(context, &mut rows, source)?;
        }
        if screen.json {
            report(context, &picture, &rows, screen)?;
        } else {
            let text = render(context, &picture, &rows, watch.source.as_deref(), screen);
            match watch.watch {
                Some(_) if screen.out_is_terminal => screen.text(&redrawn(&text))?,
                Some(_) if looks > 0 => screen.text(&format!("\n{text}"))?,
                Some(_) | None => screen.text(&text)?,
            }
            // On a screen that is drawn over, the table of nodes says the same.
            if watch.watch.is_none() || !screen.out_is_terminal {
                screen.note(&picture.silent())?;
            }
        }
        looks += 1;
        let Some(seconds) = watch.watch else { return Ok(picture.exit()) };
        if watch.looks.is_some_and(|most| looks >= most) || screen.closed {
            return Ok(picture.exit());
        }
        context.wait(Duration::from_secs(seconds));
    }
}

/// From the top of the terminal: each line over the one before, then nothing of what was below.
fn redrawn(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\u{1b}[K\n")).collect();
    format!("\u{1b}[H{lines}\u{1b}[J")
}

fn report(context: &Context<'_>, picture: &Picture<'_>, rows: &[Row], screen: &mut Screen<'_>) -> Result<(), Failure> {
    let replays =
        picture.replays.iter().map(|answer| NodeEntry { replay: answer.result.as_ref().ok(), ..node_entry(answer) });
    let spills = picture.spills.iter().map(|answer| NodeEntry {
        spill_mode: answer.result.as_ref().ok().map(|spill| spill.mode.as_str()),
        ..node_entry(answer)
    });
    screen.json(&Report {
        cluster: &context.cluster.name,
        state: &headline(context, picture),
        rate_now: sum(rows, |row| row.rate_now),
        backlog_points: sum(rows, |row| row.pending_points),
        backlog_bytes: sum(rows, |row| row.pending_bytes),
        eta_seconds: drain_seconds(rows),
        horizon_seconds: picture.horizon(context),
        horizon_used_percent: rows.iter().filter_map(|row| row.horizon_used_percent).max(),
        horizon_left_seconds: picture.horizon_left(context, rows),
        late_points: sum(rows, |row| row.late_points),
        sources: rows,
        notes: &notes(picture, rows),
        nodes: replays.chain(spills).collect(),
    })?;
    Ok(())
}

fn node_entry<'a, T>(answer: &Answer<'a, T>) -> NodeEntry<'a> {
    NodeEntry {
        node: &answer.node.name,
        layer: answer.node.layer.as_str(),
        answers: answer.result.is_ok(),
        error: answer.result.as_ref().err().map(ToString::to_string),
        replay: None,
        spill_mode: None,
    }
}

fn render(
    context: &Context<'_>,
    picture: &Picture<'_>,
    rows: &[Row],
    source: Option<&str>,
    screen: &Screen<'_>,
) -> String {
    let title = format!("cluster {}: replay {}", context.cluster.name, headline(context, picture));
    let mut out = format!("{}\n\n", screen.bold(&title));
    match source {
        Some(source) => out.push_str(&format!("rate now   {}/s, of {source} alone", sum(rows, |row| row.rate_now))),
        None => out.push_str(&speed(picture)),
    }
    out.push_str(&figures(context, picture, rows, screen));
    out.push_str(&format!("\n{}", nodes(context, picture).render()));
    let sources = sources(context, rows);
    if !sources.is_empty() {
        out.push_str(&format!("\n{}", sources.render()));
        if rows.len() > ROWS_MAX {
            out.push_str(&format!("... and {} more sources: --json has them all\n", rows.len() - ROWS_MAX));
        }
    }
    let notes = notes(picture, rows);
    if !notes.is_empty() {
        out.push_str("\nnotes\n");
    }
    for note in notes {
        out.push_str(&format!("* {note}\n"));
    }
    out
}

/// What state replay as a whole is in.
fn headline(context: &Context<'_>, picture: &Picture<'_>) -> String {
    if context.cluster.layer(Layer::Replayer).next().is_none() {
        return "IMPOSSIBLE: the cluster file has no replayer, so what is spilled stays".into();
    }
    let mut states: Vec<(&str, String)> =
        picture.said(Layer::Replayer).map(|(node, status)| (node.name.as_str(), state(context, status))).collect();
    states.dedup_by(|a, b| a.1 == b.1);
    match states.as_slice() {
        [] => "UNKNOWN: no replayer answers".into(),
        [(_, state)] => state.clone(),
        several => {
            let each: Vec<String> = several.iter().map(|(node, state)| format!("{node} {state}")).collect();
            format!("MIXED: {}", each.join("; "))
        }
    }
}

fn state(context: &Context<'_>, status: &ReplayStatus) -> String {
    let settings = &status.settings;
    if settings.paused {
        return format!("PAUSED{}; `spillway replay resume` goes on", changed(context, settings));
    }
    if settings.cautious {
        return "CAUTIOUS: at the floor rate because it started with a large backlog; \
                `spillway replay rate N` or `resume` ends that"
            .into();
    }
    match status.limited_by.as_str() {
        "idle" => "IDLE: nothing waits".into(),
        "operator" => "RUNNING, limited by the operator's ceiling".into(),
        "receiver" => "RUNNING, limited by the receivers' queue delay (live traffic goes first)".into(),
        "network" => "RUNNING, limited by the network".into(),
        other => format!("RUNNING, limited by {other}"),
    }
}

fn changed(context: &Context<'_>, settings: &ReplaySettings) -> String {
    if settings.changed_by.is_empty() {
        return String::new();
    }
    format!(" by {} {} ago", settings.changed_by, duration(context.age(settings.changed_at)))
}

/// How fast all of it goes, and how fast it may.
fn speed(picture: &Picture<'_>) -> String {
    let ceilings: Vec<u64> = picture.said(Layer::Replayer).map(|(_, status)| status.ceiling_now).collect();
    // The ceiling is of all replayers together: each is told all of it and takes its share.
    let set = picture.said(Layer::Replayer).map(|(_, status)| status.settings.rate).max();
    let allowed = rate::show(ceilings.iter().fold(0, |sum, rate| sum.saturating_add(*rate)));
    let speed = |layer: Layer| picture.said(layer).fold(0u64, |sum, (_, status)| sum.saturating_add(status.rate_now));
    let mut out = format!("rate now   {}/s", speed(Layer::Replayer));
    if let Some(set) = set {
        out.push_str(&format!(" of {allowed} allowed now; the ceiling is set to {}", rate::show(set)));
    }
    if speed(Layer::Final) > 0 {
        out.push_str(&format!("; final nodes catch up at {}/s", speed(Layer::Final)));
    }
    out
}

fn figures(context: &Context<'_>, picture: &Picture<'_>, rows: &[Row], screen: &Screen<'_>) -> String {
    let pending = sum(rows, |row| row.pending_points);
    let waiting = rows.iter().filter(|row| row.pending_points > 0).count();
    let mut out = String::new();
    out.push_str(&format!(
        "\nbacklog    {} points, {}, in {waiting} of {} sources\n",
        count(pending),
        bytes(sum(rows, |row| row.pending_bytes)),
        rows.len()
    ));
    if let Some(oldest) = rows.iter().filter_map(|row| row.oldest).min() {
        out.push_str(&format!("oldest     {} ({})", duration(context.age(oldest)), moment::show(oldest)));
        let horizon = picture.horizon(context);
        match rows.iter().filter_map(|row| row.horizon_used_percent).max() {
            Some(used) => out.push_str(&format!("; {used}% of the horizon of {} is used up\n", duration(horizon))),
            None => out.push_str("; only lines for stores wait, they have no horizon\n"),
        }
    }
    match drain_seconds(rows) {
        Some(0) => {}
        Some(seconds) => out.push_str(&format!("done in    {} at this rate\n", duration(seconds))),
        None => out.push_str(&format!("done in    {}\n", nothing_moves(context, picture, rows))),
    }
    let used = rows.iter().filter_map(|row| row.horizon_used_percent).max().unwrap_or(0);
    if let Some(text) = alarm(used) {
        out.push_str(&format!("{}\n", screen.alarm(&text)));
    }
    let late = sum(rows, |row| row.late_points);
    if late > 0 {
        let text = format!("about {} points {}", count(late), come_late(picture, rows));
        out.push_str(&format!("too late   {}\n", screen.alarm(&text)));
    }
    out
}

/// How long that may stay so, and what would be if it were ended.
fn nothing_moves(context: &Context<'_>, picture: &Picture<'_>, rows: &[Row]) -> String {
    let horizon = match picture.horizon_left(context, rows) {
        Some(0) => "; the oldest point is past the horizon".to_owned(),
        Some(left) => format!("; the oldest point passes the horizon in {}", duration(left)),
        None => String::new(),
    };
    match picture.paused_at() {
        Some(rate) => {
            let at_best = duration(at_best_seconds(rows, rate));
            format!("paused: nothing moves{horizon}; resumed now, it takes {at_best} at best at {}", rate::show(rate))
        }
        None => format!("never: nothing moves{horizon}"),
    }
}

/// When the points that are called late are that.
fn come_late(picture: &Picture<'_>, rows: &[Row]) -> &'static str {
    match (picture.paused_at(), drain_seconds(rows)) {
        (Some(_), _) => "are past the horizon, or would be if replay were resumed now",
        (None, Some(_)) => "are, or at this rate will be, past the horizon",
        (None, None) => "are past the horizon",
    }
}

/// Who replays, and what is set there; those that do not answer first.
fn nodes(context: &Context<'_>, picture: &Picture<'_>) -> Table {
    let heading = ["NODE", "LAYER", "STATE", "RATE NOW", "ALLOWED", "CEILING", "ADAPTIVE", "CANARY", "ONLY", "CHANGED"];
    let mut table = Table::new(heading);
    let none = String::new;
    let silent = |table: &mut Table, name: &str, layer: Layer| {
        let name = name.to_owned();
        let layer = layer.as_str().to_owned();
        table.row([name, layer, "no answer".into(), none(), none(), none(), none(), none(), none(), none()]);
    };
    for answer in picture.replays.iter().filter(|answer| answer.result.is_err()) {
        silent(&mut table, &answer.node.name, answer.node.layer);
    }
    for answer in picture.spills.iter().filter(|answer| answer.result.is_err()) {
        silent(&mut table, &answer.node.name, answer.node.layer);
    }
    let catching_up = picture.said(Layer::Final).filter(|(_, status)| !status.sources.is_empty());
    for (node, status) in picture.said(Layer::Replayer).chain(catching_up) {
        let settings = &status.settings;
        let state = match (settings.paused, settings.cautious) {
            (true, _) => "paused".to_owned(),
            (false, true) => "cautious".to_owned(),
            (false, false) => status.limited_by.clone(),
        };
        table.row([
            node.name.clone(),
            node.layer.as_str().to_owned(),
            state,
            format!("{}/s", status.rate_now),
            rate::show(status.ceiling_now),
            rate::show(settings.rate),
            if settings.adaptive { "on".into() } else { "off".into() },
            format!("{}%", settings.canary_percent),
            selection(settings),
            changed(context, settings).trim_start().to_owned(),
        ]);
    }
    table
}

/// What alone is replayed; empty for everything.
pub(super) fn selection(settings: &ReplaySettings) -> String {
    let mut parts = Vec::new();
    if settings.from.is_some() || settings.to.is_some() {
        parts.push(span(settings.from, settings.to));
    }
    parts.extend(settings.matching.clone());
    parts.join(" ")
}

/// `FROM..TO`, with an open end left out.
pub(super) fn span(from: Option<u64>, to: Option<u64>) -> String {
    let [from, to] = [from, to].map(|at| at.map(moment::show).unwrap_or_default());
    format!("{from}..{to}")
}

fn sources(context: &Context<'_>, rows: &[Row]) -> Table {
    let heading = [
        "SOURCE",
        "DESTINATION",
        "STATE",
        "POINTS",
        "BYTES",
        "OLDEST",
        "HORIZON",
        "RATE",
        "DONE",
        "REFUSED",
        "LAST ERROR",
    ];
    let mut table = Table::new(heading);
    for row in rows.iter().take(ROWS_MAX) {
        table.row([
            row.source.clone(),
            row.destination.clone(),
            row.state.clone(),
            count(row.pending_points),
            bytes(row.pending_bytes),
            row.oldest.map(|oldest| duration(context.age(oldest))).unwrap_or_default(),
            row.horizon_used_percent.map(|used| format!("{used}%")).unwrap_or_default(),
            format!("{}/s", row.rate_now),
            count(row.done_points),
            count(row.refused.values().fold(0, |sum, points| sum.saturating_add(*points))),
            row.error.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// What the nodes have to say, and what only all of them together show.
fn notes(picture: &Picture<'_>, rows: &[Row]) -> Vec<String> {
    let mut notes = Vec::new();
    for answer in &picture.spills {
        let Ok(spill) = &answer.result else { continue };
        if !matches!(spill.mode.as_str(), "ok" | "") {
            let (name, mode, detail) = (&answer.node.name, &spill.mode, &spill.detail);
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            notes.push(format!("{name}: the spill is in mode {mode}{detail} ({RUNBOOK}#modes)"));
        }
    }
    for row in rows.iter().filter(|row| row.late_points > 0) {
        let (late, all) = (count(row.late_points), count(row.pending_points));
        notes.push(format!(
            "{}/{}: about {late} of {all} points {}: the final layer refuses them as too_old",
            row.source,
            row.destination,
            come_late(picture, rows)
        ));
    }
    for row in rows.iter().filter(|row| !row.refused.is_empty()) {
        let reasons: Vec<String> = row.refused.iter().map(|(reason, points)| format!("{reason} {points}")).collect();
        notes.push(format!(
            "{}/{}: points went to the dead letters: {} ({RUNBOOK}#dead-letters)",
            row.source,
            row.destination,
            reasons.join(", ")
        ));
    }
    for row in rows.iter().filter(|row| row.gaps > 0) {
        let (gaps, points) = (row.gaps, count(row.gap_points));
        notes.push(format!(
            "{}/{}: {gaps} gaps, {points} points are gone: `spillway replay gaps` ({RUNBOOK}#gaps)",
            row.source, row.destination
        ));
    }
    let mut ceilings: Vec<String> =
        picture.said(Layer::Replayer).map(|(_, status)| rate::show(status.settings.rate)).collect();
    ceilings.dedup();
    if ceilings.len() > 1 {
        let list = ceilings.join(", ");
        notes.push(format!("the replayers have different ceilings ({list}): `spillway replay rate N` makes them one"));
    }
    for answer in &picture.replays {
        let Ok(status) = &answer.result else { continue };
        notes.extend(status.notes.iter().map(|note| format!("{}: {note}", answer.node.name)));
    }
    notes
}

fn sum(rows: &[Row], of: impl Fn(&Row) -> u64) -> u64 {
    rows.iter().fold(0, |sum, row| sum.saturating_add(of(row)))
}
