//! Who gets traffic from whom, as all nodes that send see it together; and the modes in which that is decided.

use std::collections::BTreeMap;

use admin_api::{LayerMode, PoolNode, PoolStatus};
use config::Layer;

use super::model::{Model, NodeView};
use crate::order::names;

/// One node that others send to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// So many nodes send to it ...
    pub(crate) from: usize,
    /// ... of so many that may.
    pub(crate) of: usize,
    /// An operator drained it, say nodes that answer.
    pub(crate) drained: bool,
    /// Why it gets none, or gets some although something speaks against it; a sentence for all that see the same.
    pub(crate) reasons: Vec<String>,
}

impl Traffic {
    pub(crate) fn word(&self) -> &'static str {
        match (self.from, self.of) {
            (_, 0) => "unknown",
            (0, _) => "none",
            (from, of) if from == of => "yes",
            _ => "partly",
        }
    }
}

/// The mode of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) in_force: LayerMode,
    /// `strict`, `lenient`, where nodes that send to it differ `mixed`; `None`: its nodes are not chosen from.
    pub(crate) effect: Option<&'static str>,
    /// Whether all nodes that answer say the same of it.
    pub(crate) agreed: bool,
}

impl Model {
    /// Of a node that others send to; `None` of the others.
    pub(crate) fn traffic(&self, node: &NodeView) -> Option<Traffic> {
        if !matches!(node.layer, Layer::Partial | Layer::Final) {
            return None;
        }
        let mut traffic = Traffic { drained: self.is_drained(&node.name), ..Traffic::default() };
        let mut reasons: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
        for (observer, pool, member) in self.pools().filter(|(_, _, member)| member.node == node.name) {
            traffic.of += 1;
            traffic.from += usize::from(member.eligible);
            if let Some(reason) = reason(pool, member) {
                reasons.entry(reason).or_default().push(&observer.name);
            }
        }
        let reasons = reasons.into_iter();
        traffic.reasons = reasons.map(|((begin, why), from)| format!("{begin} {}: {why}", names(from))).collect();
        Some(traffic)
    }

    /// Of every layer that is chosen from, upstream first.
    pub(crate) fn modes(&self) -> Vec<Mode> {
        let said: Vec<&LayerMode> = self.orders().flat_map(|orders| &orders.layers).collect();
        let mut modes: Vec<Mode> = Vec::new();
        for layer in Layer::ALL {
            let mut of = said.iter().filter(|mode| mode.layer == layer.as_str());
            let Some(first) = of.next() else { continue };
            let agreed = of.all(|mode| (&mode.mode, mode.until) == (&first.mode, first.until));
            modes.push(Mode { in_force: (*first).clone(), effect: self.effect(layer), agreed });
        }
        modes
    }

    fn effect(&self, layer: Layer) -> Option<&'static str> {
        let pools = self.looks().filter_map(|look| look.health.as_ref()).flat_map(|health| &health.pools);
        let pools = pools.filter(|pool| pool.shared && pool.layer == layer.as_str());
        let mut words = pools.map(|pool| if pool.stance == "lenient" { "lenient" } else { "strict" });
        let first = words.next()?;
        Some(if words.all(|word| word == first) { first } else { "mixed" })
    }

    /// Whether an operator drained it, as any node that answers says.
    pub(crate) fn is_drained(&self, name: &str) -> bool {
        self.orders().any(|orders| orders.drained.iter().any(|drained| drained == name))
    }

    fn orders(&self) -> impl Iterator<Item = &admin_api::ModeStatus> {
        self.looks().filter_map(|look| look.orders.as_ref())
    }

    fn looks(&self) -> impl Iterator<Item = &super::Look> {
        self.nodes.iter().filter_map(|node| node.look.as_ref())
    }

    fn pools(&self) -> impl Iterator<Item = (&NodeView, &PoolStatus, &PoolNode)> {
        let said = self.nodes.iter().filter_map(|node| Some((node, node.look.as_ref()?.health.as_ref()?)));
        let pools = said.flat_map(|(node, health)| health.pools.iter().map(move |pool| (node, pool)));
        pools.flat_map(|(node, pool)| pool.nodes.iter().map(move |member| (node, pool, member)))
    }
}

/// The beginning of the sentence, and why.
fn reason(pool: &PoolStatus, member: &PoolNode) -> Option<(&'static str, String)> {
    match (member.eligible, member.standing.as_str(), pool.shared) {
        (true, "floor", _) => Some(("traffic from", format!("it {}", member.why))),
        (true, _, _) => None,
        // What it owns nobody else has: it waits in the spills.
        (false, "drained", false) => Some(("held off by", member.why.clone())),
        (false, _, _) => Some(("no traffic from", member.why.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_said_with_its_reason() {
        let cases = [
            (true, "proven", true, None),
            (true, "link_up", true, None),
            (true, "owner", false, None),
            (true, "floor", true, Some("traffic from: it is why")),
            (false, "drained", true, Some("no traffic from: is why")),
            (false, "drained", false, Some("held off by: is why")),
            (false, "link_down", false, Some("no traffic from: is why")),
            (false, "ejected", true, Some("no traffic from: is why")),
        ];
        for (eligible, standing, shared, expected) in cases {
            let member = PoolNode {
                node: "a".into(),
                eligible,
                standing: standing.into(),
                why: "is why".into(),
                ..PoolNode::default()
            };
            let [layer, mode, stance] = ["final", "auto", "strict"].map(str::to_owned);
            let pool = PoolStatus { layer, shared, mode, stance, floor: 0, size: 1, strict: 1, nodes: Vec::new() };
            let said = reason(&pool, &member).map(|(begin, why)| format!("{begin}: {why}"));
            assert_eq!(said.as_deref(), expected, "{standing}");
        }
    }
}
