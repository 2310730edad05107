//! Decisions: for each series the lanes that it is owed to. Series share decisions, so that a series costs a number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::batch::PartitionSet;
use engine::route::{RouteTable, Unrouted};
use engine::rule::{RuleSet, partition_of};

use crate::lanes::{Destination, Lane, Lanes};

/// Why an accepted point is owed to nobody. Closed: the ledger shows these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nowhere {
    /// A route to `drop` took it.
    Rule,
    /// No route leads it anywhere.
    NoRoute,
    /// Its routes lead only to the aggregators, and no rule matches it.
    NoRule,
    /// Its block killed a router twice.
    Poison,
}

impl Nowhere {
    pub(crate) const ALL: [Nowhere; 4] = [Nowhere::Rule, Nowhere::NoRoute, Nowhere::NoRule, Nowhere::Poison];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Nowhere::Rule => "rule",
            Nowhere::NoRoute => "no_route",
            Nowhere::NoRule => "no_rule",
            Nowhere::Poison => "poison",
        }
    }
}

/// What becomes of a series.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Empty exactly if `nowhere` is set.
    pub(crate) lanes: Vec<(usize, Arc<Lane>)>,
    pub(crate) nowhere: Option<Nowhere>,
}

/// Makes decisions and remembers the different ones.
#[derive(Debug)]
pub(crate) struct Decider {
    routes: RouteTable,
    rules: Arc<RuleSet>,
    partitions: u16,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    all: Vec<Arc<Decision>>,
    index: BTreeMap<(Vec<Destination>, Option<Nowhere>), u32>,
}

impl Decider {
    pub(crate) fn new(routes: RouteTable, rules: Arc<RuleSet>, partitions: u16) -> Decider {
        Decider { routes, rules, partitions, known: Mutex::default() }
    }

    /// Decides for a series that no cache knows. Slow: patterns and rings.
    pub(crate) fn decide(&self, name: &[u8], lanes: &Lanes) -> (u32, Arc<Decision>) {
        let (destinations, nowhere) = self.destinations(name);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (destinations, nowhere);
        if let Some(&number) = known.index.get(&key) {
            return (number, Arc::clone(&known.all[number as usize]));
        }
        let found = key.0.iter().map(|destination| lanes.find(*destination)).collect();
        let decision = Arc::new(Decision { lanes: found, nowhere });
        let number = u32::try_from(known.all.len()).unwrap_or(u32::MAX);
        known.all.push(Arc::clone(&decision));
        known.index.insert(key, number);
        (number, decision)
    }

    fn destinations(&self, name: &[u8]) -> (Vec<Destination>, Option<Nowhere>) {
        let decision = self.routes.decide(name);
        let mut to = Vec::new();
        let mut fed = PartitionSet::default();
        if decision.aggregate {
            let mut outputs = Vec::new();
            self.rules.outputs(name, &mut outputs);
            fed = outputs.iter().fold(fed, |set, key| set.with(partition_of(key, self.partitions)));
        }
        // A rule that swallows its input keeps it from the stores, not from the aggregators.
        if fed.is_empty() || !self.rules.drop_raw(name) {
            to.extend(decision.addresses.iter().map(|&(store, address)| Destination::Store(store, address)));
        }
        if !fed.is_empty() {
            to.push(Destination::Aggregate(fed));
        }
        let nowhere = match decision.unrouted {
            _ if !to.is_empty() => None,
            Some(Unrouted::Rule) => Some(Nowhere::Rule),
            Some(Unrouted::NoRoute) => Some(Nowhere::NoRoute),
            None => Some(Nowhere::NoRule),
        };
        (to, nowhere)
    }
}
