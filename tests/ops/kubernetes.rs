//! The Kubernetes manifests, as far as they can be judged without a cluster: they hang together with each other, with the
//! cluster file in them, and with what a node really serves.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use testkit::TempDir;

use crate::{assert_none, files, items, support, text, well, yaml};

const PROBES: [(&str, &str); 3] = [
    ("startupProbe", admin_api::paths::LIVE),
    ("livenessProbe", admin_api::paths::LIVE),
    ("readinessProbe", admin_api::paths::HEALTH),
];

fn manifests() -> Vec<Value> {
    files("ops/kubernetes", "yaml").iter().flat_map(|path| yaml(path)).collect()
}

fn of_kind<'m>(all: &'m [Value], kind: &str) -> Vec<&'m Value> {
    all.iter().filter(|manifest| manifest["kind"] == kind).collect()
}

fn name(manifest: &Value) -> &str {
    text(&manifest["metadata"]["name"])
}

fn workloads(all: &[Value]) -> Vec<&Value> {
    [of_kind(all, "StatefulSet"), of_kind(all, "Deployment")].concat()
}

/// The names of its pods' nodes.
fn nodes_of(workload: &Value) -> Vec<String> {
    match text(&workload["kind"]) {
        "Deployment" => vec![name(workload).to_owned()],
        _ => (0..workload["spec"]["replicas"].as_u64().unwrap_or_default())
            .map(|i| format!("{}-{i}", name(workload)))
            .collect(),
    }
}

fn cluster_file(all: &[Value]) -> String {
    let map = of_kind(all, "ConfigMap");
    text(&map[0]["data"]["spillway.toml"]).to_owned()
}

#[test]
fn every_document_has_what_kubernetes_asks_of_all() {
    let mut seen = BTreeSet::new();
    let mut broken = Vec::new();
    for manifest in &manifests() {
        let what = format!("{} {}", text(&manifest["kind"]), name(manifest));
        if text(&manifest["apiVersion"]).is_empty() || name(manifest).is_empty() {
            broken.push(format!("{what}: apiVersion, kind or name is missing"));
        }
        if !seen.insert(what.clone()) {
            broken.push(format!("{what} is there twice"));
        }
        let is_global = ["Namespace", "PriorityClass"].contains(&text(&manifest["kind"]));
        if !is_global && manifest["metadata"]["namespace"] != "spillway" {
            broken.push(format!("{what}: not in the namespace"));
        }
    }
    assert_none("manifests", &broken);
}

#[test]
fn the_cluster_file_is_good_and_every_pod_is_a_node_of_it() {
    let all = manifests();
    let dir = TempDir::new("kubernetes");
    let file = dir.write("spillway.toml", &cluster_file(&all));
    let said = well(Command::new(support::spillway()).args(["config", "check", "--config"]).arg(&file));
    assert!(said.contains("good (7 nodes)"), "{said}");
    let shown = well(Command::new(support::spillway()).args(["config", "show", "--config"]).arg(&file));
    let pods: BTreeSet<String> = workloads(&all).into_iter().flat_map(nodes_of).collect();
    let nodes: BTreeSet<String> = node_names(&shown).into_iter().collect();
    assert_eq!(pods, nodes);
}

fn node_names(toml: &str) -> Vec<String> {
    let mut in_node = false;
    let mut names = Vec::new();
    for line in toml.lines() {
        if line.starts_with('[') {
            in_node = line.starts_with("[[node]]");
        }
        if let Some(rest) = line.strip_prefix("name = \"").filter(|_| in_node) {
            names.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    names
}

#[test]
fn every_node_has_a_service_with_the_address_and_the_ports_of_the_cluster_file() {
    let all = manifests();
    let toml = cluster_file(&all);
    let services: BTreeMap<&str, &Value> = of_kind(&all, "Service").into_iter().map(|s| (name(s), s)).collect();
    for block in toml.split("[[node]]").skip(1) {
        let block = block.split("\n[").next().unwrap();
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
            line.map(|rest| rest.trim_end_matches('"').to_owned())
        };
        let node = value("name").unwrap();
        let service = services.get(node.as_str()).unwrap_or_else(|| panic!("no Service {node}"));
        assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "{node}: links come before readiness");
        for key in ["graphite", "link", "admin"] {
            let port = items(&service["spec"]["ports"]).iter().find(|port| port["name"] == key);
            let served = port.map(|port| format!("{}:{}", text(&service["spec"]["clusterIP"]), port["port"]));
            assert_eq!(served, value(key), "{node}: {key}");
        }
    }
}

#[test]
fn every_workload_has_a_priority_a_budget_probes_and_the_time_to_drain() {
    let all = manifests();
    let classes: Vec<&Value> = of_kind(&all, "PriorityClass");
    for class in &classes {
        assert_eq!(class["globalDefault"], false, "{}: other pods would get it", name(class));
        assert_eq!(class["preemptionPolicy"], "Never", "{}", name(class));
    }
    let workloads = workloads(&all);
    assert_eq!(workloads.len(), 4);
    for workload in workloads {
        let (what, pod) = (name(workload), &workload["spec"]["template"]["spec"]);
        assert!(classes.iter().any(|class| name(class) == text(&pod["priorityClassName"])), "{what}: priority class");
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels, "{what}: selector");
        let budgets = of_kind(&all, "PodDisruptionBudget");
        let its = budgets.iter().find(|budget| &budget["spec"]["selector"]["matchLabels"] == labels);
        assert_eq!(its.map(|budget| &budget["spec"]["maxUnavailable"]), Some(&Value::from(1)), "{what}: budget");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > cli::assembly::STOP_WITHIN.as_secs(), "{what}: {grace} s are too few to drain");
        check_container(what, &items(&pod["containers"])[0]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
    }
}

fn check_container(what: &str, container: &Value) {
    let ports: Vec<&str> = items(&container["ports"]).iter().map(|port| text(&port["name"])).collect();
    for (probe, path) in PROBES {
        let get = &container[probe]["httpGet"];
        assert_eq!(text(&get["path"]), path, "{what}: {probe}");
        assert!(ports.contains(&text(&get["port"])), "{what}: {probe} asks a port that is none");
    }
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false, "{what}");
    assert_eq!(security["readOnlyRootFilesystem"], true, "{what}");
    assert_eq!(security["capabilities"]["drop"][0], "ALL", "{what}");
    let resources = &container["resources"];
    assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"], "{what}: memory is reserved");
    let program = text(&container["command"][0]);
    let program = support::spillway().with_file_name(program);
    let arguments = items(&container["command"]).iter().skip(1).map(text);
    well(Command::new(program).args(arguments).arg("--help"));
}

/// What holds points on disk keeps them when its pod, or the whole set, goes.
#[test]
fn relays_and_final_nodes_keep_their_volumes() {
    let all = manifests();
    for layer in ["relay", "final"] {
        let sets = of_kind(&all, "StatefulSet");
        let set = sets.iter().find(|set| name(set) == layer).unwrap();
        let policy = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
        assert_eq!((text(&policy["whenDeleted"]), text(&policy["whenScaled"])), ("Retain", "Retain"), "{layer}");
        assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "data", "{layer}");
        assert_eq!(set["spec"]["podManagementPolicy"], "Parallel", "{layer}: one ill pod must not hold up the rest");
    }
}

/// The admin port is open to the whole pod network: every pod has the tokens that its cluster file asks for, and the
/// manifests bring none that everybody knows.
#[test]
fn every_pod_has_the_token_files_of_the_cluster_file_for_its_group_only() {
    let all = manifests();
    let toml = cluster_file(&all);
    assert!(of_kind(&all, "Secret").is_empty(), "a token that stands here is no secret");
    let files: Vec<&str> = toml.lines().filter(|line| line.contains("/etc/spillway-tokens/")).collect();
    assert_eq!(files, ["read = \"/etc/spillway-tokens/read\"", "operate = \"/etc/spillway-tokens/operate\""]);
    for workload in workloads(&all) {
        let (what, pod) = (name(workload), &workload["spec"]["template"]["spec"]);
        let find = |list: &Value| items(list).iter().find(|item| item["name"] == "tokens").cloned().unwrap_or_default();
        let mount = find(&items(&pod["containers"])[0]["volumeMounts"]);
        assert_eq!(
            (text(&mount["mountPath"]), &mount["readOnly"]),
            ("/etc/spillway-tokens", &Value::from(true)),
            "{what}"
        );
        let secret = &find(&pod["volumes"])["secret"];
        assert_eq!(text(&secret["secretName"]), "spillway-tokens", "{what}");
        // The group reads, nobody else: 0440, which YAML takes for octal.
        assert!(["0440", "288"].contains(&secret["defaultMode"].to_string().trim_matches('"')), "{what}: {secret}");
        assert!(pod["securityContext"]["fsGroup"].is_number(), "{what}");
    }
}
