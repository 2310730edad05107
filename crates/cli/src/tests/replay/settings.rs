//! Settings of replay: changed on all nodes that are meant, or refused with the reason.

use super::*;

/// Two replayers, a final node that catches up, one that does not, a relay.
fn a_cluster(name: &str) -> (File, [FakeNode; 5]) {
    let mut catching = running("final-1", vec![source("final-1", "windows:carbon/127.0.0.1:2103", 5)]);
    (catching.layer, catching.settings.rate) = ("final".into(), 9_000);
    let nodes = [
        replaying(running("replayer-1", vec![source("relay-1", "aggregate", 10)])),
        replaying(running("replayer-2", vec![source("relay-1", "aggregate", 10)])),
        replaying(catching),
        FakeNode::responding(unknown_path),
        relay(spill("relay-1", vec![lane(0, "aggregate", 1_000, ago(60))]), a_loss()),
    ];
    let file = cluster_of(
        name,
        &[
            ("replayer-1", "replayer", &nodes[0]),
            ("replayer-2", "replayer", &nodes[1]),
            ("final-1", "final", &nodes[2]),
            ("final-2", "final", &nodes[3]),
            ("relay-1", "relay", &nodes[4]),
        ],
    );
    (file, nodes)
}

#[test]
fn a_rate_goes_to_all_who_replay_and_sent_twice_it_is_once_done() {
    let (file, nodes) = a_cluster("rate");
    let expected = "\
NODE        SETTING      OLD      NEW  NOTE
replayer-1  rate     50000/s  20000/s  -
replayer-2  rate     50000/s  20000/s  -
final-1     rate      9000/s  20000/s  -
";
    check(&replay(&file, &["rate", "20k/s"]), Exit::Ok, expected, "");
    let again = "\
NODE        SETTING      OLD      NEW  NOTE
replayer-1  rate     20000/s  20000/s  as it was
replayer-2  rate     20000/s  20000/s  as it was
final-1     rate     20000/s  20000/s  as it was
";
    check(&replay(&file, &["rate", "20000"]), Exit::Ok, again, "");
    let asked = nodes[0].asked("PUT");
    assert_eq!(asked[0].json(), serde_json::json!({ "rate": 20_000, "by": "alice@ops" }));
    assert_eq!(asked[0], asked[1]);
    assert!(nodes[3].asked("PUT").is_empty() && nodes[4].asked("PUT").is_empty());
    let max = replay(&file, &["rate", "max", "--by", "carol", "--json"]).json();
    assert_eq!((&max["nodes"][0]["old"], &max["nodes"][0]["new"]), (&"20000/s".into(), &"max".into()));
    assert_eq!(nodes[0].asked("PUT")[2].json(), serde_json::json!({ "rate": 100_000_000, "by": "carol" }));
    golden("replay-rate", &replay(&file, &["rate"]), &[]);
    assert_eq!(replay(&file, &["rate", "1", "--by", " "]).exit, Exit::Usage);
}

#[test]
fn a_rate_that_is_none_is_refused_with_the_reason_and_what_is_in_force() {
    let (file, nodes) = a_cluster("no-rate");
    for (rate, reason) in [
        ("0", "\"0\" is a standstill, not a rate: a rate is 1/s to 100M/s, such as"),
        ("0/s", "pausing is `spillway replay pause`; in force"),
        ("-5", "\"-5\" is negative"),
        ("NaN", "\"NaN\" is no rate: a rate is 1/s to 100M/s, such as 50000/s"),
        ("fast", "is no rate"),
        ("99999999999", "is absurd: a rate is 1/s to 100M/s"),
    ] {
        let said = replay(&file, &["rate", rate]);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{rate}");
        assert!(said.err.starts_with("spillway: ") && said.err.contains(reason), "{rate}: {}", said.err);
        let stays = "; in force: replayer-1 50000/s, replayer-2 50000/s, final-1 9000/s\n";
        assert!(said.err.ends_with(stays), "{rate}: {}", said.err);
    }
    assert!(nodes.iter().all(|node| node.asked("PUT").is_empty()));
    let (idle, gone) = (idle_relay(), FakeNode::closed());
    let file = cluster_of("no-rate-gone", &[("relay-1", "relay", &idle), ("replayer-1", "replayer", &gone)]);
    assert!(replay(&file, &["rate", "0"]).err.ends_with("; in force: no node says\n"));
}

#[test]
fn one_source_has_its_own_rate_and_pause() {
    let (file, nodes) = a_cluster("source");
    let expected = "\
NODE        SETTING               OLD    NEW  NOTE
replayer-1  rate     50000/s (as all)  100/s  -
replayer-2  rate     50000/s (as all)  100/s  -
";
    check(&replay(&file, &["rate", "100", "--source", "relay-1/aggregate"]), Exit::Ok, expected, "");
    let expected = "\
NODE     SETTING  OLD      NEW     NOTE
final-1  state    running  paused  -
";
    let windows = "final-1/windows:carbon/127.0.0.1:2103";
    check(&replay(&file, &["pause", "--source", windows]), Exit::Ok, expected, "");
    // The node calls them without its own name; all of them are no source.
    let own = "windows:carbon/127.0.0.1:2103";
    let expected = serde_json::json!({ "source": own, "paused": true, "by": "alice@ops" });
    assert_eq!(nodes[2].asked("PUT")[0].json(), expected);
    assert_eq!(replay(&file, &["rate", "70", "--source", "final-1"]).out.lines().count(), 2);
    assert_eq!(nodes[2].asked("PUT")[1].json(), serde_json::json!({ "rate": 70, "by": "alice@ops" }));
    // As the nodes themselves say it, it is that store's windows at every final node.
    assert_eq!(replay(&file, &["resume", "--source", own]).out.lines().count(), 2);
    assert_eq!(nodes[2].asked("PUT")[2].json()["source"], own);
    let said = replay(&file, &["rate", "9", "--source", own]).out;
    assert!(said.ends_with("final-1  rate     70/s (as all)  9/s  -\n"), "{said}");
    assert!(replay(&file, &["rate"]).out.contains("final-1     final-1/windows:carbon/127.0.0.1:2103      9/s"));
    let said = replay(&file, &["rate", "0", "--source", windows]);
    assert!(said.err.ends_with("final-1 9/s\n"), "{}", said.err);
    for command in [
        &["rate", "100", "--source", "relay-7"][..],
        &["rate", "--source", "relay-7"],
        &["status", "--source", "relay-7"],
        &["resume", "--source", "relay-7"],
    ] {
        let said = replay(&file, command);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""));
        for known in
            ["no source \"relay-7\": did you mean \"relay-1\"?", "final-1/windows:", "relay-1, relay-1/aggregate"]
        {
            assert!(said.err.contains(known), "{known} in {}", said.err);
        }
    }
}

#[test]
fn every_setting_is_shown_before_and_after() {
    let (file, _nodes) = a_cluster("settings");
    let line = |said: &Said| said.out.lines().nth(1).unwrap_or_default().to_owned();
    for (command, expected) in [
        (&["pause"][..], "replayer-1  state    running  paused  -"),
        (&["canary", "10"], "replayer-1  canary   100%  10%  it is paused: `spillway replay resume`"),
        (&["resume"], "replayer-1  state    paused  running  -"),
        (&["canary", "100%"], "replayer-1  canary   10%  100%  -"),
        (&["adaptive", "off"], "replayer-1  adaptive  on   off  -"),
        (
            &["range", "--from", "-2h", "--to", "2023-11-14T22:13:20Z"],
            "replayer-1  range    all  2023-11-14T20:13:20Z..2023-11-14T22:13:20Z  -",
        ),
        (
            &["range", "--from", "1700000000"],
            "replayer-1  range    2023-11-14T20:13:20Z..2023-11-14T22:13:20Z  2023-11-14T22:13:20Z..  -",
        ),
        (&["range", "--all"], "replayer-1  range    2023-11-14T22:13:20Z..  all  -"),
        (&["match", "web.**"], "replayer-1  match    all  web.**  -"),
        (&["match", "--all"], "replayer-1  match    web.**  all  -"),
    ] {
        let said = replay(&file, command);
        assert_eq!((said.exit, line(&said).as_str()), (Exit::Ok, expected), "{command:?}: {}{}", said.out, said.err);
    }
}

#[test]
fn settings_that_are_none_are_refused() {
    let (file, nodes) = a_cluster("no-settings");
    for (command, reason) in [
        (&["canary", "0"][..], "\"0\" is no share of the receiving nodes: it is 1 to 100 percent; pausing is"),
        (&["canary", "101"], "it is 1 to 100 percent; in force: replayer-1 100%, replayer-2 100%\n"),
        (&["canary", "-1"], "it is 1 to 100 percent"),
        (&["canary", "+5"], "it is 1 to 100 percent"),
        (&["range", "--from", "yesterday"], "\"yesterday\" is no time"),
        (&["range", "--from", "now", "--to", "-1h"], "nothing lies between"),
        (&["match", "a.[b"], "\"a.[b\" is no glob"),
        (&["match", ""], "an empty glob matches nothing"),
        (&["match"], "required"),
        (&["range"], "required"),
        (&["adaptive", "maybe"], "possible values: on, off"),
    ] {
        let said = replay(&file, command);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{command:?}");
        assert!(said.err.contains(reason), "{command:?}: {}", said.err);
    }
    assert!(nodes.iter().all(|node| node.asked("PUT").is_empty()));
    let relay_1 = relay(spill("relay-1", vec![]), SpillLoss::default());
    let file = cluster_of("no-replayer", &[("relay-1", "relay", &relay_1)]);
    let said = replay(&file, &["pause"]);
    check(&said, Exit::Usage, "", "spillway: the cluster file has no replayer, and no final node that catches up\n");
}

#[test]
fn a_node_that_does_not_take_a_change_is_named() {
    let good_one = replaying(running("a", vec![]));
    let gone = FakeNode::closed();
    let stubborn = FakeNode::responding(|asked| match asked.what.as_str() {
        "GET /v1/replay" => good(&running("c", vec![])),
        _ => bad(400, "not today"),
    });
    let file =
        cluster_of("partial", &[("r", "relay", &idle_relay()), ("a", "replayer", &good_one), ("b", "replayer", &gone)]);
    let said = replay(&file, &["pause"]);
    golden("replay-partial", &said, &[(gone.address.to_string(), "ADDRESS")]);
    let file = cluster_of(
        "stubborn",
        &[("r", "relay", &idle_relay()), ("a", "replayer", &good_one), ("c", "replayer", &stubborn)],
    );
    let said = replay(&file, &["pause"]);
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.starts_with("spillway: c refuses: not today\n"), "{}", said.err);
    let json = replay(&file, &["pause", "--json"]).json();
    assert_eq!((&json["nodes"][1]["answers"], &json["nodes"][1]["error"]), (&false.into(), &"not today".into()));
}

#[test]
fn what_is_set_for_all_is_refused_for_one_source_with_the_known_ones() {
    let (file, nodes) = a_cluster("not-alone");
    let windows = "final-1/windows:carbon/127.0.0.1:2103";
    for command in [
        &["canary", "10", "--source", windows][..],
        &["adaptive", "off", "--source", windows],
        &["range", "--from", "-2h", "--source", "relay-1"],
        &["match", "a.**", "--source", "relay-1/aggregate"],
    ] {
        let said = replay(&file, command);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{command:?}");
        let expected = format!(
            "spillway: {}: a single source has a rate and a pause of its own; all else is set for all sources; \
             known sources: final-1, {windows}, relay-1, relay-1/aggregate\n",
            command[0]
        );
        assert_eq!(said.err, expected);
    }
    assert!(nodes.iter().all(|node| node.asked("PUT").is_empty()));
}
