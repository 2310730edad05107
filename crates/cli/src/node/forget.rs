//! `spillway node forget`: first everybody is asked what would be lost; then, if that is nothing or `--force` says so,
//! all nodes are told. Who does not hear of it now hears of it from its peers.

use admin_api::{NodeChange, SpillDiscard, SpillLoss, paths};
use anyhow::anyhow;
use config::{Layer, Node};
use serde::Serialize;

use super::Forget;
use super::loss::{Found, Part, find};
use crate::amount::{bytes, count};
use crate::client::{Answer, Fault, Reply, Request, complaint, exit_of_results};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::replay::RUNBOOK;
use crate::screen::Screen;
use crate::table::{Table, duration};

/// For programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    cluster: &'a str,
    node: &'a str,
    layer: &'static str,
    alive: bool,
    linked: &'a [String],
    sender: Option<&'a str>,
    lost: &'a [Part],
    lost_points: u64,
    unknown: &'a [String],
    done: bool,
    error: Option<&'a str>,
    nodes: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    node: &'a str,
    told: bool,
    error: Option<String>,
}

/// # Errors
/// When there is no such node, it cannot be forgotten, or nothing can be printed.
pub(super) fn run(context: &Context<'_>, asked: &Forget, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let node = context.any_node(&[Layer::Relay, Layer::Partial, Layer::Final, Layer::Replayer], &asked.name)?;
    if node.layer == Layer::Final {
        return Err(Failure::refused(anyhow!(
            "{} is a final node: its partitions are on it alone, and nothing else may take them over; drain it, or give \
             every node a cluster file without it",
            node.name
        )));
    }
    let mut found = find(context, node);
    found.sender = asked.sender.map(|sender| format!("{sender:016x}")).or(found.sender);
    if !screen.json {
        screen.text(&picture(context, node, &found))?;
    }
    if let Some(reason) = objection(&found).filter(|_| !asked.force && !asked.dry_run) {
        if screen.json {
            screen.json(&report(context, node, &found, Some(&reason), &[]))?;
        } else {
            screen.note(&format!("spillway: refused, nothing was changed: {reason}\n"))?;
            screen
                .note(&format!("spillway: --force forgets it all the same, for good; read {RUNBOOK}#forget first\n"))?;
        }
        return Ok(Exit::Refused);
    }
    if asked.dry_run {
        if screen.json {
            screen.json(&report(context, node, &found, None, &[]))?;
        } else {
            screen.note("spillway: nothing was changed: --force instead of --dry-run does it\n")?;
        }
        return Ok(Exit::Ok);
    }
    carry_out(context, node, &found, screen)
}

/// Why it is not done without `--force`.
fn objection(found: &Found) -> Option<String> {
    match (found.loses(), found.is_alive || !found.linked.is_empty()) {
        (true, true) => {
            Some("it would lose data, and it is alive: drain and stop it, then let the replay finish".into())
        }
        (true, false) => Some("it would lose data".into()),
        (false, true) => Some("it is alive: stop it first".into()),
        (false, false) => None,
    }
}

fn carry_out(context: &Context<'_>, node: &Node, found: &Found, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    // What a relay that is there gives up is counted in its own books.
    if found.is_alive && node.layer == Layer::Relay && found.points() > 0 {
        let discard = SpillDiscard { force: true, by: context.by.clone(), ..SpillDiscard::default() };
        let gone = context.client.one::<SpillLoss>(node, Request::post(paths::SPILL_DISCARD, &discard)?);
        if let (Err(fault), false) = (&gone, screen.json) {
            screen.note(&complaint(&node.name, fault))?;
        }
    }
    let of_relay = node.layer == Layer::Relay;
    let body = NodeChange {
        sender: found.sender.clone(),
        lost_points: of_relay.then(|| found.points()),
        force: of_relay,
        by: context.by.clone(),
        ..NodeChange::default()
    };
    let mut requests = Vec::new();
    for other in &context.cluster.nodes {
        requests.push((other, Request::post(&format!("/v1/nodes/{}/forget", node.name), &body)?.quick()));
    }
    // Its own answer is of no weight: it may be gone.
    let answers = context.client.exchange(requests);
    let others = || answers.iter().filter(|answer| answer.node.name != node.name);
    if screen.json {
        screen.json(&report(context, node, found, None, &answers))?;
    } else {
        tell(node, found, others(), screen)?;
    }
    Ok(exit_of_results(others().map(|answer| answer.result.as_ref().err())))
}

fn tell<'a, 'c: 'a>(
    node: &Node,
    found: &Found,
    answers: impl Iterator<Item = &'a Answer<'c, Reply>>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let (good, bad): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.result.is_ok());
    if !good.is_empty() {
        let lost =
            if found.points() > 0 { format!("; {} points are counted as lost", found.points()) } else { String::new() };
        let (name, told, all) = (&node.name, good.len(), good.len() + bad.len());
        screen.text(&format!("{name} is forgotten: {told} of {all} nodes know it{lost}\n"))?;
    }
    for answer in &bad {
        if let Err(fault) = &answer.result {
            screen.note(&complaint(&answer.node.name, fault))?;
        }
    }
    let away = bad.iter().any(|answer| matches!(answer.result, Err(Fault::Silent(_))));
    if away && !good.is_empty() {
        screen.note("spillway: who does not answer hears of it from its peers when it returns\n")?;
    }
    if node.layer == Layer::Relay && found.sender.is_none() {
        let hint = "nobody knows its sender, so it is refused by its name only: --sender HEX (its `identity` file) does better";
        screen.note(&format!("spillway: {hint}\n"))?;
    }
    Ok(())
}

/// What is known, for a person.
fn picture(context: &Context<'_>, node: &Node, found: &Found) -> String {
    let state = match (&found.error, found.is_alive) {
        (_, true) => "ALIVE: it answers".to_owned(),
        (Some(error), false) => format!("does not answer: {error}"),
        (None, false) => "does not answer".to_owned(),
    };
    let mut out = format!("{} ({}) {state}\n", node.name, node.layer.as_str());
    if !found.linked.is_empty() {
        out.push_str(&format!("links with it are up on {}\n", found.linked.join(", ")));
    }
    if let Some(sender) = &found.sender {
        out.push_str(&format!(
            "sender {sender}: forgetting retires all its epochs, and nothing of it is taken any more\n"
        ));
    }
    if !found.loses() {
        out.push_str("nothing would be lost\n");
        return out;
    }
    out.push_str("would be lost:\n");
    let mut table = Table::new(["LANE", "POINTS", "BATCHES", "SIZE", "OLDEST", "SAYS"]);
    for part in &found.parts {
        table.row([
            part.lane.clone(),
            count(part.points),
            part.batches.to_string(),
            bytes(part.bytes),
            part.oldest.map(|oldest| duration(context.age(oldest))).unwrap_or_default(),
            part.says.clone(),
        ]);
    }
    if !table.is_empty() {
        out.push_str(&table.render());
    }
    for unknown in &found.unknown {
        out.push_str(&format!("* {unknown}\n"));
    }
    out
}

fn report<'a>(
    context: &'a Context<'_>,
    node: &'a Node,
    found: &'a Found,
    error: Option<&'a str>,
    answers: &'a [Answer<'_, Reply>],
) -> Report<'a> {
    let told = |answer: &'a Answer<'_, Reply>| Told {
        node: &answer.node.name,
        told: answer.result.is_ok(),
        error: answer.result.as_ref().err().map(ToString::to_string),
    };
    Report {
        cluster: &context.cluster.name,
        node: &node.name,
        layer: node.layer.as_str(),
        alive: found.is_alive,
        linked: &found.linked,
        sender: found.sender.as_deref(),
        lost: &found.parts,
        lost_points: found.points(),
        unknown: &found.unknown,
        done: answers.iter().any(|answer| answer.result.is_ok()),
        error,
        nodes: answers.iter().map(told).collect(),
    }
}
