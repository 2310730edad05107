//! An order to the whole cluster: sent to every node of the cluster file at once, each with a deadline. A node that does
//! not answer is named; it hears of the order from its peers when it is back.

use admin_api::{Ordered, PoolNode};
use anyhow::anyhow;
use serde::Serialize;
use serde_json::json;

use crate::client::{Answer, Request, exit_of, silent};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::screen::Screen;
use crate::table::Table;

/// What is asked of every node.
#[derive(Debug)]
pub(crate) struct Asking {
    /// What it is, in words.
    pub(crate) title: String,
    pub(crate) request: Request,
    pub(crate) dry_run: bool,
    /// The node that is drained: whether it still gets traffic is told.
    pub(crate) drained: Option<String>,
}

/// One node that did not do it, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Failed<'a> {
    node: &'a str,
    refused: bool,
    error: String,
}

/// Who asks.
///
/// # Errors
/// When `--by` is empty.
pub(crate) fn who(given: Option<String>, by: String) -> Result<String, Failure> {
    let by = given.unwrap_or(by);
    if by.trim().is_empty() {
        return Err(Failure::usage(anyhow!("--by is empty: say who changes this, for the audit log")));
    }
    Ok(by)
}

/// The nodes that did not answer, or said no.
pub(crate) fn failures<'a, T>(answers: &'a [Answer<'_, T>]) -> Vec<Failed<'a>> {
    let failed = |answer: &'a Answer<'_, T>| {
        let fault = answer.result.as_ref().err()?;
        Some(Failed { node: &answer.node.name, refused: fault.is_refusal(), error: fault.to_string() })
    };
    answers.iter().filter_map(failed).collect()
}

/// Sends it, and tells what came of it.
///
/// # Errors
/// When nothing can be printed; a node that does not answer is no error but an [`Exit`].
pub(crate) fn send(context: &Context<'_>, asking: &Asking, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let requests = context.cluster.nodes.iter().map(|node| (node, asking.request.clone()));
    let answers: Vec<Answer<'_, Ordered>> = context.client.all(requests.collect());
    if screen.json {
        let nodes: Vec<&Ordered> = answers.iter().filter_map(|answer| answer.result.as_ref().ok()).collect();
        screen.json(&json!({ "dry_run": asking.dry_run, "nodes": nodes, "failed": failures(&answers) }))?;
    } else {
        screen.text(&render(asking, &answers, screen))?;
        screen.note(&silent(&answers))?;
        if answers.iter().any(|answer| answer.result.as_ref().is_err_and(|fault| !fault.is_refusal())) {
            screen.note("spillway: a node that was away hears of it from its peers when it is back\n")?;
        }
    }
    Ok(exit_of(&answers))
}

fn render(asking: &Asking, answers: &[Answer<'_, Ordered>], screen: &Screen<'_>) -> String {
    let would = if asking.dry_run { " (dry run: nothing was changed)" } else { "" };
    let mut out = format!("{}{would}\n\n", screen.bold(&asking.title));
    let mut table = Table::new(["NODE", "ORDER", "WAS", "GAIN TRAFFIC", "LOSE TRAFFIC"]);
    let mut rows: Vec<(u8, [String; 5])> = answers.iter().map(|answer| row(asking, answer)).collect();
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().for_each(|(_, cells)| table.row(cells));
    out.push_str(&table.render());
    for line in still(asking, answers) {
        out.push_str(&screen.alarm(&line));
        out.push('\n');
    }
    out
}

/// The abnormal first: who did not answer, who changes, who had it already.
fn row(asking: &Asking, answer: &Answer<'_, Ordered>) -> (u8, [String; 5]) {
    let node = answer.node.name.clone();
    match &answer.result {
        Err(fault) => {
            let word = if fault.is_refusal() { "refused" } else { "no answer" };
            (0, [node, word.to_owned(), String::new(), String::new(), String::new()])
        }
        Ok(ordered) => {
            let (rank, word) = match (ordered.changes.is_empty(), asking.dry_run) {
                (true, _) => (2, "in force already"),
                (false, true) => (1, "would change"),
                (false, false) => (1, "changed"),
            };
            let was = |entry: &admin_api::AuditEntry| {
                if entry.old.is_empty() { format!("{} -", entry.what) } else { format!("{} {}", entry.what, entry.old) }
            };
            let was: Vec<String> = ordered.changes.iter().map(was).collect();
            (rank, [node, word.to_owned(), was.join(", "), ordered.gain.join(" "), ordered.lose.join(" ")])
        }
    }
}

/// A drained node that the floor keeps in.
fn still(asking: &Asking, answers: &[Answer<'_, Ordered>]) -> Vec<String> {
    let Some(drained) = &asking.drained else { return Vec::new() };
    let said = answers.iter().filter_map(|answer| answer.result.as_ref().ok());
    let kept = said.flat_map(|ordered| {
        let nodes = ordered.pools.iter().flat_map(|pool| &pool.nodes);
        let kept = move |node: &&PoolNode| node.node == *drained && node.eligible;
        nodes.filter(kept).map(|node| format!("{drained} still gets traffic from {}: it {}", ordered.node, node.why))
    });
    kept.collect()
}
