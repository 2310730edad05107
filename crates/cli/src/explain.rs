//! `spillway explain LINE`: what becomes of a line, answered by the code that runs live: the engine's own parser, route
//! table, rule set and rings. It asks no node, so it tells what the cluster file says, not what a node has loaded.

use anyhow::anyhow;
use config::Cluster;
use engine::line::{LinePolicy, Point, Scratch, parse_line};
use engine::pattern::Selector;
use engine::ring::Ring;
use engine::route::Unrouted;
use engine::route::{RouteTable, StoreSpec, Target};
use engine::rule::{FUNCTION_HOLE, OutputKey, RuleSet, partition_of};
use engine::time::UnixSeconds;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// Everything about one line.
#[derive(Debug, Serialize)]
struct Explanation {
    line: String,
    /// Why it is no point; then there is nothing further.
    rejected: Option<&'static str>,
    point: Option<PointPart>,
    routes: Vec<RoutePart>,
    /// Owed to the aggregation layers.
    aggregate: bool,
    /// `store host:port` of each copy of the raw point.
    raw: Vec<String>,
    /// Why no copy of the raw point is stored, if so.
    not_stored: Option<&'static str>,
    rules: Vec<RulePart>,
}

#[derive(Debug, Serialize)]
struct PointPart {
    /// In normal form.
    series: String,
    value: String,
    /// Seconds since 1970.
    timestamp: u32,
}

#[derive(Debug, Serialize)]
struct RoutePart {
    /// Counted from 1.
    route: usize,
    selector: String,
    to: Vec<String>,
    stop: bool,
}

#[derive(Debug, Serialize)]
struct RulePart {
    rule: String,
    /// The key that is aggregated under, with `{function}` open.
    key: String,
    /// Of the final layer, counted from 0.
    partition: u16,
    /// Seconds since 1970; the end does not belong to the window.
    window_start: u64,
    window_end: u64,
    /// At the latest.
    first_emission: u64,
    /// The window is past the horizon: the point would be counted as `too_old`.
    too_old: bool,
    outputs: Vec<OutputPart>,
}

#[derive(Debug, Serialize)]
struct OutputPart {
    series: String,
    addresses: Vec<String>,
}

/// Explains `line` and prints the answer.
///
/// # Errors
/// When nothing can be printed.
pub(crate) fn run(cluster: &Cluster, line: &str, now: UnixSeconds, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let explanation = explain(cluster, line, now)?;
    if screen.json {
        screen.json(&explanation)?;
    } else {
        screen.text(&render(&explanation, cluster, now))?;
    }
    Ok(Exit::Ok)
}

fn explain(cluster: &Cluster, line: &str, now: UnixSeconds) -> anyhow::Result<Explanation> {
    let policy = LinePolicy {
        max_line_bytes: cluster.receive.max_line_bytes,
        max_name_bytes: cluster.receive.max_name_bytes,
        two_fields: cluster.receive.two_fields,
    };
    let mut scratch = Scratch::default();
    let mut explanation = Explanation {
        line: line.to_owned(),
        rejected: None,
        point: None,
        routes: Vec::new(),
        aggregate: false,
        raw: Vec::new(),
        not_stored: None,
        rules: Vec::new(),
    };
    let point = match parse_line(line.as_bytes(), now, &policy, &mut scratch) {
        Ok(point) => point,
        Err(reject) => {
            explanation.rejected = Some(reject.as_str());
            return Ok(explanation);
        }
    };
    explanation.point =
        Some(PointPart { series: text(point.name), value: text(point.value_text), timestamp: point.timestamp.0 });
    // `config` let the file pass, so both compile.
    let table = RouteTable::compile(&cluster.routes, &cluster.stores)
        .map_err(|errors| anyhow!("BUG: routes passed the check and do not compile: {errors:?}"))?;
    let rules = RuleSet::compile(&cluster.rules)
        .map_err(|errors| anyhow!("BUG: rules passed the check and do not compile: {errors:?}"))?;
    let decision = table.decide(point.name);
    explanation.routes = table.explain(point.name).into_iter().filter_map(|index| route(cluster, index)).collect();
    explanation.aggregate = decision.aggregate;
    explanation.not_stored = match decision.unrouted {
        Some(Unrouted::Rule) => Some("a route drops it"),
        Some(Unrouted::NoRoute) => Some("no route takes it"),
        None if decision.addresses.is_empty() => Some("its routes lead to no store"),
        None if decision.aggregate && rules.drop_raw(point.name) => Some("a rule says drop_raw"),
        None => None,
    };
    if explanation.not_stored.is_none() {
        let addresses = decision.addresses.iter();
        explanation.raw = addresses.filter_map(|(store, at)| address(cluster.stores.get(*store)?, *at)).collect();
    }
    if decision.aggregate {
        let mut keys = Vec::new();
        rules.outputs(point.name, &mut keys);
        explanation.rules = keys.iter().filter_map(|key| rule(cluster, &rules, key, &point, now)).collect();
    }
    Ok(explanation)
}

fn route(cluster: &Cluster, index: usize) -> Option<RoutePart> {
    let spec = cluster.routes.get(index)?;
    let to = spec.to.iter().map(|target| match target {
        Target::Aggregate => "aggregate".to_owned(),
        Target::Drop => "drop".to_owned(),
        Target::Store(store) => cluster.stores.get(*store).map(|store| store.name.clone()).unwrap_or_default(),
    });
    Some(RoutePart { route: index + 1, selector: selector(&spec.selector), to: to.collect(), stop: spec.stop })
}

fn selector(selector: &Selector) -> String {
    match selector {
        Selector::Glob(glob) => format!("glob {glob}"),
        Selector::Regex(regex) => format!("regex {regex}"),
    }
}

fn rule(cluster: &Cluster, rules: &RuleSet, key: &OutputKey, point: &Point<'_>, now: UnixSeconds) -> Option<RulePart> {
    let spec = rules.spec(key.rule)?;
    let start = u64::from(point.timestamp.window(spec.interval).0);
    let end = start + u64::from(spec.interval);
    let mut name = Vec::new();
    let mut outputs = Vec::new();
    for position in 0..spec.functions.len() {
        rules.output_name(key.rule, &key.name, position, &mut name);
        outputs.push(output(cluster, &spec.to, &name));
    }
    if spec.completeness {
        rules.complete_name(&key.name, &mut name);
        outputs.push(output(cluster, &spec.to, &name));
    }
    Some(RulePart {
        rule: spec.name.clone(),
        key: String::from_utf8_lossy(&key.name).replace(char::from(FUNCTION_HOLE), "{function}"),
        partition: partition_of(key, cluster.partitions),
        window_start: start,
        window_end: end,
        first_emission: end + u64::from(spec.grace),
        too_old: end + cluster.final_.horizon.as_secs() < u64::from(now.0),
        outputs,
    })
}

fn output(cluster: &Cluster, to: &[usize], name: &[u8]) -> OutputPart {
    let mut addresses = Vec::new();
    let mut picked = Vec::new();
    for store in to.iter().filter_map(|store| cluster.stores.get(*store)) {
        Ring::build(store).pick(name, &mut picked);
        addresses.extend(picked.iter().filter_map(|at| address(store, *at)));
    }
    OutputPart { series: text(name), addresses }
}

fn address(store: &StoreSpec, index: usize) -> Option<String> {
    let address = store.addresses.get(index)?;
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let instance = address.instance.as_ref().map(|instance| format!("={instance}")).unwrap_or_default();
    Some(format!("{} {host}:{}{instance}", store.name, address.port))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn render(explanation: &Explanation, cluster: &Cluster, now: UnixSeconds) -> String {
    let Some(point) = &explanation.point else {
        return format!("rejected: {}\n", explanation.rejected.unwrap_or_default());
    };
    let mut out = format!("series     {}\nvalue      {}\n", point.series, point.value);
    out.push_str(&format!("timestamp  {} ({})\n", point.timestamp, age(u64::from(point.timestamp), now)));
    if explanation.routes.is_empty() {
        out.push_str("route      none matches\n");
    }
    for route in &explanation.routes {
        let stop = if route.stop { ", stop" } else { "" };
        out.push_str(&format!("route {:<4} {} -> {}{stop}\n", route.route, route.selector, route.to.join(", ")));
    }
    match explanation.not_stored {
        Some(reason) => out.push_str(&format!("raw        not stored: {reason}\n")),
        None => out.push_str(&format!("raw        {}\n", explanation.raw.join(", "))),
    }
    if explanation.aggregate && explanation.rules.is_empty() {
        out.push_str("rule       none matches\n");
    }
    for rule in &explanation.rules {
        out.push_str(&format!("rule       {}: {}\n", rule.rule, rule.key));
        out.push_str(&format!("  partition  {} of {}\n", rule.partition, cluster.partitions));
        out.push_str(&format!("  window     {} to {}", rule.window_start, rule.window_end));
        if rule.too_old {
            out.push_str(", past the horizon: it would be counted as too_old\n");
        } else {
            let emission = rule.first_emission;
            out.push_str(&format!(", first emitted at {emission} at the latest ({})\n", age(emission, now)));
        }
        for output in &rule.outputs {
            let addresses = if output.addresses.is_empty() { "no store".into() } else { output.addresses.join(", ") };
            out.push_str(&format!("  output     {} -> {addresses}\n", output.series));
        }
    }
    out
}

fn age(at: u64, now: UnixSeconds) -> String {
    let now = u64::from(now.0);
    match at.cmp(&now) {
        std::cmp::Ordering::Equal => "now".into(),
        std::cmp::Ordering::Less => format!("{} ago", crate::table::duration(now - at)),
        std::cmp::Ordering::Greater => format!("in {}", crate::table::duration(at - now)),
    }
}
