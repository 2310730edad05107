//! What cannot start says why, all of it at once, with the exit code of its kind, and starts nothing.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use testkit::{Cluster, Keep, Layer, Process, Sink, TempDir, http};

use crate::{small_cluster, support};

/// EX_USAGE and EX_UNAVAILABLE of sysexits(3).
const BAD_CONFIG: i32 = 64;
const UNAVAILABLE: i32 = 69;

#[track_caller]
fn check_port_taken(choose: impl Fn(&Cluster) -> std::net::SocketAddr) {
    let dir = TempDir::new("ports");
    let sink = Sink::start(Keep::Count);
    let cluster = small_cluster(&sink);
    let taken = choose(&cluster);
    let holder = TcpListener::bind(taken).expect("the reserved port is free for us");
    let mut spillway = Process::up_unready(&support::spillway(), &cluster, dir.path(), None);
    let status = spillway.wait_end(Duration::from_secs(20));
    let log = spillway.log_text();
    assert_eq!(status.code(), Some(UNAVAILABLE), "{log}");
    assert!(log.contains(&taken.port().to_string()), "the port {taken} is not named in:\n{log}");
    for node in &cluster.nodes {
        if node.admin != taken {
            assert!(http::get(node.admin, "/v1/live").is_err(), "{} was left running", node.name);
        }
    }
    drop(holder);
}

#[test]
fn a_taken_graphite_port_is_named() {
    check_port_taken(Cluster::graphite);
}

#[test]
fn a_taken_link_port_is_named() {
    check_port_taken(|cluster| cluster.first(Layer::Final).link.expect("a final node has a link"));
}

#[test]
fn a_taken_admin_port_is_named() {
    check_port_taken(|cluster| cluster.first(Layer::Partial).admin);
}

fn up(text: &str) -> Output {
    let dir = TempDir::new("config");
    let file = dir.write("cluster.toml", text);
    Command::new(support::spillway())
        .args(["up", "--config"])
        .arg(file)
        .current_dir(dir.path())
        .output()
        .expect("spillway runs")
}

#[test]
fn every_problem_of_a_config_is_listed_at_once() {
    let output = up(
        "[cluster]\nname = \"x\"\n\n[[node]]\nname = \"relay-1\"\nlayer = \"relais\"\nadmin = \"127.0.0.1:8641\"\n\n\
         [[route]]\nglob = \"**\"\nto = [\"nowhere\"]\n\n[send]\nlinger = \"1 fortnight\"\nbatsch = \"1KiB\"\n",
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(BAD_CONFIG), "{said}");
    for word in ["relais", "nowhere", "fortnight", "batsch", "cluster.toml"] {
        assert!(said.contains(word), "{word} is not mentioned in:\n{said}");
    }
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let output = Command::new(support::spillway())
        .args(["up", "--config", "/nonexistent/spillway.toml"])
        .output()
        .expect("spillway runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(BAD_CONFIG), "{said}");
    assert!(said.contains("/nonexistent/spillway.toml"), "{said}");
}
