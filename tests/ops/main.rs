//! What is shipped under `ops/` beside the scripts: alert rules, runbooks, dashboard, systemd unit, Kubernetes manifests.
//! Each is checked with its own tool where there is one (promtool, systemd-analyze), and against the real binary: every
//! metric that an alert or a panel asks for is one that a real node shows, and every command in a page is one that parses.
//!
//! Needs Debian's `prometheus`, `python3-yaml` and `systemd` (`ops/packages`); nothing of them runs as a service.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod kubernetes;
mod notify;
mod pages;
mod sockets;
mod systemd;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A path below the repository's root.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The output of a program, which must be there.
#[track_caller]
fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `ops/packages prometheus python3-yaml systemd` installs what is needed")
    })
}

/// What a program said, which must have ended well.
#[track_caller]
fn well(command: &mut Command) -> String {
    let output = output(command);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    said
}

/// Files of a folder below the root with one of these endings, sorted.
#[track_caller]
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(at(folder)).unwrap_or_else(|error| panic!("list {folder}: {error}"));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap_or_else(|error| panic!("list {folder}: {error}")).path())
        .filter(|path| path.extension().is_some_and(|of_file| of_file == extension))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{folder} has no .{extension}");
    found
}

/// The documents of a YAML file. Python reads it: no crate of the tree does.
#[track_caller]
fn yaml(path: &Path) -> Vec<Value> {
    let program = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let output = output(Command::new("python3").args(["-c", program]).arg(path));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", path.display());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Items of an array; none when it is not there.
fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Names of metrics in an expression.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("spillway_") || word.starts_with("spillway:")).map(str::to_owned).collect()
}

#[track_caller]
fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}
