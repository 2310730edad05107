//! Runbooks and tutorials: whole, and true to the binary.

use std::path::PathBuf;
use std::process::Command;

use crate::{assert_none, at, files, output, read, support};

/// All pages under `ops/`.
fn pages() -> Vec<PathBuf> {
    let folders = ["ops", "ops/runbooks", "ops/systemd", "ops/kubernetes"];
    folders.iter().flat_map(|folder| files(folder, "md")).collect()
}

#[test]
fn every_runbook_says_what_to_look_at_what_to_do_and_what_not() {
    let alerts = read(&at("ops/prometheus/alerts.yml"));
    let mut broken = Vec::new();
    for path in files("ops/runbooks", "md") {
        let page = read(&path);
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        for head in ["\n## Look\n", "\n## Do\n", "\n## Do not\n"] {
            if page.matches(head).count() != 1 {
                broken.push(format!("{file}: {head:?}"));
            }
        }
        if !alerts.contains(&format!("ops/runbooks/{file}\n")) {
            broken.push(format!("{file}: no alert names it"));
        }
        if page.lines().count() > 40 {
            broken.push(format!("{file}: longer than what one reads at night"));
        }
        for other in page
            .split("runbook ")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '-')).next())
        {
            if !at(&format!("ops/runbooks/{other}.md")).exists() {
                broken.push(format!("{file}: names a runbook {other:?} that is none"));
            }
        }
    }
    assert_none("runbooks", &broken);
}

/// Commands of `spillway` in a page: lines of a shell block, and inline code.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let code = line.split(" #").next().unwrap_or_default();
            let parts = code.split([';', '|', '>', '&']).map(str::trim);
            found.extend(parts.filter(|part| part.starts_with("spillway ")).map(str::to_owned));
        } else {
            let spans = line.split('`').skip(1).step_by(2).map(str::trim);
            found.extend(spans.filter(|span| span.starts_with("spillway ")).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_command_in_a_page_is_one_of_the_binary() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for command in commands(&read(&page)) {
            let words = command.split_whitespace().skip(1).map(|word| word.trim_matches(['\'', '"']));
            let words: Vec<&str> = words.take_while(|word| !word.starts_with(['>', '|', '&'])).collect();
            let ended = output(Command::new(support::spillway()).args(&words).arg("--help"));
            checked += 1;
            if !ended.status.success() {
                let said = String::from_utf8_lossy(&ended.stderr).lines().next().unwrap_or_default().to_owned();
                broken.push(format!("{}: `{command}`: {said}", page.display()));
            }
        }
    }
    assert!(checked > 60, "only {checked} commands found");
    assert_none("commands that do not parse", &broken);
}

#[test]
fn every_path_of_the_admin_api_in_a_page_is_one() {
    let known = [
        admin_api::paths::LIVE,
        admin_api::paths::HEALTH,
        admin_api::paths::STATUS,
        admin_api::paths::LEDGER,
        admin_api::paths::BADLINES,
        admin_api::paths::REPLAY,
        admin_api::paths::FAILPOINT,
    ];
    let mut broken = Vec::new();
    for page in pages().into_iter().chain([at("ops/prometheus/alerts.yml"), at("ops/grafana/spillway.json")]) {
        for rest in read(&page).split("/v1/").skip(1) {
            let word = rest.split(|c: char| !(c.is_alphanumeric() || c == '/')).next().unwrap_or_default();
            if !known.contains(&format!("/v1/{}", word.trim_end_matches('/')).as_str()) {
                broken.push(format!("{}: /v1/{word}", page.display()));
            }
        }
    }
    assert_none("paths that the admin API does not have", &broken);
}
