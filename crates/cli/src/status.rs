//! `spillway status`: what every node says of itself, the abnormal ones first.

use std::collections::BTreeMap;

use admin_api::{PeerStatus, ReplayStatus, SpillLane, SpillStatus, Status, Verdict, WorkerStatus, paths};
use config::{Cluster, Layer};
use engine::rate;
use serde::Serialize;

use crate::amount::{bytes, count};
use crate::client::{Answer, Client, Request, exit_of, silent};
use crate::exit::{Exit, Failure};
use crate::screen::Screen;
use crate::table::{Table, duration, millis};

/// One node, for programs.
#[derive(Debug, Serialize)]
struct NodeEntry<'a> {
    node: &'a str,
    layer: &'static str,
    admin: String,
    answers: bool,
    error: Option<String>,
    status: Option<&'a Status>,
}

/// Asks all nodes and prints what they say.
///
/// # Errors
/// When nobody can be asked or nothing can be printed; a node that does not answer is no error but an [`Exit`].
pub(crate) fn run(cluster: &Cluster, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let client = Client::new()?;
    let (answers, beside) = ask(cluster, &client);
    if screen.json {
        let nodes: Vec<NodeEntry<'_>> = answers.iter().map(entry).collect();
        screen.json(&serde_json::json!({
            "cluster": cluster.name, "nodes": nodes, "spills": beside.spills, "replays": beside.replays,
        }))?;
    } else {
        let text = render(cluster, &answers, &beside, screen);
        screen.text(&text)?;
        screen.note(&silent(&answers))?;
    }
    Ok(exit_of(&answers))
}

/// What relays say of their spills and replayers of replay, by node. A node that does not say it is left out: that it does
/// not answer at all stands elsewhere.
#[derive(Debug, Default)]
struct Beside {
    spills: BTreeMap<String, SpillStatus>,
    replays: BTreeMap<String, ReplayStatus>,
}

/// All questions at once.
fn ask<'c>(cluster: &'c Cluster, client: &Client) -> (Vec<Answer<'c, Status>>, Beside) {
    let of = |layer: Layer, path: &'static str| cluster.layer(layer).map(move |node| (node, Request::get(path)));
    let mut requests: Vec<_> = cluster.nodes.iter().map(|node| (node, Request::get(paths::STATUS))).collect();
    let nodes = requests.len();
    requests.extend(of(Layer::Relay, paths::SPILL).chain(of(Layer::Replayer, paths::REPLAY)));
    let mut answers = client.exchange(requests);
    let mut beside = Beside::default();
    for answer in answers.split_off(nodes) {
        let name = answer.node.name.clone();
        match answer.node.layer {
            Layer::Relay => beside.spills.extend(answer.decoded().result.ok().map(|spill| (name, spill))),
            Layer::Partial | Layer::Final | Layer::Replayer => {
                beside.replays.extend(answer.decoded().result.ok().map(|replay| (name, replay)));
            }
        }
    }
    (answers.into_iter().map(Answer::decoded).collect(), beside)
}

/// Spills that are not as in calm weather.
fn spills(beside: &Beside) -> Table {
    let mut table = Table::new(["NODE", "MODE", "PENDING", "SIZE", "QUOTA", "DETAIL"]);
    for (node, spill) in &beside.spills {
        let waits = |lane: &SpillLane| lane.pending_points.saturating_sub(lane.held_points);
        let pending = spill.lanes.iter().fold(0u64, |sum, lane| sum.saturating_add(waits(lane)));
        if spill.mode != "ok" || pending > 0 {
            table.row([
                node.clone(),
                spill.mode.clone(),
                count(pending),
                bytes(spill.bytes),
                bytes(spill.quota_bytes),
                spill.detail.clone(),
            ]);
        }
    }
    table
}

fn replays(beside: &Beside) -> Table {
    let mut table = Table::new(["NODE", "STATE", "RATE NOW", "CEILING", "BACKLOG", "DONE IN"]);
    for (node, replay) in &beside.replays {
        let state = match (replay.settings.paused, replay.settings.cautious) {
            (true, _) => "paused",
            (false, true) => "cautious",
            (false, false) => replay.limited_by.as_str(),
        };
        table.row([
            node.clone(),
            state.to_owned(),
            format!("{}/s", replay.rate_now),
            rate::show(replay.settings.rate),
            count(replay.backlog_points),
            replay.eta_seconds.map(duration).unwrap_or_default(),
        ]);
    }
    table
}

fn entry<'a>(answer: &'a Answer<'_, Status>) -> NodeEntry<'a> {
    NodeEntry {
        node: &answer.node.name,
        layer: answer.node.layer.as_str(),
        admin: answer.node.admin.to_string(),
        answers: answer.result.is_ok(),
        error: answer.result.as_ref().err().map(ToString::to_string),
        status: answer.result.as_ref().ok(),
    }
}

fn render(cluster: &Cluster, answers: &[Answer<'_, Status>], beside: &Beside, screen: &Screen<'_>) -> String {
    let mut order: Vec<&Answer<'_, Status>> = answers.iter().collect();
    // Stable: nodes of one rank stay in the order of the file.
    order.sort_by_key(|answer| answer.result.as_ref().map_or(0, |status| rank(&status.verdict)));
    let said = || order.iter().filter_map(|answer| answer.result.as_ref().ok());

    let ready = said().filter(|status| status.verdict == Verdict::Ready).count();
    let mut out = format!("cluster {}: {ready} of {} nodes ready\n\n", cluster.name, answers.len());
    out.push_str(&nodes(&order).render());

    let mut workers = Table::new(["NODE", "WORKER", "STATE", "RESTARTS", "HANGS", "HEARTBEAT", "LAST ERROR"]);
    for status in said() {
        for worker in status.workers.iter().filter(|worker| !runs(worker)) {
            workers.row(worker_row(&status.node, worker));
        }
    }
    section(&mut out, screen, "workers not running", &workers);

    section(&mut out, screen, "spill (more: spillway spill stat)", &spills(beside));
    section(&mut out, screen, "replay (more: spillway replay status)", &replays(beside));

    let mut peers = Table::new(["NODE", "PEER", "STATE", "VERDICT", "IN FLIGHT", "BYTES", "OLDEST", "LAST ERROR"]);
    let all_peers: Vec<(&str, &PeerStatus)> =
        said().flat_map(|status| status.peers.iter().map(|peer| (status.node.as_str(), peer))).collect();
    let well = |peer: &PeerStatus| peer.state == "up" && peer.verdict.as_ref().is_none_or(|own| *own == Verdict::Ready);
    let (up, abnormal): (Vec<_>, Vec<_>) = all_peers.into_iter().partition(|(_, peer)| well(peer));
    for (node, peer) in abnormal.into_iter().chain(up) {
        peers.row(peer_row(node, peer));
    }
    section(&mut out, screen, "peers", &peers);

    let mut figures = Table::new(["NODE", "FIGURE", "VALUE"]);
    for status in said() {
        for (name, value) in &status.figures {
            figures.row([status.node.clone(), name.clone(), value.to_string()]);
        }
    }
    section(&mut out, screen, "figures", &figures);
    out
}

fn nodes(order: &[&Answer<'_, Status>]) -> Table {
    let mut nodes = Table::new(["NODE", "LAYER", "VERDICT", "UPTIME", "WORKERS", "PEERS", "VERSION", "REASON"]);
    for answer in order {
        let (name, layer) = (answer.node.name.clone(), answer.node.layer.as_str().to_owned());
        match &answer.result {
            Ok(status) => {
                let running = status.workers.iter().filter(|worker| runs(worker)).count();
                let up = status.peers.iter().filter(|peer| peer.state == "up").count();
                let (verdict, reason) = words(&status.verdict);
                nodes.row([
                    name,
                    layer,
                    verdict.into(),
                    duration(status.uptime_seconds),
                    format!("{running}/{}", status.workers.len()),
                    format!("{up}/{}", status.peers.len()),
                    status.version.clone(),
                    reason,
                ]);
            }
            Err(error) => {
                let none = String::new;
                nodes.row([name, layer, "no answer".into(), none(), none(), none(), none(), error.to_string()]);
            }
        }
    }
    nodes
}

fn section(out: &mut String, screen: &Screen<'_>, title: &str, table: &Table) {
    if !table.is_empty() {
        out.push_str(&format!("\n{}\n{}", screen.bold(title), table.render()));
    }
}

fn runs(worker: &WorkerStatus) -> bool {
    worker.state == "running"
}

/// Who needs attention most comes first; 0 is for those that do not answer.
pub(crate) fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Degraded { .. } => 1,
        Verdict::Overloaded { .. } => 2,
        Verdict::Draining => 3,
        Verdict::Starting => 4,
        Verdict::Ready => 5,
    }
}

pub(crate) fn words(verdict: &Verdict) -> (&'static str, String) {
    let reason = match verdict {
        Verdict::Starting | Verdict::Ready | Verdict::Draining => String::new(),
        Verdict::Overloaded { queue_bytes, lag_ms } => {
            format!("{queue_bytes} bytes queued, {} behind", millis(*lag_ms))
        }
        Verdict::Degraded { worker, restarts, error } => format!("worker {worker}, {restarts} restarts: {error}"),
    };
    (verdict.as_str(), reason)
}

fn worker_row(node: &str, worker: &WorkerStatus) -> [String; 7] {
    [
        node.to_owned(),
        worker.name.clone(),
        worker.state.clone(),
        worker.restarts.to_string(),
        worker.hangs.to_string(),
        millis(worker.heartbeat_age_ms),
        worker.last_error.clone().unwrap_or_default(),
    ]
}

fn peer_row(node: &str, peer: &PeerStatus) -> [String; 8] {
    [
        node.to_owned(),
        peer.peer.clone(),
        peer.state.clone(),
        // What it says of itself, not what we see of it.
        peer.verdict.as_ref().map(|verdict| words(verdict).0.to_owned()).unwrap_or_default(),
        peer.in_flight_points.to_string(),
        peer.in_flight_bytes.to_string(),
        millis(peer.oldest_unacked_ms),
        peer.last_error.clone().unwrap_or_default(),
    ]
}
