//! `spillway replay` against nodes that keep its settings as real ones do.

use std::sync::Mutex;

use admin_api::{
    CursorAdvance, Gap, Refused, ReplayChange, ReplaySettings, ReplaySource, ReplayStatus, SpillDiscard, SpillLane,
    SpillLoss, SpillStatus,
};

use super::fake_node::{Asked, Reply, bad, good, unknown_path};
use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn ago(seconds: u64) -> u64 {
    u64::from(NOW.0) - seconds
}

fn source(relay: &str, destination: &str, rate: u64) -> ReplaySource {
    ReplaySource {
        source: relay.into(),
        destination: destination.into(),
        connected: true,
        rate_now: rate,
        done_points: rate * 10,
        limited_by: "operator".into(),
        ..ReplaySource::default()
    }
}

fn running(node: &str, sources: Vec<ReplaySource>) -> ReplayStatus {
    let rate_now = sources.iter().map(|source| source.rate_now).sum();
    ReplayStatus {
        node: node.into(),
        layer: "replayer".into(),
        settings: ReplaySettings {
            version: 3,
            changed_at: ago(120),
            changed_by: "bob@night".into(),
            ..ReplaySettings::default()
        },
        rate_now,
        ceiling_now: 50_000,
        limited_by: if rate_now > 0 { "operator".into() } else { "idle".into() },
        horizon_seconds: DAY,
        sources,
        ..ReplayStatus::default()
    }
}

fn lane(number: u16, destination: &str, points: u64, oldest: u64) -> SpillLane {
    SpillLane {
        lane: number,
        destination: destination.into(),
        pending_points: points,
        pending_batches: points / 1000,
        pending_bytes: points * 12,
        head: 40,
        tail: 40 + points / 1000,
        oldest: (points > 0).then_some(oldest),
        newest: (points > 0).then_some(oldest + HOUR),
        spilled_points: points + 500,
        settled_points: 500,
        ..SpillLane::default()
    }
}

fn spill(node: &str, lanes: Vec<SpillLane>) -> SpillStatus {
    SpillStatus {
        node: node.into(),
        mode: "ok".into(),
        mode_since: ago(HOUR),
        quota_bytes: 20 << 30,
        bytes: 1 << 30,
        free_bytes: 50 << 30,
        lanes,
        ..SpillStatus::default()
    }
}

/// A node that replays: `PUT` changes what `GET` says.
fn replaying(status: ReplayStatus) -> FakeNode {
    let state = Mutex::new(status);
    FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/replay" => good(&*state.lock().expect("whole")),
        "PUT /v1/replay" => put(&mut state.lock().expect("whole"), asked),
        _ => unknown_path(asked),
    })
}

fn put(status: &mut ReplayStatus, asked: &Asked) -> Reply {
    let change: ReplayChange = serde_json::from_slice(&asked.body).expect("a change");
    assert!(!change.by.is_empty(), "every change says who wants it");
    let settings = &mut status.settings;
    match &change.source {
        Some(source) => {
            let own = settings.sources.entry(source.clone()).or_default();
            own.rate = change.rate.or(own.rate);
            own.paused = change.paused.unwrap_or(own.paused);
        }
        None => {
            settings.rate = change.rate.unwrap_or(settings.rate);
            settings.paused = change.paused.unwrap_or(settings.paused);
        }
    }
    settings.adaptive = change.adaptive.unwrap_or(settings.adaptive);
    settings.canary_percent = change.canary_percent.unwrap_or(settings.canary_percent);
    if let Some(range) = change.range {
        (settings.from, settings.to) = (range.from, range.to);
    }
    if let Some(glob) = change.matching {
        settings.matching = Some(glob).filter(|glob| !glob.is_empty());
    }
    good(status)
}

/// A relay with this spill, which loses `loss` whatever it is asked to give up.
fn relay(status: SpillStatus, loss: SpillLoss) -> FakeNode {
    FakeNode::responding(move |asked| {
        let (dry_run, force) = match asked.what.as_str() {
            "GET /v1/spill" => return good(&status),
            "POST /v1/spill/discard" => {
                let asked: SpillDiscard = serde_json::from_slice(&asked.body).expect("a discard");
                (asked.dry_run, asked.force)
            }
            "POST /v1/spill/cursor" => {
                let asked: CursorAdvance = serde_json::from_slice(&asked.body).expect("an advance");
                (asked.dry_run, asked.force)
            }
            _ => return unknown_path(asked),
        };
        if !dry_run && !force && loss.points > 0 {
            let refused = Refused { error: "it would lose points".into(), would_lose: Some(loss.clone()) };
            return (409, String::new(), serde_json::to_vec(&refused).expect("encodes"));
        }
        good(&SpillLoss { done: !dry_run, ..loss.clone() })
    })
}

fn a_loss() -> SpillLoss {
    SpillLoss {
        batches: 12,
        points: 12_345,
        bytes: 150_000,
        oldest: Some(ago(2 * HOUR)),
        newest: Some(ago(HOUR)),
        done: false,
    }
}

/// A relay with nothing in its spill.
fn idle_relay() -> FakeNode {
    relay(spill("relay-1", vec![]), SpillLoss::default())
}

/// `spillway replay ARGUMENTS`
fn replay(file: &File, arguments: &[&str]) -> Said {
    let all: Vec<&str> = ["replay"].iter().chain(arguments).copied().chain(["--config", file.path()]).collect();
    spillway(&all)
}

#[track_caller]
fn check(said: &Said, exit: Exit, out: &str, err: &str) {
    assert_eq!((said.out.as_str(), said.err.as_str(), said.exit), (out, err, exit));
}

#[test]
fn status_is_one_screen_with_the_abnormal_first() {
    let mut windows = source("final-1", "windows:carbon/127.0.0.1:2103", 500);
    (windows.pending_points, windows.pending_batches, windows.head, windows.tail) = (4_000, 40, 10, 50);
    (windows.oldest, windows.newest) = (Some(ago(600)), Some(ago(60)));
    let mut away = source("relay-2", "aggregate", 0);
    (away.connected, away.last_error) = (false, Some("connection refused".into()));
    (away.pending_points, away.oldest) = (9_000, Some(ago(13 * HOUR)));
    let mut busy = running("replayer-1", vec![source("relay-1", "aggregate:final-1", 40_000), away]);
    busy.notes = vec!["the backlog was large at the start".into()];
    let mut catching = running("final-1", vec![windows]);
    catching.layer = "final".into();
    let mut lanes = vec![lane(0, "aggregate:final-1", 12_000_000, ago(2 * HOUR)), lane(1, "carbon/a:1", 0, 0)];
    lanes[0].held_points = 2_000_000;
    let mut one = spill("relay-1", lanes);
    (one.mode, one.detail) = ("quota".into(), "20 GiB of 20 GiB are used".into());
    let (replayer, final_1) = (replaying(busy), replaying(catching));
    let final_2 = FakeNode::responding(unknown_path);
    let (relay_1, relay_2) = (relay(one, SpillLoss::default()), FakeNode::closed());
    let file = cluster_of(
        "replay-status",
        &[
            ("relay-1", "relay", &relay_1),
            ("relay-2", "relay", &relay_2),
            ("final-1", "final", &final_1),
            ("final-2", "final", &final_2),
            ("replayer-1", "replayer", &replayer),
        ],
    );
    let said = replay(&file, &["status"]);
    golden("replay-status", &said, &[(relay_2.address.to_string(), "ADDRESS")]);
    // The long way for programs; the state is the same.
    let json = replay(&file, &["status", "--json"]);
    assert_eq!((json.exit, json.err.as_str()), (Exit::Partial, ""));
    let json = json.json();
    assert_eq!(json["backlog_points"], 10_000_000 + 9_000 + 4_000);
    assert_eq!((&json["sources"][0]["source"], &json["sources"][0]["state"]), (&"relay-2".into(), &"away".into()));
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(4), "a final node without catch-up is no news");
}

#[test]
fn each_state_of_replay_has_its_line() {
    type Change = fn(&mut ReplayStatus);
    let with = |change: Change| {
        let mut status = running("replayer-1", vec![source("relay-1", "aggregate", 100)]);
        change(&mut status);
        replaying(status)
    };
    let relay_1 = relay(spill("relay-1", vec![lane(0, "aggregate", 100_000, ago(2 * HOUR))]), SpillLoss::default());
    let cases: [(&str, Change, &str); 6] = [
        ("operator", |_| (), "replay RUNNING, limited by the operator's ceiling"),
        ("receiver", |status| status.limited_by = "receiver".into(), "the receivers' queue delay"),
        ("network", |status| status.limited_by = "network".into(), "limited by the network"),
        ("idle", |status| status.limited_by = "idle".into(), "IDLE: nothing waits"),
        ("paused", |status| status.settings.paused = true, "PAUSED by bob@night 2m 0s ago; `spillway replay resume`"),
        ("cautious", |status| status.settings.cautious = true, "CAUTIOUS: at the floor rate because it started with"),
    ];
    for (name, change, expected) in cases {
        let node = with(change);
        let file = cluster_of(&format!("state-{name}"), &[("relay-1", "relay", &relay_1), ("r", "replayer", &node)]);
        let said = replay(&file, &["status"]);
        assert_eq!(said.exit, Exit::Ok, "{}", said.err);
        assert!(said.out.lines().next().is_some_and(|line| line.contains(expected)), "{name}: {}", said.out);
    }
    let (a, b) = (with(|_| ()), with(|status| (status.settings.paused, status.settings.rate) = (true, 7)));
    let file =
        cluster_of("state-mixed", &[("relay-1", "relay", &relay_1), ("a", "replayer", &a), ("b", "replayer", &b)]);
    let said = replay(&file, &["status"]);
    assert!(said.out.contains("replay MIXED: a RUNNING, limited by the operator's ceiling; b PAUSED"), "{}", said.out);
    assert!(said.out.contains("different ceilings (50000/s, 7/s)"), "{}", said.out);
    let (a, b) = (FakeNode::closed(), FakeNode::closed());
    let file = cluster_of("state-unknown", &[("a", "replayer", &a), ("b", "relay", &b)]);
    let said = replay(&file, &["status"]);
    assert_eq!(said.exit, Exit::Unavailable);
    assert!(said.out.contains("replay UNKNOWN: no replayer answers"), "{}", said.out);
    let file = cluster_of("state-none", &[("relay-1", "relay", &relay_1)]);
    let said = replay(&file, &["status"]);
    assert!(said.out.contains("replay IMPOSSIBLE: the cluster file has no replayer"), "{}", said.out);
    assert!(said.out.contains("no replayer  "), "{}", said.out);
}

#[test]
fn what_will_come_too_late_is_an_alarm() {
    let relay_1 = relay(spill("relay-1", vec![lane(0, "aggregate", 10_000_000, ago(20 * HOUR))]), SpillLoss::default());
    let node = replaying(running("replayer-1", vec![source("relay-1", "aggregate", 100)]));
    let file = cluster_of("late", &[("relay-1", "relay", &relay_1), ("replayer-1", "replayer", &node)]);
    golden("replay-late", &replay(&file, &["status"]), &[]);
}

#[test]
fn watching_looks_again() {
    let node = replaying(running("replayer-1", vec![]));
    let file = cluster_of("watch", &[("relay-1", "relay", &idle_relay()), ("replayer-1", "replayer", &node)]);
    let said = replay(&file, &["status", "--watch", "1", "--looks", "2"]);
    assert_eq!((said.exit, said.out.matches("replay IDLE").count()), (Exit::Ok, 2), "{}", said.out);
    assert!(!said.out.contains('\u{1b}'));
    assert_eq!(node.asked("GET /v1/replay").len(), 2);
    let arguments = ["replay", "status", "--watch", "--looks", "1", "--config", file.path()];
    let drawn = run_with(no_up, true, &arguments);
    assert!(drawn.out.starts_with("\u{1b}[H") && drawn.out.ends_with("\u{1b}[J"), "{:?}", drawn.out);
    assert_eq!(replay(&file, &["status", "--looks", "2"]).exit, Exit::Usage);
    assert_eq!(replay(&file, &["status", "--watch", "0"]).exit, Exit::Usage);
}

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
        ("0", "\"0\" is a standstill, not a rate: pausing is `spillway replay pause`"),
        ("0/s", "pausing is `spillway replay pause`"),
        ("-5", "\"-5\" is negative"),
        ("NaN", "\"NaN\" is no rate: it is points per second, such as 50000/s"),
        ("fast", "is no rate"),
        ("99999999999", "is absurd: a rate is at most 100M/s; say max for no ceiling"),
    ] {
        let said = replay(&file, &["rate", rate]);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{rate}");
        assert!(said.err.starts_with("spillway: ") && said.err.contains(reason), "{rate}: {}", said.err);
        let stays = "\n  rate: it stays replayer-1 50000/s, replayer-2 50000/s, final-1 9000/s\n";
        assert!(said.err.ends_with(stays), "{rate}: {}", said.err);
    }
    assert!(nodes.iter().all(|node| node.asked("PUT").is_empty()));
    let (idle, gone) = (idle_relay(), FakeNode::closed());
    let file = cluster_of("no-rate-gone", &[("relay-1", "relay", &idle), ("replayer-1", "replayer", &gone)]);
    assert!(replay(&file, &["rate", "0"]).err.ends_with("rate: no node says what it is\n"));
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
    for command in [
        &["rate", "100", "--source", "relay-7"][..],
        &["rate", "--source", "relay-7"],
        &["resume", "--source", "relay-7"],
    ] {
        let said = replay(&file, command);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""));
        for known in
            ["no source \"relay-7\": did you mean \"relay-1\"?", "final-1, final-1/windows:", "relay-1/aggregate"]
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
        (&["canary", "101"], "it is 1 to 100 percent\n  canary: it stays replayer-1 100%, replayer-2 100%\n"),
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
fn the_cursor_shows_gaps_first_and_gaps_are_listed() {
    let mut lanes = vec![lane(0, "aggregate", 5_000_000, ago(HOUR)), lane(1, "carbon/127.0.0.1:2103", 20_000, ago(60))];
    let gap = |from: u64, reason: &str| Gap {
        from,
        to: from + 9,
        batches: 10,
        points: 1_234,
        reason: reason.into(),
        at: ago(30),
    };
    lanes[1].gaps = vec![gap(3, "corrupt"), gap(20, "discarded")];
    let mut status = spill("relay-1", lanes);
    status.quarantined = vec![admin_api::Quarantined {
        path: "data/relay-1/spill.corrupt-1".into(),
        at: ago(30),
        reason: "manifest".into(),
    }];
    let relay_1 = relay(status, SpillLoss::default());
    let clean = relay(spill("relay-2", vec![lane(0, "aggregate", 0, 0)]), SpillLoss::default());
    let windows = ReplaySource { head: 5, tail: 9, pending_points: 70, ..source("final-1", "windows:carbon/a:1", 0) };
    let (final_1, gone) = (replaying(running("final-1", vec![windows])), FakeNode::closed());
    let nodes = [
        ("relay-1", "relay", &relay_1),
        ("relay-2", "relay", &clean),
        ("relay-3", "relay", &gone),
        ("final-1", "final", &final_1),
    ];
    let file = cluster_of("cursor", &nodes);
    let hidden = [(gone.address.to_string(), "ADDRESS")];
    golden("replay-cursor", &replay(&file, &["cursor"]), &hidden);
    assert_eq!(replay(&file, &["cursor", "show"]).out, replay(&file, &["cursor"]).out);
    golden("replay-gaps", &replay(&file, &["gaps"]), &hidden);
    let json = replay(&file, &["cursor", "--json"]).json();
    assert_eq!(json["cursors"][0]["gaps"][1]["reason"], "discarded");
    assert_eq!(replay(&file, &["gaps", "--json"]).json()["sources"][0]["gaps"][0]["points"], 1_234);
    let file = cluster_of("no-gaps", &[("relay-2", "relay", &clean)]);
    check(&replay(&file, &["gaps"]), Exit::Ok, "no gaps\n", "");
}

#[test]
fn the_cursor_moves_over_what_waits_only_with_force() {
    let lanes = vec![lane(0, "aggregate", 20_000, ago(HOUR)), lane(1, "carbon/127.0.0.1:2103", 20_000, ago(60))];
    let relay_1 = relay(spill("relay-1", lanes), a_loss());
    let relay_2 = relay(spill("relay-2", vec![lane(0, "aggregate", 20_000, ago(HOUR))]), SpillLoss::default());
    let gone = FakeNode::closed();
    let nodes = [("relay-1", "relay", &relay_1), ("relay-2", "relay", &relay_2), ("relay-3", "relay", &gone)];
    let file = cluster_of("advance", &nodes);
    let advance = |source: &str, more: &[&str]| {
        let arguments: Vec<&str> = ["cursor", "advance", source].iter().chain(more).copied().collect();
        replay(&file, &arguments)
    };
    let lost = "12345 points in 12 batches, 146 KiB, 2023-11-14T20:13:20Z to 2023-11-14T21:13:20Z (2h 0m to 1h 0m old)";
    let what = "cursor of relay-1/carbon/127.0.0.1:2103 40 -> 52";
    let carbon = "relay-1/carbon/127.0.0.1:2103";
    let would = format!("{what}: would lose {lost}; nothing was changed\n");
    let refused =
        "spillway: refused: it would lose points\nspillway: --force does it; read ops/replay.md#cursor first\n";
    check(&advance(carbon, &["--to", "52"]), Exit::Refused, &would, refused);
    let hint = "spillway: --force instead of --dry-run does it\n";
    check(&advance(carbon, &["--to", "52", "--dry-run"]), Exit::Ok, &would, hint);
    check(&advance(carbon, &["--to", "52", "--force"]), Exit::Ok, &format!("{what}: done; lost {lost}\n"), "");
    let asked = relay_1.asked("POST")[2].json();
    let expected = serde_json::json!({
        "destination": "carbon/127.0.0.1:2103", "to": 52, "dry_run": false, "force": true, "by": "alice@ops",
    });
    assert_eq!(asked, expected);
    let json = replay(&file, &["cursor", "advance", carbon, "--to", "52", "--json"]);
    assert_eq!((json.exit, &json.json()["loss"]["points"]), (Exit::Refused, &12_345.into()));
    // A relay with one lane needs no more than its name, and what loses nothing needs no force.
    let done = "cursor of relay-2/aggregate 40 -> 60: done; lost nothing\n";
    check(&advance("relay-2", &["--to", "60"]), Exit::Ok, done, "");
    for (source, to, reason) in [
        ("relay-1", "52", "relay-1 has 2 lanes, name one: relay-1/aggregate, relay-1/carbon/127.0.0.1:2103"),
        ("relay-2/agregate", "52", "no source \"relay-2/agregate\": did you mean \"relay-2/aggregate\"?"),
        ("relay-9", "52", "known sources are relay-1, relay-1/aggregate"),
        ("relay-2", "61", "ordinal 61 is behind its end; its cursor stands at 40 and its end is 60"),
        ("relay-2", "39", "would go back: what is settled is gone; its cursor stands at 40"),
    ] {
        let said = advance(source, &["--to", to]);
        assert_eq!(said.exit, Exit::Usage, "{}", said.err);
        assert!(said.err.contains(reason) || source == "relay-9", "{}", said.err);
    }
    assert_eq!(advance("relay-3", &["--to", "1"]).exit, Exit::Unavailable);
    assert_eq!(advance("relay-2", &["--to", "-1"]).exit, Exit::Usage);
    assert_eq!(advance("relay-2", &["--to", "50", "--dry-run", "--force"]).exit, Exit::Usage);
}

#[test]
fn a_discard_says_what_it_would_lose_and_needs_force() {
    let relay_1 = relay(spill("relay-1", vec![lane(0, "aggregate", 20_000, ago(HOUR))]), a_loss());
    let relay_2 = relay(spill("relay-2", vec![]), SpillLoss::default());
    let (gone, final_1) = (FakeNode::closed(), replaying(running("final-1", vec![])));
    let nodes = [("relay-1", "relay", &relay_1), ("relay-2", "relay", &relay_2), ("final-1", "final", &final_1)];
    let file = cluster_of("discard", &nodes);
    golden("discard-refused", &replay(&file, &["discard", "--all"]), &[]);
    golden("discard-dry-run", &replay(&file, &["discard", "--match", "web.**", "--dry-run"]), &[]);
    golden("discard-force", &replay(&file, &["discard", "--from", "-2h", "--to", "-1h", "--force"]), &[]);
    let asked = relay_2.asked("POST")[2].json();
    assert_eq!(
        (&asked["from"], &asked["to"], &asked["force"]),
        (&ago(2 * HOUR).into(), &ago(HOUR).into(), &true.into())
    );
    let json = replay(&file, &["discard", "--source", "relay-1/aggregate", "--json"]);
    assert_eq!((json.exit, &json.json()["nodes"][0]["loss"]["batches"]), (Exit::Refused, &12.into()));
    assert_eq!(relay_1.asked("POST")[3].json()["destination"], "aggregate");
    assert_eq!(relay_2.asked("POST").len(), 3, "a source is of one relay");
    for (command, reason) in [
        (&["discard", "--force"][..], "say what to give up: --source, --from, --to, --match, or --all"),
        (&["discard", "--source", "relay-8", "--force"], "no source \"relay-8\""),
        (&["discard", "--source", "final-1", "--force"], "final-1 is a final node: the windows"),
        (&["discard", "--match", "[", "--force"], "is no glob"),
        (&["discard", "--from", "x", "--force"], "is no time"),
        (&["discard", "--all", "--source", "relay-1"], "cannot be used with"),
        (&["discard", "--all", "--dry-run", "--force"], "cannot be used with"),
    ] {
        let said = replay(&file, command);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{command:?}");
        assert!(said.err.contains(reason), "{command:?}: {}", said.err);
    }
    let file = cluster_of("discard-partial", &[("relay-2", "relay", &relay_2), ("relay-3", "relay", &gone)]);
    assert_eq!(replay(&file, &["discard", "--all", "--force"]).exit, Exit::Partial);
    let file = cluster_of("discard-nobody", &[("relay-3", "relay", &gone)]);
    assert_eq!(replay(&file, &["discard", "--all", "--force"]).exit, Exit::Unavailable);
}
