//! `spillway replay audit`: the logs of all nodes as one, the latest first.

use admin_api::AuditEntry;

use super::*;

fn change(seconds_ago: u64, what: &str, old: &str, new: &str) -> AuditEntry {
    AuditEntry { at: ago(seconds_ago), by: "bob@night".into(), what: what.into(), old: old.into(), new: new.into() }
}

fn node(changes: Vec<AuditEntry>) -> FakeNode {
    FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/replay/audit" => good(&changes),
        _ => unknown_path(asked),
    })
}

#[test]
fn changes_of_all_nodes_are_one_list_the_latest_first() {
    let mut unsaid = change(30, "windows:carbon/127.0.0.1:2103.rate", "none", "100000000");
    unsaid.by.clear();
    let replayer = node(vec![change(10, "rate", "50000", "20000"), change(600, "paused", "false", "true")]);
    let (final_1, relay_1) = (node(vec![unsaid]), node(vec![change(60, "discard aggregate", "", "12345 points")]));
    let from = ago(7_200).to_string();
    let (second, gone) = (node(vec![change(90, "from", "open", &from)]), FakeNode::closed());
    let nodes = [
        ("replayer-1", "replayer", &replayer),
        ("replayer-2", "replayer", &second),
        ("replayer-3", "replayer", &gone),
        ("final-1", "final", &final_1),
        ("relay-1", "relay", &relay_1),
    ];
    let file = cluster_of("audit", &nodes);
    golden("replay-audit", &replay(&file, &["audit"]), &[(gone.address.to_string(), "ADDRESS")]);
    let said = replay(&file, &["audit", "--limit", "2", "--json"]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Partial, ""));
    let json = said.json();
    let expected = serde_json::json!([
        { "node": "replayer-1", "layer": "replayer", "at": ago(10), "by": "bob@night",
          "what": "rate", "old": "50000", "new": "20000" },
        { "node": "final-1", "layer": "final", "at": ago(30), "by": "",
          "what": "windows:carbon/127.0.0.1:2103.rate", "old": "none", "new": "100000000" },
    ]);
    assert_eq!((&json["changes"], &json["more"], &json["nodes"][2]["answers"]), (&expected, &3.into(), &false.into()));
    let said = replay(&file, &["audit", "--limit", "1"]);
    assert!(said.err.starts_with("spillway: 4 older changes are not shown: --limit N shows N\n"), "{}", said.err);
}

#[test]
fn one_node_can_be_asked_alone_and_no_change_is_said() {
    let (quiet, busy) = (node(vec![]), node(vec![change(10, "rate", "1", "2")]));
    let file = cluster_of("audit-one", &[("relay-1", "relay", &busy), ("replayer-1", "replayer", &quiet)]);
    check(&replay(&file, &["audit", "replayer-1"]), Exit::Ok, "no changes\n", "");
    let expected = "spillway: there is no node \"replayer-2\": did you mean \"replayer-1\"? \
                    Known nodes are relay-1, replayer-1\n";
    check(&replay(&file, &["audit", "replayer-2"]), Exit::Usage, "", expected);
    assert_eq!(replay(&file, &["audit", "--limit", "0"]).exit, Exit::Usage);
}
