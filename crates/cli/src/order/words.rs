//! What an order does, or would do, in sentences: the same for a screen and for a page.

use std::collections::BTreeMap;

use admin_api::{AuditEntry, Ordered, PoolNode};

use super::Asking;
use crate::client::{Answer, complaint};
use crate::moment;

/// Names of nodes that are written out; of more, how many there are.
const NAMES_MAX: usize = 4;

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// A person must look at it.
    pub(crate) bad: bool,
}

impl Line {
    pub(crate) fn plain(text: impl Into<String>) -> Line {
        Line { text: text.into(), bad: false }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Line {
        Line { text: text.into(), bad: true }
    }
}

/// The abnormal first: who did not answer, or keeps what is drained; then what changes, then who gains or loses traffic.
pub(crate) fn effect(asking: &Asking, answers: &[Answer<'_, Ordered>]) -> Vec<Line> {
    let mut lines: Vec<Line> = answers.iter().filter_map(not_done).collect();
    lines.extend(still(asking, answers).into_iter().map(Line::bad));
    let said: Vec<&Ordered> = answers.iter().filter_map(|answer| answer.result.as_ref().ok()).collect();
    if said.is_empty() {
        return lines;
    }
    lines.extend(changes(&said, asking.dry_run));
    let moved = traffic(&said, asking.dry_run);
    if moved.is_empty() && asking.dry_run && said.iter().any(|ordered| !ordered.changes.is_empty()) {
        lines.push(Line::plain("no node would gain or lose traffic now"));
    }
    lines.extend(moved);
    if !asking.dry_run {
        let nodes = said.iter().map(|ordered| ordered.node.as_str()).collect();
        lines.push(Line::plain(format!("in force on {} ({} of {} nodes)", names(nodes), said.len(), answers.len())));
    }
    lines
}

fn not_done(answer: &Answer<'_, Ordered>) -> Option<Line> {
    let fault = answer.result.as_ref().err()?;
    let complaint = complaint(&answer.node.name, fault);
    let said = complaint.trim_end().trim_start_matches("spillway: ");
    let later = if fault.is_refusal() { "" } else { "; it hears of an order from its peers when it is back" };
    Some(Line::bad(format!("{said}{later}")))
}

/// A drained node that the floor keeps in.
pub(super) fn still(asking: &Asking, answers: &[Answer<'_, Ordered>]) -> Vec<String> {
    let Some(drained) = &asking.drained else { return Vec::new() };
    let said = answers.iter().filter_map(|answer| answer.result.as_ref().ok());
    let would = if asking.dry_run { "would still get" } else { "still gets" };
    let kept = said.flat_map(|ordered| {
        let nodes = ordered.pools.iter().flat_map(|pool| &pool.nodes);
        let kept = move |node: &&PoolNode| node.node == *drained && node.eligible;
        nodes.filter(kept).map(move |node| format!("{drained} {would} traffic from {}: it {}", ordered.node, node.why))
    });
    kept.collect()
}

/// What is in force otherwise than before. Whoever heard of it from a peer first has nothing to say of it.
fn changes(said: &[&Ordered], dry_run: bool) -> Vec<Line> {
    let mut changes: Vec<String> = said.iter().flat_map(|ordered| ordered.changes.iter().map(change)).collect();
    changes.sort();
    changes.dedup();
    if !changes.is_empty() {
        return changes.into_iter().map(Line::plain).collect();
    }
    let text = if dry_run {
        "in force already on every node that answers: nothing would change"
    } else {
        "it was in force already"
    };
    vec![Line::plain(text)]
}

/// One change of an order: `mode of partial: auto -> lenient until 2026-06-24T14:00:00Z, then auto`.
fn change(entry: &AuditEntry) -> String {
    let AuditEntry { what, old, new, .. } = entry;
    let (subject, before) = match what.split_once('/') {
        Some(("mode", layer)) => (format!("mode of {layer}"), "as the cluster file says"),
        Some(("drain", node)) => (node.to_owned(), "active"),
        Some(_) | None => (what.clone(), "-"),
    };
    let old = if old.is_empty() { before.to_owned() } else { value(old) };
    format!("{subject}: {old} -> {}", value(new))
}

/// The value of an order for a person: `lenient until 1764000000 then auto` names a second.
fn value(text: &str) -> String {
    let mut parts = text.splitn(5, ' ');
    let parts = [(); 5].map(|()| parts.next());
    let [Some(mode), Some("until"), Some(end), Some("then"), Some(then)] = parts else { return text.to_owned() };
    match end.parse() {
        Ok(end) => format!("{mode} until {}, then {then}", moment::show(end)),
        Err(_) => text.to_owned(),
    }
}

/// Who gains and who loses, a line for all nodes that see the same.
fn traffic(said: &[&Ordered], dry_run: bool) -> Vec<Line> {
    let mut seen: BTreeMap<(&[String], &[String]), Vec<&str>> = BTreeMap::new();
    for ordered in said.iter().filter(|ordered| !ordered.gain.is_empty() || !ordered.lose.is_empty()) {
        seen.entry((&ordered.lose, &ordered.gain)).or_default().push(&ordered.node);
    }
    let [loses, gains] = if dry_run { ["would lose", "would gain"] } else { ["lost", "gained"] };
    let part = |nodes: &[String], verb: &str| {
        (!nodes.is_empty()).then(|| format!("{} {verb} traffic", names(nodes.iter().map(String::as_str).collect())))
    };
    let line = |((lose, gain), from): ((&[String], &[String]), Vec<&str>)| {
        let parts: Vec<String> = [part(lose, loses), part(gain, gains)].into_iter().flatten().collect();
        Line::plain(format!("from {}: {}", names(from), parts.join(", ")))
    };
    seen.into_iter().map(line).collect()
}

/// `a, b and c`; of many, the first ones and how many more.
pub(crate) fn names(all: Vec<&str>) -> String {
    let more = all.len().saturating_sub(NAMES_MAX);
    match all.as_slice() {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        _ if more > 0 => {
            let first: Vec<&str> = all.into_iter().take(NAMES_MAX).collect();
            format!("{} and {more} more", first.join(", "))
        }
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_with_what_was_before() {
        let cases = [
            ("mode/partial", "", "lenient", "mode of partial: as the cluster file says -> lenient"),
            (
                "mode/final",
                "auto",
                "lenient until 1700000000 then auto",
                "mode of final: auto -> lenient until 2023-11-14T22:13:20Z, then auto",
            ),
            ("mode/final", "x until y then z", "auto", "mode of final: x until y then z -> auto"),
            ("drain/partial-2", "", "drained", "partial-2: active -> drained"),
            ("drain/partial-2", "drained", "active", "partial-2: drained -> active"),
            ("of a later version", "", "1", "of a later version: - -> 1"),
        ];
        for (what, old, new, expected) in cases {
            let [what, old, new] = [what, old, new].map(str::to_owned);
            assert_eq!(change(&AuditEntry { at: 1, by: String::new(), what, old, new }), expected);
        }
    }

    #[test]
    fn of_many_names_some_are_written_out() {
        let cases: [(&[&str], &str); 5] = [
            (&[], "nobody"),
            (&["a"], "a"),
            (&["a", "b"], "a and b"),
            (&["a", "b", "c", "d"], "a, b, c and d"),
            (&["a", "b", "c", "d", "e", "f"], "a, b, c, d and 2 more"),
        ];
        for (all, expected) in cases {
            assert_eq!(names(all.to_vec()), expected);
        }
    }
}
