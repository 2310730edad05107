//! `spillway node forget`: what would be lost is said first, and lost only with `--force`.

use admin_api::{NodeKnown, ReplaySource, ReplayStatus, SpillLane, SpillLoss, SpillStatus};

use super::fake_node::{Reply, bad, good, unknown_path};
use super::*;

const SENDER: &str = "9f3a00c41d2b7e56";

/// What a node answers that is asked about `relay-1`.
#[derive(Clone, Debug, Default)]
struct About {
    known: NodeKnown,
    spill: Option<SpillStatus>,
    in_flight: u64,
    replay: Option<ReplayStatus>,
}

fn node(about: About) -> FakeNode {
    let or_not = |reply: Option<Reply>| reply.unwrap_or_else(|| bad(404, "not here"));
    FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/nodes/relay-1" | "GET /v1/nodes/partial-1" => good(&about.known),
        "GET /v1/spill" => or_not(about.spill.as_ref().map(good)),
        "GET /v1/replay" => or_not(about.replay.as_ref().map(good)),
        "GET /v1/ledger" => good(&Ledger {
            destinations: vec![DestinationLedger { in_flight: about.in_flight, ..DestinationLedger::default() }],
            ..Ledger::default()
        }),
        "POST /v1/spill/discard" => good(&SpillLoss { done: true, ..SpillLoss::default() }),
        "POST /v1/nodes/relay-1/forget" | "POST /v1/nodes/partial-1/forget" => good(&serde_json::json!({})),
        _ => unknown_path(asked),
    })
}

fn partial(linked: bool) -> FakeNode {
    let known = NodeKnown { linked, sender: Some(SENDER.into()), ..NodeKnown::default() };
    node(About { known, ..About::default() })
}

fn replayer(points: u64) -> FakeNode {
    let source = ReplaySource {
        source: "relay-1".into(),
        destination: "aggregate:final-1".into(),
        pending_points: points,
        pending_batches: points / 1_000,
        pending_bytes: points * 12,
        oldest: Some(u64::from(NOW.0) - 7_200),
        ..ReplaySource::default()
    };
    node(About { replay: Some(ReplayStatus { sources: vec![source], ..ReplayStatus::default() }), ..About::default() })
}

fn relay(pending: u64, in_flight: u64) -> FakeNode {
    let lane = SpillLane {
        destination: "aggregate".into(),
        pending_points: pending,
        pending_batches: pending / 1_000,
        pending_bytes: pending * 12,
        oldest: Some(u64::from(NOW.0) - 60),
        ..SpillLane::default()
    };
    let known = NodeKnown { sender: Some(SENDER.into()), ..NodeKnown::default() };
    let spill = SpillStatus { lanes: vec![lane], ..SpillStatus::default() };
    node(About { known, spill: Some(spill), in_flight, ..About::default() })
}

fn cluster_with(name: &str, relay: &FakeNode, partial: &FakeNode, replayer: &FakeNode) -> File {
    let last = node(About::default());
    cluster_of(
        name,
        &[
            ("relay-1", "relay", relay),
            ("partial-1", "partial", partial),
            ("final-1", "final", &last),
            ("replayer-1", "replayer", replayer),
        ],
    )
}

fn forget(file: &File, arguments: &[&str]) -> Said {
    let all: Vec<&str> = ["node", "forget"].iter().chain(arguments).copied().chain(["--config", file.path()]).collect();
    spillway(&all)
}

#[test]
fn a_relay_that_is_gone_is_not_forgotten_while_its_spill_would_be_lost() {
    let (gone, partial, replayer) = (FakeNode::closed(), partial(false), replayer(12_000));
    let file = cluster_with("forget", &gone, &partial, &replayer);
    let hidden = [(gone.address.to_string(), "ADDRESS")];
    golden("node-forget-refused", &forget(&file, &["relay-1"]), &hidden);
    golden("node-forget-dry-run", &forget(&file, &["relay-1", "--dry-run"]), &hidden);
    assert!(partial.asked("POST").is_empty() && replayer.asked("POST").is_empty());
    golden("node-forget-force", &forget(&file, &["relay-1", "--force"]), &hidden);
    let expected = serde_json::json!({
        "sender": SENDER, "lost_points": 12_000, "force": true, "dry_run": false, "by": "alice@ops",
    });
    assert_eq!(partial.asked("POST /v1/nodes/relay-1/forget")[0].json(), expected);
    assert_eq!(replayer.asked("POST")[0].json(), expected);
}

#[test]
fn a_relay_that_is_gone_and_nobody_remembers_is_unknown_not_empty() {
    let (gone, partial, replayer) = (FakeNode::closed(), node(About::default()), node(About::default()));
    let file = cluster_with("forget-unknown", &gone, &partial, &replayer);
    let said = forget(&file, &["relay-1", "--json"]);
    assert_eq!(said.exit, Exit::Refused);
    let json = said.json();
    assert_eq!((&json["alive"], &json["done"], &json["lost_points"]), (&false.into(), &false.into(), &0.into()));
    let unknown = "its spill and its memory: unknown, it is not reachable and no replayer has heard of a backlog";
    assert_eq!((&json["unknown"][0], &json["error"]), (&unknown.into(), &"it would lose data".into()));
    let said = forget(&file, &["relay-1", "--force"]);
    assert!(said.err.contains("--sender HEX"), "{}", said.err);
    assert_eq!(partial.asked("POST")[0].json()["sender"], serde_json::Value::Null);
    let said = forget(&file, &["relay-1", "--force", "--sender", SENDER]);
    assert!(!said.err.contains("--sender"), "{}", said.err);
    assert_eq!(partial.asked("POST")[1].json()["sender"], SENDER);
}

#[test]
fn a_relay_that_lives_says_itself_what_it_has_and_counts_what_it_gives_up() {
    let (relay_1, partial, replayer) = (relay(5_000, 70), partial(true), replayer(0));
    let file = cluster_with("forget-alive", &relay_1, &partial, &replayer);
    golden("node-forget-alive", &forget(&file, &["relay-1"]), &[]);
    assert_eq!(forget(&file, &["relay-1", "--force"]).exit, Exit::Ok);
    assert_eq!(relay_1.asked("POST /v1/spill/discard")[0].json()["force"], true);
    assert_eq!(relay_1.asked("POST /v1/nodes/relay-1/forget").len(), 1, "it is told, too");
    assert_eq!(partial.asked("POST")[0].json()["lost_points"], 5_070);
    let empty = relay(0, 0);
    let file = cluster_with("forget-empty", &empty, &partial, &replayer);
    let said = forget(&file, &["relay-1"]);
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.contains("it is alive: stop it first") && said.out.contains("nothing would be lost"), "{said:?}");
}

#[test]
fn who_holds_nothing_is_forgotten_at_once_and_who_is_silent_is_named() {
    let (gone, away, good_one, last) = (FakeNode::closed(), FakeNode::closed(), replayer(0), node(About::default()));
    let file = cluster_of(
        "forget-partial",
        &[
            ("relay-1", "relay", &away),
            ("partial-1", "partial", &gone),
            ("final-1", "final", &last),
            ("replayer-1", "replayer", &good_one),
        ],
    );
    let said = forget(&file, &["partial-1"]);
    assert_eq!(said.exit, Exit::Partial);
    assert!(
        said.out.ends_with("nothing would be lost\npartial-1 is forgotten: 2 of 3 nodes know it\n"),
        "{}",
        said.out
    );
    assert!(said.err.starts_with("spillway: relay-1 does not answer"), "{}", said.err);
    assert!(said.err.ends_with("hears of it from its peers when it returns\n"), "{}", said.err);
    assert_eq!(good_one.asked("POST")[0].json(), serde_json::json!({ "dry_run": false, "by": "alice@ops" }));
}

#[test]
fn what_cannot_be_forgotten_is_refused() {
    let (idle, last) = (relay(0, 0), node(About::default()));
    let file = cluster_of("forget-wrong", &[("relay-1", "relay", &idle), ("final-1", "final", &last)]);
    let said = forget(&file, &["final-1", "--force"]);
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.contains("final-1 is a final node: its partitions are on it alone"), "{}", said.err);
    for (arguments, reason) in [
        (&["relay-2"][..], "there is no node \"relay-2\": did you mean \"relay-1\"?"),
        (&["relay-1", "--sender", "xyz"], "a sender is 16 hex digits"),
        (&["relay-1", "--by", " "], "--by is empty"),
        (&["relay-1", "--dry-run", "--force"], "cannot be used with"),
        (&[], "required"),
    ] {
        let said = forget(&file, arguments);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{arguments:?}");
        assert!(said.err.contains(reason), "{arguments:?}: {}", said.err);
    }
    assert!(idle.asked("POST").is_empty());
}
