//! Names of what is replayed. `RELAY` and `RELAY/DESTINATION` are a relay's spill and one lane of it;
//! `FINAL/windows:STORE/ADDRESS` are the windows that one store missed at one final node, `FINAL` all of that node, and
//! `windows:STORE/ADDRESS`, as a final node itself says it, that store's windows at every final node.

use admin_api::ReplayStatus;
use anyhow::anyhow;
use config::{Layer, Node};

use super::picture::Row;
use crate::client::{Answer, silent};
use crate::context::{Context, unknown};
use crate::exit::Failure;

/// What begins the name of a final node's source.
pub(super) const WINDOWS: &str = "windows:";

/// Whether `wanted` means this part of that relay or final node.
pub(super) fn is_of(source: &str, destination: &str, wanted: &str) -> bool {
    let windows = destination.starts_with(WINDOWS) && destination == wanted;
    windows
        || source == wanted
        || wanted.strip_prefix(source).and_then(|rest| rest.strip_prefix('/')) == Some(destination)
}

/// What a node itself calls a source. The windows of a final node are its own: it does not put its name before them, and
/// all of them are `None`.
pub(super) fn name_at<'s>(node: &Node, source: &'s str) -> Option<&'s str> {
    if node.layer != Layer::Final {
        return Some(source);
    }
    let rest = source.strip_prefix(node.name.as_str());
    match rest {
        Some("") => None,
        Some(rest) => Some(rest.strip_prefix('/').unwrap_or(source)),
        None => Some(source),
    }
}

/// What this cluster calls a source of which a node says `own`.
pub(super) fn full_name(node: &Node, own: &str) -> String {
    if node.layer == Layer::Final { format!("{}/{own}", node.name) } else { own.to_owned() }
}

/// All sources that the relays of the cluster file and the nodes' answers make known.
pub(super) fn known(context: &Context<'_>, answers: &[Answer<'_, ReplayStatus>]) -> Vec<String> {
    let relays = context.nodes(&[Layer::Relay]).into_iter().map(|node| node.name.clone());
    let mut known: Vec<String> = relays.collect();
    for status in answers.iter().filter_map(|answer| answer.result.as_ref().ok()) {
        for part in &status.sources {
            known.push(part.source.clone());
            known.push(format!("{}/{}", part.source, part.destination));
        }
    }
    known.sort_unstable();
    known.dedup();
    known
}

/// Refuses a source that nobody has.
///
/// # Errors
/// Names the known ones, and who did not answer.
pub(super) fn check(context: &Context<'_>, answers: &[Answer<'_, ReplayStatus>], wanted: &str) -> Result<(), Failure> {
    let known = known(context, answers);
    let is = |name: &String| name == wanted || name.split_once('/').is_some_and(|(node, own)| is_of(node, own, wanted));
    if known.iter().any(is) {
        return Ok(());
    }
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    Err(Failure::usage(anyhow!("{}\n{}", unknown("source", wanted, &names), silent(answers))))
}

/// The rows that `wanted` means.
///
/// # Errors
/// When it means none, with what is known.
pub(super) fn only(context: &Context<'_>, rows: &mut Vec<Row>, wanted: &str) -> Result<(), Failure> {
    let relay = context.nodes(&[Layer::Relay]).iter().any(|node| node.name == wanted);
    let mut names: Vec<String> = rows.iter().map(|row| format!("{}/{}", row.source, row.destination)).collect();
    rows.retain(|row| is_of(&row.source, &row.destination, wanted));
    if rows.is_empty() && !relay {
        names.extend(context.nodes(&[Layer::Relay]).into_iter().map(|node| node.name.clone()));
        names.sort_unstable();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return Err(Failure::usage(anyhow!(unknown("source", wanted, &names))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_node_one_lane_of_it_or_a_store_s_windows_everywhere() {
        let (lane, windows) = ("aggregate:final-1", "windows:carbon/127.0.0.1:2103");
        for (source, destination, wanted, is) in [
            ("relay-1", lane, "relay-1", true),
            ("relay-1", lane, "relay-1/aggregate:final-1", true),
            ("relay-1", lane, "relay-1/aggregate", false),
            ("relay-1", lane, "relay-10", false),
            ("relay-1", lane, lane, false),
            ("final-1", windows, "final-1", true),
            ("final-1", windows, "final-1/windows:carbon/127.0.0.1:2103", true),
            ("final-2", windows, "final-1/windows:carbon/127.0.0.1:2103", false),
            ("final-2", windows, windows, true),
            ("final-2", windows, "windows:carbon", false),
        ] {
            assert_eq!(is_of(source, destination, wanted), is, "{wanted} of {source}/{destination}");
        }
    }
}
