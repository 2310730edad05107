//! Hazelcast Cloud, 6 August: a webhook failed, its caller retried the whole action, and a state went backwards and stayed there.
//!
//! Every command of the admin API is given while the endpoint for notices fails in every way there is: by several clients at
//! once, again and again, some of whom hang up in the middle of the request or before the answer. Each command is done once and
//! stays done, no answer waits for the endpoint, and when it is well again every notice arrives under its one id.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use admin_api::AuditEntry;
use testkit::{Feed, Fleet, Hook, Layer, Mood, eventually, one_at_a_time};

use crate::{CATCH_UP, Keys, SOON, cluster, equals_the_oracle, no_worker_failed, say, spilled, up, when};

/// An attempt may take so long; a command that waited for one would be as slow.
const ATTEMPT: Duration = Duration::from_secs(10);
/// A command is answered within this, on a machine that builds something beside: syncs of two small files.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// After a failure the next attempt comes after 30 s at most, and takes its own time.
const TRIED_WITHIN: Duration = Duration::from_secs(60);
/// Clients that give a command at the same time, and how often each gives it.
const CLIENTS: usize = 4;
const TIMES: usize = 3;
/// The commands of this drill, as the API names them; `{change}` has three of its own. Another one has to be added here,
/// with a case of its own below.
const COMMANDS: [&str; 6] = [
    "PUT /v1/health/mode",
    "POST /v1/nodes/{node}/{change}",
    "PUT /v1/replay",
    "POST /v1/spill/import",
    "POST /v1/spill/discard",
    "POST /v1/spill/cursor",
];

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: drill\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the node takes connections");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    stream.write_all(request).expect("the node reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the node answers");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
    Answer { head, body: bytes.get(end + 4..).unwrap_or_default().to_vec() }
}

/// Writes the first `bytes` of a request and hangs up, with a reset.
fn interrupted(address: SocketAddr, request: &[u8], bytes: usize) {
    let mut stream = TcpStream::connect(address).expect("the node takes connections");
    stream.write_all(request.get(..bytes).unwrap_or(request)).expect("the node reads");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it will be a reset");
}

/// All commands that the nodes take, asked of the servers themselves: every path there is, with the methods that its refusal of
/// another one names.
fn commands(fleet: &Fleet) -> BTreeSet<String> {
    let api = fleet.cluster.first(Layer::Relay).admin;
    let unknown: serde_json::Value =
        serde_json::from_slice(&exchange(api, &request("GET", "/nothing", b"")).body).expect("JSON");
    let paths: Vec<String> =
        serde_json::from_value(unknown["known_paths"].clone()).expect("a node says which paths it has");
    // What is served and not among them would be overlooked here.
    let source = include_str!("../../crates/admin-api/src/lib.rs");
    let declared = source.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1));
    for path in declared.filter(|path| path.starts_with("/v1/") && *path != "/v1/failpoint") {
        assert!(paths.iter().any(|known| known == path), "{path} is not among the known paths");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/admin/src");
    for file in std::fs::read_dir(folder).expect("the admin server's sources") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(!text.contains(".route(\""), "{}: a path that is not among admin_api::paths", path.display());
    }
    let mut found = BTreeSet::new();
    for path in paths.iter().filter(|path| *path != "/v1/failpoint") {
        let asked = path.replace(['{', '}'], "");
        let refused = exchange(api, &request("BREW", &asked, b""));
        let allow =
            refused.head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("allow:").map(str::to_owned));
        let allow = allow.unwrap_or_else(|| panic!("{path} takes any method: {}", refused.head));
        for method in allow.split(',').map(|method| method.trim().to_uppercase()) {
            if !["GET", "HEAD"].contains(&method.as_str()) {
                found.insert(format!("{method} {path}"));
            }
        }
    }
    found
}

/// One command that changed something, and what it must have become.
struct Done {
    node: String,
    /// Where its audit log is.
    audit: &'static str,
    what: String,
    new: String,
    /// It was given to several nodes at once: each may have said it.
    to_all: bool,
}

/// A drill in the middle.
struct Storm<'f> {
    fleet: &'f Fleet,
    slowest: Duration,
    done: Vec<Done>,
}

impl Storm<'_> {
    /// Gives a command to `nodes`, and asserts that it is one change in the audit log of each of them.
    #[track_caller]
    fn give(
        &mut self,
        nodes: &[&str],
        (method, path): (&str, &str),
        body: &[u8],
        audit: &'static str,
        (what, new): (&str, &str),
    ) {
        let sent = request(method, path, body);
        let slowest = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for node in nodes {
                let address = self.fleet.cluster.named(node).admin;
                for client in 0..CLIENTS {
                    let sent = &sent;
                    threads.push(scope.spawn(move || {
                        let mut slowest = Duration::ZERO;
                        for time in 0..TIMES {
                            interrupted(address, sent, sent.len() * (client + time) / (CLIENTS + TIMES));
                            interrupted(address, sent, sent.len());
                            let start = Instant::now();
                            let answer = exchange(address, sent);
                            slowest = slowest.max(start.elapsed());
                            let body = String::from_utf8_lossy(&answer.body);
                            assert_eq!(answer.status(), "200", "{method} {path} to {node}: {body}");
                        }
                        slowest
                    }));
                }
            }
            let results = threads.into_iter().map(|thread| thread.join().expect("every client is answered"));
            results.max().unwrap_or_default()
        });
        assert!(slowest <= ANSWERED_WITHIN, "{method} {path} took {slowest:?}");
        self.slowest = self.slowest.max(slowest);
        for node in nodes {
            let (node, what, new) = ((*node).to_owned(), what.to_owned(), new.to_owned());
            self.done.push(Done { node, audit, what, new, to_all: nodes.len() > 1 });
        }
        self.all_once();
    }

    /// Every command so far is in the log of changes once; the last entries with `new` as it begins.
    #[track_caller]
    fn all_once(&self) {
        for Done { node, audit, what, new, .. } in &self.done {
            let address = self.fleet.cluster.named(node).admin;
            let seen: Vec<AuditEntry> =
                serde_json::from_slice(&exchange(address, &request("GET", audit, b"")).body).expect("an audit log");
            let is_it = |entry: &&AuditEntry| entry.what == *what && entry.new.starts_with(new.as_str());
            assert_eq!(seen.iter().filter(is_it).count(), 1, "{what}: {new} on {node}: {seen:?}");
        }
    }
}

/// Attempts that have failed for this reason, all nodes together.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
fn failed(fleet: &Fleet, reason: &str) -> Result<u64, String> {
    let of =
        |name: &String| fleet.api(name).metric("spillway_notifications_failed_total", &format!("reason=\"{reason}\""));
    Ok(fleet.names().iter().map(of).sum::<Result<f64, String>>()? as u64)
}

/// The endpoint fails in this way from now on, and `commands` are given meanwhile; then an attempt has failed in this way.
fn while_it(fleet: &Fleet, hook: &Hook, mood: Mood, reason: &str, commands: impl FnOnce()) {
    let before = failed(fleet, reason).expect("metrics");
    hook.set(mood);
    let start = Instant::now();
    commands();
    eventually(TRIED_WITHIN, &format!("an attempt to fail as {reason}"), || {
        let now = failed(fleet, reason)?;
        when(now > before, now)
    });
    say(&format!("{mood:?}: {} s", start.elapsed().as_secs()));
}

fn lane(fleet: &Fleet) -> Result<admin_api::SpillLane, String> {
    let lanes = fleet.api("relay-1").spill()?.lanes;
    lanes.into_iter().max_by_key(|lane| lane.spilled_points).ok_or_else(|| "no lane".to_owned())
}

const ORDERS: &str = "/v1/control/audit";
const REPLAY: &str = "/v1/replay/audit";
const BY: &[u8] = br#"{"by":"drill"}"#;

#[test]
fn drill_stuck_state_every_command_is_done_once_however_often_it_is_given_and_whatever_the_endpoint_does() {
    let _turn = one_at_a_time();
    let hook = Hook::start();
    let more = format!(
        "[[notify]]\nname = \"ops\"\nurl = \"{}\"\ntimeout = \"{}s\"\ngive_up = \"1h\"\n",
        hook.url(),
        ATTEMPT.as_secs()
    );
    let (sink, cluster) = cluster(2, 2, 1, Keys::default());
    let mut fleet = up("stuck-state", cluster.with(&more));
    let wanted: BTreeSet<String> = COMMANDS.iter().map(|&command| command.to_owned()).collect();
    assert_eq!(commands(&fleet), wanted, "the commands of the API and those of this drill");
    hook.set(Mood::Refuses);

    let mut storm = Storm { fleet: &fleet, slowest: Duration::ZERO, done: Vec::new() };
    let names = fleet.names();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    while_it(&fleet, &hook, Mood::Refuses, "connect", || {
        let body = br#"{"mode":"lenient","by":"drill"}"#;
        storm.give(&all, ("PUT", "/v1/health/mode"), body, ORDERS, ("mode/partial", "lenient"));
        eventually(SOON, "all nodes to have the same orders", || {
            let digests: BTreeSet<String> =
                names.iter().map(|name| Ok(fleet.api(name).modes()?.digest)).collect::<Result<_, String>>()?;
            when(digests.len() == 1, digests)
        });
    });
    while_it(&fleet, &hook, Mood::Answers(500), "status", || {
        storm.give(
            &["replayer-1"],
            ("PUT", "/v1/replay"),
            br#"{"paused":true,"by":"drill"}"#,
            REPLAY,
            ("paused", "true"),
        );
        storm.give(&["final-1"], ("PUT", "/v1/replay"), br#"{"rate":4321,"by":"drill"}"#, REPLAY, ("rate", "4321"));
        for (node, version) in [("replayer-1", 1), ("final-1", 1)] {
            assert_eq!(fleet.api(node).replay().expect("its settings").settings.version, version, "{node}");
        }
    });
    while_it(&fleet, &hook, Mood::Garbage, "broken", || {
        let drained = ("drain/partial-2", "drained");
        storm.give(&["relay-1"], ("POST", "/v1/nodes/partial-2/drain"), BY, ORDERS, drained);
        storm.give(&["relay-1"], ("POST", "/v1/nodes/final-1/drain"), BY, ORDERS, ("drain/final-1", "drained"));
    });

    // The final node is held off and the replay stands still: what comes now lies in the spill of relay-1.
    let feed = Feed::new(fleet.cluster.graphite(), 5_000).start();
    eventually(SOON, "a spill of a few batches", || {
        lane(&fleet).and_then(|lane| when(lane.pending_batches >= 8, lane))
    });
    let sent = feed.finish();
    let books = eventually(CATCH_UP, "all of it in the spill", || {
        let of = fleet.api("relay-1").ledger()?;
        let waits: u64 = of.destinations.iter().map(|to| to.in_flight).sum();
        when(waits == 0 && of.in_hand == 0, &of).map(|()| of)
    });
    let pending = spilled(&fleet, "relay-1").expect("books");
    assert!(pending > 0 && books.balanced, "{books:?}");
    let held = lane(&fleet).expect("a lane");
    let relay = fleet.cluster.named("relay-1").admin;
    let page = format!("/v1/spill/export?lane={}&from=0&limit=10000", held.lane);
    let export = exchange(relay, &request("GET", &page, b""));
    assert!(!export.head.contains("x-spillway-next"), "one page: {}", export.head);

    while_it(&fleet, &hook, Mood::Hangs, "timeout", || {
        let destination = &held.destination;
        let to = held.head + 3;
        let cursor = format!("{{\"destination\":\"{destination}\",\"to\":{to},\"force\":true,\"by\":\"drill\"}}");
        let what = format!("spill.cursor of {destination} to {to}");
        storm.give(&["relay-1"], ("POST", "/v1/spill/cursor"), cursor.as_bytes(), REPLAY, (&what, "3 batches"));
        let discard = format!("{{\"destination\":\"{destination}\",\"force\":true,\"by\":\"drill\"}}");
        let what = format!("spill.discard {destination}");
        storm.give(&["relay-1"], ("POST", "/v1/spill/discard"), discard.as_bytes(), REPLAY, (&what, ""));
        assert_eq!(
            spilled(&fleet, "relay-1").expect("books"),
            pending - held.pending_points,
            "all of the lane is gone"
        );
        storm.give(&["relay-1"], ("POST", "/v1/spill/import"), &export.body, REPLAY, ("spill.import", ""));
        let back = lane(&fleet).expect("a lane");
        assert_eq!((back.pending_batches, back.pending_points), (held.pending_batches, held.pending_points));
    });
    while_it(&fleet, &hook, Mood::Late(ATTEMPT + Duration::from_secs(1)), "timeout", || {
        storm.give(&["relay-1"], ("POST", "/v1/nodes/final-1/undrain"), BY, ORDERS, ("drain/final-1", "active"));
        storm.give(&["relay-2"], ("POST", "/v1/nodes/partial-2/undrain"), BY, ORDERS, ("drain/partial-2", "active"));
        storm.give(&["relay-1"], ("POST", "/v1/nodes/partial-2/forget"), BY, ORDERS, ("forget/partial-2", "forgotten"));
        storm.give(
            &["replayer-1"],
            ("PUT", "/v1/replay"),
            br#"{"paused":false,"by":"drill"}"#,
            REPLAY,
            ("paused", "false"),
        );
    });
    let late = || when(hook.posted().late > 0, hook.posted().attempts);
    eventually(TRIED_WITHIN, "an attempt to be answered too late", late);
    let (slowest, done) = (storm.slowest, storm.done);
    say(&format!("{} commands, the slowest answer after {} ms", done.len(), slowest.as_millis()));

    // What is imported is what was there: counted once.
    eventually(CATCH_UP, "the spill to be replayed", || {
        spilled(&fleet, "relay-1").and_then(|left| when(left == 0, left))
    });
    equals_the_oracle(&mut fleet, &sink, &sent);

    healed(&fleet, &hook, &done);
    no_worker_failed(&fleet);
    // What was ordered is in force after a restart, and a failing endpoint does not hold up a stop.
    hook.set(Mood::Hangs);
    let order = br#"{"mode":"strict","layer":"final","by":"drill"}"#;
    assert_eq!(exchange(relay, &request("PUT", "/v1/health/mode", order)).status(), "200");
    let (before, start) = (fleet.api("relay-1").modes().expect("modes"), Instant::now());
    fleet.stop("relay-1");
    let took = start.elapsed();
    assert!(took < ATTEMPT, "the stop took {took:?}");
    fleet.restart("relay-1");
    assert_eq!(fleet.api("relay-1").modes().expect("modes"), before);
    Storm { fleet: &fleet, slowest, done }.all_once();
    hook.set(Mood::Takes);
    fleet.end();
}

/// The endpoint is well again: everything that was kept for it arrives, each thing under one id.
fn healed(fleet: &Fleet, hook: &Hook, done: &[Done]) {
    hook.set(Mood::Takes);
    let start = Instant::now();
    eventually(TRIED_WITHIN * 2, "no notice to wait any more", || {
        fleet.names().iter().try_for_each(|name| {
            let waiting = fleet.api(name).metric("spillway_notifications_waiting", "")?;
            when(waiting == 0.0, (name, waiting))
        })
    });
    say(&format!("healed: all notices arrived after {} s", start.elapsed().as_secs()));
    let posted = hook.posted();
    assert_eq!(posted.strange, Vec::<String>::new());
    for name in fleet.names() {
        let given_up = fleet.api(&name).metric("spillway_notifications_given_up_total", "").expect("metrics");
        assert!(given_up == 0.0, "{name} gave up {given_up} notices");
    }
    for Done { node, what, new, to_all, .. } in done {
        let said = posted.taken.iter().filter(|notice| {
            let names_it = notice.what == *what || notice.what.ends_with(&format!(".{what}"));
            notice.event == "orders"
                && names_it
                && notice.new.starts_with(new.as_str())
                && (*to_all || notice.node == *node)
        });
        let ids: BTreeSet<&str> = said.map(|notice| notice.id.as_str()).collect();
        if *to_all && node == "relay-1" {
            say(&format!("{what}: given to all nodes at once, told under {} ids", ids.len()));
        }
        assert!(!ids.is_empty(), "{what}: {new} was never told; taken: {:?}", posted.taken);
        assert!(*to_all || ids.len() == 1, "{what}: {new} was told as {ids:?}");
    }
    let attempts: u64 = posted.attempts.values().sum();
    say(&format!("{} notices in {attempts} attempts that reached the endpoint", posted.attempts.len()));
}
