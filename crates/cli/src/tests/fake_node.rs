//! A node that answers every request in one manner, or each as a test says.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Such as `GET /v1/spill`.
    pub(super) what: String,
    /// What it was shown, after `Authorization: `.
    pub(super) shown: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Status, further header lines, body.
pub(super) type Reply = (u16, String, Vec<u8>);

/// What it answers to a request.
pub(super) type Respond = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// How it answers.
#[derive(Clone)]
pub(super) enum Manner {
    /// 200 with this body.
    Json(String),
    /// These bytes, then the end.
    Raw(String),
    /// Reads and says nothing.
    Silent,
    /// Ends the connection without an answer.
    HangUp,
    /// Each request as this says.
    Respond(Respond),
}

impl fmt::Debug for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Manner::Json(_) => "Json",
            Manner::Raw(_) => "Raw",
            Manner::Silent => "Silent",
            Manner::HangUp => "HangUp",
            Manner::Respond(_) => "Respond",
        })
    }
}

/// Lives as long as the test's process: its thread waits in `accept`.
#[derive(Debug)]
pub(super) struct FakeNode {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeNode {
    #[allow(clippy::disallowed_methods, reason = "a test's server needs no supervision")]
    pub(super) fn start(manner: Manner) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            // Silent connections are kept open, so that the client's own deadline is what ends them.
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                kept.extend(answer(stream.expect("accepts"), &manner, &log));
            }
        });
        FakeNode { address, asked }
    }

    /// Answers each request as `respond` says.
    pub(super) fn responding(respond: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> FakeNode {
        FakeNode::start(Manner::Respond(Arc::new(respond)))
    }

    /// An address where nobody listens, nor will: no other test uses this host.
    pub(super) fn closed() -> FakeNode {
        let listener = TcpListener::bind("127.0.0.77:0").expect("binds");
        FakeNode { address: listener.local_addr().expect("bound"), asked: Arc::default() }
    }

    /// What it was asked so far whose beginning is `what`.
    pub(super) fn asked(&self, what: &str) -> Vec<Asked> {
        let asked = self.asked.lock().expect("no test panics with it");
        asked.iter().filter(|asked| asked.what.starts_with(what)).cloned().collect()
    }
}

/// 200 with this as JSON.
pub(super) fn good(value: &impl serde::Serialize) -> Reply {
    (200, String::new(), serde_json::to_vec(value).expect("encodes"))
}

/// Another status with the reason, as nodes say it.
pub(super) fn bad(code: u16, error: &str) -> Reply {
    (code, String::new(), serde_json::to_vec(&serde_json::json!({ "error": error })).expect("encodes"))
}

/// As a node answers a path that it does not have.
pub(super) fn unknown_path(asked: &Asked) -> Reply {
    bad(404, &format!("no path {}", asked.what))
}

fn answer(mut stream: TcpStream, manner: &Manner, log: &Mutex<Vec<Asked>>) -> Option<TcpStream> {
    let asked = read(&mut stream)?;
    log.lock().expect("no test panics with it").push(asked.clone());
    let ok = |body: &[u8]| response(&(200, String::new(), body.to_vec()));
    let bytes = match manner {
        Manner::Json(body) => ok(body.as_bytes()),
        Manner::Raw(bytes) => bytes.clone().into_bytes(),
        Manner::Silent => return Some(stream),
        Manner::HangUp => return None,
        Manner::Respond(respond) => response(&respond(&asked)),
    };
    // The client may have gone; the test sees that by what it got.
    match stream.write_all(&bytes) {
        Ok(()) | Err(_) => None,
    }
}

fn response((code, headers, body): &Reply) -> Vec<u8> {
    let head = format!("HTTP/1.1 {code} X\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A whole request; `None` when the client goes away.
fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let body = &bytes[end + 4..];
            if body.len() >= length.unwrap_or(0) {
                let first = String::from_utf8_lossy(&bytes[..end]);
                let what = first.lines().next()?.strip_suffix(" HTTP/1.1")?.to_owned();
                let shown = first.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
                return Some(Asked { what, shown, body: body.to_vec() });
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}
