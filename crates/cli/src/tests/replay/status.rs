//! What `spillway replay status` says of nodes in each state.

use super::*;

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
fn a_pause_is_told_by_what_it_may_cost_and_not_as_a_loss() {
    type Change = fn(&mut ReplayStatus);
    let paused: Change = |status| status.settings.paused = true;
    /// Name, age of the oldest point, what is so, what stands there, what does not.
    type Case = (&'static str, u64, Change, &'static [&'static str], &'static [&'static str]);
    let cases: [Case; 4] = [
        (
            "young",
            1_200,
            paused,
            &[
                "done in    paused: nothing moves; the oldest point passes the horizon in 23h 40m; resumed now, it takes 20s at best at 50000/s\n",
            ],
            &["too late", "past the horizon"],
        ),
        (
            "old",
            30 * HOUR,
            paused,
            &[
                "the oldest point is past the horizon; resumed now",
                "points are past the horizon, or would be if replay were resumed now",
            ],
            &["at this rate"],
        ),
        (
            "stuck",
            1_200,
            |_| (),
            &["done in    never: nothing moves; the oldest point passes the horizon in 23h 40m\n"],
            &["too late"],
        ),
        (
            "stuck-old",
            30 * HOUR,
            |_| (),
            &["nothing moves; the oldest point is past", "points are past the horizon\n"],
            &["at this rate"],
        ),
    ];
    for (name, age, change, has, has_not) in cases {
        let relay_1 = relay(spill("relay-1", vec![lane(0, "aggregate", 1_000_000, ago(age))]), SpillLoss::default());
        let mut status = running("replayer-1", vec![source("relay-1", "aggregate", 0)]);
        change(&mut status);
        let node = replaying(status);
        let nodes = [("relay-1", "relay", &relay_1), ("replayer-1", "replayer", &node)];
        let said = replay(&cluster_of(&format!("pause-{name}"), &nodes), &["status"]).out;
        for part in has {
            assert!(said.contains(part), "{name}: {part:?} is missing in\n{said}");
        }
        for part in has_not {
            assert!(!said.contains(part), "{name}: {part:?} is in\n{said}");
        }
    }
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

#[test]
fn one_source_is_looked_at_alone() {
    let lanes = vec![lane(0, "aggregate", 1_000, ago(60)), lane(1, "carbon/127.0.0.1:2103", 500, ago(60))];
    let relay_1 = relay(spill("relay-1", lanes), SpillLoss::default());
    let node = replaying(running("replayer-1", vec![source("relay-1", "aggregate", 10)]));
    let windows = "windows:carbon/127.0.0.1:2103";
    let mut catching = running("final-1", vec![source("final-1", windows, 5)]);
    (catching.layer, catching.sources[0].pending_points) = ("final".into(), 70);
    let final_1 = replaying(catching);
    let nodes = [("relay-1", "relay", &relay_1), ("replayer-1", "replayer", &node), ("final-1", "final", &final_1)];
    let file = cluster_of("status-source", &nodes);
    for (wanted, points) in [
        ("relay-1", 1_500),
        ("relay-1/aggregate", 1_000),
        ("relay-1/carbon/127.0.0.1:2103", 500),
        ("final-1", 70),
        ("final-1/windows:carbon/127.0.0.1:2103", 70),
        (windows, 70),
    ] {
        let said = replay(&file, &["status", "--source", wanted, "--json"]);
        assert_eq!((said.exit, &said.json()["backlog_points"]), (Exit::Ok, &points.into()), "{wanted}");
    }
    let said = replay(&file, &["status", "--source", "final-1"]).out;
    assert!(said.contains("rate now   5/s, of final-1 alone\nbacklog    70 points, 0 B, in 1 of 1 sources"), "{said}");
}
