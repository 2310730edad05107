//! Replay and spill over HTTP: what reaches the node, what comes back, and every way of not being served.

use admin_api::{
    AuditEntry, CursorAdvance, Refused, ReplayChange, ReplaySettings, ReplayStatus, SpillDiscard, SpillImported,
    SpillLoss, SpillPage, SpillRecord, SpillStatus, SpillVerified,
};
use std::sync::MutexGuard;

use axum::body::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::{Page, Refusal, SpillAnswer, SpillRequest};

/// A node with a replay of its own and a spill that answers as `spill` says; without it, it has neither.
pub(super) struct Operated {
    settings: Mutex<ReplaySettings>,
    telemetry: Telemetry,
    spill: fn(SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>>,
}

impl Operated {
    fn settings(&self) -> MutexGuard<'_, ReplaySettings> {
        self.settings.lock().unwrap()
    }
}

impl Controls for Operated {
    fn health(&self) -> Health {
        Health::new("n", "relay", Verdict::Ready)
    }
    fn status(&self) -> Status {
        unreachable!("not asked here")
    }
    fn ledger(&self) -> Ledger {
        Ledger::default()
    }
    fn workers(&self) -> Vec<WorkerStatus> {
        Vec::new()
    }
    fn badlines(&self) -> Vec<BadLine> {
        Vec::new()
    }
    fn metrics(&self) -> String {
        String::new()
    }
    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }
    fn failpoint(&self, _failpoint: Failpoint) -> Result<(), String> {
        Ok(())
    }

    fn replay(&self) -> Result<ReplayStatus, Refusal> {
        let settings = self.settings().clone();
        Ok(ReplayStatus { node: "n".to_owned(), settings, ..ReplayStatus::default() })
    }

    fn change_replay(&self, change: ReplayChange) -> Result<ReplayStatus, Refusal> {
        let mut settings = self.settings();
        if change.rate == Some(0) {
            return Err(Refusal::invalid(format!("0 is no rate; it stays {}/s", settings.rate)));
        }
        if change.source.is_some_and(|source| source != "relay-1") {
            return Err(Refusal::not_here("no such source; known is relay-1"));
        }
        settings.rate = change.rate.unwrap_or(settings.rate);
        settings.changed_by = change.by;
        drop(settings);
        self.replay()
    }

    fn audit(&self) -> Vec<AuditEntry> {
        let text = |text: &str| text.to_owned();
        vec![AuditEntry { at: 5, by: text("alice"), what: text("rate"), old: text("1"), new: text("2") }]
    }

    fn spill(&self, request: SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>> {
        (self.spill)(request)
    }
}

fn answered(answer: Result<SpillAnswer, Refusal>) -> oneshot::Receiver<Result<SpillAnswer, Refusal>> {
    let (sender, receiver) = oneshot::channel();
    sender.send(answer).unwrap();
    receiver
}

fn loss(done: bool) -> SpillLoss {
    SpillLoss { batches: 2, points: 20, bytes: 200, oldest: Some(1), newest: Some(2), done }
}

/// What it answers tells what it was asked.
pub(super) fn spill(request: SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>> {
    let gives_up = |dry_run: bool, force: bool| match (dry_run, force) {
        (true, _) => Ok(SpillAnswer::Loss(loss(false))),
        (false, true) => Ok(SpillAnswer::Loss(loss(true))),
        (false, false) => Err(Refusal::would_lose("20 points would be lost", loss(false))),
    };
    answered(match request {
        SpillRequest::Status => {
            Ok(SpillAnswer::Status(SpillStatus { mode: "ok".to_owned(), ..SpillStatus::default() }))
        }
        SpillRequest::Records(page) => {
            let record = SpillRecord { lane: page.lane, ordinal: page.from, ..SpillRecord::default() };
            Ok(SpillAnswer::Records(SpillPage { records: vec![record], next: Some(u64::from(page.limit)) }))
        }
        SpillRequest::Verify(page) => {
            Ok(SpillAnswer::Verified(SpillVerified { records: u64::from(page.limit), ..SpillVerified::default() }))
        }
        SpillRequest::Export(Page { from, .. }) => {
            let next = (from == 0).then_some(7);
            Ok(SpillAnswer::Exported { bytes: Bytes::from_static(b"\x01\0\0\0x"), next })
        }
        SpillRequest::Import(bytes, _) => {
            let points = u64::try_from(bytes.len()).unwrap();
            Ok(SpillAnswer::Imported(SpillImported { records: 1, points }))
        }
        SpillRequest::Discard(SpillDiscard { dry_run, force, .. }) => gives_up(dry_run, force),
        SpillRequest::Cursor(CursorAdvance { dry_run, force, .. }) => gives_up(dry_run, force),
    })
}

pub(super) fn operated_node(spill: fn(SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>>) -> Operated {
    Operated { settings: Mutex::new(ReplaySettings::default()), telemetry: Telemetry::new("n", "relay"), spill }
}

fn operated(spill: fn(SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>>) -> Server {
    serving(Arc::new(operated_node(spill)), Door::open())
}

pub(super) fn serving(controls: Arc<dyn Controls>, door: Door) -> Server {
    let supervisor = Supervisor::new("n", Clock::new(), engine::restart::RestartPolicy::default()).unwrap();
    let listener = runtime::net::listen(SocketAddr::from(([127, 0, 0, 1], 0)), 16).unwrap();
    let addr = listener.local_addr().unwrap();
    let (limits, tls, clock) = (Limits::default(), tls::Door::plain(), Clock::new());
    serve(crate::Server { limits, listener, controls, door, tls, clock }, &supervisor).unwrap();
    let node = node(&supervisor);
    Server { addr, node, supervisor }
}

/// An answer of that code must say why in the words of the API.
#[track_caller]
fn refused((code, body): (u16, String), expected: u16) -> Refused {
    assert_eq!(code, expected, "{body}");
    let refused: Refused = serde_json::from_str(&body).unwrap();
    assert!(!refused.error.is_empty());
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_is_shown_changed_and_audited() {
    let server = operated(spill);
    assert_eq!(parsed::<ReplayStatus>(server.get("/v1/replay").await).settings.rate, 50_000);
    let change = r#"{"rate":7,"by":"bob"}"#;
    for _twice in 0..2 {
        let status: ReplayStatus = parsed(server.ask("PUT", "/v1/replay", change).await);
        assert_eq!((status.settings.rate, status.settings.changed_by.as_str()), (7, "bob"));
    }
    assert_eq!(parsed::<ReplayStatus>(server.ask("PUT", "/v1/replay", "{}").await).settings.rate, 7);
    assert_eq!(parsed::<Vec<AuditEntry>>(server.get("/v1/replay/audit").await)[0].by, "alice");
    let zero = refused(server.ask("PUT", "/v1/replay", r#"{"rate":0}"#).await, 400);
    assert_eq!((zero.error.as_str(), zero.would_lose), ("0 is no rate; it stays 7/s", None));
    let unknown = r#"{"rate":1,"source":"relay-9"}"#;
    assert!(refused(server.ask("PUT", "/v1/replay", unknown).await, 404).error.contains("known is relay-1"));
    for wrong in [
        r#"{"rate":"fast"}"#,
        r#"{"rate":-1}"#,
        r#"{"rate":1.5}"#,
        "{",
        "",
        r#"{"rat":5}"#,
        r#"{"canary_percent":256}"#,
    ] {
        refused(server.ask("PUT", "/v1/replay", wrong).await, 400);
    }
    assert_eq!(parsed::<ReplayStatus>(server.get("/v1/replay").await).settings.rate, 7);
    refused(server.ask("POST", "/v1/replay", "{}").await, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_spill_are_asked_for_by_lane() {
    let server = operated(spill);
    assert_eq!(parsed::<SpillStatus>(server.get("/v1/spill").await).mode, "ok");
    let page: SpillPage = parsed(server.get("/v1/spill/records?lane=3&from=9&limit=4").await);
    assert_eq!((page.records[0].lane, page.records[0].ordinal, page.next), (3, 9, Some(4)));
    // What is left out: from the beginning, a thousand.
    let page: SpillPage = parsed(server.get("/v1/spill/records?lane=3").await);
    assert_eq!((page.records[0].ordinal, page.next), (0, Some(1000)));
    assert_eq!(parsed::<SpillVerified>(server.get("/v1/spill/verify?lane=0&limit=5").await).records, 5);
    for path in ["records", "verify", "export"] {
        for query in
            ["", "?from=1", "?lane=x", "?lane=-1", "?lane=65536", "?lane=1&from=-1", "?lane=1&limit=4294967296"]
        {
            refused(server.get(&format!("/v1/spill/{path}{query}")).await, 400);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_says_where_it_goes_on_and_an_import_takes_its_bytes() {
    let server = operated(spill);
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let ask = "GET /v1/spill/export?lane=0 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("x-spillway-next: 7\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n\u{1}\0\0\0x"), "{answer:?}");
    assert_eq!(server.get("/v1/spill/export?lane=0&from=7").await.0, 200);
    let imported: SpillImported = parsed(server.ask("POST", "/v1/spill/import", "\u{1}\0\0\0x").await);
    assert_eq!(imported.points, 5);
    let large = "x".repeat((32 << 20) + 1);
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("POST /v1/spill/import HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", large.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may hang up before it has read all that it does not want.
    let _sent = stream.write_all(large.as_bytes()).await.is_ok();
    let mut code = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut code)).await.unwrap();
    assert!(read.is_err() || &code == b"HTTP/1.1 400", "{code:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_lose_data_is_409_with_the_loss() {
    let server = operated(spill);
    let cases = [("discard", r#"{"by":"x"#), ("cursor", r#"{"destination":"aggregate","to":5,"by":"x"#)];
    for (path, begin) in cases {
        let path = format!("/v1/spill/{path}");
        let refusal = refused(server.ask("POST", &path, &format!("{begin}\"}}")).await, 409);
        assert_eq!((refusal.error.as_str(), refusal.would_lose), ("20 points would be lost", Some(loss(false))));
        let dry = server.ask("POST", &path, &format!("{begin}\",\"dry_run\":true}}")).await;
        assert!(!parsed::<SpillLoss>(dry).done);
        let forced = server.ask("POST", &path, &format!("{begin}\",\"force\":true}}")).await;
        assert!(parsed::<SpillLoss>(forced).done);
        for wrong in [
            "",
            "{",
            r#"{"destination":5}"#,
            r#"{"to":"x"}"#,
            r#"{"force":"yes"}"#,
            r#"{"destinaton":"x","force":true}"#,
        ] {
            refused(server.ask("POST", &path, wrong).await, 400);
        }
        refused(server.get(&path).await, 405);
    }
    // Moving a cursor needs both the lane and the ordinal.
    refused(server.ask("POST", "/v1/spill/cursor", r#"{"force":true}"#).await, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_spill_or_replay_says_who_has_it() {
    let server = start(Limits::default());
    assert!(refused(server.get("/v1/replay").await, 404).error.contains("ask a replayer"));
    refused(server.ask("PUT", "/v1/replay", r#"{"rate":1}"#).await, 404);
    assert_eq!(parsed::<Vec<AuditEntry>>(server.get("/v1/replay/audit").await), []);
    for path in ["/v1/spill", "/v1/spill/records?lane=0", "/v1/spill/verify?lane=0", "/v1/spill/export?lane=0"] {
        assert!(refused(server.get(path).await, 404).error.contains("relays have"), "{path}");
    }
    refused(server.ask("POST", "/v1/spill/discard", "{}").await, 404);
    refused(server.ask("POST", "/v1/spill/import", "x").await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spill_that_is_being_restarted_is_not_now() {
    // The owner of the spill drops the question when it dies.
    let server = operated(|_request| oneshot::channel().1);
    for path in ["/v1/spill", "/v1/spill/records?lane=0", "/v1/spill/export?lane=0"] {
        assert!(refused(server.get(path).await, 503).error.contains("ask again"), "{path}");
    }
    assert!(refused(server.ask("POST", "/v1/spill/discard", "{}").await, 503).error.contains("ask again"));
    let server = operated(|_request| answered(Err(Refusal::unavailable("the spill is being opened"))));
    assert_eq!(refused(server.get("/v1/spill").await, 503).error, "the spill is being opened");
}
