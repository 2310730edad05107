//! `spillway replay cursor` and `gaps`: where each lane begins and ends, what is missing in it, and moving its beginning.

use admin_api::{CursorAdvance, Gap, ReplayStatus, SpillLane, SpillLoss, SpillStatus, paths};
use anyhow::anyhow;
use config::{Layer, Node};
use engine::replay::known_sources;
use serde::Serialize;

use super::RUNBOOK;
use super::arguments::CursorCommand;
use super::picture::Picture;
use super::source::WINDOWS;
use crate::amount::{bytes, count};
use crate::client::{Answer, Fault, Request, complaint, exit_of, silent};
use crate::context::{Context, unknown};
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::screen::Screen;
use crate::table::{Table, duration};

/// One lane, for programs.
#[derive(Debug, Serialize)]
struct Cursor<'a> {
    source: &'a str,
    destination: &'a str,
    head: u64,
    tail: u64,
    /// Ordinals from head to tail; what is settled out of order counts too.
    lag: u64,
    pending_points: u64,
    oldest: Option<u64>,
    gaps: &'a [Gap],
}

/// # Errors
/// When nobody can be asked, nothing can be printed, or there is no such source.
pub(super) fn run(
    context: &Context<'_>,
    command: Option<CursorCommand>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    match command {
        None | Some(CursorCommand::Show) => show(context, screen),
        Some(CursorCommand::Advance { source, to, dry_run, force }) => {
            let asked = CursorAdvance { destination: String::new(), to, dry_run, force, by: context.by.clone() };
            advance(context, &source, asked, screen)
        }
    }
}

fn show(context: &Context<'_>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let picture = Picture::take(context);
    let mut cursors = Vec::new();
    for answer in &picture.spills {
        let lanes = answer.result.as_ref().map(|spill| spill.lanes.as_slice()).unwrap_or_default();
        cursors.extend(lanes.iter().map(|lane| of_lane(&answer.node.name, lane)));
    }
    let windows = picture.said(Layer::Final).flat_map(|(_, status)| of_windows(status));
    cursors.extend(windows);
    // What is missing first, then what is furthest behind.
    cursors.sort_by_key(|cursor| (cursor.gaps.is_empty(), u64::MAX - cursor.lag));
    if screen.json {
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "cursors": cursors }))?;
        return Ok(picture.exit());
    }
    let heading = ["SOURCE", "DESTINATION", "HEAD", "TAIL", "LAG", "POINTS", "OLDEST", "GAPS", "POINTS GONE"];
    let mut table = Table::new(heading);
    for cursor in &cursors {
        table.row([
            cursor.source.to_owned(),
            cursor.destination.to_owned(),
            cursor.head.to_string(),
            cursor.tail.to_string(),
            cursor.lag.to_string(),
            count(cursor.pending_points),
            cursor.oldest.map(|oldest| duration(context.age(oldest))).unwrap_or_default(),
            cursor.gaps.len().to_string(),
            cursor.gaps.iter().fold(0u64, |sum, gap| sum.saturating_add(gap.points)).to_string(),
        ]);
    }
    screen.text(&table.render())?;
    if cursors.iter().any(|cursor| !cursor.gaps.is_empty()) {
        screen.text(&format!("\nwhat is gone: `spillway replay gaps`; what to do: {RUNBOOK}#gaps\n"))?;
    }
    screen.note(&picture.silent())?;
    Ok(picture.exit())
}

fn of_lane<'a>(relay: &'a str, lane: &'a SpillLane) -> Cursor<'a> {
    Cursor {
        source: relay,
        destination: &lane.destination,
        head: lane.head,
        tail: lane.tail,
        lag: lane.tail.saturating_sub(lane.head),
        pending_points: lane.pending_points,
        oldest: lane.oldest,
        gaps: &lane.gaps,
    }
}

fn of_windows(status: &ReplayStatus) -> impl Iterator<Item = Cursor<'_>> {
    status.sources.iter().map(|source| Cursor {
        source: &source.source,
        destination: &source.destination,
        head: source.head,
        tail: source.tail,
        lag: source.tail.saturating_sub(source.head),
        pending_points: source.pending_points,
        oldest: source.oldest,
        gaps: &[],
    })
}

/// # Errors
/// When nobody can be asked or nothing can be printed.
pub(super) fn gaps(context: &Context<'_>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let answers = spills(context);
    let said = || answers.iter().filter_map(|answer| Some((answer.node, answer.result.as_ref().ok()?)));
    if screen.json {
        let lanes: Vec<_> = said()
            .flat_map(|(node, spill)| spill.lanes.iter().map(move |lane| of_lane(&node.name, lane)))
            .filter(|cursor| !cursor.gaps.is_empty())
            .collect();
        let aside: Vec<_> = said()
            .filter(|(_, spill)| !spill.quarantined.is_empty())
            .map(|(node, spill)| serde_json::json!({ "node": node.name, "files": spill.quarantined }))
            .collect();
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "sources": lanes, "quarantined": aside }))?;
        return Ok(exit_of(&answers));
    }
    let mut table = Table::new(["SOURCE", "DESTINATION", "FROM", "TO", "BATCHES", "POINTS", "REASON", "NOTICED"]);
    for (node, spill) in said() {
        for lane in &spill.lanes {
            for gap in &lane.gaps {
                table.row(gap_row(node, lane, gap));
            }
        }
    }
    if table.is_empty() {
        screen.text("no gaps\n")?;
    } else {
        screen.text(&table.render())?;
        screen.text(&format!(
            "\nthese points are counted as dropped in `spillway ledger`; what to do: {RUNBOOK}#gaps\n"
        ))?;
    }
    for (node, spill) in said() {
        for aside in &spill.quarantined {
            let (at, reason) = (moment::show(aside.at), &aside.reason);
            screen.text(&format!("{}: put aside {at}: {} ({reason})\n", node.name, aside.path))?;
        }
    }
    screen.note(&silent(&answers))?;
    Ok(exit_of(&answers))
}

fn gap_row(node: &Node, lane: &SpillLane, gap: &Gap) -> [String; 8] {
    [
        node.name.clone(),
        lane.destination.clone(),
        gap.from.to_string(),
        gap.to.to_string(),
        gap.batches.to_string(),
        gap.points.to_string(),
        gap.reason.clone(),
        moment::show(gap.at),
    ]
}

/// What all relays say of their spills.
pub(super) fn spills<'c>(context: &Context<'c>) -> Vec<Answer<'c, SpillStatus>> {
    let relays = context.nodes(&[Layer::Relay]);
    context.client.all(relays.into_iter().map(|node| (node, Request::get(paths::SPILL))).collect())
}

/// The relay and the destinations that `source` (`RELAY` or `RELAY/DESTINATION`) means.
///
/// # Errors
/// When it means none; the known ones are listed.
pub(super) fn find<'a, 'c>(
    context: &Context<'_>,
    answers: &'a [Answer<'c, SpillStatus>],
    source: &str,
) -> Result<(&'a Answer<'c, SpillStatus>, Option<String>), Failure> {
    let (name, destination) = match source.split_once('/') {
        Some((name, destination)) => (name, Some(destination)),
        None => (source, None),
    };
    let lanes = |answer: &Answer<'_, SpillStatus>| -> Vec<String> {
        let lanes = answer.result.as_ref().map(|spill| spill.lanes.as_slice()).unwrap_or_default();
        lanes.iter().map(|lane| lane.destination.clone()).collect()
    };
    let known: Vec<String> = answers
        .iter()
        .flat_map(|answer| {
            let name = answer.node.name.clone();
            let with_lanes = lanes(answer).into_iter().map(|lane| format!("{}/{lane}", answer.node.name));
            std::iter::once(name).chain(with_lanes).collect::<Vec<_>>()
        })
        .collect();
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let is_final = context.cluster.node(name).is_some_and(|node| node.layer == Layer::Final);
    if is_final || source.starts_with(WINDOWS) {
        return Err(Failure::usage(anyhow!(
            "{source}: the windows that a final node catches up with are kept for the horizon anyway; they have a rate \
             and a pause (`spillway replay pause --source {source}`) and nothing to give up; {}",
            known_sources(&known)
        )));
    }
    let found = answers.iter().find(|answer| answer.node.name == name);
    let Some(answer) = found else {
        return Err(Failure::usage(anyhow!(unknown("source", source, &names))));
    };
    match destination {
        // What a relay that does not answer has is not known here.
        Some(wanted) if answer.result.is_ok() && !lanes(answer).iter().any(|lane| lane == wanted) => {
            Err(Failure::usage(anyhow!(unknown("source", source, &names))))
        }
        Some(wanted) => Ok((answer, Some(wanted.to_owned()))),
        None => Ok((answer, None)),
    }
}

fn advance(
    context: &Context<'_>,
    source: &str,
    mut asked: CursorAdvance,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let answers = spills(context);
    let (answer, destination) = find(context, &answers, source)?;
    let spill = match &answer.result {
        Ok(spill) => spill,
        Err(fault) => return Err(Failure::unavailable(anyhow!(complaint(&answer.node.name, fault).trim().to_owned()))),
    };
    let lane = match (&destination, spill.lanes.as_slice()) {
        (Some(wanted), lanes) => lanes.iter().find(|lane| lane.destination == *wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(lane) = lane else {
        let list: Vec<String> = spill.lanes.iter().map(|lane| format!("{source}/{}", lane.destination)).collect();
        return Err(Failure::usage(anyhow!("{source} has {} lanes, name one: {}", list.len(), list.join(", "))));
    };
    asked.destination.clone_from(&lane.destination);
    // The end is where new records come; beyond it nothing can be skipped, and behind the head all is settled.
    if asked.to > lane.tail || asked.to < lane.head {
        let (head, tail) = (lane.head, lane.tail);
        let reason = if asked.to > lane.tail { "is behind its end" } else { "would go back: what is settled is gone" };
        return Err(Failure::usage(anyhow!(
            "{source}: ordinal {} {reason}; its cursor stands at {head} and its end is {tail}",
            asked.to
        )));
    }
    let result = context.client.one::<SpillLoss>(answer.node, Request::post(paths::SPILL_CURSOR, &asked)?);
    let what = format!("cursor of {}/{} {} -> {}", answer.node.name, lane.destination, lane.head, asked.to);
    tell_loss(context, &what, answer.node, asked.dry_run, result, screen)
}

/// Says what one relay lost or would lose.
///
/// # Errors
/// When nothing can be printed.
fn tell_loss(
    context: &Context<'_>,
    what: &str,
    node: &Node,
    dry_run: bool,
    result: Result<SpillLoss, Fault>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let (loss, error, exit) = match &result {
        Ok(loss) => (Some(loss.clone()), None, Exit::Ok),
        Err(Fault::Refused { refused, .. }) => (refused.would_lose.clone(), Some(refused.error.clone()), Exit::Refused),
        Err(Fault::Silent(error)) => (None, Some(error.clone()), Exit::Unavailable),
    };
    if screen.json {
        let done = result.as_ref().is_ok_and(|loss| loss.done);
        screen.json(&serde_json::json!({
            "cluster": context.cluster.name, "node": node.name, "what": what, "done": done, "loss": loss, "error": error,
        }))?;
        return Ok(exit);
    }
    match (&result, &loss) {
        (Ok(_), Some(loss)) if loss.done => screen.text(&format!("{what}: done; lost {}\n", words(context, loss)))?,
        (Ok(_), Some(loss)) => {
            screen.text(&format!("{what}: would lose {}; nothing was changed\n", words(context, loss)))?;
            if dry_run && loss.points > 0 {
                screen.note("spillway: --force instead of --dry-run does it\n")?;
            }
        }
        (Err(_), Some(loss)) => {
            screen.text(&format!("{what}: would lose {}; nothing was changed\n", words(context, loss)))?;
            screen.note(&format!("spillway: refused: {}\n", error.unwrap_or_default()))?;
            screen.note(&format!("spillway: --force does it; read {RUNBOOK}#cursor first\n"))?;
        }
        (Err(fault), None) => screen.note(&complaint(&node.name, fault))?,
        (Ok(_), None) => {}
    }
    Ok(exit)
}

/// A loss for a person: exact numbers, as they are what is decided on.
pub(super) fn words(context: &Context<'_>, loss: &SpillLoss) -> String {
    if loss.batches == 0 && loss.points == 0 {
        return "nothing".into();
    }
    let mut out = format!("{} points in {} batches, {}", loss.points, loss.batches, bytes(loss.bytes));
    if let (Some(oldest), Some(newest)) = (loss.oldest, loss.newest) {
        let (from, to) = (duration(context.age(oldest)), duration(context.age(newest)));
        out.push_str(&format!(", {} to {} ({from} to {to} old)", moment::show(oldest), moment::show(newest)));
    }
    out
}
