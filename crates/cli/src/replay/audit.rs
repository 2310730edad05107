//! `spillway replay audit`: who changed what on which node, and when; the latest first. Each node keeps its own log.

use admin_api::{AuditEntry, paths};
use config::Layer;
use engine::rate;
use serde::Serialize;

use crate::client::{Answer, Request, exit_of, silent};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::screen::Screen;
use crate::table::Table;

/// One change on one node.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    node: &'a str,
    layer: &'static str,
    #[serde(flatten)]
    change: &'a AuditEntry,
}

/// One node, for programs.
#[derive(Debug, Serialize)]
struct Asked<'a> {
    node: &'a str,
    answers: bool,
    error: Option<String>,
}

/// `limit`: shows so many changes at the most.
///
/// # Errors
/// When there is no such node or nothing can be printed.
pub(super) fn run(
    context: &Context<'_>,
    node: Option<&str>,
    limit: usize,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let nodes = match node {
        Some(name) => vec![context.any_node(LAYERS, name)?],
        None => context.nodes(LAYERS),
    };
    let requests = nodes.into_iter().map(|node| (node, Request::get(paths::REPLAY_AUDIT)));
    let answers = context.client.all::<Vec<AuditEntry>>(requests.collect());
    let mut entries: Vec<Entry<'_>> = answers.iter().flat_map(of_node).collect();
    // The nodes' own order stays among changes of one second.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.change.at));
    let more = entries.len().saturating_sub(limit);
    entries.truncate(limit);
    if screen.json {
        let nodes: Vec<Asked<'_>> = answers.iter().map(asked).collect();
        let cluster = &context.cluster.name;
        screen.json(&serde_json::json!({ "cluster": cluster, "changes": entries, "more": more, "nodes": nodes }))?;
        return Ok(exit_of(&answers));
    }
    let mut table = Table::new(["WHEN", "NODE", "BY", "WHAT", "OLD", "NEW"]);
    for entry in &entries {
        let AuditEntry { at, by, what, old, new } = entry.change;
        let by = if by.is_empty() { "not said" } else { by };
        let [old, new] = [old, new].map(|value| shown(what, value));
        table.row([moment::show(*at), entry.node.to_owned(), by.to_owned(), what.clone(), old, new]);
    }
    match table.is_empty() {
        true => screen.text("no changes\n")?,
        false => screen.text(&table.render())?,
    }
    if more > 0 {
        screen.note(&format!("spillway: {more} older changes are not shown: --limit N shows N\n"))?;
    }
    screen.note(&silent(&answers))?;
    Ok(exit_of(&answers))
}

/// Those that an operator can change something on.
const LAYERS: &[Layer] = &[Layer::Replayer, Layer::Final, Layer::Relay];

fn of_node<'a>(answer: &'a Answer<'_, Vec<AuditEntry>>) -> impl Iterator<Item = Entry<'a>> {
    let changes = answer.result.as_ref().map(Vec::as_slice).unwrap_or_default();
    changes.iter().map(|change| Entry { node: &answer.node.name, layer: answer.node.layer.as_str(), change })
}

fn asked<'a>(answer: &'a Answer<'_, Vec<AuditEntry>>) -> Asked<'a> {
    Asked {
        node: &answer.node.name,
        answers: answer.result.is_ok(),
        error: answer.result.as_ref().err().map(ToString::to_string),
    }
}

/// A value as the commands that set it show it; anything else as the node says it.
fn shown(what: &str, value: &str) -> String {
    let last = what.rsplit('.').next().unwrap_or(what);
    match (last, value.parse::<u64>()) {
        ("rate", Ok(points)) => rate::show(points),
        ("from" | "to", Ok(at)) => moment::show(at),
        _ => value.to_owned(),
    }
}
