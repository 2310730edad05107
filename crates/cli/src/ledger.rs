//! `spillway ledger`: the books of every node (INV-1). The sums are made anew here; a node's own `balanced` is believed
//! only when it says no.

use std::collections::BTreeMap;

use admin_api::{DestinationLedger, Ledger, paths};
use config::Cluster;
use serde::Serialize;

use crate::client::{Answer, ask_all, exit_of, silent};
use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// One node's books, for programs.
#[derive(Debug, Serialize)]
struct NodeEntry<'a> {
    node: &'a str,
    layer: &'static str,
    answers: bool,
    error: Option<String>,
    balanced: Option<bool>,
    /// The lines that do not balance.
    faults: Vec<String>,
    ledger: Option<&'a Ledger>,
}

/// One line of the books: `total` should be the sum of `parts`.
#[derive(Debug)]
struct Line<'l> {
    name: String,
    total: (&'static str, u64),
    parts: Vec<Part<'l>>,
}

/// What it is, how much, and for which reasons.
type Part<'l> = (&'static str, u64, Option<&'l BTreeMap<String, u64>>);

/// Asks all nodes for their books and says whether they balance.
///
/// # Errors
/// When nobody can be asked or nothing can be printed; a node that does not answer is no error but an [`Exit`].
pub(crate) fn run(cluster: &Cluster, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let mut answers = ask_all::<Ledger>(cluster, paths::LEDGER)?;
    // The abnormal first: no answer, then books that do not balance.
    answers
        .sort_by_key(|answer| answer.result.as_ref().map_or(0, |ledger| if faults(ledger).is_empty() { 2 } else { 1 }));
    if screen.json {
        let nodes: Vec<NodeEntry<'_>> = answers.iter().map(entry).collect();
        let balanced = nodes.iter().all(|node| node.balanced == Some(true));
        screen.json(&serde_json::json!({ "cluster": cluster.name, "balanced": balanced, "nodes": nodes }))?;
    } else {
        let text: Vec<String> = answers.iter().map(|answer| render(answer, screen)).collect();
        screen.text(&text.join("\n"))?;
        screen.note(&silent(&answers))?;
    }
    let unbalanced = answers.iter().any(|answer| answer.result.as_ref().is_ok_and(|ledger| !faults(ledger).is_empty()));
    Ok(if unbalanced { Exit::Unbalanced } else { exit_of(&answers) })
}

fn entry<'a>(answer: &'a Answer<'_, Ledger>) -> NodeEntry<'a> {
    let faults = answer.result.as_ref().map(faults).unwrap_or_default();
    NodeEntry {
        node: &answer.node.name,
        layer: answer.node.layer.as_str(),
        answers: answer.result.is_ok(),
        error: answer.result.as_ref().err().map(ToString::to_string),
        balanced: answer.result.as_ref().ok().map(|_| faults.is_empty()),
        faults,
        ledger: answer.result.as_ref().ok(),
    }
}

fn render(answer: &Answer<'_, Ledger>, screen: &Screen<'_>) -> String {
    let title = format!("{} ({})", answer.node.name, answer.node.layer.as_str());
    let ledger = match &answer.result {
        Ok(ledger) => ledger,
        Err(error) => return format!("{}: no answer ({error})\n", screen.bold(&title)),
    };
    let faults = faults(ledger);
    let verdict = if faults.is_empty() { "balanced" } else { "DOES NOT BALANCE" };
    let mut out = format!("{}: {verdict}\n", screen.bold(&title));
    for line in lines(ledger) {
        out.push_str(&format!("  {}\n", line.show()));
    }
    for fault in faults {
        out.push_str(&format!("  ! {fault}\n"));
    }
    out
}

/// The three laws of the books, as `admin-api` states them.
fn lines(ledger: &Ledger) -> Vec<Line<'_>> {
    let mut lines = vec![
        Line {
            name: "received".into(),
            total: ("received", ledger.received),
            parts: vec![
                ("accepted", ledger.accepted, None),
                ("rejected", sum(&ledger.rejected), Some(&ledger.rejected)),
                ("in hand", ledger.in_hand, None),
            ],
        },
        Line {
            name: "accepted".into(),
            total: ("accepted", ledger.accepted),
            parts: vec![("routed", ledger.routed, None), ("dropped", sum(&ledger.dropped), Some(&ledger.dropped))],
        },
    ];
    lines.extend(ledger.destinations.iter().map(destination));
    lines
}

fn destination(books: &DestinationLedger) -> Line<'_> {
    Line {
        name: format!("destination {}", books.destination),
        total: ("owed", books.owed),
        parts: vec![
            ("delivered", books.delivered, None),
            ("delivered unconfirmed", books.delivered_unconfirmed, None),
            ("in flight", books.in_flight, None),
            ("spill pending", books.spill_pending, None),
            ("dropped", sum(&books.dropped), Some(&books.dropped)),
        ],
    }
}

impl Line<'_> {
    /// What is missing (positive) or too much (negative) on the right.
    fn missing(&self) -> i128 {
        i128::from(self.total.1) - self.parts.iter().map(|(_, value, _)| i128::from(*value)).sum::<i128>()
    }

    fn show(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|(name, value, reasons)| part(name, *value, *reasons)).collect();
        let (total, value) = self.total;
        // `received` and `accepted` are their own names; a destination's total is what it is owed.
        let name = if self.name == total { total.to_owned() } else { format!("{}: {total}", self.name) };
        format!("{name} {value} = {}", parts.join(" + "))
    }
}

fn part(name: &str, value: u64, reasons: Option<&BTreeMap<String, u64>>) -> String {
    let named: Vec<String> = reasons
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if named.is_empty() { format!("{name} {value}") } else { format!("{name} {value} ({})", named.join(", ")) }
}

/// Every line that does not balance, and a node that says so itself.
fn faults(ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    for line in lines(ledger) {
        let missing = line.missing();
        if missing != 0 {
            let verb = if missing > 0 { "are unaccounted for" } else { "are too many" };
            faults.push(format!("{}: {} {verb}", line.name, missing.unsigned_abs()));
        }
    }
    if faults.is_empty() && !ledger.balanced {
        faults.push(format!("the node itself counts {} unaccounted", ledger.unaccounted));
    }
    faults
}

fn sum(by_reason: &BTreeMap<String, u64>) -> u64 {
    by_reason.values().fold(0, |sum, count| sum.saturating_add(*count))
}
