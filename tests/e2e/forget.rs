//! A relay that never returns is forgotten with what it had spilled: counted, refused for ever, waited for by nobody. When
//! it comes back all the same, it takes nothing and says why.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use admin_api::ReplayChange;
use testkit::{Cluster, Fleet, Keep, Sink, eventually, one_at_a_time, unix_now};

use crate::million::RULE;
use crate::{SOON, support, when};

const LONG: Duration = Duration::from_secs(90);
const QUICK: &str = "[send]\nack_timeout = \"1s\"\n";

#[track_caller]
fn send(fleet: &Fleet, relay: &str, lines: usize) {
    let mut client = TcpStream::connect(fleet.cluster.named(relay).graphite.expect("a relay")).expect("it listens");
    let now = unix_now();
    let text: String = (0..lines).map(|n| format!("load.{n} 1 {now:.0}\n")).collect();
    client.write_all(text.as_bytes()).expect("it reads");
}

fn spillway(fleet: &Fleet, arguments: &[&str]) -> Output {
    let file = fleet.dir().join("cluster.toml");
    Command::new(support::spillway()).args(arguments).arg("--config").arg(file).output().expect("it runs")
}

fn pending(fleet: &Fleet) -> Result<u64, String> {
    let ledger = fleet.api("relay-1").ledger()?;
    Ok(ledger.destinations.iter().map(|to| to.spill_pending).sum())
}

#[track_caller]
fn replay(fleet: &Fleet, paused: bool) {
    let change = ReplayChange { paused: Some(paused), by: "e2e".to_owned(), ..ReplayChange::default() };
    fleet.api("replayer-1").change_replay(&change).expect("the replayer takes it");
}

#[test]
fn a_relay_that_never_returns_is_forgotten_and_its_ghost_says_so() {
    let _turn = one_at_a_time();
    let sink = Sink::start(Keep::Points);
    let cluster =
        Cluster::new(2, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]).with(RULE).with(QUICK);
    let mut fleet = Fleet::new("forget", cluster, support::program).up();
    let total = || sink.look(|seen| seen.series("all.count").values().sum::<f64>());
    let counted = |what: &str, expected: f64| {
        eventually(LONG, what, || when((total() - expected).abs() < 0.5, total()));
    };
    replay(&fleet, true);
    send(&fleet, "relay-1", 1_000);
    counted("the points before", 1_000.0);
    fleet.kill("partial-1");
    send(&fleet, "relay-1", 2_000);
    eventually(LONG, "points in the spill", || pending(&fleet).and_then(|points| when(points == 2_000, points)));
    fleet.restart("partial-1");
    eventually(SOON, "the relay's link, and the replayer to know", || {
        let peers = fleet.api("relay-1").status()?.peers;
        when(peers.iter().any(|peer| peer.peer == "partial-1" && peer.state == "up"), &peers)?;
        let status = fleet.api("replayer-1").replay()?;
        when(status.backlog_points == 2_000, status)
    });
    fleet.kill("relay-1");

    let refused = spillway(&fleet, &["node", "forget", "relay-1"]);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{text}");
    for part in ["does not answer", "would be lost", "2000", "replayer-1, when it last heard of it", "--force"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let done = spillway(&fleet, &["node", "forget", "relay-1", "--force"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{text}");
    assert!(text.contains("relay-1 is forgotten: 4 of 4 nodes know it; 2000 points are counted as lost"), "{text}");
    let again = spillway(&fleet, &["node", "forget", "relay-1", "--force"]);
    assert_eq!(again.status.code(), Some(0), "sent twice it is once done");

    // It outlives the final node, and the others go on; what they spill meanwhile is replayed.
    replay(&fleet, false);
    fleet.kill("final-1");
    fleet.restart("final-1");
    for node in ["final-1", "partial-1", "relay-2", "replayer-1"] {
        let lost = fleet.api(node).metric("spillway_forgotten_points", "relay-1").expect("the gauge is there");
        assert!((lost - 2_000.0).abs() < 0.5, "{node}: {lost}");
        let orders = fleet.api(node).orders().expect("it answers");
        assert_eq!(orders.iter().filter(|entry| entry.what == "forget/relay-1").count(), 1, "{node}: {orders:?}");
    }
    send(&fleet, "relay-2", 500);
    counted("the points of the other relay", 1_500.0);

    // The ghost: nothing of it is taken, neither new points nor what it had spilled.
    fleet.restart("relay-1");
    eventually(LONG, "the ghost to say what it is", || {
        let text = format!("{:?}", fleet.api("relay-1").status()?.verdict);
        when(text.contains("relay.identity") && text.contains("an operator has forgotten this node"), text)
    });
    eventually(SOON, "the ghost to take nothing", || {
        let figures = fleet.api("relay-1").status()?.figures;
        when(figures.get("reading_clients") == Some(&0), figures)
    });
    eventually(LONG, "its spill to be refused", || {
        let spill = fleet.api("relay-1").spill()?;
        let refused: u64 = spill.lanes.iter().filter_map(|lane| lane.dropped.get("duplicate_sender")).sum();
        when(refused == 2_000 && pending(&fleet)? == 0, spill)
    });
    send(&fleet, "relay-2", 50);
    counted("nothing of the ghost", 1_550.0);
    let ledger = fleet.api("relay-1").ledger().expect("it answers");
    assert!(ledger.balanced, "{ledger:?}");
}
