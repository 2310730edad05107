//! A node that answers every request in one manner.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// How it answers.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// 200 with this body.
    Json(String),
    /// These bytes, then the end.
    Raw(String),
    /// Reads and says nothing.
    Silent,
    /// Ends the connection without an answer.
    HangUp,
}

/// Lives as long as the test's process: its thread waits in `accept`.
#[derive(Debug)]
pub(super) struct FakeNode {
    pub(super) address: SocketAddr,
}

impl FakeNode {
    #[allow(clippy::disallowed_methods, reason = "a test's server needs no supervision")]
    pub(super) fn start(manner: Manner) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            // Silent connections are kept open, so that the client's own deadline is what ends them.
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                kept.extend(answer(stream.expect("accepts"), &manner));
            }
        });
        FakeNode { address }
    }

    /// An address where nobody listens, nor will: no other test uses this host.
    pub(super) fn closed() -> FakeNode {
        let listener = TcpListener::bind("127.0.0.77:0").expect("binds");
        FakeNode { address: listener.local_addr().expect("bound") }
    }
}

fn answer(mut stream: TcpStream, manner: &Manner) -> Option<TcpStream> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(length) => request.extend_from_slice(&chunk[..length]),
        }
    }
    let bytes = match manner {
        Manner::Json(body) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        Manner::Raw(bytes) => bytes.clone(),
        Manner::Silent => return Some(stream),
        Manner::HangUp => return None,
    };
    // The client may have gone; the test sees that by what it got.
    match stream.write_all(bytes.as_bytes()) {
        Ok(()) | Err(_) => None,
    }
}
