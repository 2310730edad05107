//! `spillway spill ls`

use admin_api::{SpillLane, SpillPage, SpillRecord, SpillStatus, paths};
use config::Node;
use serde::Serialize;

use super::{Pages, check_lane, lanes, page, stats};
use crate::amount::bytes;
use crate::client::{Answer, Fault, complaint, exit_of_results};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::screen::Screen;
use crate::table::{Table, duration};

/// What one request asks for at the most.
const PAGE: u64 = 1000;

/// The listed part of one lane.
#[derive(Debug, Serialize)]
struct Listed {
    node: String,
    lane: u16,
    destination: String,
    /// The lane is being checked: a record that is missing is not known as a gap yet.
    checking: bool,
    records: Vec<SpillRecord>,
    /// There are further ones.
    more: bool,
    /// Why it ends too early, if it does.
    error: Option<String>,
}

/// # Errors
/// When there is no such relay or lane, or nothing can be printed.
pub(super) fn run(
    context: &Context<'_>,
    node: Option<&str>,
    lane: Option<&str>,
    limit: u64,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let answers = stats(context, node)?;
    check_lane(&answers, lane)?;
    let mut listed = Vec::new();
    let mut faults: Vec<(String, Option<Fault>)> = Vec::new();
    for answer in &answers {
        let fault = list(context, answer, lane, limit, &mut listed).err();
        faults.push((answer.node.name.clone(), fault));
    }
    if screen.json {
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "lanes": listed }))?;
    } else {
        screen.text(&table(context, &listed).render())?;
        for part in listed.iter().filter(|part| part.checking) {
            let (node, lane) = (&part.node, &part.destination);
            screen.note(&format!(
                "spillway: {node}/{lane} is being checked: what is missing in it may not be known yet\n"
            ))?;
        }
        for part in listed.iter().filter(|part| part.more) {
            screen.note(&format!("spillway: {}/{} has more: --limit N shows N\n", part.node, part.destination))?;
        }
        for (name, fault) in &faults {
            if let Some(fault) = fault {
                screen.note(&complaint(name, fault))?;
            }
        }
    }
    Ok(exit_of_results(faults.iter().map(|(_, fault)| fault.as_ref())))
}

fn list(
    context: &Context<'_>,
    answer: &Answer<'_, SpillStatus>,
    wanted: Option<&str>,
    limit: u64,
    listed: &mut Vec<Listed>,
) -> Result<(), Fault> {
    let spill = answer.result.as_ref().map_err(Clone::clone)?;
    for lane in lanes(spill, wanted) {
        let mut part = Listed {
            node: answer.node.name.clone(),
            lane: lane.lane,
            destination: lane.destination.clone(),
            checking: lane.checking,
            records: Vec::new(),
            more: false,
            error: None,
        };
        let read = read(context, answer.node, lane, limit, &mut part);
        part.error = read.as_ref().err().map(ToString::to_string);
        listed.push(part);
        read?;
    }
    Ok(())
}

fn read(context: &Context<'_>, node: &Node, lane: &SpillLane, limit: u64, part: &mut Listed) -> Result<(), Fault> {
    let mut pages = Pages::begin(lane.head);
    loop {
        let held = u64::try_from(part.records.len()).unwrap_or(u64::MAX);
        let want = limit.saturating_sub(held).min(PAGE);
        if want == 0 {
            part.more = true;
            return Ok(());
        }
        let got: SpillPage = context.client.one(node, page(paths::SPILL_RECORDS, lane.lane, pages.from, want))?;
        part.records.extend(got.records);
        if !pages.go_on(node, got.next)? {
            return Ok(());
        }
    }
}

fn table(context: &Context<'_>, listed: &[Listed]) -> Table {
    let heading = [
        "NODE",
        "DESTINATION",
        "ORDINAL",
        "POINTS",
        "SIZE",
        "ON DISK",
        "OLDEST POINT",
        "NEWEST POINT",
        "SPILLED",
        "WHY",
        "STATE",
        "ID",
    ];
    let mut table = Table::new(heading);
    for part in listed {
        for record in &part.records {
            table.row([
                part.node.clone(),
                part.destination.clone(),
                record.ordinal.to_string(),
                record.points.to_string(),
                bytes(record.bytes),
                bytes(record.stored_bytes),
                moment::show(record.min),
                moment::show(record.max),
                format!("{} ago", duration(context.age(record.spilled_at))),
                record.why.clone(),
                record.state.clone(),
                record.id.clone(),
            ]);
        }
    }
    table
}
