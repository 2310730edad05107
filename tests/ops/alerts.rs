//! Alert rules and the dashboard: their own tests, and that what they ask for is there.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::{Authority, Behaviour, Cluster, Keep, Layer, Process, Sink, TempDir, eventually, unix_now};

use crate::{assert_none, at, items, metrics_in, output, read, support, text, well, yaml};

const ALERTS: &str = "ops/prometheus/alerts.yml";

#[test]
fn promtool_accepts_rules_and_configuration_and_their_tests_pass() {
    well(Command::new("promtool").args(["check", "rules"]).arg(at(ALERTS)));
    well(Command::new("promtool").args(["check", "config"]).arg(at("ops/prometheus/prometheus.yml")));
    well(Command::new("promtool").args(["test", "rules"]).arg(at("ops/prometheus/alerts_test.yml")));
}

/// Those of the file, without recording rules.
fn alerts() -> Vec<Value> {
    let documents = yaml(&at(ALERTS));
    let rules = items(&documents[0]["groups"]).iter().flat_map(|group| items(&group["rules"]));
    rules.filter(|rule| rule["alert"].is_string()).cloned().collect()
}

#[test]
fn every_alert_says_how_bad_it_is_what_to_do_and_where_more_stands() {
    let alerts = alerts();
    assert!(alerts.len() > 20, "{} alerts", alerts.len());
    let mut broken = Vec::new();
    for alert in &alerts {
        let name = text(&alert["alert"]);
        if !["critical", "warning"].contains(&text(&alert["labels"]["severity"])) {
            broken.push(format!("{name}: severity {}", alert["labels"]["severity"]));
        }
        if text(&alert["annotations"]["summary"]).len() < 40 {
            broken.push(format!("{name}: no summary that says what to do"));
        }
        let book = text(&alert["annotations"]["runbook_url"]);
        let page = at(book);
        if !book.starts_with("ops/runbooks/") || !page.exists() {
            broken.push(format!("{name}: no runbook {book}"));
        } else if !read(&page).lines().next().unwrap_or_default().contains(name) {
            broken.push(format!("{name}: the head of {book} does not name it"));
        }
    }
    assert_none("alerts", &broken);
}

#[test]
fn every_alert_has_a_case_in_which_it_fires() {
    let tests = read(&at("ops/prometheus/alerts_test.yml"));
    let missing: Vec<String> = alerts()
        .iter()
        .map(|alert| text(&alert["alert"]).to_owned())
        .filter(|name| {
            let in_expression = tests.contains(&format!("alertname=\"{name}\""));
            let in_rule = tests.contains(&format!("alertname: {name}\n"));
            !in_expression && !in_rule
        })
        .collect();
    assert_none("alerts that no case makes fire", &missing);
}

#[test]
fn the_dashboard_can_be_imported_and_its_panels_ask_for_something() {
    let dashboard: Value = serde_json::from_str(&read(&at("ops/grafana/spillway.json"))).unwrap();
    let mut ids = BTreeSet::new();
    for panel in items(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with id {}", panel["id"]);
        let grid = &panel["gridPos"];
        assert!(grid["x"].as_u64().unwrap() + grid["w"].as_u64().unwrap() <= 24, "{}: too wide", panel["title"]);
        if text(&panel["type"]) != "row" {
            assert!(!items(&panel["targets"]).is_empty(), "{} asks for nothing", panel["title"]);
        }
    }
    assert!(ids.len() > 20);
}

/// Expressions of the dashboard, with its variables replaced, as a rule file that promtool can parse.
#[test]
fn promtool_parses_every_query_of_the_dashboard() {
    let dir = TempDir::new("dashboard");
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (number, query) in queries().into_iter().enumerate() {
        let query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$node", ".*");
        let quoted = serde_json::to_string(&query).unwrap();
        rules.push_str(&format!("      - {{ record: \"panel:{number}\", expr: {quoted} }}\n"));
    }
    let file = dir.write("rules.yml", &rules);
    well(Command::new("promtool").args(["check", "rules", "--lint=none"]).arg(file));
}

fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(&at("ops/grafana/spillway.json"))).unwrap_or_default();
    let panels = items(&dashboard["panels"]).iter();
    panels.flat_map(|panel| items(&panel["targets"])).map(|target| text(&target["expr"]).to_owned()).collect()
}

/// A small cluster with a store that is away, a bad line, one for nobody, one that comes too late, and an operator who
/// discards: what it takes for all metrics to appear.
#[test]
fn every_metric_that_is_asked_for_is_one_that_real_nodes_show() {
    let dir = TempDir::new("ops-metrics");
    let (store, away) = (Sink::start(Keep::Count), Sink::start(Keep::Count));
    away.behave(Behaviour::Refuse);
    let cluster = Cluster::new(1, 1, 1)
        .store("carbon", &[store.address()])
        .store("away", &[away.address()])
        .with("[[route]]\nglob = \"nobody.**\"\nto = [\"drop\"]\nstop = true\n")
        .route_all(&["aggregate", "carbon", "away"])
        .with(
            "[[rule]]\nname = \"all\"\nglob = \"web.*\"\noutput = \"all.{function}\"\ninterval = \"1s\"\ngrace = \"0s\"\n\
             functions = [\"sum\"]\nto = [\"carbon\"]\n\n[send]\nack_timeout = \"2s\"\n\n[[notify]]\nname = \"ops\"\nurl = \"http://127.0.0.1:9/\"\n",
        );
    let cluster = cluster.with(&format!("{}links = \"mutual\"\n", Authority::FILES));
    Authority::new().equip(dir.path(), cluster.nodes.iter().map(|node| node.name.as_str()));
    let mut process = Process::up(&support::spillway(), &cluster, dir.path());
    let now = unix_now().trunc();
    let lines = format!("web.a 1 {now}\nweb.a 1 {}\nweb.a nan {now}\nnobody.a 1 {now}\n", now - 100_000.0);
    let mut client = std::net::TcpStream::connect(cluster.graphite()).unwrap();
    client.write_all(lines.as_bytes()).unwrap();
    drop(client);

    let relay = cluster.first(Layer::Relay).api();
    eventually(Duration::from_secs(30), "the store that is away to have lines in the spill", || {
        let waits = relay.metric("spillway_destination_spill_pending_points", "destination=\"away\"")?;
        if waits > 0.0 { Ok(()) } else { Err("nothing is spilled".to_owned()) }
    });
    let file = dir.path().join("spillway.toml");
    let discard = ["replay", "discard", "--all", "--force", "--config"];
    well(Command::new(support::spillway()).args(discard).arg(file));

    let asked = asked_for();
    eventually(Duration::from_secs(60), "all metrics to be there", || {
        let mut shown = BTreeSet::new();
        for node in &cluster.nodes {
            shown.extend(node.api().metrics()?.lines().filter_map(|line| line.split('{').next()).map(str::to_owned));
        }
        let missing: Vec<&String> = asked.iter().filter(|name| !shown.contains(*name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no node shows {missing:?}")) }
    });
    for layer in [Layer::Relay, Layer::Partial, Layer::Final, Layer::Replayer] {
        let said = checked(&cluster.first(layer).api().metrics().unwrap(), dir.path());
        assert_eq!(said, "", "promtool check metrics of {layer:?}");
    }
    away.behave(Behaviour::Read);
    assert!(process.ended().is_none());
}

/// Names in the rules and the dashboard that a node has to show; what rules record themselves is checked on the way.
fn asked_for() -> BTreeSet<String> {
    let recorded: BTreeSet<String> = yaml(&at(ALERTS))
        .iter()
        .flat_map(rules)
        .filter_map(|rule| rule["record"].as_str().map(str::to_owned))
        .collect();
    let in_rules: BTreeSet<String> =
        yaml(&at(ALERTS)).iter().flat_map(rules).flat_map(|rule| metrics_in(text(&rule["expr"]))).collect();
    let in_panels = queries().iter().flat_map(|query| metrics_in(query)).collect::<BTreeSet<_>>();
    let (sums, plain): (BTreeSet<String>, BTreeSet<String>) =
        in_rules.into_iter().chain(in_panels).partition(|name| name.contains(':'));
    let unknown: Vec<String> = sums.difference(&recorded).cloned().collect();
    assert_none("sums that no rule records", &unknown);
    assert!(plain.len() > 30, "{plain:?}");
    plain
}

fn rules(document: &Value) -> Vec<Value> {
    items(&document["groups"]).iter().flat_map(|group| items(&group["rules"])).cloned().collect()
}

/// What `promtool check metrics` says of it.
fn checked(metrics: &str, dir: &Path) -> String {
    let file = dir.join("metrics.txt");
    let input = std::fs::write(&file, metrics).and_then(|()| std::fs::File::open(&file));
    let input = input.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let output = output(Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::from(input)));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
