//! An order to the whole cluster: sent to every node of the cluster file at once, each with a deadline. A node that does
//! not answer is named; it hears of the order from its peers when it is back. The commands, `top` and the console send
//! them from here.

mod words;

use std::time::Duration;

use admin_api::{ModeChange, NodeChange, Ordered, paths};
use anyhow::anyhow;
use config::{Cluster, Layer};
use engine::time::UnixSeconds;
use serde::Serialize;
use serde_json::json;

use crate::client::{Answer, Request, exchange_all, exit_of, silent};
use crate::context::{Context, unknown};
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::screen::Screen;
use crate::table::Table;
pub(crate) use words::{Line, effect, names};

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

impl Asking {
    /// A mode for a layer, or for all.
    ///
    /// # Errors
    /// When it cannot be encoded, which is our own fault.
    pub(crate) fn mode(change: &ModeChange) -> anyhow::Result<Asking> {
        let layers = change.layer.as_deref().map_or("all layers".to_owned(), |layer| format!("layer {layer}"));
        let lasts = change.until.map_or(String::new(), |end| format!(" until {}", moment::show(end)));
        let title = format!("{layers}: {}{lasts}", change.mode);
        let request = Request::put(paths::HEALTH_MODE, change)?;
        Ok(Asking { title, request, dry_run: change.dry_run, drained: None })
    }

    /// Takes a node out of its pool.
    ///
    /// # Errors
    /// As [`Asking::mode`].
    pub(crate) fn drain(node: &str, dry_run: bool, by: &str) -> anyhow::Result<Asking> {
        let drained = Some(node.to_owned());
        Ok(Asking { drained, ..Asking::hand("drain", node, dry_run, by)? })
    }

    /// Lets a drained node in again.
    ///
    /// # Errors
    /// As [`Asking::mode`].
    pub(crate) fn undrain(node: &str, dry_run: bool, by: &str) -> anyhow::Result<Asking> {
        Asking::hand("undrain", node, dry_run, by)
    }

    fn hand(what: &str, node: &str, dry_run: bool, by: &str) -> anyhow::Result<Asking> {
        let body = NodeChange { dry_run, by: by.to_owned(), ..NodeChange::default() };
        // Names have letters, digits, - _ . only.
        let request = Request::post(&format!("/v1/nodes/{node}/{what}"), &body)?.quick();
        Ok(Asking { title: format!("{what} {node}"), request, dry_run, drained: None })
    }
}

/// Refuses a node that cannot be drained.
///
/// # Errors
/// Says which nodes can.
pub(crate) fn check_node(cluster: &Cluster, name: &str) -> Result<(), String> {
    let pooled = cluster.nodes.iter().filter(|node| matches!(node.layer, Layer::Partial | Layer::Final));
    let names: Vec<&str> = pooled.map(|node| node.name.as_str()).collect();
    if names.contains(&name) { Ok(()) } else { Err(unknown("partial or final node", name, &names)) }
}

/// For how many seconds, of what was typed behind `--for`.
///
/// # Errors
/// Says what would be right.
pub(crate) fn lasts(text: &str) -> Result<u64, String> {
    let seconds = config::parse_duration(text).as_ref().map(Duration::as_secs).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| format!("\"{text}\" is no time of a second or more: write 30m, 90s or 1h30m"))
}

/// The second in which something ends that lasts so many.
pub(crate) fn end(now: UnixSeconds, lasts: u64) -> u64 {
    u64::from(now.0).saturating_add(lasts)
}

/// Sends it to every node at once.
pub(crate) async fn to_all<'c>(cluster: &'c Cluster, asking: &Asking) -> Vec<Answer<'c, Ordered>> {
    let requests = cluster.nodes.iter().map(|node| (node, asking.request.clone()));
    exchange_all(requests.collect()).await.into_iter().map(Answer::decoded).collect()
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
    let answers = context.client.drive(to_all(context.cluster, asking));
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
    for line in words::still(asking, answers) {
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
