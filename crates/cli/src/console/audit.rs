//! The logs of all nodes as one: a change that several nodes took is one row.

use std::cmp::Reverse;

use admin_api::AuditEntry;
use serde::Serialize;

/// Seconds between two nodes' own times of the same change: the CLI tells all at once, clocks differ.
const SAME_WITHIN: u64 = 10;

/// One change, with the nodes that say so.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change<'s> {
    /// The latest of their times, seconds since 1970.
    pub(super) at: u64,
    /// Who ordered it, and with which role and from where if a node says so.
    pub(super) by: &'s str,
    pub(super) what: &'s str,
    pub(super) old: &'s str,
    pub(super) new: &'s str,
    /// Ascending.
    pub(super) nodes: Vec<&'s str>,
}

/// Latest first. `logs`: of each node, latest first; a node may have several.
pub(super) fn merged<'s>(logs: impl Iterator<Item = (&'s str, &'s [AuditEntry])>) -> Vec<Change<'s>> {
    let mut entries: Vec<(&str, &AuditEntry)> =
        logs.flat_map(|(node, entries)| entries.iter().map(move |entry| (node, entry))).collect();
    // Stable: among changes of one second the nodes' own order stays.
    entries.sort_by_key(|(_, entry)| Reverse(entry.at));
    let mut changes: Vec<Change<'_>> = Vec::new();
    for (node, entry) in entries {
        let by = person(&entry.by);
        let same = |change: &&mut Change<'_>| {
            (change.what, change.old, change.new) == (&entry.what, &entry.old, &entry.new)
                // Nodes may see one caller at several addresses of his.
                && without_address(change.by) == without_address(by)
                // Whoever says it twice has done it twice.
                && !change.nodes.contains(&node)
        };
        let mut near = changes.iter_mut().rev().take_while(|change| change.at.saturating_sub(entry.at) <= SAME_WITHIN);
        match near.find(same) {
            Some(change) => {
                change.nodes.push(node);
                change.nodes.sort_unstable();
            }
            None => {
                let AuditEntry { at, what, old, new, .. } = entry;
                changes.push(Change { at: *at, by, what, old, new, nodes: vec![node] });
            }
        }
    }
    changes
}

/// Without the node on which an order of all nodes was heard first: `alice@ops on relay-1`.
fn person(by: &str) -> &str {
    by.rsplit_once(" on ").map_or(by, |(person, _)| person)
}

/// Without what a node itself adds to a name: `alice@ops (operate from 10.0.0.7)`.
fn without_address(by: &str) -> &str {
    let added = by.strip_suffix(')').and_then(|by| by.rsplit_once(" ("));
    match added {
        Some((person, known)) if known.starts_with("from ") || known.contains(" from ") => person,
        Some(_) | None => by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, by: &str, change: [&str; 3]) -> AuditEntry {
        let [what, old, new] = change.map(str::to_owned);
        AuditEntry { at, by: by.to_owned(), what, old, new }
    }

    #[track_caller]
    fn check(logs: &[(&str, &[AuditEntry])], expected: &[(u64, &str, &str, &[&str])]) {
        let changes = merged(logs.iter().copied());
        let shown: Vec<_> =
            changes.iter().map(|change| (change.at, change.by, change.new, change.nodes.as_slice())).collect();
        assert_eq!(shown, expected);
    }

    const DRAIN: [&str; 3] = ["drain/partial-2", "", "drained"];
    const UNDRAIN: [&str; 3] = ["drain/partial-2", "drained", "active"];

    #[test]
    fn one_order_that_many_nodes_took_is_one_row() {
        let logs: [(&str, &[AuditEntry]); 3] = [
            ("relay-2", &[entry(101, "anna on relay-2", DRAIN)]),
            ("final-1", &[entry(100, "anna on relay-1", DRAIN)]),
            ("relay-1", &[entry(100, "anna on relay-1", DRAIN)]),
        ];
        check(&logs, &[(101, "anna", "drained", &["final-1", "relay-1", "relay-2"])]);
        let logs: [(&str, &[AuditEntry]); 2] = [
            ("relay-1", &[entry(100, "anna (console) (operate from 127.0.0.1) on relay-1", DRAIN)]),
            ("relay-2", &[entry(100, "anna (console) (operate from 10.0.0.7) on relay-2", DRAIN)]),
        ];
        check(&logs, &[(100, "anna (console) (operate from 127.0.0.1)", "drained", &["relay-1", "relay-2"])]);
    }

    #[test]
    fn what_was_done_twice_or_by_two_is_two_rows() {
        let twice = [entry(104, "anna on a", DRAIN), entry(102, "anna on a", UNDRAIN), entry(100, "anna on a", DRAIN)];
        let logs: [(&str, &[AuditEntry]); 2] = [("a", &twice), ("b", &twice)];
        let both: &[&str] = &["a", "b"];
        check(&logs, &[(104, "anna", "drained", both), (102, "anna", "active", both), (100, "anna", "drained", both)]);
        let logs: [(&str, &[AuditEntry]); 2] =
            [("a", &[entry(100, "anna on a", DRAIN)]), ("b", &[entry(100, "bert on b", DRAIN)])];
        check(&logs, &[(100, "anna", "drained", &["a"]), (100, "bert", "drained", &["b"])]);
        let logs: [(&str, &[AuditEntry]); 2] =
            [("a", &[entry(100, "anna", DRAIN)]), ("b", &[entry(100 + SAME_WITHIN + 1, "anna", DRAIN)])];
        check(&logs, &[(111, "anna", "drained", &["b"]), (100, "anna", "drained", &["a"])]);
    }

    #[test]
    fn both_logs_of_a_node_are_in_it_the_latest_first() {
        let rate = entry(105, "bert", ["rate", "1", "2"]);
        let logs: [(&str, &[AuditEntry]); 2] = [("a", &[entry(100, "anna on a", DRAIN)]), ("a", &[rate])];
        check(&logs, &[(105, "bert", "2", &["a"]), (100, "anna", "drained", &["a"])]);
    }
}
