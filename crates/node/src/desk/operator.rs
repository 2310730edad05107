//! The admin API's questions and orders.

use std::collections::BTreeSet;
use std::sync::Arc;

use admin::{NodeOrder, Refusal};
use admin_api::{
    AuditEntry, HealthEvent, LayerMode, ModeChange, ModeStatus, NodeChange, Ordered, PoolStatus, SpillLoss,
};
use config::Layer;
use engine::control::{Forgotten, Order};
use engine::health::{Hand, Mode};
use telemetry::{Metric, Telemetry};

use super::{Desk, Watch, audit_entry};

/// A desk, and the pools whose orders it has.
#[derive(Debug)]
pub struct Operator {
    desk: Arc<Desk>,
    watches: Vec<Arc<Watch>>,
}

impl Operator {
    /// Answers for a node.
    pub fn new(desk: Arc<Desk>, watches: Vec<Arc<Watch>>) -> Operator {
        Operator { desk, watches }
    }

    /// Tells endpoints outside what an operator changed on this node alone; see [`crate::notices::Notices::changed`].
    pub fn announce(&self, of: &str, changes: &[AuditEntry]) {
        if let Some(notices) = self.desk.notices() {
            notices.changed(of, changes);
        }
    }

    /// What was given up with whom, the pools, and what endpoints were told.
    pub fn record(&self, telemetry: &Telemetry) {
        if let Some(notices) = self.desk.notices() {
            notices.record(telemetry);
        }
        for (node, what) in self.desk.control().forgotten() {
            crate::set_gauge(telemetry, Metric::ForgottenPoints, &[("peer", node.to_owned())], what.lost_points);
        }
        for pool in self.all(None) {
            let layer = ("pool", pool.layer.clone());
            let lenient = u64::from(pool.stance == "lenient");
            crate::set_gauge(telemetry, Metric::PoolLenient, std::slice::from_ref(&layer), lenient);
            for mode in [Mode::Strict, Mode::Lenient, Mode::Auto] {
                let labels = [layer.clone(), ("mode", mode.as_str().to_owned())];
                crate::set_gauge(telemetry, Metric::PoolMode, &labels, u64::from(pool.mode == mode.as_str()));
            }
            for node in pool.nodes {
                let peer = ("peer", node.node);
                let labels = [layer.clone(), peer.clone()];
                crate::set_gauge(telemetry, Metric::PoolEligible, &labels, u64::from(node.eligible));
                let counters = [
                    (Metric::PoolEjections, node.ejections),
                    (Metric::CanariesAcked, node.canaries_acked),
                    (Metric::CanariesFailed, node.canaries_failed),
                ];
                for (metric, total) in counters {
                    telemetry.counter(metric, std::slice::from_ref(&peer)).absolute(total);
                }
            }
        }
    }

    fn do_or_see(&self, orders: &[Order], dry_run: bool, by: &str) -> Result<Ordered, Refusal> {
        let by = if by.is_empty() { "unknown" } else { by };
        let before = self.all(None);
        let (changes, after) = if dry_run {
            let (control, changes) = self.desk.with_orders(&self.desk.control(), orders, by);
            (changes, self.all(Some(&control)))
        } else {
            let changes = self.desk.order(orders, by).map_err(|error| Refusal::unavailable(error.to_string()))?;
            self.watches.iter().for_each(|watch| watch.refresh());
            (changes, self.all(None))
        };
        let (had, have) = (eligible(&before), eligible(&after));
        Ok(Ordered {
            node: self.desk.node.clone(),
            dry_run,
            changes: changes.iter().map(audit_entry).collect(),
            pools: after,
            gain: have.difference(&had).cloned().collect(),
            lose: had.difference(&have).cloned().collect(),
        })
    }

    fn all(&self, with: Option<&engine::control::Control>) -> Vec<PoolStatus> {
        self.watches.iter().map(|watch| watch.status(with)).collect()
    }

    fn layers(&self, asked: Option<&str>) -> Result<Vec<Layer>, Refusal> {
        let layers = &self.desk.roster.layers;
        let Some(asked) = asked.filter(|asked| *asked != "all") else { return Ok(layers.clone()) };
        match layers.iter().find(|layer| layer.as_str() == asked) {
            Some(layer) => Ok(vec![*layer]),
            None => {
                let known: Vec<&str> = layers.iter().map(|layer| layer.as_str()).collect();
                let error = format!("nobody chooses among the nodes of layer {asked}; there are {}", known.join(", "));
                Err(Refusal::invalid(error))
            }
        }
    }

    fn order_for(&self, node: &str, what: NodeOrder, change: &NodeChange) -> Result<Order, Refusal> {
        let found = self.desk.roster.nodes.iter().find(|(name, _)| name == node);
        let Some((name, layer)) = found else {
            let known: Vec<&str> = self.desk.roster.nodes.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Refusal::not_here(format!(
                "no node {node} in the cluster file; there are {}",
                known.join(", ")
            )));
        };
        let node = name.clone();
        match (what, layer) {
            (NodeOrder::Drain, Layer::Partial | Layer::Final) => Ok(Order::Drain { node }),
            (NodeOrder::Undrain, Layer::Partial | Layer::Final) => Ok(Order::Undrain { node }),
            (NodeOrder::Drain | NodeOrder::Undrain, Layer::Relay) => {
                Err(Refusal::invalid("nobody of the cluster chooses among relays: take it off your clients' list"))
            }
            (NodeOrder::Drain | NodeOrder::Undrain, Layer::Replayer) => {
                Err(Refusal::invalid("a replayer gets no traffic: pause it with `spillway replay pause`"))
            }
            (NodeOrder::Forget, Layer::Final) => Err(Refusal::invalid(
                "a final node's partitions are on it alone: drain it, or take it out of the cluster file",
            )),
            (NodeOrder::Forget, Layer::Relay | Layer::Partial | Layer::Replayer) => {
                let parse = |hex: &String| u64::from_str_radix(hex, 16);
                let sender = change.sender.as_ref().map(parse).transpose();
                let sender = sender.map_err(|_| Refusal::invalid("`sender` is not 16 hex digits"))?;
                if *layer == Layer::Relay && change.lost_points != Some(0) && !change.force && !change.dry_run {
                    return Err(would_lose(&node, change.lost_points));
                }
                let what = Forgotten { sender, lost_points: change.lost_points.unwrap_or(0) };
                Ok(Order::Forget { node, what })
            }
        }
    }
}

fn would_lose(relay: &str, points: Option<u64>) -> Refusal {
    let how_much = points.map_or_else(|| "an unknown number of points".to_owned(), |points| format!("{points} points"));
    let loss = SpillLoss { points: points.unwrap_or(0), ..SpillLoss::default() };
    Refusal::would_lose(format!("{relay} would be forgotten with {how_much} in its spill: `force` does it"), loss)
}

fn eligible(pools: &[PoolStatus]) -> BTreeSet<String> {
    let nodes = pools.iter().flat_map(|pool| &pool.nodes);
    nodes.filter(|node| node.eligible).map(|node| node.node.clone()).collect()
}

impl admin::Orders for Operator {
    fn pools(&self) -> Vec<PoolStatus> {
        self.all(None)
    }

    fn events(&self) -> Vec<HealthEvent> {
        let mut events: Vec<HealthEvent> = self.watches.iter().flat_map(|watch| watch.events()).collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.at));
        events
    }

    fn modes(&self) -> ModeStatus {
        let control = self.desk.control();
        let now = self.desk.now();
        let of = |layer: &Layer| {
            let in_force = control.mode(layer.as_str(), self.desk.roster.mode, now);
            let entry = control.mode_entry(layer.as_str()).filter(|_| in_force.ordered);
            LayerMode {
                layer: layer.as_str().to_owned(),
                mode: in_force.mode.as_str().to_owned(),
                until: in_force.until.map(|(end, _)| end),
                then: in_force.until.map(|(_, then)| then.as_str().to_owned()),
                ordered_at: entry.map(|entry| entry.when),
                ordered_by: entry.map(|entry| format!("{} on {}", entry.by, entry.origin)),
            }
        };
        let layers = self.desk.roster.layers.iter().map(of).collect();
        let nodes = self.desk.roster.nodes.iter().map(|(name, _)| name);
        let drained = nodes.filter(|name| control.hand(name) == Hand::Drained).cloned().collect();
        ModeStatus { node: self.desk.node.clone(), layers, drained, digest: format!("{:016x}", control.digest()) }
    }

    fn change_mode(&self, change: ModeChange) -> Result<Ordered, Refusal> {
        let mode = Mode::parse(&change.mode)
            .ok_or_else(|| Refusal::invalid(format!("no mode {}; there are strict, lenient and auto", change.mode)))?;
        let now = self.desk.now();
        if let Some(end) = change.until.filter(|end| *end <= now) {
            return Err(Refusal::invalid(format!("the mode would end at {end}, and it is {now} (seconds since 1970)")));
        }
        let of = |layer: Layer| Order::Mode { layer: layer.as_str().to_owned(), mode, until: change.until };
        let orders: Vec<Order> = self.layers(change.layer.as_deref())?.into_iter().map(of).collect();
        self.do_or_see(&orders, change.dry_run, &change.by)
    }

    fn change_node(&self, node: &str, what: NodeOrder, change: NodeChange) -> Result<Ordered, Refusal> {
        let order = self.order_for(node, what, &change)?;
        self.do_or_see(&[order], change.dry_run, &change.by)
    }

    fn audit(&self) -> Vec<AuditEntry> {
        self.desk.audit()
    }
}
