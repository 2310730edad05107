//! `spillway health show`: one screen that tells an overloaded node from one with a crashed worker.

use admin_api::{Health, HealthEvent, PoolNode, PoolStatus, Verdict};
use serde_json::json;

use crate::client::{Answer, Request};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::order;
use crate::screen::Screen;
use crate::status::{rank, words};
use crate::table::{Table, duration, millis};

/// Events shown to a person.
const EVENTS_SHOWN: usize = 20;

/// # Errors
/// When nobody can be asked or nothing can be printed.
pub(super) fn run(context: &Context<'_>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let requests = context.cluster.nodes.iter().map(|node| (node, Request::health()));
    let answers: Vec<Answer<'_, Health>> = context.client.all(requests.collect());
    if screen.json {
        let nodes: Vec<&Health> = said(&answers).collect();
        screen.json(&json!({ "nodes": nodes, "failed": order::failures(&answers) }))?;
    } else {
        let text = render(&answers, screen);
        screen.text(&text)?;
        screen.note(&crate::client::silent(&answers))?;
    }
    Ok(crate::client::exit_of(&answers))
}

fn said<'a>(answers: &'a [Answer<'_, Health>]) -> impl Iterator<Item = &'a Health> {
    answers.iter().filter_map(|answer| answer.result.as_ref().ok())
}

fn render(answers: &[Answer<'_, Health>], screen: &Screen<'_>) -> String {
    let mut out = nodes(answers).render();
    let pools: Vec<(&str, &PoolStatus)> =
        said(answers).flat_map(|health| health.pools.iter().map(|pool| (health.node.as_str(), pool))).collect();
    let mut layers = Table::new(["SEEN FROM", "LAYER", "MODE", "IN EFFECT", "ELIGIBLE", "FLOOR", "STRICT LEAVES"]);
    let mut members = Table::new(["SEEN FROM", "NODE", "TRAFFIC", "STANDING", "CLEAN", "ACK", "QUEUE", "WHY"]);
    let mut rows: Vec<(u8, &str, &PoolNode)> = Vec::new();
    for &(from, pool) in &pools {
        let eligible = pool.nodes.iter().filter(|node| node.eligible).count();
        layers.row([
            from.to_owned(),
            pool.layer.clone(),
            pool.mode.clone(),
            // Nodes that own what is theirs are not chosen from.
            if pool.shared { pool.stance.clone() } else { "all that own".to_owned() },
            format!("{eligible}/{}", pool.size),
            if pool.shared { pool.floor.to_string() } else { String::new() },
            pool.strict.to_string(),
        ]);
        rows.extend(pool.nodes.iter().map(|node| (urgency(node), from, node)));
    }
    rows.sort_by_key(|(urgency, ..)| *urgency);
    for (_, from, node) in rows {
        members.row(member(from, node));
    }
    section(&mut out, screen, "pools", &layers);
    section(&mut out, screen, "who gets traffic", &members);
    let mut events: Vec<(&str, &HealthEvent)> =
        said(answers).flat_map(|health| health.events.iter().map(|event| (health.node.as_str(), event))).collect();
    events.sort_by_key(|(_, event)| std::cmp::Reverse(event.at));
    let mut table = Table::new(["TIME", "SEEN FROM", "LAYER", "WHAT"]);
    for (from, event) in events.into_iter().take(EVENTS_SHOWN) {
        table.row([moment::show(event.at), from.to_owned(), event.layer.clone(), event.text.clone()]);
    }
    section(&mut out, screen, "lately", &table);
    out
}

fn nodes(answers: &[Answer<'_, Health>]) -> Table {
    let mut order: Vec<&Answer<'_, Health>> = answers.iter().collect();
    order.sort_by_key(|answer| answer.result.as_ref().map_or(0, |health| rank(&health.verdict)));
    let mut table = Table::new(["NODE", "LAYER", "VERDICT", "REASON"]);
    for answer in order {
        let (name, layer) = (answer.node.name.clone(), answer.node.layer.as_str().to_owned());
        let (verdict, reason) = match &answer.result {
            Ok(health) => words(&health.verdict),
            Err(fault) => (if fault.is_refusal() { "refuses" } else { "no answer" }, fault.to_string()),
        };
        table.row([name, layer, verdict.to_owned(), reason]);
    }
    table
}

fn member(from: &str, node: &PoolNode) -> [String; 8] {
    [
        from.to_owned(),
        node.node.clone(),
        if node.eligible { "yes" } else { "NO" }.to_owned(),
        node.standing.clone(),
        node.clean_seconds.map(duration).unwrap_or_default(),
        node.ack_ms.map(millis).unwrap_or_default(),
        node.queue_ms.map(millis).unwrap_or_default(),
        node.why.clone(),
    ]
}

/// Who gets nothing comes first, then who gets something although he is not well.
fn urgency(node: &PoolNode) -> u8 {
    let is_ready = node.verdict.as_ref().is_none_or(|verdict| *verdict == Verdict::Ready);
    match (node.eligible, node.standing != "floor" && is_ready) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

fn section(out: &mut String, screen: &Screen<'_>, title: &str, table: &Table) {
    if !table.is_empty() {
        out.push_str(&format!("\n{}\n{}", screen.bold(title), table.render()));
    }
}
