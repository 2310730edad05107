//! `spillway rollout check`: whether one node may be restarted now. It looks and changes nothing. A node that is broken may
//! always be restarted: on 24 June 2019 a rollout that asked for healthy nodes kept the fix from the sick ones.

use std::collections::BTreeMap;

use admin_api::{Health, PoolStatus, SpillStatus, Verdict, paths};
use anyhow::anyhow;
use clap::Subcommand;
use config::{Cluster, Layer, Node};
use engine::time::UnixSeconds;
use serde::Serialize;
use serde_json::json;

use crate::client::{Answer, Request, exit_of, silent};
use crate::context::{Context, unknown};
use crate::exit::{Exit, Failure};
use crate::screen::Screen;
use crate::status::words;

/// `spillway rollout ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Whether a node may be restarted now, and why; exit code 1: better not
    Check {
        /// The node that is to be restarted
        #[arg(value_name = "NODE")]
        name: String,
    },
}

/// What is known of the cluster at this moment; who did not answer is in neither map.
#[derive(Debug, Default)]
struct Known {
    health: BTreeMap<String, Health>,
    spills: BTreeMap<String, SpillStatus>,
}

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Judgement {
    safe: bool,
    /// Sentences: why it is safe, or everything that speaks against it.
    reasons: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When there is no such node, nobody can be asked, or nothing can be printed.
pub(crate) fn run(
    cluster: &Cluster,
    command: Rollout,
    now: UnixSeconds,
    by: String,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let Rollout::Check { name } = command;
    let context = Context::new(cluster, now, by)?;
    let Some(target) = cluster.nodes.iter().find(|node| node.name == name) else {
        let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::usage(anyhow!(unknown("node", &name, &names))));
    };
    let mut requests: Vec<_> = cluster.nodes.iter().map(|node| (node, Request::health())).collect();
    requests.extend(cluster.layer(Layer::Relay).map(|node| (node, Request::get(paths::SPILL))));
    // All at once: a node that is silent costs one deadline.
    let mut answers = context.client.exchange(requests);
    let spills = answers.split_off(cluster.nodes.len()).into_iter().map(Answer::decoded).collect::<Vec<_>>();
    let answers: Vec<Answer<'_, Health>> = answers.into_iter().map(Answer::decoded).collect();
    let known = Known { health: by_name(&answers), spills: by_name(&spills) };
    let exit = exit_of(&answers);
    let judgement = if exit == Exit::NoPermission {
        // A node that does not let us in is not one that is dead.
        Judgement { safe: false, reasons: vec!["nodes did not let us look at them".to_owned()] }
    } else {
        judge(cluster, target, &known)
    };
    if screen.json {
        screen.json(&json!({ "node": name, "safe": judgement.safe, "reasons": judgement.reasons }))?;
    } else {
        let word = if judgement.safe { "safe" } else { "not now" };
        let word = if judgement.safe { screen.bold(word) } else { screen.alarm(word) };
        let reasons: String = judgement.reasons.iter().map(|reason| format!("  {reason}\n")).collect();
        screen.text(&format!("restarting {name}: {word}\n{reasons}"))?;
        screen.note(&silent(&answers))?;
    }
    Ok(if [Exit::Unavailable, Exit::NoPermission].contains(&exit) {
        // Nobody says anything: that is no ground to restart one after the other.
        exit
    } else if judgement.safe {
        Exit::Ok
    } else {
        Exit::NotNow
    })
}

fn by_name<T: Clone>(answers: &[Answer<'_, T>]) -> BTreeMap<String, T> {
    let said =
        answers.iter().filter_map(|answer| Some((answer.node.name.clone(), answer.result.as_ref().ok()?.clone())));
    said.collect()
}

/// Whether `target` may be restarted.
fn judge(cluster: &Cluster, target: &Node, known: &Known) -> Judgement {
    let safe = |reason: String| Judgement { safe: true, reasons: vec![reason] };
    match known.health.get(&target.name).map(|health| &health.verdict) {
        None => return safe("it does not answer: a restart can only help".to_owned()),
        Some(verdict @ Verdict::Degraded { .. }) => {
            return safe(format!("it is degraded ({}): a restart can only help", words(verdict).1));
        }
        Some(Verdict::Starting | Verdict::Ready | Verdict::Overloaded { .. } | Verdict::Draining) => {}
    }
    if nobody_sends_to(target, known) {
        return safe("it is drained and nobody sends to it: a restart takes nothing from anybody".to_owned());
    }
    let mut against = not_ready_beside(cluster, target, known);
    against.extend(match target.layer {
        Layer::Relay => own_spill(target, known),
        Layer::Partial | Layer::Final => receivers_away(cluster, target, known),
        Layer::Replayer => Vec::new(),
    });
    if !against.is_empty() {
        return Judgement { safe: false, reasons: against };
    }
    let alone = cluster.layer(target.layer).count() == 1;
    safe(
        match (target.layer, alone) {
            (Layer::Relay, true) => {
                "its clients have no other relay and wait or lose what they do not repeat; what it holds is spilled"
            }
            (Layer::Relay, false) => {
                "its clients go to another relay; what it holds is delivered or spilled when it stops"
            }
            (Layer::Partial, true) => "relays keep and spill what is for it until it is back",
            (Layer::Partial, false) => "the others of its layer take what is for it",
            (Layer::Final, _) => "its partitions wait: partial nodes and relays keep and spill what is for them",
            (Layer::Replayer, _) => "replay waits until it is back, or other replayers go on",
        }
        .to_owned(),
    )
}

/// It is out of the pool of everybody who could send to it, by an operator's order: whatever is the matter beside it, its
/// absence is no news. (On 24 June 2019 the one with high queues was taken out first, and then mended.)
fn nobody_sends_to(target: &Node, known: &Known) -> bool {
    let pools = known.health.values().flat_map(|health| &health.pools);
    let mut seen = pools.flat_map(|pool| &pool.nodes).filter(|node| node.node == target.name).peekable();
    seen.peek().is_some() && seen.all(|node| !node.eligible && node.standing == "drained")
}

/// One at a time: another node of the layer that is not there should be back first.
fn not_ready_beside(cluster: &Cluster, target: &Node, known: &Known) -> Vec<String> {
    let others = cluster.layer(target.layer).filter(|node| node.name != target.name);
    let sick = others.filter_map(|node| match known.health.get(&node.name).map(|health| &health.verdict) {
        Some(Verdict::Ready | Verdict::Overloaded { .. }) => None,
        Some(verdict) => Some(format!("{} of the same layer is {}: one at a time", node.name, words(verdict).0)),
        None => Some(format!("{} of the same layer does not answer: one at a time", node.name)),
    });
    sick.collect()
}

fn own_spill(target: &Node, known: &Known) -> Vec<String> {
    let stuck = known.spills.get(&target.name).filter(|spill| spill.mode != "ok");
    let against = |spill: &SpillStatus| {
        format!("its spill is in mode {} ({}): what it holds in memory would be lost", spill.mode, spill.detail)
    };
    stuck.map(against).into_iter().collect()
}

/// Who sends to `target` must have somewhere else to send to, or a disk to keep it on.
fn receivers_away(cluster: &Cluster, target: &Node, known: &Known) -> Vec<String> {
    let mut against = Vec::new();
    for (observer, health) in &known.health {
        for pool in health.pools.iter().filter(|pool| pool.shared && pool.layer == target.layer.as_str()) {
            against.extend(too_few(observer, pool, &target.name));
        }
    }
    let alone = cluster.layer(target.layer).count() == 1;
    if alone || target.layer == Layer::Final {
        let stuck = known.spills.iter().filter(|(_, spill)| spill.mode != "ok");
        against.extend(stuck.map(|(relay, spill)| {
            format!("{relay} could not spill what is for it: its spill is in mode {} ({})", spill.mode, spill.detail)
        }));
    }
    against
}

/// What an observer would be left with; one that has only this node keeps what is for it.
fn too_few(observer: &str, pool: &PoolStatus, target: &str) -> Option<String> {
    let left = pool.nodes.iter().filter(|node| node.eligible && node.node != target).count();
    let least = pool.floor.min(pool.size.saturating_sub(1));
    (left < least).then(|| {
        format!("{observer} would have {left} of {} {} nodes left to send to, and wants {least}", pool.size, pool.layer)
    })
}

#[cfg(test)]
mod tests {
    use admin_api::PoolNode;

    use super::*;
    use crate::tests::parsed;

    fn cluster(partials: u16) -> Cluster {
        let partials = (1..=partials).map(|n| (format!("partial-{n}"), "partial"));
        let others = [("relay-1".to_owned(), "relay"), ("final-1".to_owned(), "final")];
        parsed(others.into_iter().chain(partials))
    }

    fn pool(eligible: &[(&str, bool)], floor: usize) -> PoolStatus {
        let node = |(name, eligible): &(&str, bool)| PoolNode {
            node: (*name).to_owned(),
            eligible: *eligible,
            ..PoolNode::default()
        };
        PoolStatus {
            layer: "partial".into(),
            shared: true,
            mode: "auto".into(),
            stance: "strict".into(),
            floor,
            size: eligible.len(),
            strict: 0,
            nodes: eligible.iter().map(node).collect(),
        }
    }

    /// Everything ready, and every partial node eligible.
    fn calm(cluster: &Cluster) -> Known {
        let mut known = Known::default();
        for node in &cluster.nodes {
            known.health.insert(node.name.clone(), Health::new(&node.name, node.layer.as_str(), Verdict::Ready));
        }
        let partials: Vec<(&str, bool)> =
            cluster.layer(Layer::Partial).map(|node| (node.name.as_str(), true)).collect();
        let floor = partials.len().div_ceil(2);
        known.health.get_mut("relay-1").expect("a relay").pools = vec![pool(&partials, floor)];
        known.spills.insert("relay-1".into(), SpillStatus { mode: "ok".into(), ..SpillStatus::default() });
        known
    }

    #[track_caller]
    fn check(cluster: &Cluster, known: &Known, target: &str, safe: bool, because: &str) {
        let node = cluster.nodes.iter().find(|node| node.name == target).expect("a node");
        let judgement = judge(cluster, node, known);
        assert_eq!(judgement.safe, safe, "{target}: {judgement:?}");
        assert!(judgement.reasons.iter().any(|reason| reason.contains(because)), "{because:?} in {judgement:?}");
    }

    #[test]
    fn in_calm_weather_any_node_may_be_restarted() {
        let three = cluster(3);
        let known = calm(&three);
        check(&three, &known, "relay-1", true, "spilled");
        check(&three, &known, "partial-2", true, "the others of its layer");
        check(&three, &known, "final-1", true, "keep and spill");
        let one = cluster(1);
        check(&one, &calm(&one), "partial-1", true, "until it is back");
    }

    #[test]
    fn a_broken_node_may_always_be_restarted() {
        let three = cluster(3);
        let mut known = calm(&three);
        let sick = Verdict::Degraded { worker: "partial.shard.0".into(), restarts: 5, error: "panic: x".into() };
        for name in ["partial-1", "partial-2"] {
            known.health.get_mut(name).expect("known").verdict = sick.clone();
        }
        known.spills.get_mut("relay-1").expect("known").mode = "disk_full".into();
        check(&three, &known, "partial-1", true, "worker partial.shard.0, 5 restarts");
        known.health.remove("final-1");
        check(&three, &known, "final-1", true, "does not answer");
    }

    #[test]
    fn a_drained_node_may_be_restarted_beside_sick_ones_as_soon_as_nobody_sends_to_it() {
        let three = cluster(3);
        let mut known = calm(&three);
        let sick = Verdict::Degraded { worker: "partial.link.final-1".into(), restarts: 5, error: "panic: x".into() };
        known.health.get_mut("partial-1").expect("known").verdict = sick;
        check(&three, &known, "partial-3", false, "partial-1 of the same layer is degraded");
        let drained = |standing: &str, eligible| {
            let mut pool = pool(&[("partial-1", true), ("partial-2", true), ("partial-3", eligible)], 2);
            pool.nodes.get_mut(2).expect("three").standing = standing.to_owned();
            vec![pool]
        };
        known.health.get_mut("relay-1").expect("known").pools = drained("drained", false);
        check(&three, &known, "partial-3", true, "nobody sends to it");
        // The floor keeps it in, or it is out by evidence that may pass.
        for (standing, eligible) in [("floor", true), ("unproven", false)] {
            known.health.get_mut("relay-1").expect("known").pools = drained(standing, eligible);
            check(&three, &known, "partial-3", false, "one at a time");
        }
    }

    #[test]
    fn one_at_a_time() {
        let three = cluster(3);
        for verdict in [Verdict::Starting, Verdict::Draining] {
            let mut known = calm(&three);
            known.health.get_mut("partial-3").expect("known").verdict = verdict;
            check(&three, &known, "partial-1", false, "partial-3 of the same layer is");
        }
        let mut known = calm(&three);
        known.health.remove("partial-3");
        check(&three, &known, "partial-1", false, "partial-3 of the same layer does not answer");
        check(&three, &known, "relay-1", true, "");
    }

    #[test]
    fn senders_keep_as_many_receivers_as_the_floor_wants() {
        let three = cluster(3);
        let mut known = calm(&three);
        let few = pool(&[("partial-1", true), ("partial-2", true), ("partial-3", false)], 2);
        known.health.get_mut("relay-1").expect("known").pools = vec![few];
        check(&three, &known, "partial-1", false, "relay-1 would have 1 of 3 partial nodes left");
        check(&three, &known, "partial-3", true, "");
    }

    #[test]
    fn where_the_disk_has_to_hold_the_rest_it_must_be_able_to() {
        let one = cluster(1);
        let mut known = calm(&one);
        let full = SpillStatus { mode: "quota".into(), detail: "raise spill.quota".into(), ..SpillStatus::default() };
        known.spills.insert("relay-1".into(), full);
        check(&one, &known, "relay-1", false, "raise spill.quota");
        check(&one, &known, "partial-1", false, "relay-1 could not spill");
        check(&one, &known, "final-1", false, "relay-1 could not spill");
        let three = cluster(3);
        let mut known = calm(&three);
        known.spills.get_mut("relay-1").expect("known").mode = "quota".into();
        check(&three, &known, "partial-1", true, "the others");
    }
}
