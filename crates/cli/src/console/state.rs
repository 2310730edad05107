//! What the page is told, as JSON.

use admin_api::{LayerMode, ReplayStatus, SpillStatus};
use config::Layer;
use engine::rate::RATE_MAX;
use engine::time::Mono;
use serde::Serialize;

use super::audit::Change;
use super::hub::{Hub, Moment, STALE_AFTER, Seen, sum, total};
use crate::status::{rank, words};
use crate::watch::{self, AGGREGATE, Flow, Model, NodeView};

/// `GET /api/state`
#[derive(Debug, Serialize)]
pub(super) struct State<'s> {
    cluster: &'s str,
    version: &'static str,
    /// Since the last round of questions; `None` before the first.
    age_ms: Option<u64>,
    stale_after_ms: u64,
    rate_max: u64,
    ready: usize,
    answering: usize,
    /// The abnormal ones first, then those without traffic.
    nodes: Vec<Node<'s>>,
    stores: Vec<Store<'s>>,
    flow: Arrows,
    history: History,
    /// Upstream first.
    modes: Vec<Mode>,
    audit: Vec<Change<'s>>,
}

#[derive(Debug, Serialize)]
struct Node<'s> {
    name: &'s str,
    layer: &'static str,
    /// `no answer`, `degraded`, `overloaded`, `draining`, `starting`, `ready`; `unknown` before the first round.
    verdict: &'static str,
    reason: String,
    uptime_seconds: Option<u64>,
    version: Option<&'s str>,
    workers: [usize; 2],
    peers: [usize; 2],
    queue_bytes: Option<u64>,
    lag_ms: Option<u64>,
    /// Of partial and final nodes.
    traffic: Option<Receives>,
    flow: Option<Rates>,
    spill: Option<Spill<'s>>,
    replay: Option<Replay<'s>>,
}

/// Points per second.
#[derive(Debug, Serialize)]
struct Rates {
    taken_in: u64,
    handed_on: u64,
    spilled: u64,
    replayed: u64,
}

#[derive(Debug, Serialize)]
struct Spill<'s> {
    mode: &'s str,
    detail: &'s str,
    pending_points: u64,
    bytes: u64,
    quota_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Replay<'s> {
    rate: u64,
    paused: bool,
    adaptive: bool,
    rate_now: u64,
    ceiling_now: u64,
    limited_by: &'s str,
    backlog_points: u64,
    eta_seconds: Option<u64>,
    notes: &'s [String],
}

#[derive(Debug, Serialize)]
struct Store<'s> {
    name: &'s str,
    addresses: usize,
}

/// Points per second from layer to layer; `None` where no node says enough.
#[derive(Debug, Serialize)]
struct Arrows {
    clients_relay: Option<u64>,
    relay_partial: Option<u64>,
    relay_stores: Option<u64>,
    partial_final: Option<u64>,
    final_stores: Option<u64>,
    relay_spill: Option<u64>,
    replay_partial: Option<u64>,
    replay_stores: Option<u64>,
}

/// Columns, oldest first: five numbers a second have less to carry than five named ones.
#[derive(Debug, Default, Serialize)]
struct History {
    age_ms: Vec<u64>,
    taken_in: Vec<Option<u64>>,
    to_stores: Vec<Option<u64>>,
    spilled: Vec<Option<u64>>,
    replayed: Vec<Option<u64>>,
    pending: Vec<Option<u64>>,
}

/// The health mode of one layer.
#[derive(Debug, Serialize)]
struct Mode {
    layer: String,
    mode: String,
    /// `strict`, `lenient` or `mixed`; `None` where nobody says.
    effect: Option<&'static str>,
    /// Seconds since 1970, and what holds then.
    until: Option<u64>,
    then: Option<String>,
    /// `None`: the cluster file.
    by: Option<String>,
    /// Whether all nodes that answer say the same.
    agreed: bool,
}

/// Who sends to a node.
#[derive(Debug, Serialize)]
struct Receives {
    /// `yes`, `partly`, `none`; `unknown` when nobody says.
    word: &'static str,
    from: usize,
    of: usize,
    drained: bool,
    reasons: Vec<String>,
}

/// What is known now.
pub(super) fn state<'s>(hub: &'s Hub, seen: &'s Seen) -> State<'s> {
    let now = hub.now();
    let model = &seen.model;
    let mut nodes: Vec<&NodeView> = model.nodes.iter().collect();
    nodes.sort_by_key(|node| (node.verdict().map_or(0, rank), lacks_traffic(model, node)));
    let store = |store: &'s engine::route::StoreSpec| Store { name: &store.name, addresses: store.addresses.len() };
    State {
        cluster: &hub.cluster.name,
        version: env!("CARGO_PKG_VERSION"),
        age_ms: seen.at.map(|at| millis(now, at)),
        stale_after_ms: u64::try_from(STALE_AFTER.as_millis()).unwrap_or(u64::MAX),
        rate_max: RATE_MAX,
        ready: model.ready(),
        answering: model.nodes.iter().filter(|node| node.status().is_some()).count(),
        nodes: nodes.into_iter().map(|view| node(model, view)).collect(),
        stores: hub.cluster.stores.iter().map(store).collect(),
        flow: arrows(model),
        history: history(now, seen.history.iter()),
        modes: model.modes().into_iter().map(mode).collect(),
        audit: seen.changes(),
    }
}

/// Less traffic first.
fn lacks_traffic(model: &Model, node: &NodeView) -> u8 {
    match model.traffic(node) {
        Some(traffic) if traffic.from == 0 && traffic.of > 0 => 0,
        Some(traffic) if traffic.from < traffic.of => 1,
        Some(_) | None => 2,
    }
}

fn millis(now: Mono, at: Mono) -> u64 {
    u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)
}

fn node<'m>(model: &Model, node: &'m NodeView) -> Node<'m> {
    let (verdict, reason) = match &node.look {
        None => ("unknown", "not asked yet".to_owned()),
        Some(look) => match &look.status {
            Ok(status) => words(&status.verdict),
            Err(error) => ("no answer", error.clone()),
        },
    };
    let status = node.status();
    let workers = status.map_or(&[][..], |status| &status.workers);
    let peers = status.map_or(&[][..], |status| &status.peers);
    let look = node.look.as_ref();
    Node {
        name: &node.name,
        layer: node.layer.as_str(),
        verdict,
        reason,
        uptime_seconds: status.map(|status| status.uptime_seconds),
        version: status.map(|status| status.version.as_str()),
        workers: [workers.iter().filter(|worker| worker.state == "running").count(), workers.len()],
        peers: [peers.iter().filter(|peer| peer.state == "up").count(), peers.len()],
        queue_bytes: node.queue().map(|(bytes, _)| bytes),
        lag_ms: node.queue().map(|(_, lag)| lag),
        traffic: model.traffic(node).map(receives),
        flow: node.flow().map(rates),
        spill: look.and_then(|look| look.spill.as_ref()).map(|status| spill(node, status)),
        replay: look.and_then(|look| look.replay.as_ref()).map(replay),
    }
}

fn receives(traffic: watch::Traffic) -> Receives {
    let word = traffic.word();
    let watch::Traffic { from, of, drained, reasons } = traffic;
    Receives { word, from, of, drained, reasons }
}

fn mode(mode: watch::Mode) -> Mode {
    let watch::Mode { in_force, effect, agreed } = mode;
    let LayerMode { layer, mode, until, then, ordered_by, .. } = in_force;
    Mode { layer, mode, effect, until, then, by: ordered_by, agreed }
}

fn rates(flow: Flow) -> Rates {
    let Flow { taken_in, handed_on, spilled, replayed, .. } = flow;
    Rates { taken_in, handed_on, spilled, replayed }
}

fn spill<'s>(node: &NodeView, status: &'s SpillStatus) -> Spill<'s> {
    Spill {
        mode: &status.mode,
        detail: &status.detail,
        pending_points: node.backlog().unwrap_or(0),
        bytes: status.bytes,
        quota_bytes: status.quota_bytes,
    }
}

fn replay(status: &ReplayStatus) -> Replay<'_> {
    Replay {
        rate: status.settings.rate,
        paused: status.settings.paused,
        adaptive: status.settings.adaptive,
        rate_now: status.rate_now,
        ceiling_now: status.ceiling_now,
        limited_by: &status.limited_by,
        backlog_points: status.backlog_points,
        eta_seconds: status.eta_seconds,
        notes: &status.notes,
    }
}

fn arrows(model: &Model) -> Arrows {
    let stores = |flow: Flow| flow.to_stores;
    Arrows {
        clients_relay: total(model, &[Layer::Relay], |flow| flow.taken_in),
        relay_partial: total(model, &[Layer::Relay], |flow| flow.handed_on.saturating_sub(flow.to_stores)),
        relay_stores: total(model, &[Layer::Relay], stores),
        // What partial nodes hand on is known where it arrives.
        partial_final: total(model, &[Layer::Final], |flow| flow.taken_in),
        final_stores: total(model, &[Layer::Final], stores),
        relay_spill: total(model, &[Layer::Relay], |flow| flow.spilled),
        replay_partial: replayed(model, true),
        replay_stores: replayed(model, false),
    }
}

/// What replayers send to the aggregators, or to stores. What final nodes catch up with goes their own way.
fn replayed(model: &Model, aggregates: bool) -> Option<u64> {
    let replayers = model.replays().filter(|(node, _)| node.layer == Layer::Replayer);
    let sources = replayers.map(|(_, replay)| {
        let of_kind = replay.sources.iter().filter(|source| source.destination.starts_with(AGGREGATE) == aggregates);
        of_kind.map(|source| source.rate_now).fold(0, u64::saturating_add)
    });
    sum(sources)
}

fn history<'m>(now: Mono, moments: impl Iterator<Item = &'m Moment>) -> History {
    let mut history = History::default();
    for moment in moments {
        history.age_ms.push(millis(now, moment.at));
        history.taken_in.push(moment.taken_in);
        history.to_stores.push(moment.to_stores);
        history.spilled.push(moment.spilled);
        history.replayed.push(moment.replayed);
        history.pending.push(moment.pending);
    }
    history
}
