//! One TOML file describes a whole cluster. This crate takes its text and gives a checked tree, or everything that is
//! wrong with it at once: each problem with its place, its key and what would be right.
//!
//! It reads no file and knows no environment. It never panics, whatever the text. A tree that comes out holds only
//! values in their ranges, names that exist, addresses that do not collide, and rules and routes that compile.

mod auth;
mod cluster;
mod compile;
mod cross;
mod document;
mod nodes;
mod notify;
mod problem;
mod quantity;
mod rules;
mod sections;
mod setting;
mod show;
mod stores;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;

pub use auth::{Auth, MetricsAccess};
pub use cluster::{
    Cluster, Final, Health, HealthMode, Layer, Node, Output, OwnMetrics, PointsPerSecond, Receive, Replay, ReplayStart,
    Sending, Spill, SpillSync, Supervise, Telemetry, Threads,
};
pub use notify::{HookUrl, Notify};
pub use problem::{Problem, Problems, Severity};
pub use quantity::parse_duration;
pub use show::Value;
pub use suggest::nearest;
pub use tls::{PathTemplate, Tls, TlsMode};

use engine::route::RouteSpec;
use engine::rule::RuleSpec;
use toml::de::DeTable;

use crate::document::{Document, Effective, Section};
use crate::setting::Name;
use crate::stores::StoreDraft;

/// A cluster file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub cluster: Cluster,
    /// What is allowed but hardly meant.
    pub warnings: Problems,
    effective: Vec<Effective>,
}

impl Loaded {
    /// Every value in effect as TOML, each with its origin (`# default` or `# file:line`). Loading the output gives the
    /// same tree.
    pub fn show(&self) -> String {
        show::show(&self.warnings.file, &self.effective)
    }

    /// The same, one by one.
    pub fn values(&self) -> Vec<Value> {
        show::values(&self.effective)
    }
}

/// Reads and checks a cluster file.
///
/// `file_name`: only for messages.
///
/// # Errors
/// All problems of the text, warnings among them, if at least one forbids its use.
pub fn load(file_name: &str, text: &str) -> Result<Loaded, Problems> {
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    let document = Document::new(text);
    document.syntax_errors(&syntax_errors);
    let cluster = walk(&document, table.get_ref());
    let (problems, effective) = document.into_found();
    let problems = Problems::new(file_name, text, problems);
    match cluster {
        Some(cluster) if problems.error_count() == 0 => Ok(Loaded { cluster, warnings: problems, effective }),
        Some(_) | None => Err(problems),
    }
}

/// Reads every key there is. `None` only if a problem was reported.
fn walk<'t>(document: &Document<'t>, table: &DeTable<'t>) -> Option<Cluster> {
    let mut root = document.root(table);
    let mut head = root.table("cluster");
    let name = head.required::<Name>("name", "nodes of another cluster are refused by it");
    let partitions = head.within("partitions", 16, 1..=64);
    head.finish();

    let nodes: Vec<_> = root.list("node").into_iter().map(|section| nodes::read(document, section)).collect();
    let stores: Vec<_> = root.list("store").into_iter().map(|section| stores::read(document, section)).collect();
    let (routes, rules) = routes_and_rules(document, &mut root, &stores);
    let health = sections::health(root.table("health"));
    let receive = sections::receive(root.table("receive"));
    let send = sections::send(root.table("send"));
    let spill = sections::spill(root.table("spill"));
    let final_ = sections::final_(root.table("final"));
    let replay = sections::replay(root.table("replay"));
    let output = sections::output(root.table("output"));
    let supervise = sections::supervise(root.table("supervise"));
    let (mut telemetry, own_metrics) = sections::telemetry(root.table("telemetry"));
    let auth = auth::read(root.table("auth"));
    let tls = tls::read(document, root.table("tls"));
    telemetry.graphite = cross::own_metrics(document, own_metrics, &stores);
    let endpoints: Vec<_> = root.list("notify").into_iter().map(|section| notify::read(document, section)).collect();
    notify::check_names(document, &endpoints);
    root.finish();

    nodes::check_claims(document, &nodes);
    tls::check_names(document, &tls, nodes.iter().filter_map(|node| node.name.as_deref()));
    auth::check(document, &auth, &tls, nodes.iter().filter_map(nodes::NodeDraft::admin));
    stores::check_names(document, &stores);
    nodes::check_layers(document, &nodes, cross::needs_final(&routes, &rules));
    cross::check_usage(document, &stores, &routes, &rules);
    let stores: Vec<_> = stores.into_iter().map(|draft| (draft.path.clone(), draft.finished())).collect();
    compile::check_compiles(document, &routes, &rules, &stores);
    let node_count = nodes.len();
    let nodes: Vec<Node> = nodes.into_iter().filter_map(nodes::NodeDraft::finished).collect();
    // Whatever is left out here was reported where it was read.
    let complete = name.is_some() && nodes.len() == node_count;
    let stores = stores.into_iter().map(|(_, store)| store).collect();
    let routes = routes.into_iter().map(|(_, route)| route).collect();
    let (rule_paths, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    let cluster = Cluster {
        name: name.map(|name| name.0).unwrap_or_default(),
        partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
        nodes,
        stores,
        routes,
        rules,
        health,
        send,
        spill,
        final_,
        replay,
        receive,
        output,
        supervise,
        telemetry,
        auth,
        tls,
        // One that is incomplete was reported.
        notify: endpoints.into_iter().filter_map(|(_, endpoint)| endpoint).collect(),
    };
    cross::check_times_and_sizes(document, &cluster, &rule_paths);
    complete.then_some(cluster)
}

/// Each with its key path.
type Placed<T> = Vec<(String, T)>;

/// Reads `[[route]]` and `[[rule]]`; without any route there is a default one.
fn routes_and_rules<'d, 't>(
    document: &'d Document<'t>,
    root: &mut Section<'d, 't>,
    stores: &[StoreDraft],
) -> (Placed<RouteSpec>, Placed<RuleSpec>) {
    let mut routes = Vec::new();
    for section in root.list("route") {
        let path = section.path().to_owned();
        routes.extend(rules::read_route(document, section, stores).map(|route| (path, route)));
    }
    let mut rules = Vec::new();
    for section in root.list("rule") {
        let path = section.path().to_owned();
        rules.extend(rules::read_rule(document, section, stores).map(|rule| (path, rule)));
    }
    if !document.has("route") {
        routes.push(("route".into(), rules::default_route(document, stores, !rules.is_empty())));
    }
    (routes, rules)
}
