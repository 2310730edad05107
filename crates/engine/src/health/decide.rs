//! From what is known of the nodes to who is eligible.

use std::cmp::Reverse;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::node::Node;
use super::{Hand, Kind, NodeIndex, Pool, Standing, Why, WhyNot};
use crate::time::Mono;
use crate::verdict::Verdict;

/// An outlier is more than so many times above the median, and by one of these above it.
const FAR: u32 = 4;
const LATENCY_GAP: Duration = Duration::from_millis(500);
const QUEUE_GAP: Duration = Duration::from_secs(1);
/// Of fewer nodes none stands out.
const OUTLIERS_FROM: usize = 3;

impl Pool {
    /// Nodes that are not forgotten.
    pub(super) fn size(&self) -> usize {
        self.hands.iter().filter(|hand| **hand != Hand::Forgotten).count()
    }

    /// The floor in nodes, rounded up.
    pub(super) fn floor(&self) -> usize {
        let size = self.size();
        (size * usize::from(self.settings.floor_percent)).div_ceil(100).min(size)
    }

    /// How many strict would leave.
    pub(super) fn strict_count(&self, now: Mono) -> usize {
        (0..self.nodes.len()).filter(|&node| self.objection(now, node, true).is_none()).count()
    }

    /// What speaks against a node; hard evidence first, then orders, then what only strict looks at.
    fn objection(&self, now: Mono, index: NodeIndex, strict: bool) -> Option<WhyNot> {
        let node = self.nodes.get(index)?;
        if let Some(hard) = self.hard(index, node) {
            return Some(hard);
        }
        if self.hands.get(index) == Some(&Hand::Drained) {
            return Some(WhyNot::Drained);
        }
        if strict { self.not_proven(now, node) } else { None }
    }

    /// What is never overridden.
    fn hard(&self, index: NodeIndex, node: &Node) -> Option<WhyNot> {
        if self.hands.get(index) == Some(&Hand::Forgotten) {
            Some(WhyNot::Forgotten)
        } else if self.hands.get(index) == Some(&Hand::Drained) && self.settings.kind == Kind::Fixed {
            Some(WhyNot::Drained)
        } else if !node.is_up() {
            Some(WhyNot::LinkDown)
        } else if node.says() == Some(&Verdict::Draining) && self.settings.kind == Kind::Free {
            Some(WhyNot::Leaving)
        } else {
            None
        }
    }

    fn not_proven(&self, now: Mono, node: &Node) -> Option<WhyNot> {
        match node.says() {
            None | Some(Verdict::Starting) => return Some(WhyNot::Starting),
            Some(Verdict::Degraded { worker, .. }) => return Some(WhyNot::Degraded { worker: worker.clone() }),
            Some(Verdict::Ready | Verdict::Overloaded { .. } | Verdict::Draining) => {}
        }
        if let Some(left) = node.ejected(now) {
            return Some(WhyNot::Ejected { left });
        }
        let (clean, proof) = (node.clean(now), self.settings.proof);
        let is_proven = clean.is_some_and(|clean| clean >= proof);
        (!is_proven).then(|| WhyNot::Unproven { clean: clean.unwrap_or_default(), proof })
    }

    /// Every node's standing.
    pub(super) fn decide(&self, now: Mono, floor: usize) -> Vec<Standing> {
        if self.settings.kind == Kind::Fixed {
            let owner = |node| self.objection(now, node, false).map_or(Standing::In(Why::Owner), Standing::Out);
            return (0..self.nodes.len()).map(owner).collect();
        }
        let strict = self.stance.is_strict();
        let good = if strict { Why::Proven } else { Why::LinkUp };
        let judge = |node| self.objection(now, node, strict).map_or(Standing::In(good.clone()), Standing::Out);
        let mut standings: Vec<Standing> = (0..self.nodes.len()).map(judge).collect();
        let eligible = standings.iter().filter(|standing| standing.is_in()).count();
        for node in self.least_bad(now, &standings).into_iter().take(floor.saturating_sub(eligible)) {
            if mutant!("floor_ignored") {
                break;
            }
            if let Some(standing @ Standing::Out(_)) = standings.get_mut(node) {
                let Standing::Out(why) = standing.clone() else { continue };
                *standing = Standing::In(Why::Floor(why));
            }
        }
        standings
    }

    /// Those that are out without hard evidence, the least bad first.
    fn least_bad(&self, now: Mono, standings: &[Standing]) -> Vec<NodeIndex> {
        let out = |(index, node): (NodeIndex, &Node)| {
            let is_out = standings.get(index).is_some_and(|standing| !standing.is_in());
            (is_out && self.hard(index, node).is_none()).then(|| {
                let drained = self.hands.get(index) == Some(&Hand::Drained);
                let clean = Reverse(node.clean(now).unwrap_or_default());
                (drained, verdict_rank(node.says()), node.ejected(now).is_some(), clean, index)
            })
        };
        let mut ranked: Vec<_> = self.nodes.iter().enumerate().filter_map(out).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., index)| index).collect()
    }

    /// Ejects who stands out for long enough, as far as the cap goes.
    pub(super) fn step_outliers(&mut self, now: Mono) {
        let (latencies, queues): (Vec<_>, Vec<_>) = self.nodes.iter().map(Node::samples).unzip();
        let (latency, queue) = (median(&latencies), median(&queues));
        let mut ripe = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let (of_latency, of_queue) = node.samples();
            let out = is_far(of_latency, latency, LATENCY_GAP) || is_far(of_queue, queue, QUEUE_GAP);
            if node.stands_out(now, out) {
                ripe.push(index);
            }
        }
        let ejected = self.nodes.iter().filter(|node| node.ejected(now).is_some()).count();
        for index in ripe.into_iter().take(self.ejected_max().saturating_sub(ejected)) {
            let jitter = self.names.get(index).map_or(0, |name| xxh3_64_with_seed(name.as_bytes(), now.as_nanos()));
            if let Some(node) = self.nodes.get_mut(index) {
                node.eject(now, jitter);
            }
        }
    }

    fn ejected_max(&self) -> usize {
        let percent = usize::from(self.settings.max_ejected_percent);
        let may = self.settings.kind == Kind::Free && percent > 0 && self.size() >= OUTLIERS_FROM;
        if may { (self.size() * percent / 100).max(1) } else { 0 }
    }
}

fn verdict_rank(verdict: Option<&Verdict>) -> u8 {
    match verdict {
        Some(Verdict::Ready | Verdict::Overloaded { .. }) => 0,
        None | Some(Verdict::Starting) => 1,
        Some(Verdict::Degraded { .. } | Verdict::Draining) => 2,
    }
}

/// Of the nodes that have a sample; `None` when they are too few.
fn median(samples: &[Option<Duration>]) -> Option<Duration> {
    let mut known: Vec<Duration> = samples.iter().flatten().copied().collect();
    known.sort_unstable();
    (known.len() >= OUTLIERS_FROM).then(|| known[known.len() / 2])
}

fn is_far(sample: Option<Duration>, median: Option<Duration>, gap: Duration) -> bool {
    let (Some(sample), Some(median)) = (sample, median) else { return false };
    sample > median * FAR && sample > median + gap
}
