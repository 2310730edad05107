//! The compiled route table: from the name of a series to everything it is owed to.
//!
//! Routes are tried first to last. A series takes every route whose selector it matches, until one says stop or drops
//! it. What earlier routes gave it, it keeps. This is the slow path, walked once for each new series; the caller caches
//! the decision.

use super::{RouteSpec, StoreSpec, Target};
use crate::pattern::{PatternSet, Selector};
use crate::ring::{self, Ring};

/// What becomes of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Owed to the aggregation layers.
    pub aggregate: bool,
    /// Owed to these (store, address) pairs, as indexes into the list of stores and the store's addresses. No pair comes
    /// twice; the order is that of the routes, and within a store that of its ring.
    pub addresses: Vec<(usize, usize)>,
    /// Set exactly if it is owed to nobody.
    pub unrouted: Option<Unrouted>,
}

/// Why a series is owed to nobody; both are drop reasons of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unrouted {
    /// A route to `drop` took it.
    Rule,
    /// No route leads it anywhere.
    NoRoute,
}

/// Something wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {route}: {message}")]
pub struct RouteError {
    /// Index into the list of routes.
    pub route: usize,
    /// One sentence: what is wrong and what would be right.
    pub message: String,
}

/// All routes and the rings they lead to.
#[derive(Clone, Debug)]
pub struct RouteTable {
    selectors: PatternSet,
    routes: Vec<Route>,
    /// One for every store.
    rings: Vec<Ring>,
    warnings: Vec<RouteError>,
}

#[derive(Clone, Debug)]
struct Route {
    to: Vec<Target>,
    last: bool,
}

impl RouteTable {
    /// Compiles `routes`, whose targets are indexes into `stores`.
    ///
    /// # Errors
    /// All that is wrong, in the order of the routes: selectors that do not compile, targets that are no store, stores of
    /// which no ring can be built, routes that lead nowhere, routes that no series can reach.
    pub fn compile(routes: &[RouteSpec], stores: &[StoreSpec]) -> Result<RouteTable, Vec<RouteError>> {
        let mut errors: Vec<RouteError> = Vec::new();
        let selectors = match PatternSet::compile(routes.iter().map(|route| &route.selector)) {
            Ok(selectors) => Some(selectors),
            Err(problems) => {
                errors.extend(problems.into_iter().map(|(route, why)| RouteError { route, message: why.to_string() }));
                None
            }
        };
        errors.extend(wrong_targets(routes, stores));
        errors.extend(unreachable(routes));
        errors.sort_by_key(|error| error.route);
        match selectors {
            Some(selectors) if errors.is_empty() => {
                let rings: Vec<Ring> = stores.iter().map(Ring::build).collect();
                let warnings = doubtful(routes, stores, &rings);
                let routes = routes.iter().map(|route| Route { to: route.to.clone(), last: ends(route) }).collect();
                Ok(RouteTable { selectors, routes, rings, warnings })
            }
            Some(_) | None => Err(errors),
        }
    }

    /// What is allowed but hardly meant, in the order of the routes.
    pub fn warnings(&self) -> &[RouteError] {
        &self.warnings
    }

    /// Decides for a series. `name`: with its tags, in normal form.
    pub fn decide(&self, name: &[u8]) -> Decision {
        let mut decision = Decision::default();
        let mut dropped = false;
        let mut picked = Vec::new();
        for route in self.explain(name) {
            for target in &self.routes[route].to {
                match target {
                    Target::Aggregate => decision.aggregate = true,
                    Target::Drop => {
                        dropped = true;
                        break;
                    }
                    Target::Store(store) => {
                        // A ring gives a store's addresses in one order, so a store that is in already is complete.
                        if decision.addresses.iter().any(|(other, _)| other == store) {
                            continue;
                        }
                        self.rings[*store].pick(name, &mut picked);
                        decision.addresses.extend(picked.iter().map(|address| (*store, *address)));
                    }
                }
            }
        }
        if !decision.aggregate && decision.addresses.is_empty() {
            decision.unrouted = Some(if dropped { Unrouted::Rule } else { Unrouted::NoRoute });
        }
        decision
    }

    /// The indexes of the routes that a series takes, in their order; the last may be one that stops or drops.
    pub fn explain(&self, name: &[u8]) -> Vec<usize> {
        let mut taken = self.selectors.matches(name);
        if let Some(end) = taken.iter().position(|route| self.routes[*route].last) {
            taken.truncate(end + 1);
        }
        taken
    }
}

/// Whether a series that takes `route` takes no later one.
fn ends(route: &RouteSpec) -> bool {
    route.stop || route.to.contains(&Target::Drop)
}

fn wrong_targets(routes: &[RouteSpec], stores: &[StoreSpec]) -> Vec<RouteError> {
    let mut errors = Vec::new();
    let mut checked = vec![false; stores.len()];
    for (index, route) in routes.iter().enumerate() {
        let mut wrong = |message: String| errors.push(RouteError { route: index, message });
        if route.to.is_empty() {
            wrong("leads nowhere; `to` takes \"aggregate\", \"drop\" or the name of a store".into());
        }
        for target in &route.to {
            match target {
                Target::Aggregate | Target::Drop => {}
                Target::Store(store) => match stores.get(*store) {
                    // A store's faults are told once, at the first route that leads to it.
                    Some(spec) if !std::mem::replace(&mut checked[*store], true) => {
                        if let Err(problems) = ring::check(spec) {
                            problems.into_iter().for_each(&mut wrong);
                        }
                    }
                    Some(_) => {}
                    None => wrong(format!("leads to store number {store}, but there are {}", stores.len())),
                },
            }
        }
    }
    errors
}

/// Routes that can never be taken, because an earlier one takes all they could and ends the walk.
fn unreachable(routes: &[RouteSpec]) -> Vec<RouteError> {
    let mut errors = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let shadow = routes[..index]
            .iter()
            .position(|earlier| ends(earlier) && (takes_all(&earlier.selector) || earlier.selector == route.selector));
        if let Some(shadow) = shadow {
            errors.push(RouteError {
                route: index,
                message: format!(
                    "is never reached: route {shadow} takes all its series and ends there; put this one before it"
                ),
            });
        }
    }
    errors
}

/// Whether a selector is one of the usual ways to say "every series".
fn takes_all(selector: &Selector) -> bool {
    match selector {
        Selector::Glob(glob) => glob.split('.').all(|element| element == "**"),
        Selector::Regex(regex) => {
            matches!(
                regex.as_str(),
                "" | "." | ".*" | ".+" | "^" | "^.*" | "^.+" | "^.*$" | "^.+$" | ".*$" | ".+$" | "$"
            )
        }
    }
}

fn doubtful(routes: &[RouteSpec], stores: &[StoreSpec], rings: &[Ring]) -> Vec<RouteError> {
    let mut warnings = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let mut warn = |message: String| warnings.push(RouteError { route: index, message });
        if let Some(drop) = route.to.iter().position(|target| *target == Target::Drop)
            && route.to.len() > 1
        {
            let kept = if drop == 0 { "no target" } else { "only the targets before it" };
            warn(format!("\"drop\" beside other targets: {kept} in this route has an effect"));
        }
        for target in &route.to {
            match target {
                Target::Aggregate | Target::Drop => {}
                Target::Store(store) => {
                    let (asked, copies) = (stores[*store].replicas, rings[*store].copies());
                    if copies < asked {
                        warn(format!(
                            "store `{}` gets {copies} of {asked} replicas: carbon_ch puts no two on one host",
                            stores[*store].name
                        ));
                    }
                }
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
