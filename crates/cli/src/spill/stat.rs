//! `spillway spill stat`

use admin_api::{SpillLane, SpillStatus};
use serde::Serialize;

use super::stats;
use crate::amount::{bytes, count};
use crate::client::{Answer, exit_of, silent};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::replay::RUNBOOK;
use crate::screen::Screen;
use crate::table::{Table, duration, millis};

/// What the state of a lane means for its figures.
const CHECKING: &str =
    "checking: the lane is read from head to end; until then, what is missing may still be among its points\n";

/// One relay, for programs.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    node: &'a str,
    answers: bool,
    error: Option<String>,
    spill: Option<&'a SpillStatus>,
}

/// # Errors
/// When there is no such relay or nothing can be printed.
pub(super) fn run(context: &Context<'_>, node: Option<&str>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let mut answers = stats(context, node)?;
    answers.sort_by_key(|answer| answer.result.as_ref().map_or(0, |spill| if spill.mode == "ok" { 2 } else { 1 }));
    if screen.json {
        let nodes: Vec<Entry<'_>> = answers.iter().map(entry).collect();
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "nodes": nodes }))?;
        return Ok(exit_of(&answers));
    }
    let heading = ["NODE", "MODE", "SINCE", "SIZE", "QUOTA", "USED", "DISK FREE", "UNSYNCED", "JOURNAL", "DETAIL"];
    let mut modes = Table::new(heading);
    for answer in &answers {
        modes.row(mode_row(context, answer));
    }
    screen.text(&modes.render())?;
    let mut table = Table::new([
        "NODE",
        "LANE",
        "DESTINATION",
        "STATE",
        "POINTS",
        "BATCHES",
        "SIZE",
        "OLDEST",
        "LEASED",
        "HELD",
        "SPILLED",
        "SETTLED",
        "DROPPED",
        "GAPS",
    ]);
    let said = || answers.iter().filter_map(|answer| Some((answer.node.name.as_str(), answer.result.as_ref().ok()?)));
    let mut lanes: Vec<(&str, &SpillLane)> =
        said().flat_map(|(node, spill)| spill.lanes.iter().map(move |lane| (node, lane))).collect();
    lanes.sort_by_key(|(_, lane)| (lane.gaps.is_empty(), !lane.checking, u64::MAX - lane.pending_points));
    for (node, lane) in lanes {
        table.row(lane_row(context, node, lane));
    }
    if !table.is_empty() {
        screen.text(&format!("\n{}", table.render()))?;
    }
    if said().any(|(_, spill)| spill.lanes.iter().any(|lane| lane.checking)) {
        screen.text(CHECKING)?;
    }
    for (node, spill) in said() {
        for aside in &spill.quarantined {
            let (at, path, reason) = (moment::show(aside.at), &aside.path, &aside.reason);
            screen.text(&format!("{node}: put aside {at}: {path} ({reason}; {RUNBOOK}#damage)\n"))?;
        }
    }
    if said().any(|(_, spill)| spill.mode != "ok") {
        screen.text(&format!("what each mode means and what to do: {RUNBOOK}#modes\n"))?;
    }
    screen.note(&silent(&answers))?;
    Ok(exit_of(&answers))
}

fn entry<'a>(answer: &'a Answer<'_, SpillStatus>) -> Entry<'a> {
    Entry {
        node: &answer.node.name,
        answers: answer.result.is_ok(),
        error: answer.result.as_ref().err().map(ToString::to_string),
        spill: answer.result.as_ref().ok(),
    }
}

fn mode_row(context: &Context<'_>, answer: &Answer<'_, SpillStatus>) -> [String; 10] {
    let name = answer.node.name.clone();
    let none = String::new;
    let spill = match &answer.result {
        Ok(spill) => spill,
        Err(fault) => {
            let fault = fault.to_string();
            return [name, "no answer".into(), none(), none(), none(), none(), none(), none(), none(), fault];
        }
    };
    [
        name,
        spill.mode.clone(),
        duration(context.age(spill.mode_since)),
        bytes(spill.bytes),
        bytes(spill.quota_bytes),
        format!("{}%", u128::from(spill.bytes) * 100 / u128::from(spill.quota_bytes.max(1))),
        bytes(spill.free_bytes),
        millis(spill.unsynced_ms),
        if spill.journal { "on".into() } else { "off".into() },
        spill.detail.clone(),
    ]
}

fn lane_row(context: &Context<'_>, node: &str, lane: &SpillLane) -> [String; 14] {
    let dropped: Vec<String> = lane
        .dropped
        .iter()
        .filter(|(_, points)| **points > 0)
        .map(|(reason, points)| format!("{reason} {points}"))
        .collect();
    [
        node.to_owned(),
        lane.lane.to_string(),
        lane.destination.clone(),
        if lane.checking { "checking".into() } else { "ok".into() },
        count(lane.pending_points),
        lane.pending_batches.to_string(),
        bytes(lane.pending_bytes),
        lane.oldest.map(|oldest| duration(context.age(oldest))).unwrap_or_default(),
        count(lane.leased_points),
        count(lane.held_points),
        count(lane.spilled_points),
        count(lane.settled_points),
        dropped.join(", "),
        lane.gaps.len().to_string(),
    ]
}
