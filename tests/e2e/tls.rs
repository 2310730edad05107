//! TLS: links and Graphite clients encrypted and checked, wrong certificates refused by their reason, new ones taken
//! without a restart, and who speaks plain to a TLS port told so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{Admin, Authority, Cluster, Fleet, Keep, Layer, Sink, eventually, one_at_a_time, unix_now};

use crate::replay::{LONG, POINTS, RULE, every_window, pending, send};
use crate::{SOON, small_cluster, support, when};

fn tls(modes: &str) -> String {
    format!("{}{modes}\n", Authority::FILES)
}

fn equipped(name: &str, cluster: Cluster, authority: &Authority) -> Fleet {
    let fleet = Fleet::new(name, cluster, support::program);
    let names = fleet.names();
    authority.equip(fleet.dir(), names.iter().map(String::as_str));
    fleet
}

fn handshakes(api: &Admin, port: &str, side: &str, outcome: &str) -> Result<f64, String> {
    let label = format!("port=\"{port}\",side=\"{side}\",outcome=\"{outcome}\"");
    api.metric("spillway_tls_handshakes_total", &label)
}

/// Waits until `node` has counted such a handshake.
#[track_caller]
fn counted(api: &Admin, port: &str, side: &str, outcome: &str) {
    eventually(SOON, &format!("{port} {side} {outcome}"), || {
        let count = handshakes(api, port, side, outcome)?;
        when(count >= 1.0, api.metrics()?.lines().filter(|line| line.contains("tls_")).collect::<Vec<_>>())
    });
}

/// Waits until `node` says this of its link to `peer`.
#[track_caller]
fn says(api: &Admin, peer: &str, what: &str) {
    eventually(SOON, what, || {
        let peers = api.status()?.peers;
        let said = peers.iter().find(|each| each.peer == peer).and_then(|each| each.last_error.clone());
        when(said.as_ref().is_some_and(|said| said.contains(what)), said)
    });
}

#[track_caller]
fn up(api: &Admin, peer: &str) {
    eventually(SOON, &format!("the link to {peer}"), || {
        let peers = api.status()?.peers;
        when(peers.iter().any(|each| each.peer == peer && each.state == "up"), peers)
    });
}

#[test]
fn every_link_is_encrypted_both_ways_and_spill_replay_and_aggregates_are_what_they_are_without() {
    let _turn = one_at_a_time();
    let (sink, authority) = (Sink::start(Keep::Points), Authority::new());
    let settings =
        "[replay]\nadaptive = false\nrate = \"1000000/s\"\n[send]\nack_timeout = \"1s\"\nbatch = \"16KiB\"\n";
    let cluster = Cluster::new(1, 1, 1)
        .store("carbon", &[sink.address()])
        .route_all(&["aggregate"])
        .with(RULE)
        .with(settings)
        .with(&tls("links = \"mutual\""));
    let mut fleet = equipped("tls-links", cluster, &authority).up();
    let relay = fleet.api("relay-1");
    fleet.kill("partial-1");
    let first = send(fleet.cluster.graphite());
    eventually(LONG, "everything in the spill", || {
        let pending = pending(&relay)?;
        when(pending == POINTS, pending)
    });
    fleet.restart("partial-1");
    every_window(&sink, first);
    eventually(LONG, "balanced books without anything on its way", || {
        let ledger = relay.ledger()?;
        let open: u64 = ledger.destinations.iter().map(|to| to.spill_pending + to.in_flight).sum();
        when(ledger.balanced && open == 0, ledger)
    });
    for (node, side) in [
        ("relay-1", "accepted"),
        ("relay-1", "dialled"),
        ("partial-1", "accepted"),
        ("partial-1", "dialled"),
        ("final-1", "accepted"),
        ("replayer-1", "dialled"),
    ] {
        counted(&fleet.api(node), "links", side, "done");
    }
    let left = fleet.api("final-1").status().expect("answers").figures["tls_certificate_seconds_left"];
    assert!(left > 10 * 365 * 86_400, "{left}");
    fleet.end();
}

#[test]
fn a_wrong_certificate_is_refused_by_its_reason_and_a_right_one_is_taken_without_a_restart() {
    let _turn = one_at_a_time();
    let (sink, authority, stranger) = (Sink::start(Keep::Count), Authority::new(), Authority::new());
    let cluster = small_cluster(&sink).with(&tls("links = \"mutual\""));
    let mut fleet = equipped("tls-wrong", cluster, &authority);
    let dir = fleet.dir().to_owned();
    // The partial node shows what the relay must not take.
    stranger.issue(&dir, "partial-1", "partial-1");
    for name in fleet.names() {
        fleet.start(&name);
        fleet.answers(&name);
    }
    let (relay, partial, fin) = (fleet.api("relay-1"), fleet.api("partial-1"), fleet.api("final-1"));
    says(&relay, "partial-1", "is not signed by `tls.authority`");
    counted(&relay, "links", "dialled", "tls_untrusted");
    counted(&partial, "links", "accepted", "tls_refused");
    // It dials, too: the final node does not take it either, and says so to it.
    counted(&fin, "links", "accepted", "tls_untrusted");
    says(&partial, "final-1", "the peer refused the TLS handshake");

    authority.issue_expired(&dir, "partial-1", "partial-1");
    says(&relay, "partial-1", "has expired");
    authority.issue(&dir, "partial-1", "partial-2");
    says(&relay, "partial-1", "for another name");
    // It trusts the relay and greets under its own name, which its certificate has not.
    says(&partial, "final-1", "this node's certificate is for another name");
    let closed = |reason: &str| fin.metric("spillway_links_closed_total", &format!("reason=\"{reason}\""));
    eventually(SOON, "the final node to count it", || {
        let count = closed("tls_wrong_name")?;
        when(count >= 1.0, count)
    });

    authority.issue(&dir, "partial-1", "partial-1");
    up(&relay, "partial-1");
    up(&partial, "final-1");
    let reloads = partial.metric("spillway_tls_reloads_total", "outcome=\"done\"").expect("answers");
    assert!((3.0..=6.0).contains(&reloads), "{reloads}");

    // Rubbish changes nothing but is told.
    std::fs::write(dir.join("tls/partial-1.pem"), "rubbish").expect("writes");
    eventually(SOON, "the refusal", || {
        let refused = partial.metric("spillway_tls_files_refused", "")?;
        when(refused >= 1.0, refused)
    });
    up(&relay, "partial-1");
    fleet.end();
}

#[test]
fn plain_and_encrypted_nodes_tell_each_other_what_would_be_right() {
    let _turn = one_at_a_time();
    let (sink, authority) = (Sink::start(Keep::Count), Authority::new());
    let plain = small_cluster(&sink);
    let guarded = plain.clone().with(&tls("links = \"on\""));
    // The partial node is plain between two that are not.
    let mut fleet = equipped("tls-mixed", guarded, &authority).sees("partial-1", &plain);
    for name in fleet.names() {
        fleet.start(&name);
        fleet.answers(&name);
    }
    let (relay, partial, fin) = (fleet.api("relay-1"), fleet.api("partial-1"), fleet.api("final-1"));
    says(&relay, "partial-1", "the peer closed in the TLS handshake: it may speak plain TCP");
    eventually(SOON, "the plain node to count it", || {
        let count = partial.metric("spillway_links_closed_total", "reason=\"tls_unexpected\"")?;
        when(count >= 1.0, count)
    });
    says(&partial, "final-1", "the peer takes links over TLS only");
    counted(&fin, "links", "accepted", "tls_plain");
    fleet.end();
}

/// Lines through `openssl s_client`, with a certificate if `shown`. What it said.
fn openssl(to: SocketAddr, dir: &Path, shown: bool, lines: &str) -> String {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-brief",
        "-nocommands",
        "-verify_return_error",
        "-verify_hostname",
        "relay-1",
        "-CAfile",
    ]);
    command.arg(dir.join("tls/ca.pem")).args(["-connect", &to.to_string()]);
    if shown {
        command.arg("-cert").arg(dir.join("tls/relay-1.pem")).arg("-key").arg(dir.join("tls/relay-1.key"));
    }
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("openssl is installed (ops/packages openssl)");
    if let Some(mut stdin) = child.stdin.take() {
        // Refused, it is gone before it has read everything.
        let _written = stdin.write_all(lines.as_bytes()).is_ok();
    }
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn graphite_clients_are_taken_over_tls_and_whoever_speaks_otherwise_is_counted() {
    let _turn = one_at_a_time();
    let (sink, authority) = (Sink::start(Keep::Points), Authority::new());
    let cluster = small_cluster(&sink)
        .with("[receive]\nidle_timeout = \"2s\"\n")
        .with("[telemetry]\ngraphite = \"route\"\ninterval = \"1s\"\n")
        .with(&tls("graphite = \"mutual\""));
    let fleet = equipped("tls-graphite", cluster, &authority).up();
    let (relay, to) = (fleet.api("relay-1"), fleet.cluster.graphite());
    let closed = |reason: &str, least: f64| {
        eventually(SOON, reason, || {
            let count = relay.metric("spillway_connections_closed_total", &format!("reason=\"{reason}\""))?;
            when(count >= least, relay.metrics()?.lines().filter(|l| l.contains("_closed_")).collect::<Vec<_>>())
        });
    };
    let now = unix_now().trunc();
    let lines: String = (0..20_000).map(|n| format!("web.tls.{n} {n} {now}\n")).collect();
    let said = openssl(to, fleet.dir(), true, &lines);
    assert!(said.contains("Verification: OK"), "{said}");
    eventually(SOON, "every line at the store", || {
        let found = sink.look(|seen| seen.names().iter().filter(|name| name.starts_with("web.tls.")).count());
        when(found == 20_000, found)
    });
    closed("eof", 1.0);
    // Nodes report themselves over TLS as well.
    eventually(SOON, "own metrics at the store", || {
        let names = sink.look(|seen| seen.names());
        when(names.iter().any(|name| name.starts_with("carbon.aggregator.")), names.len())
    });

    openssl(to, fleet.dir(), false, "web.stranger 1 1\n");
    closed("tls_no_certificate", 1.0);
    let mut plain = TcpStream::connect(to).expect("connects");
    plain.write_all(format!("web.plain 1 {now}\n").as_bytes()).expect("writes");
    let mut rest = Vec::new();
    let _ended = plain.read_to_end(&mut rest).is_ok();
    assert_eq!(rest, b"", "it is closed");
    closed("tls_plain", 1.0);
    // Half-open: nothing said, or a record begun and not ended.
    let _silent = TcpStream::connect(to).expect("connects");
    let mut slow = TcpStream::connect(to).expect("connects");
    slow.write_all(&[0x16, 3, 1, 2]).expect("writes");
    closed("tls_timeout", 2.0);
    // Idle in an encrypted connection: reaped as a plain one.
    let mut idle = Command::new("openssl");
    idle.args(["s_client", "-quiet", "-connect", &to.to_string(), "-cert"]).arg(fleet.dir().join("tls/relay-1.pem"));
    idle.arg("-key").arg(fleet.dir().join("tls/relay-1.key"));
    let mut idle = idle.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl");
    closed("timeout_idle", 1.0);
    idle.wait().expect("it ends");
    assert!(!sink.look(|seen| seen.names()).iter().any(|name| name == "web.plain" || name == "web.stranger"));
    fleet.end();
}

#[test]
fn a_plain_relay_knows_a_tls_client_when_it_sees_one() {
    let (sink, authority) = (Sink::start(Keep::Count), Authority::new());
    let fleet = equipped("tls-unexpected", small_cluster(&sink), &authority).up();
    openssl(fleet.cluster.graphite(), fleet.dir(), false, "web.a 1 1\n");
    let relay = fleet.cluster.first(Layer::Relay).api();
    eventually(SOON, "the reason", || {
        let count = relay.metric("spillway_connections_closed_total", "reason=\"tls_unexpected\"")?;
        when(count >= 1.0, count)
    });
    assert_eq!(relay.ledger().expect("answers").rejected.values().sum::<u64>(), 0, "no bad lines of it");
    fleet.end();
}

#[test]
fn a_key_that_everybody_can_read_keeps_a_node_from_starting() {
    let (sink, authority) = (Sink::start(Keep::Count), Authority::new());
    let fleet = equipped("tls-open-key", small_cluster(&sink).with(&tls("links = \"on\"")), &authority);
    let key = fleet.dir().join("tls/relay-1.key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("sets the mode");
    let mut command = Command::new(support::program(Layer::Relay));
    command.args(["--node", "relay-1", "--config"]).arg(fleet.dir().join("cluster.toml")).current_dir(fleet.dir());
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() && said.contains("open to every user of this machine (mode 0644): chmod o= "),
        "{said}"
    );
}
