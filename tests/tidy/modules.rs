//! The order of modules inside `engine`, which Cargo cannot hold: a module uses only modules of an earlier group or
//! those left of it in its own. The order is read from the header of `crates/engine/src/lib.rs`, so that what a reader
//! is told and what is checked are the same words.

use std::collections::BTreeMap;
use std::path::Path;

use super::{assert_none, read, root, rust_files, shown};

/// Module name -> rank.
fn order() -> BTreeMap<String, usize> {
    let header: String = read(&root().join("crates/engine/src/lib.rs"))
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!"))
        .collect();
    let sentence = header
        .split_once("the order is:")
        .and_then(|(_, after)| after.split_once(". "))
        .map(|(sentence, _)| sentence.to_owned())
        .unwrap_or_else(|| panic!("engine's header no longer says `the order is: ... .`"));
    let quoted = sentence.split('`').skip(1).step_by(2);
    quoted.flat_map(str::split_whitespace).enumerate().map(|(rank, name)| (name.to_owned(), rank)).collect()
}

/// The top-level module a file of engine belongs to.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("crates/engine/src")).ok()?;
    let first = inside.iter().next()?.to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// The modules a line of code names by `crate::module`, also inside `use crate::{a::X, b::Y};` on one line.
fn named(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            found.extend(top_level_parts(group).into_iter().map(|part| word(part.trim())));
        } else {
            found.push(word(after));
        }
    }
    found
}

/// Splits at commas that stand in no inner braces.
fn top_level_parts(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_i32, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(group.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            parts.push(group.get(from..at).unwrap_or_default());
            return parts;
        }
    }
    parts.push(group.get(from..).unwrap_or_default());
    parts
}

#[test]
fn engine_modules_use_only_what_stands_left_of_them() {
    let order = order();
    let mut broken = Vec::new();
    for path in rust_files(&root().join("crates/engine/src")) {
        let Some(module) = module_of(&path) else { continue };
        if module == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        let Some(rank) = order.get(&module) else {
            broken.push(format!("{} is not in the order of lib.rs", shown(&path)));
            continue;
        };
        let text = read(&path);
        let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
        let lines: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in named(&lines) {
            if order.get(&used).is_some_and(|used_rank| used_rank > rank) {
                broken.push(format!("{} uses {used}, which stands right of {module}", shown(&path)));
            }
        }
    }
    assert_none("the order in crates/engine/src/lib.rs", &broken);
}

#[test]
fn names_inside_braces_are_found() {
    assert_eq!(named("use crate::{time::Mono, ring::{Ring, Node}, line};"), ["time", "ring", "line"]);
    assert_eq!(named("let x = crate::batch::Batch::new();"), ["batch"]);
}
