//! The arrows between crates: ring 3 -> 2 -> 1 -> 0, services never to each other, and what ring 0 may not even name.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{assert_none, root};

/// Each of our crates and the crates of ours it may use. What is not listed here does not exist yet: a new crate is
/// added together with its ring.
const ARROWS: [(&str, &[&str]); 22] = [
    // ring 0, pure
    ("engine", &[]),
    ("store", &["engine"]),
    ("config", &["engine"]),
    ("final-log", &["engine", "store"]),
    ("admin-api", &[]),
    // ring 1, the kit
    ("runtime", &["engine", "telemetry"]),
    ("telemetry", &["engine"]),
    ("auth", &["admin-api"]),
    ("tls", &["config", "engine", "runtime"]),
    ("admin", &["admin-api", "auth", "engine", "runtime", "telemetry", "tls"]),
    ("link", &["engine", "runtime", "telemetry", "tls"]),
    ("output", &["engine", "runtime", "telemetry"]),
    ("store-rocksdb", &["store"]),
    // what every node has in common: between the kit and the services
    (
        "node",
        &["admin", "admin-api", "auth", "config", "engine", "link", "output", "runtime", "store", "telemetry", "tls"],
    ),
    // ring 2, the services
    ("relay", KIT),
    ("aggregator", KIT),
    ("replayer", KIT),
    // ring 3
    (
        "cli",
        &[
            "admin-api",
            "aggregator",
            "auth",
            "config",
            "engine",
            "node",
            "relay",
            "replayer",
            "runtime",
            "store",
            "telemetry",
            "tls",
        ],
    ),
    // ring test
    ("testkit", &["admin-api"]),
    ("sim", &["engine", "final-log", "store"]),
    ("sim-net", &["engine", "link", "output", "runtime", "tls"]),
    // the root package owns the binaries and tests everything
    ("spillway", &["admin-api", "aggregator", "cli", "config", "engine", "relay", "replayer", "runtime", "telemetry"]),
];

/// What a service is built from.
const KIT: &[&str] = &[
    "admin",
    "admin-api",
    "config",
    "engine",
    "final-log",
    "link",
    "node",
    "output",
    "runtime",
    "store",
    "store-rocksdb",
    "telemetry",
    "tls",
];

/// Ring 0 decides; it has no clock, socket, disk or randomness of its own, and a manifest without these proves it.
const RING_0: [&str; 5] = ["engine", "store", "config", "final-log", "admin-api"];
const NOT_IN_RING_0: [&str; 14] = [
    "tokio",
    "tokio-util",
    "rocksdb",
    "socket2",
    "rustix",
    "libc",
    "nix",
    "mio",
    "rand",
    "getrandom",
    "fastrand",
    "hyper",
    "axum",
    "tracing",
];

struct Package {
    name: String,
    /// Names of ordinary and build dependencies.
    uses: BTreeSet<String>,
    /// Names of development dependencies.
    tests_with: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("run cargo metadata: {error}"));
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("metadata: {error}"));
    let packages = metadata["packages"].as_array().unwrap_or_else(|| panic!("metadata without packages"));
    packages.iter().map(package).collect()
}

fn package(package: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (tests_with, uses): (Vec<&Value>, Vec<&Value>) =
        dependencies.iter().partition(|dependency| dependency["kind"] == "dev");
    let names = |list: Vec<&Value>| list.into_iter().map(|dependency| text(&dependency["name"])).collect();
    Package { name: text(&package["name"]), uses: names(uses), tests_with: names(tests_with) }
}

#[test]
fn every_crate_uses_only_what_its_ring_allows() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut broken = Vec::new();
    for package in packages() {
        let Some(allowed) = arrows.get(package.name.as_str()) else {
            broken.push(format!("{} is in no ring: add it to ARROWS with a reason", package.name));
            continue;
        };
        let ours = package.uses.iter().filter(|name| arrows.contains_key(name.as_str()));
        for used in ours.filter(|used| !allowed.contains(&used.as_str())) {
            broken.push(format!("{} must not depend on {used}", package.name));
        }
        if package.name != "spillway" && package.tests_with.contains("testkit") {
            broken.push(format!("{} must not test with testkit: that belongs to the top level", package.name));
        }
    }
    assert_none("DESIGN 9, the three rings", &broken);
}

#[test]
fn services_never_depend_on_each_other() {
    let services = ["relay", "aggregator", "replayer"];
    let broken: Vec<String> = packages()
        .iter()
        .filter(|package| services.contains(&package.name.as_str()))
        .flat_map(|package| {
            let others = services.iter().filter(|service| package.uses.contains(**service));
            others.map(|other| format!("{} depends on {other}", package.name)).collect::<Vec<_>>()
        })
        .collect();
    assert_none("ring 2 crates stand side by side", &broken);
}

#[test]
fn ring_0_names_no_clock_socket_disk_or_randomness() {
    let broken: Vec<String> = packages()
        .iter()
        .filter(|package| RING_0.contains(&package.name.as_str()))
        .flat_map(|package| {
            let impure = NOT_IN_RING_0.iter().filter(|name| package.uses.contains(**name));
            impure.map(|name| format!("{} lists {name}", package.name)).collect::<Vec<_>>()
        })
        .collect();
    assert_none("ring 0 is pure", &broken);
}

#[test]
fn only_the_store_crate_links_rocksdb() {
    let broken: Vec<String> = packages()
        .iter()
        .filter(|package| package.name != "store-rocksdb" && package.uses.contains("rocksdb"))
        .map(|package| format!("{} lists rocksdb", package.name))
        .collect();
    assert_none("other crates' tests must link without C++", &broken);
}
