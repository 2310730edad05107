mod door;
mod operator;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use admin_api::{BadLine, Failpoint, Health, Ledger, Status, Verdict, WorkerStatus};
use runtime::{Clock, Supervisor};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Controls, Door, Limits, serve, worker_statuses};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node that says what the test tells it to.
struct Node {
    verdict: Mutex<Verdict>,
    supervisor: Supervisor,
    telemetry: Telemetry,
}

impl Controls for Node {
    fn health(&self) -> Health {
        let verdict = self.verdict.lock().unwrap().clone();
        Health::new("relay-1", "relay", verdict)
    }

    fn status(&self) -> Status {
        Status {
            node: "relay-1".to_owned(),
            layer: "relay".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 7,
            verdict: self.health().verdict,
            workers: self.workers(),
            peers: Vec::new(),
            figures: [("connections".to_owned(), 3)].into(),
            ledger: self.ledger(),
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger { node: "relay-1".to_owned(), received: 9, balanced: true, ..Ledger::default() }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        worker_statuses(&self.supervisor)
    }

    fn badlines(&self) -> Vec<BadLine> {
        let text = |text: &str| text.to_owned();
        vec![BadLine { at: 1, peer: text("127.0.0.1"), reason: text("nan"), line: text("a nan 1") }]
    }

    fn metrics(&self) -> String {
        "# HELP x y\n".to_owned()
    }

    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn failpoint(&self, failpoint: Failpoint) -> Result<(), String> {
        crate::arm_failpoint(&self.supervisor, &failpoint)
    }
}

fn node(supervisor: &Supervisor) -> Arc<Node> {
    let telemetry = Telemetry::new("relay-1", "relay");
    Arc::new(Node { verdict: Mutex::new(Verdict::Ready), supervisor: supervisor.clone(), telemetry })
}

struct Server {
    addr: SocketAddr,
    node: Arc<Node>,
    supervisor: Supervisor,
}

fn start(limits: Limits) -> Server {
    start_behind(Door::open(), limits)
}

fn start_behind(door: Door, limits: Limits) -> Server {
    let clock = Clock::new();
    let supervisor = Supervisor::new("relay-1", clock, engine::restart::RestartPolicy::default()).unwrap();
    let listener = runtime::net::listen(SocketAddr::from(([127, 0, 0, 1], 0)), 16).unwrap();
    let addr = listener.local_addr().unwrap();
    let node = node(&supervisor);
    let controls: Arc<dyn Controls> = Arc::clone(&node) as _;
    serve(crate::Server { limits, listener, controls, door, tls: tls::Door::plain(), clock }, &supervisor).unwrap();
    Server { addr, node, supervisor }
}

impl Server {
    /// One request over a connection of its own: the status code and the body.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (head, body) = self.ask_with("", method, path, body).await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// The same with further header lines, and the head of the answer in small letters.
    async fn ask_with(&self, headers: &str, method: &str, path: &str, body: &str) -> (String, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "").await
    }
}

/// An answer must be 200 and read back as the type that the API promises.
#[track_caller]
fn parsed<T: serde::de::DeserializeOwned>((code, body): (u16, String)) -> T {
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_answers_with_its_type() {
    let server = start(Limits::default());
    assert_eq!(parsed::<String>(server.get("/v1/live").await), "live");
    assert_eq!(parsed::<Health>(server.get("/v1/health").await).verdict, Verdict::Ready);
    let status: Status = parsed(server.get("/v1/status").await);
    assert_eq!((status.uptime_seconds, status.figures["connections"]), (7, 3));
    assert_eq!(parsed::<Ledger>(server.get("/v1/ledger").await).received, 9);
    let workers: Vec<WorkerStatus> = parsed(server.get("/v1/workers").await);
    assert_eq!((workers[0].name.as_str(), workers[0].state.as_str()), ("admin", "running"));
    assert_eq!(parsed::<Vec<BadLine>>(server.get("/v1/badlines").await)[0].reason, "nan");
    assert_eq!(server.get("/metrics").await, (200, "# HELP x y\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_503_for_who_should_get_no_traffic() {
    let server = start(Limits::default());
    let degraded = Verdict::Degraded { worker: "w".to_owned(), restarts: 1, error: "panic".to_owned() };
    let cases = [
        (Verdict::Starting, 503),
        (Verdict::Ready, 200),
        (Verdict::Overloaded { queue_bytes: 1, lag_ms: 2 }, 200),
        (degraded, 503),
        (Verdict::Draining, 503),
    ];
    for (verdict, expected) in cases {
        *server.node.verdict.lock().unwrap() = verdict.clone();
        let (code, body) = server.get("/v1/health").await;
        assert_eq!(code, expected, "{verdict:?}");
        assert_eq!(serde_json::from_str::<Health>(&body).unwrap().verdict, verdict);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_path_lists_the_known_ones() {
    let server = start(Limits::default());
    let (code, body) = server.get("/v1/helath").await;
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, said["error"].as_str()), (404, Some("no path /v1/helath")));
    let known = said["known_paths"].as_array().unwrap();
    assert!(known.contains(&"/v1/health".into()) && known.contains(&"/metrics".into()), "{body}");
    assert_eq!(known.contains(&"/v1/failpoint".into()), runtime::failpoints::ENABLED);

    let (code, body) = server.ask("POST", "/v1/health", "").await;
    assert_eq!((code, body.contains("/v1/health does not take POST")), (405, true), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoints_exist_only_in_a_build_with_failpoints() {
    let server = start(Limits::default());
    let armed = r#"{"worker":"admin","action":"error","times":0}"#;
    let (code, body) = server.ask("POST", "/v1/failpoint", armed).await;
    if !runtime::failpoints::ENABLED {
        assert_eq!(code, 404, "{body}");
        return;
    }
    assert_eq!((code, body.as_str()), (200, "\"armed\""));
    for wrong in [
        r#"{"worker":"nobody","action":"error","times":1}"#,
        r#"{"worker":"admin","action":"explode","times":1}"#,
        r#"{"worker":"admin"}"#,
        "no json",
    ] {
        let (code, body) = server.ask("POST", "/v1/failpoint", wrong).await;
        assert_eq!((code, body.contains("error")), (400, true), "{wrong}: {body}");
    }
}

/// Lets the saturating tasks end also when the test fails: its runtime would wait for them.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_while_the_data_path_is_saturated() {
    let server = start(Limits::default());
    let release = Release(Arc::new(AtomicBool::new(false)));
    for _ in 0..2 {
        let released = Arc::clone(&release.0);
        server.supervisor.spawn_connection("saturated", async move {
            while !released.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
    }
    // Blocking client: the runtime of the data path has no thread left, and this test needs none of it.
    let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /v1/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_slow_clients_are_closed() {
    let (head, connection) = (Duration::from_millis(200), Duration::from_millis(400));
    let limits = Limits { head, connection, ..Limits::default() };
    let server = start(limits);
    let unfinished_body = "POST /v1/live HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nfour";
    for sent in ["", "GET /v1/live HT", "GET /v1/live HTTP/1.1\r\nhost: x\r\n\r\n", unfinished_body] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Ended or reset, but ended.
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "still open after {sent:?}");
    }
    assert_eq!(server.get("/v1/live").await.0, 200);
}

/// Reads the answer of `/v1/live`, and nothing of a next one.
async fn whole_answer(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n\"live\"") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap();
        answer.push(byte.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_beyond_the_limit_is_closed_and_the_others_live() {
    let limits = Limits { head: PATIENCE, connection: PATIENCE, ..Limits::default() };
    for limits in [Limits { connections: 2, ..limits }, Limits { of_one_address: 2, ..limits }] {
        the_third_is_closed(limits).await;
    }
}

async fn the_third_is_closed(limits: Limits) {
    let server = start(limits);
    let request = b"GET /v1/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(request).await.unwrap();
        whole_answer(&mut stream).await;
        held.push(stream);
    }
    let mut third = TcpStream::connect(server.addr).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, third.read_to_end(&mut answer)).await;
    assert!(closed.is_ok() && answer.is_empty(), "{answer:?}");
    for stream in &mut held {
        stream.write_all(request).await.unwrap();
        whole_answer(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_the_server_and_frees_its_port() {
    let server = start(Limits::default());
    assert_eq!(server.get("/v1/live").await.0, 200);
    assert_eq!(server.supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
    assert_eq!(server.supervisor.workers()[0].phase.as_str(), "stopped");
    let refused = TcpStream::connect(server.addr).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
