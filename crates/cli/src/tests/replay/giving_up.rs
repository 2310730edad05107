//! `spillway replay cursor`, `gaps` and `discard`: nothing is given up without being said and forced.

use super::*;

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
        (&["discard", "--source", "final-1", "--force"], "final-1: the windows that a final node catches up with"),
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
