//! Rules about the text of files.

use std::path::Path;

use super::{assert_none, read, root, rust_files, shown};

/// A file longer than this has more than one responsibility.
const LINES_MAX: usize = 500;

/// Words that may stand in the code of `runtime` only (and in that of the test kit, which has no supervisor).
const ONLY_IN_RUNTIME: [(&str, &str); 8] = [
    ("tokio::spawn", "use Supervisor::spawn_task"),
    ("thread::spawn", "use Supervisor::spawn_thread"),
    ("thread::Builder", "use Supervisor::spawn_thread"),
    ("spawn_blocking", "use a thread of its own"),
    ("Instant::now", "take `now: Mono`"),
    ("SystemTime::now", "take `UnixSeconds`"),
    ("unbounded_channel", "every queue has a limit"),
    ("channel::unbounded", "every queue has a limit"),
];

/// The part of a file that ships: without the tests at its end, and without whole comment lines.
fn shipped(text: &str) -> Vec<(usize, &str)> {
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let (code, _tests) = text.split_at(end);
    code.lines().enumerate().map(|(index, line)| (index + 1, line)).collect()
}

fn is_test_file(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn the_files_a_reader_looks_for_exist() {
    let wanted = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Cargo.lock",
        "deny.toml",
        ".clippy.toml",
        ".rustfmt.toml",
        ".ci/run",
        "ops/up",
        "ops/down",
        "ops/test",
        "config/spillway.toml",
    ];
    let missing: Vec<String> =
        wanted.iter().filter(|name| !root().join(name).exists()).map(|name| (*name).to_owned()).collect();
    assert_none("missing at the root", &missing);
}

#[test]
fn no_file_is_longer_than_one_responsibility() {
    let broken: Vec<String> = rust_files(&root().join("crates"))
        .iter()
        .filter(|path| !is_test_file(path))
        .map(|path| (path, shipped(&read(path)).len()))
        .filter(|(_, lines)| *lines >= LINES_MAX)
        .map(|(path, lines)| format!("{} has {lines} lines without its tests", shown(path)))
        .collect();
    assert_none("fewer than 500 lines a file", &broken);
}

#[test]
fn tasks_clocks_and_unbounded_queues_stand_in_runtime_only() {
    let mut broken = Vec::new();
    for path in rust_files(&root().join("crates")) {
        let name = shown(&path);
        if is_test_file(&path) || name.starts_with("crates/runtime/") || name.starts_with("crates/testkit/") {
            continue;
        }
        for (number, line) in shipped(&read(&path)) {
            let code = line.split("//").next().unwrap_or_default();
            for (word, instead) in ONLY_IN_RUNTIME {
                if code.contains(word) {
                    broken.push(format!("{name}:{number}: {word}: {instead}"));
                }
            }
        }
    }
    assert_none("outside crates/runtime", &broken);
}

#[test]
fn every_module_opens_with_its_contract() {
    let broken: Vec<String> = rust_files(&root().join("crates"))
        .iter()
        .filter(|path| !is_test_file(path) && !read(path).starts_with("//!"))
        .map(|path| shown(path))
        .collect();
    assert_none("no `//!` header", &broken);
}

#[test]
fn no_crate_is_a_drawer_for_odds_and_ends() {
    let names = ["utils", "util", "common", "helpers", "misc", "types", "traits"];
    let broken: Vec<String> = rust_files(&root().join("crates"))
        .iter()
        .filter(|path| {
            let in_crates = path.strip_prefix(root()).unwrap_or(path);
            in_crates.iter().any(|part| {
                let part = part.to_string_lossy();
                names.contains(&part.trim_end_matches(".rs"))
            })
        })
        .map(|path| shown(path))
        .collect();
    assert_none("split by responsibility, not by kind", &broken);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let crates = std::fs::read_dir(root().join("crates")).unwrap_or_else(|error| panic!("list crates: {error}"));
    let broken: Vec<String> = crates
        .map(|entry| entry.unwrap_or_else(|error| panic!("list crates: {error}")).path().join("Cargo.toml"))
        .filter(|manifest| manifest.exists() && !read(manifest).contains("[lints]\nworkspace = true"))
        .map(|manifest| shown(&manifest))
        .collect();
    assert_none("`[lints] workspace = true` is missing", &broken);
}
