//! The rules change while points wait on disk: what was taken under the old rules is aggregated by them, open windows go on, and
//! nothing is lost or counted twice, whatever is restarted first.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use admin_api::ReplayChange;
use testkit::{Cluster, Fleet, Keep, Sink, eventually, one_at_a_time, unix_now};

use crate::{SOON, support, when};

const LONG: Duration = Duration::from_secs(90);

fn rule(name: &str, glob: &str, output: &str, functions: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nglob = \"{glob}\"\noutput = \"{output}\"\ninterval = \"10s\"\ngrace = \"1s\"\n\
         functions = {functions}\nto = [\"carbon\"]\n"
    )
}

/// Two rules, of which one will go.
fn before() -> String {
    rule("all", "load.*", "all.{function}", "[\"sum\", \"count\"]")
        + &rule("gone", "load.*", "gone.{function}", "[\"count\"]")
}

/// Another stands first now, and the one that stays has another name and a function more.
fn after() -> String {
    rule("new", "load.*", "new.{function}", "[\"count\"]")
        + &rule("total", "load.*", "all.{function}", "[\"sum\", \"count\", \"max\"]")
}

#[track_caller]
fn send(fleet: &Fleet, points: usize, at: u64) {
    let mut client = TcpStream::connect(fleet.cluster.graphite()).expect("it listens");
    let text: String = (0..points).map(|n| format!("load.{n} 2 {at}\n")).collect();
    client.write_all(text.as_bytes()).expect("it reads");
}

#[track_caller]
fn replay(fleet: &Fleet, paused: bool) {
    let change = ReplayChange { paused: Some(paused), by: "e2e".to_owned(), ..ReplayChange::default() };
    fleet.api("replayer-1").change_replay(&change).expect("the replayer takes it");
}

fn pending(fleet: &Fleet) -> Result<u64, String> {
    let ledger = fleet.api("relay-1").ledger()?;
    Ok(ledger.destinations.iter().map(|to| to.spill_pending).sum())
}

#[track_caller]
fn check(name: &str, order: [&str; 4]) {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let bare = Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]);
    let bare = bare.with("[send]\nack_timeout = \"1s\"\n");
    let (old, new) = (bare.clone().with(&before()), bare.with(&after()));
    let mut fleet = Fleet::new(name, old, support::program).up();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
    let window = (unix_now() as u64) / 10 * 10 - 60;
    let last = |name: &str| sink.look(|seen| seen.last(name, window));
    let shows = |name: &str, expected: f64| {
        eventually(LONG, &format!("{name} = {expected}"), || when(last(name) == Some(expected), last(name)));
    };
    replay(&fleet, true);
    send(&fleet, 1_000, window);
    shows("all.count", 1_000.0);
    shows("gone.count", 1_000.0);
    fleet.kill("partial-1");
    send(&fleet, 500, window + 3);
    eventually(LONG, "points in the spill", || pending(&fleet).and_then(|points| when(points == 500, points)));
    fleet.start("partial-1");
    fleet.answers("partial-1");

    std::fs::write(fleet.file(), new.toml()).expect("the cluster file");
    for node in order {
        fleet.stop(node);
        if node == "partial-1" {
            // It has nothing that lasts, as in a container: final nodes tell it what it must know.
            fleet.wipe(node);
        }
        fleet.restart(node);
    }
    send(&fleet, 300, window + 6);
    shows("new.count", 300.0);
    shows("all.count", 1_300.0);
    assert_eq!(last("all.max"), Some(2.0), "what old partials have is enough for it");

    replay(&fleet, false);
    shows("all.count", 1_800.0);
    shows("all.sum", 3_600.0);
    shows("gone.count", 1_500.0);
    fleet.settled(LONG);
    assert_eq!(last("new.count"), Some(300.0), "older points were not made for it");
    // Everything once more from the log.
    fleet.kill("final-1");
    fleet.restart("final-1");
    send(&fleet, 1, window + 9);
    shows("all.count", 1_801.0);
    shows("new.count", 301.0);
    assert_eq!(last("gone.count"), Some(1_500.0));
    eventually(SOON, "nothing to be left", || pending(&fleet).and_then(|points| when(points == 0, points)));
    fleet.end();
}

#[test]
fn a_change_of_the_rules_loses_nothing_when_final_nodes_are_restarted_first() {
    check("rules-down-up", ["final-1", "partial-1", "relay-1", "replayer-1"]);
}

#[test]
fn a_change_of_the_rules_loses_nothing_when_relays_are_restarted_first() {
    check("rules-up-down", ["replayer-1", "relay-1", "partial-1", "final-1"]);
}

/// A relay gets a new file; the others still run with the old one. `is_alone`: and no replayer runs that could tell them.
fn ahead(name: &str, sink: &Sink, is_alone: bool) -> (Fleet, Cluster, u64) {
    let bare = Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]);
    let bare = bare.with("[send]\nack_timeout = \"1s\"\n");
    let between = rule("between", "load.*", "between.{function}", "[\"count\"]");
    let mut fleet = Fleet::new(name, bare.clone().with(&before()), support::program).up();
    if is_alone {
        fleet.stop("replayer-1");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
    let window = (unix_now() as u64) / 10 * 10 - 60;
    fleet.stop("relay-1");
    std::fs::write(fleet.file(), bare.clone().with(&between).toml()).expect("the cluster file");
    fleet.restart("relay-1");
    send(&fleet, 200, window);
    (fleet, bare, window)
}

#[test]
fn a_relay_that_is_ahead_teaches_the_others_its_rules_with_what_it_spills() {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let (fleet, _, window) = ahead("rules-ahead", &sink, false);
    let last = |name: &str| sink.look(|seen| seen.last(name, window));
    eventually(LONG, "what was spilled", || when(last("between.count") == Some(200.0), last("between.count")));
    eventually(LONG, "the relay's link", || {
        let peers = fleet.api("relay-1").status()?.peers;
        when(peers.iter().any(|peer| peer.peer == "partial-1" && peer.state == "up"), peers)
    });
    fleet.end();
}

#[test]
fn rules_that_only_a_relay_ever_had_are_known_to_all_when_its_spill_is_replayed() {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let (mut fleet, bare, window) = ahead("rules-between", &sink, true);
    eventually(LONG, "points in the spill", || pending(&fleet).and_then(|points| when(points == 200, points)));
    // The file changes again, before anybody else has seen it.
    std::fs::write(fleet.file(), bare.with(&after()).toml()).expect("the cluster file");
    for node in ["final-1", "partial-1", "relay-1"] {
        fleet.stop(node);
        fleet.restart(node);
    }
    fleet.restart("replayer-1");
    let last = |name: &str| sink.look(|seen| seen.last(name, window));
    eventually(LONG, "what was spilled", || when(last("between.count") == Some(200.0), last("between.count")));
    fleet.settled(LONG);
    assert_eq!((last("new.count"), last("gone.count")), (None, None), "it was made for neither");
    fleet.end();
}

#[test]
fn a_final_node_refuses_the_windows_of_another_list_of_final_nodes() {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let of = |finals: usize| {
        let cluster = Cluster::new(1, 1, finals).store("carbon", &[sink.address()]).route_all(&["aggregate"]);
        cluster.with(&before())
    };
    let two = of(2);
    let mut fleet = Fleet::new("other-finals", two.clone(), support::program).up();
    fleet.stop("final-1");
    let mut one = two.clone();
    one.nodes.retain(|node| node.name != "final-2");
    std::fs::write(fleet.file(), one.toml()).expect("the cluster file");
    let refused = std::process::Command::new(support::program(testkit::Layer::Final))
        .arg("--config")
        .arg(fleet.file())
        .args(["--node", "final-1"])
        .current_dir(fleet.dir())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(70), "{text}");
    assert!(!text.contains("damaged"), "{text}");
    assert!(
        text.contains("16 partitions over final-1, final-2, the cluster file says 16 partitions over final-1:"),
        "{text}"
    );
    std::fs::write(fleet.file(), two.toml()).expect("the cluster file");
    fleet.restart("final-1");
    fleet.end();
}
