//! The questions: one round to all nodes at once; and orders, to all nodes or to all that replay.

use std::time::Duration;

use admin_api::{Health, ModeStatus, ReplayChange, ReplayStatus, SpillStatus, Status, paths};
use config::{Cluster, Layer, Node};
use engine::rate;
use engine::time::UnixSeconds;
use serde::de::DeserializeOwned;

use super::model::Look;
use super::order::{Order, Sending};
use crate::client::{Answer, Reply, Request, complaint, exchange_all};
use crate::order::{Line, effect, to_all};

/// Nodes are asked so often.
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(1);

/// What the nodes of these layers are asked.
type Question = (&'static [Layer], fn() -> Request);

/// Asks every node everything, at once.
pub(crate) async fn look(cluster: &Cluster) -> Vec<(&str, Look)> {
    let of = |layers: &'static [Layer], request: fn() -> Request| {
        cluster.nodes.iter().filter(|node| layers.contains(&node.layer)).map(move |node| (node, request()))
    };
    let mut requests: Vec<(&Node, Request)> = Vec::new();
    let mut parts = Vec::new();
    let questions: [Question; 5] = [
        (&Layer::ALL, || Request::get(paths::STATUS)),
        (&Layer::ALL, Request::health),
        (&Layer::ALL, || Request::get(paths::HEALTH_MODE)),
        (&[Layer::Relay], || Request::get(paths::SPILL)),
        (&[Layer::Replayer, Layer::Final], || Request::get(paths::REPLAY)),
    ];
    for (layers, request) in questions {
        parts.push(requests.len());
        requests.extend(of(layers, request));
    }
    let mut answers = exchange_all(requests).await;
    let mut rest = || answers.split_off(parts.pop().unwrap_or(0));
    let (replays, spills, orders, healths, statuses) =
        (said::<ReplayStatus>(rest()), said(rest()), said(rest()), said(rest()), rest());
    let looks = statuses.into_iter().map(|answer| {
        let node = answer.node;
        let look = Look {
            status: answer.decoded::<Status>().result.map_err(|fault| fault.to_string()),
            health: of_node::<Health>(&healths, node),
            orders: of_node::<ModeStatus>(&orders, node),
            spill: of_node::<SpillStatus>(&spills, node),
            replay: of_node(&replays, node),
        };
        (node.name.as_str(), look)
    });
    looks.collect()
}

fn said<T: DeserializeOwned>(answers: Vec<Answer<'_, Reply>>) -> Vec<Answer<'_, T>> {
    answers.into_iter().map(Answer::decoded).collect()
}

fn of_node<T: Clone>(answers: &[Answer<'_, T>], node: &Node) -> Option<T> {
    let answer = answers.iter().find(|answer| answer.node.name == node.name)?;
    answer.result.as_ref().ok().cloned()
}

/// Asks all nodes what an order to all of them would do.
pub(crate) async fn foresee(cluster: &Cluster, order: &Order, by: &str, now: UnixSeconds) -> Vec<Line> {
    match order.sending(by, now, true) {
        Sending::All(Ok(asking)) => effect(&asking, &to_all(cluster, &asking).await),
        Sending::All(Err(error)) => vec![Line::bad(format!("{error:#}"))],
        // Replay has no dry run of its own: what was seen says it.
        Sending::Replaying(_) => Vec::new(),
    }
}

/// Sends an order, and says what each node made of it.
pub(crate) async fn send(cluster: &Cluster, order: &Order, by: &str, now: UnixSeconds) -> Vec<Line> {
    match order.sending(by, now, false) {
        Sending::All(Ok(asking)) => effect(&asking, &to_all(cluster, &asking).await),
        Sending::All(Err(error)) => vec![Line::bad(format!("{error:#}"))],
        Sending::Replaying(change) => to_replaying(cluster, &change).await,
    }
}

async fn to_replaying(cluster: &Cluster, change: &ReplayChange) -> Vec<Line> {
    let replaying = cluster.nodes.iter().filter(|node| matches!(node.layer, Layer::Replayer | Layer::Final));
    let requests = replaying.map(|node| Request::put(paths::REPLAY, change).map(|request| (node, request)));
    match requests.collect::<anyhow::Result<Vec<_>>>() {
        Ok(requests) => {
            exchange_all(requests).await.into_iter().filter_map(|answer| outcome(answer.decoded())).collect()
        }
        Err(error) => vec![Line::bad(format!("{error:#}"))],
    }
}

fn outcome(answer: Answer<'_, ReplayStatus>) -> Option<Line> {
    let Answer { node, result } = answer;
    match result {
        Ok(replay) if replay.settings.paused => Some(Line::plain(format!("{}: paused", node.name))),
        Ok(replay) => Some(Line::plain(format!("{}: up to {}", node.name, rate::show(replay.settings.rate)))),
        // A final node that has never missed an emission has nothing to replay.
        Err(fault) if node.layer == Layer::Final && fault.is_not_here() => None,
        Err(fault) => Some(Line::bad(complaint(&node.name, &fault).trim_end().trim_start_matches("spillway: "))),
    }
}
