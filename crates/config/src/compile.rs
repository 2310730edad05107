//! Routes, rules and rings are checked by compiling them with the engine's own code, the same that runs live.

use std::net::Ipv4Addr;

use engine::pattern::{Pattern, Selector};
use engine::ring;
use engine::route::{RouteSpec, RouteTable, StoreAddress, StoreSpec, Target};
use engine::rule::{Function, RuleSet, RuleSpec};

use crate::document::Document;

/// Reports whatever does not compile. What was reported already while reading is replaced by something harmless, so that
/// it is not told twice and hides nothing else.
///
/// `routes`, `rules`, `stores`: each with its key path.
pub(crate) fn check_compiles(
    document: &Document<'_>,
    routes: &[(String, RouteSpec)],
    rules: &[(String, RuleSpec)],
    stores: &[(String, StoreSpec)],
) {
    let stores: Vec<StoreSpec> = stores.iter().map(|(path, store)| sound(document, path, store)).collect();
    let specs: Vec<RouteSpec> = routes
        .iter()
        .map(|(_, route)| match route.to.is_empty() {
            true => RouteSpec { to: vec![Target::Aggregate], ..route.clone() },
            false => route.clone(),
        })
        .collect();
    match RouteTable::compile(&specs, &stores) {
        Ok(table) => {
            for warning in table.warnings() {
                document.warning(path_of(routes, warning.route), warning.message.clone(), "");
            }
        }
        Err(errors) => {
            for error in errors {
                let selector = specs.get(error.route).map(|route| &route.selector);
                document.error(&place(path_of(routes, error.route), selector, &error.message), error.message, "");
            }
        }
    }
    let specs: Vec<RuleSpec> = rules.iter().map(|(_, rule)| harmless(rule)).collect();
    match RuleSet::compile(&specs) {
        Ok(set) => {
            for warning in set.warnings() {
                document.warning(path_of(rules, warning.rule), warning.message.clone(), "");
            }
        }
        Err(errors) => {
            for error in errors {
                let selector = specs.get(error.rule).map(|rule| &rule.selector);
                document.error(&place(path_of(rules, error.rule), selector, &error.message), error.message, "");
            }
        }
    }
}

/// The store itself if its ring can be built; else, with the reason reported, one that stands in for it.
fn sound(document: &Document<'_>, path: &str, store: &StoreSpec) -> StoreSpec {
    let Err(messages) = ring::check(store) else { return store.clone() };
    // That there are no addresses was said where they were read.
    if !store.addresses.is_empty() && !document.has_errors_in(path) {
        for message in messages {
            document.error(&format!("{path}.addresses"), message, "");
        }
    }
    let address = StoreAddress { host: Ipv4Addr::LOCALHOST.to_string(), port: 1, instance: None };
    StoreSpec { name: store.name.clone(), addresses: vec![address], ring: store.ring, replicas: 1 }
}

fn harmless(rule: &RuleSpec) -> RuleSpec {
    let mut rule = rule.clone();
    rule.interval = rule.interval.max(1);
    if rule.functions.is_empty() {
        rule.functions.push(Function::Sum);
    }
    rule
}

fn path_of<T>(specs: &[(String, T)], index: usize) -> &str {
    specs.get(index).map_or("", |(path, _)| path.as_str())
}

/// The selector's own key if that is what the message is about, else the whole route or rule.
fn place(path: &str, selector: Option<&Selector>, message: &str) -> String {
    let own = selector.filter(|selector| Pattern::compile(selector).is_err_and(|error| error.to_string() == message));
    match own {
        Some(Selector::Glob(_)) => format!("{path}.glob"),
        Some(Selector::Regex(_)) => format!("{path}.regex"),
        None => path.to_owned(),
    }
}
