//! `spillway health` and `spillway node` against nodes that keep orders as real ones do.

use std::sync::Mutex;

use admin_api::{
    AuditEntry, Health, HealthEvent, LayerMode, ModeChange, ModeStatus, NodeChange, Ordered, PoolNode, PoolStatus,
};

use super::fake_node::{Asked, Reply, bad, good, unknown_path};
use super::*;

fn member(node: &str, standing: &str, why: &str, verdict: Verdict) -> PoolNode {
    PoolNode {
        node: node.into(),
        eligible: ["proven", "link_up", "floor", "owner"].contains(&standing),
        standing: standing.into(),
        why: why.into(),
        verdict: Some(verdict),
        clean_seconds: Some(400),
        ack_ms: Some(412),
        queue_ms: Some(3),
        canaries_acked: 400,
        canaries_failed: 1,
        ejections: 0,
    }
}

fn pool(nodes: Vec<PoolNode>) -> PoolStatus {
    let strict = nodes.iter().filter(|node| node.standing == "proven").count();
    let size = nodes.len();
    PoolStatus {
        layer: "partial".into(),
        shared: true,
        mode: "auto".into(),
        stance: "strict".into(),
        floor: 2,
        size,
        strict,
        nodes,
    }
}

fn overloaded() -> Verdict {
    Verdict::Overloaded { queue_bytes: 9_000_000, lag_ms: 12_000 }
}

fn crashed() -> Verdict {
    Verdict::Degraded { worker: "partial.shard.0".into(), restarts: 3, error: "panic: recv".into() }
}

/// A node that says of itself and of a pool what it is given; 503 as real ones when it is unwell.
fn healthy(health: Health) -> FakeNode {
    FakeNode::responding(move |asked| match (asked.what.as_str(), &health.verdict) {
        ("GET /v1/health", Verdict::Ready | Verdict::Overloaded { .. }) => good(&health),
        ("GET /v1/health", _) => (503, String::new(), serde_json::to_vec(&health).expect("JSON")),
        _ => unknown_path(asked),
    })
}

#[test]
fn show_tells_an_overloaded_node_from_one_with_a_crashed_worker_and_has_the_abnormal_first() {
    let mut relay = Health::new("relay-1", "relay", Verdict::Ready);
    relay.pools = vec![pool(vec![
        member("partial-1", "proven", "proven by its canaries", Verdict::Ready),
        member("partial-2", "proven", "proven by its canaries", overloaded()),
        member("partial-3", "degraded", "its worker partial.shard.0 has failed", crashed()),
    ])];
    let text = "partial-3 gets no traffic: its worker partial.shard.0 has failed";
    let at = u64::from(NOW.0) - 60;
    relay.events = vec![HealthEvent { at, layer: "partial".into(), text: text.into() }];
    let nodes = [
        ("relay-1", "relay", healthy(relay)),
        ("partial-1", "partial", healthy(Health::new("partial-1", "partial", Verdict::Ready))),
        ("partial-2", "partial", healthy(Health::new("partial-2", "partial", overloaded()))),
        ("partial-3", "partial", healthy(Health::new("partial-3", "partial", crashed()))),
        ("final-1", "final", FakeNode::closed()),
    ];
    let given: Vec<_> = nodes.iter().map(|(name, layer, fake)| (*name, *layer, fake)).collect();
    let file = cluster_of("health-show", &given);
    let said = spillway(&["--config", file.path(), "health", "show"]);
    golden("health-show", &said, &[(nodes[4].2.address.to_string(), "ADDRESS")]);
    let said = spillway(&["--config", file.path(), "--json", "health"]);
    assert_eq!(said.exit, Exit::Partial);
    assert_eq!(said.json()["nodes"][2]["verdict"]["state"], "overloaded");
    assert_eq!(said.json()["failed"][0]["node"], "final-1");
}

/// A node that takes orders: the second time nothing changes. `kept`: the drained node that it keeps in for its floor.
pub(super) fn obeying(name: &str, kept: Option<&'static str>) -> FakeNode {
    let (name, taken) = (name.to_owned(), Mutex::new(Vec::<String>::new()));
    FakeNode::responding(move |asked| obey(&name, &mut taken.lock().expect("whole"), kept, asked))
}

fn obey(name: &str, taken: &mut Vec<String>, kept: Option<&str>, asked: &Asked) -> Reply {
    let (what, dry_run, by, new) = match asked.what.as_str() {
        "PUT /v1/health/mode" => {
            let change: ModeChange = serde_json::from_slice(&asked.body).expect("a change");
            let until = change.until.map_or(String::new(), |end| format!(" until {end} then auto"));
            let layer = change.layer.unwrap_or("all".into());
            (format!("mode/{layer}"), change.dry_run, change.by, format!("{}{until}", change.mode))
        }
        "POST /v1/nodes/partial-2/drain" => {
            let change: NodeChange = serde_json::from_slice(&asked.body).expect("a change");
            ("drain/partial-2".into(), change.dry_run, change.by, "drained".into())
        }
        _ => return unknown_path(asked),
    };
    assert!(!by.is_empty(), "every order says who gives it");
    let is_news = !taken.contains(&what);
    let entry = AuditEntry { at: 1, by, what: what.clone(), old: String::new(), new };
    let changes = if is_news { vec![entry] } else { Vec::new() };
    if !dry_run {
        taken.push(what);
    }
    let kept =
        kept.map(|node| member(node, "floor", "fills the floor, although an operator drained it", Verdict::Ready));
    good(&Ordered {
        node: name.into(),
        dry_run,
        changes,
        pools: kept.map(|node| pool(vec![node])).into_iter().collect(),
        gain: vec!["partial-3".into()],
        lose: if is_news { vec!["partial-2".into()] } else { Vec::new() },
    })
}

#[test]
fn a_mode_goes_to_all_nodes_at_once_and_the_one_that_is_away_is_named() {
    let (relay, partial, away) = (obeying("relay-1", None), obeying("partial-1", None), FakeNode::closed());
    let file = cluster_of(
        "health-mode",
        &[("relay-1", "relay", &relay), ("partial-1", "partial", &partial), ("final-1", "final", &away)],
    );
    let order = ["--config", file.path(), "health", "mode", "lenient", "--all", "--for", "30m"];
    let dry = spillway(&[&order[..], &["--dry-run"]].concat());
    assert_eq!((dry.exit, dry.out.contains("nothing was changed")), (Exit::Partial, true));
    let said = spillway(&order);
    golden("health-mode", &said, &[(away.address.to_string(), "ADDRESS")]);
    let asked = relay.asked("PUT /v1/health/mode")[1].json();
    assert_eq!(asked["until"], u64::from(NOW.0) + 1800);
    assert_eq!((&asked["by"], &asked["layer"]), (&"alice@ops".into(), &Value::Null));
    assert!(spillway(&order).out.contains("in force already"));
}

#[test]
fn a_drained_node_that_the_floor_keeps_in_is_named() {
    let (relay, partial) = (obeying("relay-1", Some("partial-2")), obeying("partial-2", None));
    let owner = obeying("final-1", None);
    let nodes = [("relay-1", "relay", &relay), ("partial-2", "partial", &partial), ("final-1", "final", &owner)];
    let file = cluster_of("drain", &nodes);
    let said = spillway(&["--config", file.path(), "node", "drain", "partial-2", "--by", "bob"]);
    golden("node-drain", &said, &[]);
    let said = spillway(&["--config", file.path(), "--json", "node", "drain", "partial-2"]);
    assert_eq!((said.exit, &said.json()["nodes"][1]["changes"]), (Exit::Ok, &serde_json::json!([])));
}

#[test]
fn modes_are_shown_once_when_all_nodes_know_the_same_orders() {
    let modes = |node: &str, digest: &str, mode: &str| {
        let layer = LayerMode {
            layer: "partial".into(),
            mode: mode.into(),
            until: Some(u64::from(NOW.0)),
            then: Some("auto".into()),
            ordered_at: Some(u64::from(NOW.0) - 60),
            ordered_by: Some("bob on relay-1".into()),
        };
        FakeNode::start(Manner::Json(
            serde_json::to_string(&ModeStatus {
                node: node.into(),
                layers: vec![layer],
                drained: Vec::new(),
                digest: digest.into(),
            })
            .expect("JSON"),
        ))
    };
    let (one, two) = (modes("relay-1", "a", "lenient"), modes("relay-2", "a", "lenient"));
    let file = cluster("modes", &[("relay-1", &one), ("relay-2", &two)]);
    let said = spillway(&["--config", file.path(), "health", "mode"]);
    golden("health-modes", &said, &[]);
    let three = modes("relay-2", "b", "auto");
    let file = cluster("modes-differ", &[("relay-1", &one), ("relay-2", &three)]);
    let said = spillway(&["--config", file.path(), "health", "mode"]);
    assert!(said.out.starts_with("the nodes do not know the same orders yet"), "{}", said.out);
    assert_eq!(said.out.lines().count(), 4);
}

#[test]
fn wrong_orders_are_refused_before_anybody_is_asked() {
    #[track_caller]
    fn check(arguments: &[&str], expected: &str) {
        let relay = obeying("relay-1", None);
        let (partial, last) = (obeying("partial-1", None), obeying("final-1", None));
        let nodes = [("relay-1", "relay", &relay), ("partial-1", "partial", &partial), ("final-1", "final", &last)];
        let file = cluster_of("wrong-orders", &nodes);
        let said = spillway(&[&["--config", file.path()], arguments].concat());
        assert_eq!(said.exit, Exit::Usage, "{said:?}");
        assert!(said.err.contains(expected), "{}", said.err);
        assert_eq!(relay.asked(""), []);
    }
    check(&["health", "mode", "lenient"], "--all");
    check(&["health", "mode", "loose", "--all"], "possible values: strict, lenient, auto");
    check(&["health", "mode", "lenient", "--all", "--for", "soon"], "write 30m");
    check(&["health", "mode", "lenient", "--all", "--layer", "final"], "cannot be used with");
    check(&["node", "drain", "partial-7"], "did you mean \"partial-1\"?");
    check(&["node", "drain", "relay-1"], "known partial or final nodes are partial-1, final-1");
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let relay = FakeNode::responding(|asked| match asked.what.as_str() {
        "PUT /v1/health/mode" => bad(400, "nobody chooses among the nodes of layer relay; there are partial, final"),
        _ => unknown_path(asked),
    });
    let file = cluster("refusal", &[("relay-1", &relay)]);
    let said = spillway(&["--config", file.path(), "health", "mode", "auto", "--layer", "relay"]);
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.contains("relay-1 refuses: nobody chooses"), "{}", said.err);
}
