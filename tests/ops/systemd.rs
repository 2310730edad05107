//! The systemd unit, with systemd's own eyes.

use std::collections::BTreeMap;
use std::process::Command;

use testkit::TempDir;

use crate::{at, output, read, support, well};

const UNIT: &str = "ops/systemd/spillway@.service";

/// systemd's figure from 0 (shut in) to 10 (open); what is left is the network and the machine's own file tree.
const EXPOSURE_MAX: f64 = 1.5;

fn settings() -> BTreeMap<String, String> {
    let pairs = read(&at(UNIT));
    let pairs = pairs.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = TempDir::new("systemd");
    let unit = read(&at(UNIT)).replace("/usr/bin/spillway", &support::spillway().display().to_string());
    let unit = dir.write("spillway@relay-1.service", &unit);
    let target = dir.write("spillway.target", &read(&at("ops/systemd/spillway.target")));
    let output = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).arg(target));
    let said = String::from_utf8_lossy(&output.stderr);
    // It looks at units of the machine as well, which are not ours.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("spillway")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn the_unit_leaves_a_node_little_to_do_harm_with() {
    let dir = TempDir::new("systemd-security");
    let unit = dir.write("spillway@relay-1.service", &read(&at(UNIT)));
    let said = well(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(unit));
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    let exposure = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
    assert!(exposure <= EXPOSURE_MAX, "{overall}");
}

#[test]
fn it_is_told_when_it_is_ready_never_given_up_and_has_the_time_to_drain() {
    let settings = settings();
    let is = |key: &str, value: &str| assert_eq!(settings.get(key).map(String::as_str), Some(value), "{key}");
    is("Type", "notify");
    is("Restart", "always");
    is("StartLimitIntervalSec", "0");
    is("RestartPreventExitStatus", &cli::Exit::Usage.code().to_string());
    let seconds: u64 = settings["TimeoutStopSec"].parse().unwrap();
    assert!(seconds > cli::assembly::STOP_WITHIN.as_secs(), "TimeoutStopSec={seconds}");
    assert!(settings["WatchdogSec"].parse::<u64>().unwrap() >= 5, "a loaded machine is no hung one");
    assert!(settings["LimitNOFILE"].parse::<u64>().unwrap() > 3 * 20_000, "receive.max_connections, and room");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_socket_and_starts_the_node_of_its_name() {
    let dir = TempDir::new("systemd-socket");
    let unit = read(&at(UNIT)).replace("/usr/bin/spillway", &support::spillway().display().to_string());
    dir.write("spillway@relay-1.service", &unit);
    let socket = dir.write("spillway@relay-1.socket", &read(&at("ops/systemd/spillway@.socket")));
    dir.write("spillway.target", &read(&at("ops/systemd/spillway.target")));
    let output = output(
        Command::new("systemd-analyze")
            .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
            .args(["verify", "--man=no"])
            .arg(socket),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("spillway")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
