//! A bad line is counted by its reason, kept as a sample, and harms neither its neighbours nor its connection.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use testkit::{Keep, Layer, Process, Sink, TempDir, eventually};

use crate::{SOON, small_cluster, support, when};

/// Every reason that one line can have, with a line that has it.
const BAD: [(&str, &[u8]); 13] = [
    ("empty", b" \t "),
    ("too_few_fields", b"name"),
    ("too_many_fields", b"a b 1 1700000000"),
    ("bad_value", b"a 0x10 1700000000"),
    ("nan", b"a nan 1700000000"),
    ("infinite", b"a inf 1700000000"),
    ("bad_timestamp", b"a 1 yesterday"),
    ("timestamp_out_of_range", b"a 1 99999999999"),
    ("bad_utf8", b"a\xff\xfe 1 1700000000"),
    ("control_character", b"a\x01b 1 1700000000"),
    ("empty_name", b";a=b 1 1700000000"),
    ("bad_tag", b"a;b 1 1700000000"),
    ("bad_tag", b"a;=c 1 1700000000"),
];

#[test]
fn each_is_counted_sampled_and_survived() {
    let dir = TempDir::new("badlines");
    let sink = Sink::start(Keep::Points);
    let cluster = small_cluster(&sink);
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    let relay = cluster.first(Layer::Relay).api();
    let mut client = TcpStream::connect(cluster.graphite()).expect("the relay listens");
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (number, (reason, line)) in (1_u64..).zip(BAD) {
        client.write_all(line).expect("the connection stays open");
        client
            .write_all(format!("\ngood 1 {}\n", 1_700_000_000 + number).as_bytes())
            .expect("the connection stays open");
        *expected.entry(reason.to_owned()).or_default() += 1;
    }
    let all = BAD.len() as u64;
    eventually(SOON, "the good lines between the bad ones", || {
        sink.look(|seen| when(seen.series("good").len() as u64 == all, seen.series("good")))
    });
    let ledger = eventually(SOON, "the rejected lines in the ledger", || {
        let ledger = relay.ledger()?;
        when(ledger.received == 2 * all && ledger.in_hand == 0, &ledger).map(|()| ledger)
    });
    let rejected: BTreeMap<String, u64> = ledger.rejected.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!((rejected, ledger.accepted, ledger.unaccounted), (expected, all, 0));

    // Two threads parse, so what came with the others has no order; this comes after them.
    client.write_all(b"late;=c 1 1700000000\n").expect("the connection stays open");
    let samples = eventually(SOON, "the latest first", || {
        let samples = relay.bad_lines()?;
        let latest = samples.first().map(|latest| (latest.reason.clone(), latest.line.clone()));
        let expected = Some(("bad_tag".to_owned(), "late;=c 1 1700000000".to_owned()));
        when(latest == expected, latest).map(|()| samples)
    });
    for (reason, _) in BAD.iter().filter(|(reason, _)| *reason != "empty" && *reason != "nan") {
        assert!(samples.iter().any(|sample| sample.reason == *reason), "no sample of {reason} in {samples:?}");
    }
    let counted = relay.metric("spillway_rejected_points_total", "reason=\"bad_value\"").expect("metrics");
    assert_eq!(counted.to_string(), "1");

    client.write_all(b"after 1 1700000099\n").expect("the connection is still open");
    eventually(SOON, "a line after all that, on the same connection", || {
        sink.look(|seen| when(seen.series("after").len() == 1, seen.names()))
    });
    drop(client);
    spillway.stop(&["bad line", "rejected", "no point"]);
}

#[test]
fn nan_and_empty_lines_raise_no_warning() {
    let dir = TempDir::new("nan");
    let sink = Sink::start(Keep::Points);
    let cluster = small_cluster(&sink);
    let spillway = Process::up(&support::spillway(), &cluster, dir.path());
    let mut client = TcpStream::connect(cluster.graphite()).expect("the relay listens");
    client.write_all(b"a.rate nan 1700000000\n\na.rate 1 1700000001\n").expect("the relay reads");
    eventually(SOON, "the point", || sink.look(|seen| when(seen.series("a.rate").len() == 1, seen.names())));
    drop(client);
    spillway.stop(&[]);
}
