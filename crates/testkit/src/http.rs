//! One HTTP request over a plain socket, as much as an admin API needs.
//!
//! HTTP/1.0 on purpose: the answer is then never chunked, and ends with the connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection, and for each read of an answer. Short, because the admin server itself may be the one
/// that hangs: whoever polls must be able to ask again soon.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// After the empty line, to the end of the connection.
    pub body: String,
}

/// `GET path`.
///
/// # Errors
/// Whatever the socket says, or `InvalidData` for an answer that is not HTTP.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// `GET path` with one more header line, such as `name: value`.
///
/// # Errors
/// As [`get`].
pub fn get_with(header: &str, address: SocketAddr, path: &str) -> io::Result<Response> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{header}\r\n\r\n"))
}

/// `POST path` with a JSON body.
///
/// # Errors
/// As [`get`].
pub fn post_json(address: SocketAddr, path: &str, body: &str) -> io::Result<Response> {
    send_json(address, "POST", path, body)
}

/// `PUT path` with a JSON body.
///
/// # Errors
/// As [`get`].
pub fn put_json(address: SocketAddr, path: &str, body: &str) -> io::Result<Response> {
    send_json(address, "PUT", path, body)
}

/// Any method, with a bearer token if there is one, and a JSON body.
///
/// # Errors
/// As [`get`].
pub fn ask_as(token: Option<&str>, address: SocketAddr, line: &str, body: &str) -> io::Result<Response> {
    let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    exchange(
        address,
        &format!(
            "{line} HTTP/1.0\r\nHost: {address}\r\n{shown}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn send_json(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Response> {
    let length = body.len();
    exchange(
        address,
        &format!(
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn exchange(address: SocketAddr, request: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes that are no HTTP", answer.len())))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn status_and_body_are_split_at_the_empty_line() {
        let response = parse("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"x\":1}\r\n\r\n");
        assert_eq!(response.map(|r| (r.status, r.body)), Some((503, "{\"x\":1}\r\n\r\n".to_owned())));
    }

    #[test]
    fn what_is_no_http_is_refused() {
        assert!(parse("SSH-2.0-OpenSSH_9.2").is_none());
        assert!(parse("HTTP/1.1 many\r\n\r\n").is_none());
    }
}
