//! The console's server, asked as a browser asks it, and as others try to.

use std::net::SocketAddr;

use admin_api::{AuditEntry, ReplaySettings, ReplayStatus, SpillLane, SpillStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::fake_node::{Asked, Reply, bad, good, unknown_path};
use super::health::obeying;
use super::*;
use crate::client::Client;
use crate::console::{BODY_BYTES_MAX, serve_openly};

/// A console, as a browser sees it.
#[derive(Clone, Copy, Debug)]
struct Browser(SocketAddr);

impl Browser {
    /// One request with these header lines: the code and all of the answer.
    async fn ask(self, what: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.0).await.expect("connects");
        let length = body.len();
        let request =
            format!("{what} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        let code = answer.split(' ').nth(1).expect("a status").parse().expect("a code");
        (code, answer)
    }

    async fn get(self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path}"), &format!("host: {}\r\n", self.0), "").await
    }

    /// As the console's own page does it.
    async fn put(self, path: &str, body: &str) -> (u16, Value) {
        let own = format!("host: {0}\r\norigin: http://{0}\r\nx-spillway-console: 1\r\n", self.0);
        let (code, answer) = self.ask(&format!("PUT {path}"), &own, body).await;
        (code, body_of(&answer))
    }
}

#[track_caller]
fn body_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Serves the console of this cluster file for as long as `test` takes.
fn with_console<F: Future<Output = ()>>(file: &File, test: impl FnOnce(Browser) -> F) {
    let text = fs::read_to_string(file.path()).expect("reads");
    let cluster = config::load("test.toml", &text).expect("a cluster").cluster;
    Client::new().expect("a runtime").drive(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        tokio::select! {
            ended = serve_openly(listener, cluster, "alice@ops") => panic!("the console ended: {ended:?}"),
            () = test(Browser(address)) => {}
        }
    });
}

fn replayer(asked: &Asked) -> Reply {
    let settings = ReplaySettings { rate: 50_000, ..ReplaySettings::default() };
    let replay =
        ReplayStatus { settings, backlog_points: 1_000_000, limited_by: "operator".into(), ..Default::default() };
    match asked.what.as_str() {
        "GET /v1/status" => good(&status("replayer-1", Verdict::Ready)),
        "GET /v1/replay" => good(&replay),
        "GET /v1/control/audit" => {
            let entry = |at| AuditEntry {
                at,
                by: "eve on relay-1".into(),
                what: "drain/x".into(),
                old: String::new(),
                new: "drained".into(),
            };
            good(&[entry(9)])
        }
        "GET /v1/replay/audit" => {
            good(&[AuditEntry { at: 7, by: "bob".into(), what: "rate".into(), old: "1".into(), new: "50000".into() }])
        }
        "PUT /v1/replay" if asked.json()["rate"] == 13 => bad(400, "not thirteen"),
        "PUT /v1/replay" => {
            let rate = asked.json()["rate"].as_u64().unwrap_or(50_000);
            let paused = asked.json()["paused"] == true;
            good(&ReplayStatus { settings: ReplaySettings { rate, paused, ..replay.settings.clone() }, ..replay })
        }
        _ => unknown_path(asked),
    }
}

fn relay(asked: &Asked) -> Reply {
    let lane = SpillLane { pending_points: 900, held_points: 100, ..SpillLane::default() };
    let spill =
        SpillStatus { mode: "disk_full".into(), detail: "make room".into(), lanes: vec![lane], ..Default::default() };
    match asked.what.as_str() {
        "GET /v1/status" => good(&status("relay-1", Verdict::Ready)),
        "GET /v1/spill" => good(&spill),
        "GET /v1/replay/audit" => good(&Vec::<AuditEntry>::new()),
        "GET /v1/control/audit" => {
            let (by, what) = ("eve on relay-1".to_owned(), "drain/x".to_owned());
            good(&[AuditEntry { at: 9, by, what, old: String::new(), new: "drained".into() }])
        }
        _ => unknown_path(asked),
    }
}

/// A relay, a replayer, and a relay that is gone.
fn nodes(name: &str) -> (File, FakeNode) {
    let replayer = FakeNode::responding(replayer);
    let relay = FakeNode::responding(relay);
    let gone = FakeNode::closed();
    let nodes = [("relay-1", "relay", &relay), ("gone-1", "relay", &gone), ("replayer-1", "replayer", &replayer)];
    (cluster_of(name, &nodes), replayer)
}

#[test]
fn the_state_has_every_node_the_abnormal_ones_first() {
    let (file, _) = nodes("console-state");
    with_console(&file, async |browser| {
        let (code, answer) = browser.get("/api/state").await;
        assert_eq!(code, 200, "{answer}");
        let state = body_of(&answer);
        assert_eq!((&state["cluster"], &state["ready"], &state["answering"]), (&"test".into(), &2.into(), &2.into()));
        let of = |key: &str| {
            state["nodes"].as_array().expect("nodes").iter().map(|node| node[key].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("name"), ["gone-1", "relay-1", "replayer-1"]);
        assert_eq!(of("verdict"), ["no answer", "ready", "ready"]);
        assert!(state["nodes"][0]["reason"].as_str().expect("text").contains("refused"), "{state}");
        assert_eq!(state["nodes"][1]["spill"]["mode"], "disk_full");
        assert_eq!(state["nodes"][1]["spill"]["pending_points"], 800, "what memory still holds does not wait");
        assert_eq!(state["nodes"][2]["replay"]["rate"], 50_000);
        assert_eq!(
            state["audit"],
            serde_json::json!([
                { "nodes": ["relay-1", "replayer-1"], "at": 9, "by": "eve", "what": "drain/x", "old": "", "new": "drained" },
                { "nodes": ["replayer-1"], "at": 7, "by": "bob", "what": "rate", "old": "1", "new": "50000" },
            ])
        );
        assert_eq!(state["flow"]["clients_relay"], Value::Null, "one look is no rate");
        assert_eq!(state["history"]["pending"], serde_json::json!([800]));
        assert!(state["age_ms"].as_u64().expect("heard") < 3_000, "{state}");
    });
}

#[test]
fn an_order_is_shown_first_and_then_sent_to_all_that_replay() {
    let (file, replayer) = nodes("console-order");
    with_console(&file, async |browser| {
        let (code, said) = browser.put("/api/order?dry_run", r#"{"rate":"100k/s"}"#).await;
        assert_eq!((code, &said["command"]), (200, &"spillway replay rate 100000/s".into()), "{said}");
        let preview = "replayer-1: 50000/s -> 100000/s, 1.00M points take 10s at best";
        assert_eq!(said["lines"], serde_json::json!([{ "text": preview, "bad": false }]));
        assert_eq!(replayer.asked("PUT").len(), 0, "a preview sends nothing");

        let (code, said) = browser.put("/api/order", r#"{"rate":"100k/s"}"#).await;
        assert_eq!((code, &said["lines"][0]["text"]), (200, &"replayer-1: up to 100000/s".into()), "{said}");
        let (_, said) = browser.put("/api/order", r#"{"paused":true}"#).await;
        assert_eq!(said["lines"][0]["text"], "replayer-1: paused");
        let sent = replayer.asked("PUT /v1/replay");
        assert_eq!((sent.len(), &sent[0].json()["by"]), (2, &"alice@ops (console)".into()));

        let (code, said) = browser.put("/api/order", r#"{"rate":"13"}"#).await;
        assert_eq!((code, &said["lines"][0]["bad"]), (200, &true.into()));
        assert_eq!(said["lines"][0]["text"], "replayer-1 refuses: not thirteen");
    });
}

#[test]
fn a_mode_or_a_drain_goes_to_every_node_and_whoever_does_not_answer_is_named() {
    let (relay, partial) = (obeying("relay-1", Some("partial-2")), obeying("partial-2", None));
    let gone = FakeNode::closed();
    let nodes = [("relay-1", "relay", &relay), ("partial-2", "partial", &partial), ("final-1", "final", &gone)];
    let file = cluster_of("console-fleet", &nodes);
    with_console(&file, async |browser| {
        let texts = |said: &Value| {
            let lines = said["lines"].as_array().expect("lines").iter();
            lines.map(|line| (line["bad"] == true, line["text"].as_str().expect("text").to_owned())).collect::<Vec<_>>()
        };
        let away = "final-1 does not answer: connect to ADDRESS: Connection refused (os error 111); \
                    it hears of an order from its peers when it is back";
        let away = (true, away.replace("ADDRESS", &gone.address.to_string()));
        let line = |text: &str| (false, text.to_owned());
        let lenient = r#"{"mode":"lenient","layer":"all"}"#;
        let (code, said) = browser.put("/api/order?dry_run", lenient).await;
        assert_eq!((code, &said["command"]), (200, &"spillway health mode lenient --all".into()), "{said}");
        let would = line("from relay-1 and partial-2: partial-2 would lose traffic, partial-3 would gain traffic");
        let change = line("mode of all: as the cluster file says -> lenient");
        assert_eq!(texts(&said), [away.clone(), change.clone(), would]);
        let all_dry =
            |node: &FakeNode| node.asked("PUT /v1/health/mode").iter().all(|asked| asked.json()["dry_run"] == true);
        assert!(all_dry(&relay) && all_dry(&partial), "a preview changes nothing");

        let (_, said) = browser.put("/api/order", lenient).await;
        let moved = line("from relay-1 and partial-2: partial-2 lost traffic, partial-3 gained traffic");
        assert_eq!(
            texts(&said),
            [away.clone(), change, moved, line("in force on relay-1 and partial-2 (2 of 3 nodes)")]
        );
        let sent = relay.asked("PUT /v1/health/mode");
        assert_eq!(sent.last().expect("sent").json()["by"], "alice@ops (console)");

        let (_, said) = browser.put("/api/order", r#"{"drain":"partial-2"}"#).await;
        let kept = "partial-2 still gets traffic from relay-1: it fills the floor, although an operator drained it";
        assert_eq!(texts(&said)[..3], [away, (true, kept.to_owned()), line("partial-2: active -> drained")], "{said}");
    });
}

#[test]
fn what_is_no_order_is_refused_and_nothing_is_sent() {
    let (file, replayer) = nodes("console-no-order");
    with_console(&file, async |browser| {
        let long = format!(r#"{{"rate":"{}"}}"#, "1".repeat(BODY_BYTES_MAX));
        let cases = [
            (r#"{"rate":"-5/s"}"#, 400, "is negative"),
            (r#"{"rate":"fast"}"#, 400, "is no rate"),
            (r#"{"rate":"5/s","paused":true}"#, 400, "one of"),
            (r#"{"drain":"relay-1"}"#, 400, "no partial or final node"),
            (r#"{"canary":3}"#, 400, "unknown field"),
            ("no json", 400, "not JSON"),
            (long.as_str(), 413, "at most 4096 bytes"),
        ];
        for (body, expected, words) in cases {
            let (code, said) = browser.put("/api/order", body).await;
            let error = said["error"].as_str().expect("text");
            assert!(code == expected && error.contains(words), "{body}: {code} {error}");
        }
        let (code, said) = browser.put("/api/order?dryrun", r#"{"paused":true}"#).await;
        assert_eq!(code, 400, "a mistyped preview is no order: {said}");
        assert_eq!(replayer.asked("PUT").len(), 0);
    });
}

#[test]
fn other_pages_and_other_names_get_nothing() {
    let (file, replayer) = nodes("console-gate");
    with_console(&file, async |browser| {
        let Browser(own) = browser;
        let body = r#"{"paused":true}"#;
        let cases = [
            (format!("host: {own}\r\norigin: http://{own}\r\n"), 403, "x-spillway-console"),
            (format!("host: {own}\r\norigin: http://evil.example\r\nx-spillway-console: 1\r\n"), 403, "evil.example"),
            (format!("host: {own}\r\nx-spillway-console: 1\r\n"), 403, "origin"),
            ("host: evil.example\r\norigin: http://evil.example\r\nx-spillway-console: 1\r\n".into(), 421, "open http"),
        ];
        for (headers, expected, words) in cases {
            let (code, answer) = browser.ask("PUT /api/order", &headers, body).await;
            assert!(code == expected && answer.contains(words), "{headers}: {answer}");
        }
        assert_eq!(replayer.asked("PUT").len(), 0);
        let (code, answer) = browser.ask("GET /api/state", "host: evil.example\r\n", "").await;
        assert!(code == 421 && !answer.contains("relay-1"), "{answer}");
        let (code, answer) = browser.ask("OPTIONS /api/order", &format!("host: {own}\r\n"), "").await;
        assert!(code == 403 && !answer.contains("access-control"), "nobody is allowed to say the header: {answer}");
    });
}

#[test]
fn the_page_is_whole_and_may_load_nothing_from_elsewhere() {
    let (file, replayer) = nodes("console-page");
    with_console(&file, async |browser| {
        for (path, kind) in
            [("/", "text/html"), ("/style.css", "text/css"), ("/app.js", "text/javascript"), ("/icon.svg", "image/svg")]
        {
            let (code, answer) = browser.get(path).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(code == 200 && head.contains(kind) && head.contains("default-src 'self'"), "{path}: {head}");
            let elsewhere = body.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:"), "{path} names another place");
        }
        assert_eq!(browser.get("/../Cargo.toml").await.0, 404);
        assert_eq!(browser.get("/api/order").await.0, 405);
        assert_eq!(replayer.asked("GET").len(), 0, "nobody looked at the state, so nodes are left in peace");
    });
}

#[test]
fn an_address_beyond_this_machine_is_refused_unless_it_is_asked_for() {
    let (file, _) = nodes("console-open");
    for address in ["0.0.0.0:0", "10.1.2.3:8640", "[::]:0"] {
        let said = spillway(&["--config", file.path(), "console", "--listen", address]);
        assert_eq!(said.exit, Exit::Usage, "{}", said.err);
        assert!(said.err.contains("--i-know-it-is-open") && said.err.contains(address), "{}", said.err);
    }
    let help = spillway(&["console", "--help"]);
    assert!(help.out.contains("nothing is encrypted"), "{}", help.out);
}
