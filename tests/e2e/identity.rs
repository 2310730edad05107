//! Who a relay is: one that runs on a copy of another's data directory takes nothing and says why, and costs the other
//! nothing; one that was started again is at once itself.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Cluster, Keep, Layer, Node, Process, Sink, TempDir, eventually, one_at_a_time, unix_now};

use crate::million::RULE;
use crate::{SOON, support, when};

/// Windows of ten seconds, and their grace.
const LONG: Duration = Duration::from_secs(60);

fn start(cluster_file: &Path, dir: &TempDir, node: &Node) -> Process {
    let mut command = Command::new(support::spillway());
    command.args(["up", "--node", &node.name, "--config"]).arg(cluster_file).current_dir(dir.path());
    Process::start(&node.name, command, &dir.path().join(format!("{}.log", node.name)))
}

#[track_caller]
fn ready(node: &Node) {
    eventually(SOON, &node.name, || node.api().health().and_then(|(health, ready)| when(ready, health)));
}

#[track_caller]
fn send(node: &Node, lines: usize) {
    let mut client = TcpStream::connect(node.graphite.expect("a relay")).expect("it listens");
    let now = unix_now();
    let text: String = (0..lines).map(|n| format!("load.{n} 1 {now:.0}\n")).collect();
    client.write_all(text.as_bytes()).expect("it reads");
}

fn delivered(node: &Node) -> Result<u64, String> {
    let ledger = node.api().ledger()?;
    Ok(ledger.destinations.iter().map(|to| to.delivered).sum())
}

#[test]
fn a_relay_on_a_copied_data_directory_takes_nothing_says_why_and_costs_the_other_nothing() {
    let _turn = one_at_a_time();
    let dir = TempDir::new("copied-directory");
    let sink = Sink::start(Keep::Points);
    let cluster = Cluster::new(2, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate"]).with(RULE);
    let file = dir.write("cluster.toml", &cluster.toml());
    let [original, copy] = [cluster.named("relay-1"), cluster.named("relay-2")];
    let others: Vec<Process> =
        [Layer::Final, Layer::Partial].into_iter().map(|layer| start(&file, &dir, cluster.first(layer))).collect();
    let mut first = start(&file, &dir, original);
    ready(original);
    send(original, 10);
    eventually(SOON, "the first points", || delivered(original).and_then(|n| when(n == 10, n)));

    let [from, to] = ["relay-1", "relay-2"].map(|name| dir.path().join("data").join(name));
    std::fs::create_dir_all(&to).expect("a directory");
    std::fs::copy(from.join("identity"), to.join("identity")).expect("the copy");
    let second = start(&file, &dir, copy);
    let says = eventually(SOON, "the copy to say what is wrong", || {
        let (health, ready) = copy.api().health()?;
        let text = format!("{health:?}");
        when(!ready && text.contains("a data directory was copied"), &text)?;
        Ok::<String, String>(text)
    });
    assert!(says.contains("relay.identity"), "{says}");
    eventually(SOON, "the copy to take nothing", || {
        let figures = copy.api().status()?.figures;
        when(figures.get("reading_clients") == Some(&0), figures)
    });
    send(copy, 5);
    send(original, 10);
    eventually(SOON, "the original goes on", || delivered(original).and_then(|n| when(n == 20, n)));
    let ledger = copy.api().ledger().expect("a ledger");
    assert_eq!((ledger.accepted, ledger.balanced), (0, true), "{ledger:?}");

    // Killed and started again, the original is itself at once; its peers have hardly noticed its end. (It may also find
    // the copy in its place: then the copy is the one that works, and that is as good.)
    drop(second);
    first.signal(Signal::KILL);
    first.wait_end(SOON);
    let again = start(&file, &dir, original);
    ready(original);
    send(original, 7);
    eventually(SOON, "the points of its next life", || delivered(original).and_then(|n| when(n == 7, n)));
    let total = || sink.look(|seen| seen.series("all.count").values().sum::<f64>());
    eventually(LONG, "every point once", || when((total() - 27.0).abs() < 0.5, total()));
    again.stop(&[]);
    others.into_iter().rev().for_each(|process| process.stop(&["link closed"]));
}
