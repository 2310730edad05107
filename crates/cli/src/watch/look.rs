//! The questions: one round to all nodes at once, and an order to all that replay.

use std::time::Duration;

use admin_api::{ReplayStatus, SpillStatus, Status, paths};
use config::{Cluster, Layer, Node};
use engine::rate;

use super::model::Look;
use super::order::Order;
use crate::client::{Answer, Request, complaint, exchange_all};

/// Nodes are asked so often.
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(1);

/// Asks every node everything, at once.
pub(crate) async fn look(cluster: &Cluster) -> Vec<(&str, Look)> {
    let of = |layers: &'static [Layer], path: &'static str| {
        cluster.nodes.iter().filter(|node| layers.contains(&node.layer)).map(move |node| (node, Request::get(path)))
    };
    let mut requests: Vec<(&Node, Request)> =
        cluster.nodes.iter().map(|node| (node, Request::get(paths::STATUS))).collect();
    let nodes = requests.len();
    requests.extend(of(&[Layer::Relay], paths::SPILL));
    let spills = requests.len();
    requests.extend(of(&[Layer::Replayer, Layer::Final], paths::REPLAY));
    let mut answers = exchange_all(requests).await;
    let replays: Vec<Answer<'_, ReplayStatus>> = answers.split_off(spills).into_iter().map(Answer::decoded).collect();
    let spills: Vec<Answer<'_, SpillStatus>> = answers.split_off(nodes).into_iter().map(Answer::decoded).collect();
    let looks = answers.into_iter().map(|answer| {
        let node = answer.node;
        let look = Look {
            status: answer.decoded::<Status>().result.map_err(|fault| fault.to_string()),
            spill: of_node(&spills, node),
            replay: of_node(&replays, node),
        };
        (node.name.as_str(), look)
    });
    looks.collect()
}

fn of_node<T: Clone>(answers: &[Answer<'_, T>], node: &Node) -> Option<T> {
    let answer = answers.iter().find(|answer| answer.node.name == node.name)?;
    answer.result.as_ref().ok().cloned()
}

/// What one node made of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) node: String,
    /// What is in force there now; or why nothing has changed.
    pub(crate) result: Result<String, String>,
}

impl Outcome {
    /// For a person.
    pub(crate) fn line(&self) -> String {
        match &self.result {
            Ok(in_force) => format!("{}: {in_force}", self.node),
            Err(complaint) => complaint.clone(),
        }
    }
}

/// Sends an order to all nodes that replay, and says what each made of it.
pub(crate) async fn send(cluster: &Cluster, order: Order, by: &str) -> Vec<Outcome> {
    let change = order.change(by);
    let replaying = cluster.nodes.iter().filter(|node| matches!(node.layer, Layer::Replayer | Layer::Final));
    let requests = replaying.map(|node| Request::put(paths::REPLAY, &change).map(|request| (node, request)));
    match requests.collect::<anyhow::Result<Vec<_>>>() {
        Ok(requests) => exchange_all(requests).await.into_iter().map(|answer| outcome(answer.decoded())).collect(),
        Err(error) => vec![Outcome { node: String::new(), result: Err(format!("{error:#}")) }],
    }
}

fn outcome(answer: Answer<'_, ReplayStatus>) -> Outcome {
    let node = answer.node.name.clone();
    let result = match answer.result {
        Ok(replay) if replay.settings.paused => Ok("paused".to_owned()),
        Ok(replay) => Ok(format!("up to {}", rate::show(replay.settings.rate))),
        Err(fault) => Err(complaint(&node, &fault).trim_end().to_owned()),
    };
    Outcome { node, result }
}
