mod access;
mod console;
mod explain;
mod fake_node;
mod health;
mod manual;
mod node;
mod replay;
mod spill;

use std::fs;
use std::path::PathBuf;

use admin_api::{DestinationLedger, Ledger, PeerStatus, Status, Verdict, WorkerStatus};
use serde_json::Value;

use super::*;
use fake_node::{FakeNode, Manner};

/// A cluster of these nodes (name, layer) on ports that nobody listens on, with one store and one route.
pub(crate) fn parsed(nodes: impl IntoIterator<Item = (String, &'static str)>) -> config::Cluster {
    let mut text = "[cluster]\nname = \"test\"\n".to_owned();
    for (port, (name, layer)) in (9_000..).step_by(10).zip(nodes) {
        text += &format!(
            "[[node]]\nname = \"{name}\"\nlayer = \"{layer}\"\nadmin = \"127.0.0.1:{port}\"\ndata = \"data/{name}\"\n"
        );
        if layer != "replayer" {
            text += &format!("link = \"127.0.0.1:{}\"\n", port + 1);
        }
        if layer == "relay" {
            text += &format!("graphite = \"127.0.0.1:{}\"\n", port + 2);
        }
    }
    text +=
        "[[store]]\nname = \"carbon\"\naddresses = [\"127.0.0.1:2103\"]\n[[route]]\nglob = \"**\"\nto = [\"carbon\"]\n";
    config::load("test.toml", &text).expect("a cluster").cluster
}

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// What a command said.
#[derive(Debug)]
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

fn no_up(_: config::Loaded, _: UpOptions) -> Result<Exit, Failure> {
    panic!("nothing must be started")
}

fn run_with(up: UpFn, terminal: bool, arguments: &[&str]) -> Said {
    let environment = Environment {
        arguments: std::iter::once("spillway").chain(arguments.iter().copied()).map(Into::into).collect(),
        config_variable: None,
        no_colour: false,
        out_is_terminal: terminal,
        err_is_terminal: terminal,
        now: NOW,
        by: "alice@ops".to_owned(),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&environment, up, &mut out, &mut err);
    Said { exit, out: String::from_utf8(out).expect("text"), err: String::from_utf8(err).expect("text") }
}

fn spillway(arguments: &[&str]) -> Said {
    run_with(no_up, false, arguments)
}

/// What a command said, against `tests/golden/NAME.txt`; `SPILLWAY_BLESS=1` writes it anew. `hidden`: what differs from
/// run to run, such as addresses, and what stands for it.
#[track_caller]
fn golden(name: &str, said: &Said, hidden: &[(String, &str)]) {
    let mut actual = format!("exit {}\n--- out\n{}--- err\n{}", said.exit.code(), said.out, said.err);
    for (real, shown) in hidden {
        actual = actual.replace(real, shown);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/tests/golden/{name}.txt"));
    if std::env::var_os("SPILLWAY_BLESS").is_some() {
        fs::write(&path, &actual).expect("writes");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{}", path.display());
}

/// A file that is gone when the test is over.
#[derive(Debug)]
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("spillway-cli-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).expect("writes");
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("removes");
    }
}

/// A cluster whose nodes' admin addresses are those of fake nodes, all of them relays.
fn cluster(name: &str, nodes: &[(&str, &FakeNode)]) -> File {
    let nodes: Vec<_> = nodes.iter().map(|(node, fake)| (*node, "relay", *fake)).collect();
    cluster_of(name, &nodes)
}

/// The same with the layer of each node.
fn cluster_of(name: &str, nodes: &[(&str, &str, &FakeNode)]) -> File {
    let mut text = String::from("cluster.name = \"test\"\n");
    for (index, (node, layer, fake)) in nodes.iter().enumerate() {
        let (port, admin) = (20_000 + index * 2, fake.address);
        text.push_str(&format!("[[node]]\nname = \"{node}\"\nlayer = \"{layer}\"\nadmin = \"{admin}\"\n"));
        if *layer != "replayer" {
            text.push_str(&format!("link = \"127.0.0.9:{}\"\n", port + 1));
        }
        if *layer == "relay" {
            text.push_str(&format!("graphite = \"127.0.0.9:{port}\"\n"));
        }
    }
    text.push_str("[[store]]\nname = \"carbon\"\naddresses = [\"127.0.0.1:2103\"]\n");
    File::new(name, &text)
}

fn status(node: &str, verdict: Verdict) -> Status {
    let worker = |name: &str, state: &str, error: Option<&str>| WorkerStatus {
        name: name.into(),
        state: state.into(),
        restarts: u64::from(error.is_some()) * 3,
        hangs: 0,
        heartbeat_age_ms: 40,
        last_error: error.map(Into::into),
    };
    let peer = |name: &str, state: &str, oldest: u64| PeerStatus {
        verdict: (state == "up").then_some(Verdict::Ready),
        peer: name.into(),
        state: state.into(),
        in_flight_points: 10,
        in_flight_bytes: 400,
        oldest_unacked_ms: oldest,
        last_error: None,
    };
    let degraded = matches!(verdict, Verdict::Degraded { .. });
    let mut workers = vec![worker("relay.ingress", "running", None)];
    if degraded {
        workers.push(worker("relay.router.0", "restarting", Some("panicked")));
    }
    Status {
        node: node.into(),
        layer: "relay".into(),
        version: "0.1.0".into(),
        uptime_seconds: 125,
        verdict,
        workers,
        peers: vec![peer("partial-1", "up", 12), peer("carbon/127.0.0.1:2103", "down", 65_000)],
        figures: [("connections".to_owned(), 3)].into(),
        ledger: Ledger::default(),
    }
}

fn books(delivered: u64) -> Ledger {
    Ledger {
        node: "n".into(),
        layer: "relay".into(),
        received: 10,
        rejected: [("nan".to_owned(), 2), ("bad_value".to_owned(), 1)].into(),
        in_hand: 1,
        accepted: 6,
        routed: 5,
        dropped: [("rule".to_owned(), 1)].into(),
        destinations: vec![DestinationLedger {
            destination: "carbon".into(),
            owed: 5,
            delivered,
            delivered_unconfirmed: 1,
            ..DestinationLedger::default()
        }],
        unaccounted: 0,
        balanced: true,
    }
}

fn json_node(value: &impl serde::Serialize) -> FakeNode {
    FakeNode::start(Manner::Json(serde_json::to_string(value).expect("encodes")))
}

#[test]
fn help_and_version_are_answers_and_name_the_exit_codes() {
    let help = spillway(&["--help"]);
    assert_eq!((help.exit, help.err.as_str()), (Exit::Ok, ""));
    for code in ["0 ", "1 ", "2 ", "64 ", "69 ", "70 "] {
        assert!(help.out.lines().any(|line| line.trim_start().starts_with(code)), "{code} in {}", help.out);
    }
    assert_eq!(spillway(&["--version"]).out, concat!("spillway ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    for arguments in [&[][..], &["stauts"], &["status", "--frob"], &["explain"], &["config"]] {
        let said = spillway(arguments);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{arguments:?}");
        assert!(!said.err.is_empty(), "{arguments:?}");
    }
    assert!(spillway(&["stauts"]).err.contains("status"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_usage_error_that_names_it() {
    let said = spillway(&["status", "--config", "/nonexistent/cluster.toml"]);
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.err.starts_with("spillway: read /nonexistent/cluster.toml: "), "{}", said.err);
    let json = spillway(&["--json", "status", "--config", "/nonexistent/cluster.toml"]);
    assert_eq!(json.json()["ok"], false);
}

#[test]
fn the_variable_names_the_file_unless_the_option_does() {
    let locate = |given: Option<&str>, variable: Option<&str>| {
        let variable = variable.map(OsString::from);
        cluster_file::locate(given.map(PathBuf::from), variable.as_ref()).map_err(|failure| failure.exit)
    };
    assert_eq!(locate(Some("a"), Some("b")), Ok((PathBuf::from("a"), Chosen::Flag)));
    assert_eq!(locate(None, Some("b")), Ok((PathBuf::from("b"), Chosen::Environment)));
    // The tests run in crates/cli, where there is no spillway.toml.
    assert_eq!(locate(None, None), Err(Exit::Usage));
    assert_eq!(locate(None, Some("")), Err(Exit::Usage));
}

#[test]
fn every_problem_of_a_bad_file_is_told_and_nothing_is_started() {
    let file = File::new("bad", "cluster.nam = \"x\"\n[send]\nlinger = 5\n");
    for command in
        [&["up"][..], &["status"], &["ledger"], &["config", "check"], &["config", "show"], &["explain", "a 1"]]
    {
        let arguments: Vec<&str> = command.iter().copied().chain(["--config", file.path()]).collect();
        let said = spillway(&arguments);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{command:?}");
        for expected in ["cluster.nam", "cluster.name", "there is no `[[node]]`", "send.linger", "4 problems in"] {
            assert!(said.err.contains(expected), "{expected} in {}", said.err);
        }
        assert!(!said.err.contains('\u{1b}'));
    }
    let json = spillway(&["config", "check", "--json", "--config", file.path()]);
    assert_eq!(json.exit, Exit::Usage);
    let json = json.json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][3]["key"], "send.linger");
    assert_eq!((&json["problems"][3]["line"], &json["problems"][3]["column"]), (&3.into(), &10.into()));
}

#[test]
fn colour_is_for_terminals() {
    let file = File::new("colour", "x = 1");
    assert!(run_with(no_up, true, &["config", "check", "--config", file.path()]).err.contains('\u{1b}'));
    assert!(!run_with(no_up, false, &["config", "check", "--config", file.path()]).err.contains('\u{1b}'));
}

#[test]
fn a_good_file_is_called_good_and_shown() {
    let node = FakeNode::start(Manner::Silent);
    let file = cluster("good", &[("a", &node)]);
    let said = spillway(&["config", "check", "--config", file.path()]);
    assert_eq!((said.exit, said.out, said.err.as_str()), (Exit::Ok, format!("{}: good (1 nodes)\n", file.path()), ""));
    let shown = spillway(&["config", "show", "--config", file.path()]);
    assert_eq!(shown.exit, Exit::Ok);
    let again = config::load("shown", &shown.out).expect("loads again");
    assert_eq!(again.cluster.name, "test");
    assert!(shown.out.contains("linger = \"100ms\"") && shown.out.contains("# default"));
    let json = spillway(&["config", "show", "--json", "--config", file.path()]);
    let json = json.json();
    let head = format!("# {}: chosen by the flag --config; no value", file.path());
    assert!(shown.out.starts_with(&head), "{}", shown.out);
    assert!(json["toml"].as_str().is_some_and(|toml| shown.out.ends_with(toml)));
    assert_eq!(json["chosen_by"], "flag");
    let values = json["values"].as_array().expect("a list");
    let of = |key: &str| values.iter().find(|value| value["key"] == key).expect(key);
    let linger = serde_json::json!({ "key": "send.linger", "value": "\"100ms\"", "set_by": "default", "line": null });
    assert_eq!(*of("send.linger"), linger);
    let name = of("node[1].name");
    assert_eq!((&name["set_by"], &name["line"]), (&"file".into(), &3.into()));
    assert_eq!(of("store[1].ring")["set_by"], "default");
}

#[test]
fn up_is_given_the_nodes_that_were_chosen() {
    fn up(loaded: config::Loaded, options: UpOptions) -> Result<Exit, Failure> {
        assert_eq!(loaded.cluster.name, "test");
        match options.nodes.len() {
            1 => Err(Failure::unavailable(anyhow::anyhow!("port 2003 is taken by {}", options.nodes[0]))),
            2 => Ok(Exit::Ok),
            _ => Err(anyhow::anyhow!("something broke").into()),
        }
    }
    let node = [(); 3].map(|()| FakeNode::start(Manner::Silent));
    let file = cluster("up", &[("a", &node[0]), ("b", &node[1]), ("c", &node[2])]);
    let two = run_with(up, false, &["up", "--node", "c", "--node", "a", "--config", file.path()]);
    assert_eq!(two.exit, Exit::Ok, "{}", two.err);
    let taken = run_with(up, false, &["up", "--node", "b", "--config", file.path()]);
    assert_eq!((taken.exit, taken.err.as_str()), (Exit::Unavailable, "spillway: port 2003 is taken by b\n"));
    assert_eq!(run_with(up, false, &["up", "--config", file.path()]).exit, Exit::Internal);
    let unknown = run_with(no_up, false, &["up", "--node", "d", "--node", "zzzz", "--config", file.path()]);
    assert_eq!(unknown.exit, Exit::Usage);
    assert!(unknown.err.contains("\"d\"") && unknown.err.contains("known nodes are a, b, c"), "{}", unknown.err);
}

#[test]
fn status_shows_the_abnormal_first_and_names_who_is_silent() {
    let degraded = Verdict::Degraded { worker: "relay.router.0".into(), restarts: 3, error: "panicked".into() };
    let (ready, bad) = (json_node(&status("a", Verdict::Ready)), json_node(&status("b", degraded)));
    let refused = FakeNode::closed();
    let file = cluster("status", &[("a", &ready), ("b", &bad), ("c", &refused)]);
    let said = spillway(&["status", "--config", file.path()]);
    assert_eq!(said.exit, Exit::Partial, "{}", said.err);
    let error = format!("connect to {}: Connection refused (os error 111)", refused.address);
    let expected = format!(
        "\
cluster test: 1 of 3 nodes ready

NODE  LAYER  VERDICT    UPTIME  WORKERS  PEERS  VERSION  REASON
c     relay  no answer       -        -      -        -  {error}
b     relay  degraded    2m 5s      1/2    1/2    0.1.0  worker relay.router.0, 3 restarts: panicked
a     relay  ready       2m 5s      1/1    1/2    0.1.0  -

workers not running
NODE  WORKER          STATE       RESTARTS  HANGS  HEARTBEAT  LAST ERROR
b     relay.router.0  restarting         3      0       40ms  panicked

peers
NODE  PEER                   STATE  VERDICT  IN FLIGHT  BYTES  OLDEST  LAST ERROR
b     carbon/127.0.0.1:2103  down   -               10    400   1m 5s  -
a     carbon/127.0.0.1:2103  down   -               10    400   1m 5s  -
b     partial-1              up     ready           10    400    12ms  -
a     partial-1              up     ready           10    400    12ms  -

figures
NODE  FIGURE       VALUE
b     connections      3
a     connections      3
"
    );
    assert_eq!(said.out, expected);
    assert_eq!(said.err, format!("spillway: c does not answer: {error}\n"));

    let json = spillway(&["status", "--json", "--config", file.path()]);
    assert_eq!((json.exit, json.err.as_str()), (Exit::Partial, ""));
    let json = json.json();
    assert_eq!(json["nodes"][0]["status"]["verdict"]["state"], "ready");
    assert_eq!((&json["nodes"][2]["answers"], &json["nodes"][2]["error"]), (&false.into(), &error.into()));
}

#[test]
fn status_shows_what_peers_say_of_themselves_and_what_waits() {
    let mut doubtful = status("relay-1", Verdict::Ready);
    doubtful.peers[0].verdict = Some(Verdict::Draining);
    let spill = admin_api::SpillStatus {
        mode: "quota".into(),
        detail: "as full as it may be".into(),
        quota_bytes: 1 << 30,
        bytes: 1 << 30,
        lanes: vec![admin_api::SpillLane { pending_points: 2_000, held_points: 500, ..Default::default() }],
        ..Default::default()
    };
    let relay = FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/status" => fake_node::good(&doubtful),
        "GET /v1/spill" => fake_node::good(&spill),
        _ => fake_node::unknown_path(asked),
    });
    let replay = admin_api::ReplayStatus {
        rate_now: 30_000,
        limited_by: "receiver".into(),
        backlog_points: 1_500,
        eta_seconds: Some(1),
        ..Default::default()
    };
    let replayer = FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/status" => fake_node::good(&status("replayer-1", Verdict::Ready)),
        "GET /v1/replay" => fake_node::good(&replay),
        _ => fake_node::unknown_path(asked),
    });
    let file = cluster_of("status-spill", &[("relay-1", "relay", &relay), ("replayer-1", "replayer", &replayer)]);
    golden("status-spill", &spillway(&["status", "--config", file.path()]), &[]);
    let json = spillway(&["status", "--json", "--config", file.path()]).json();
    assert_eq!(
        (&json["spills"]["relay-1"]["mode"], &json["replays"]["replayer-1"]["rate_now"]),
        (&"quota".into(), &30_000.into())
    );
}

#[test]
fn a_node_spoils_only_its_own_answer() {
    let good = json_node(&status("good", Verdict::Ready));
    let broken = [
        (Manner::Silent, "no answer within 2 s"),
        (Manner::HangUp, "ask "),
        (Manner::Json("{\"node\":".into()), "not what a node of this version says"),
        (Manner::Raw("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into()), "answers 503"),
        (Manner::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".into()), "breaks off"),
        (Manner::Raw("SSH-2.0-OpenSSH\r\n".into()), "ask "),
    ];
    let nodes: Vec<(String, FakeNode, &str)> = broken
        .into_iter()
        .enumerate()
        .map(|(index, (manner, expected))| (format!("n{index}"), FakeNode::start(manner), expected))
        .collect();
    let mut list: Vec<(&str, &FakeNode)> = nodes.iter().map(|(name, node, _)| (name.as_str(), node)).collect();
    list.push(("good", &good));
    let file = cluster("spoil", &list);
    let said = spillway(&["status", "--config", file.path()]);
    assert_eq!(said.exit, Exit::Partial);
    assert!(said.out.starts_with("cluster test: 1 of 7 nodes ready\n"), "{}", said.out);
    for (name, _, expected) in &nodes {
        let line = said.err.lines().find(|line| line.contains(&format!(" {name} "))).unwrap_or_default();
        assert!(line.contains(expected), "{expected:?} in {line:?}");
    }
}

#[test]
fn no_answer_at_all_is_unavailable() {
    let refused = [FakeNode::closed(), FakeNode::closed()];
    let file = cluster("nobody", &[("a", &refused[0]), ("b", &refused[1])]);
    for command in ["status", "ledger"] {
        let said = spillway(&[command, "--config", file.path()]);
        assert_eq!(said.exit, Exit::Unavailable);
        assert_eq!(said.err.lines().count(), 2, "{}", said.err);
    }
}

#[test]
fn books_that_balance_are_called_balanced() {
    let node = json_node(&books(4));
    let file = cluster("balanced", &[("a", &node)]);
    let said = spillway(&["ledger", "--config", file.path()]);
    let expected = "\
a (relay): balanced
  received 10 = accepted 6 + rejected 3 (bad_value 1, nan 2) + in hand 1
  accepted 6 = routed 5 + dropped 1 (rule 1)
  destination carbon: owed 5 = delivered 4 + delivered unconfirmed 1 + in flight 0 + spill pending 0 + dropped 0
";
    assert_eq!((said.exit, said.out.as_str(), said.err.as_str()), (Exit::Ok, expected, ""));
    let json = spillway(&["ledger", "--json", "--config", file.path()]).json();
    assert_eq!((&json["balanced"], &json["nodes"][0]["ledger"]["received"]), (&true.into(), &10.into()));
}

#[test]
fn books_that_do_not_balance_name_the_line_and_win_over_a_silent_node() {
    let mut denies = books(4);
    (denies.balanced, denies.unaccounted) = (false, 7);
    let (good, less, more, denies) =
        (json_node(&books(4)), json_node(&books(2)), json_node(&books(9)), json_node(&denies));
    let refused = FakeNode::closed();
    let nodes = [("good", &good), ("less", &less), ("more", &more), ("denies", &denies), ("gone", &refused)];
    let file = cluster("unbalanced", &nodes);
    let said = spillway(&["ledger", "--config", file.path()]);
    assert_eq!(said.exit, Exit::Unbalanced);
    let order: Vec<&str> = said.out.lines().filter(|line| line.contains(" (relay): ")).collect();
    assert!(order[0].starts_with("gone (relay): no answer"), "{order:?}");
    assert_eq!(
        order[1..],
        [
            "less (relay): DOES NOT BALANCE",
            "more (relay): DOES NOT BALANCE",
            "denies (relay): DOES NOT BALANCE",
            "good (relay): balanced"
        ]
    );
    let faults: Vec<&str> = said.out.lines().filter(|line| line.starts_with("  ! ")).collect();
    assert_eq!(
        faults,
        [
            "  ! destination carbon: 2 are unaccounted for",
            "  ! destination carbon: 5 are too many",
            "  ! the node itself counts 7 unaccounted"
        ]
    );
}
