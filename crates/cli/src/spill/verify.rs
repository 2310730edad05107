//! `spillway spill verify`: has every record read, page by page. A page that cannot be read is one node's failure; what was
//! verified before it is told.

use admin_api::{SpillStatus, SpillVerified, paths};
use serde::Serialize;

use super::{Pages, page, stats};
use crate::client::{Answer, Fault, complaint, exit_of_results};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, Unit};
use crate::replay::RUNBOOK;
use crate::screen::Screen;

/// Records read by one request: a few hundred MB at the most, well within the deadline.
const PAGE: u64 = 500;

/// What was found on one relay.
#[derive(Debug, Default, Serialize)]
struct Found {
    node: String,
    records: u64,
    points: u64,
    damaged: Vec<String>,
    /// Why it ends too early, if it does.
    error: Option<String>,
}

/// # Errors
/// When there is no such relay or nothing can be printed.
pub(super) fn run(context: &Context<'_>, node: Option<&str>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let answers = stats(context, node)?;
    let mut all = Vec::new();
    let mut faults = Vec::new();
    for answer in &answers {
        let mut found = Found { node: answer.node.name.clone(), ..Found::default() };
        let fault = verify(context, answer, &mut found, screen).err();
        found.error = fault.as_ref().map(ToString::to_string);
        all.push(found);
        faults.push(fault);
    }
    if screen.json {
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "nodes": all }))?;
    } else {
        for (found, fault) in all.iter().zip(&faults) {
            screen.text(&summary(found))?;
            if let Some(fault) = fault {
                screen.note(&complaint(&found.node, fault))?;
            }
        }
    }
    if all.iter().any(|found| !found.damaged.is_empty()) {
        return Ok(Exit::Damaged);
    }
    Ok(exit_of_results(faults.iter().map(Option::as_ref)))
}

fn verify(
    context: &Context<'_>,
    answer: &Answer<'_, SpillStatus>,
    found: &mut Found,
    screen: &Screen<'_>,
) -> Result<(), Fault> {
    let spill = answer.result.as_ref().map_err(Clone::clone)?;
    let total = spill.lanes.iter().fold(0, |sum: u64, lane| sum.saturating_add(lane.pending_batches));
    let progress = Progress::new(screen, &format!("verify {}", answer.node.name), total, Unit::Records);
    for lane in &spill.lanes {
        let mut pages = Pages::begin(lane.head);
        loop {
            let got: SpillVerified =
                context.client.one(answer.node, page(paths::SPILL_VERIFY, lane.lane, pages.from, PAGE))?;
            progress.advance(got.records);
            found.records = found.records.saturating_add(got.records);
            found.points = found.points.saturating_add(got.points);
            found.damaged.extend(got.damaged.into_iter().map(|what| format!("{}: {what}", lane.destination)));
            if !pages.go_on(answer.node, got.next)? {
                break;
            }
        }
    }
    Ok(())
}

fn summary(found: &Found) -> String {
    let Found { node, records, points, damaged, error } = found;
    let verdict = match (damaged.len(), error) {
        (0, None) => "good".to_owned(),
        (0, Some(_)) => "good as far as it was read".to_owned(),
        (many, _) => format!("{many} DAMAGED ({RUNBOOK}#damage)"),
    };
    let mut out = format!("{node}: {records} records, {points} points: {verdict}\n");
    for what in damaged {
        out.push_str(&format!("  ! {what}\n"));
    }
    out
}
