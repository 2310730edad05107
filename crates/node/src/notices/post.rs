//! One attempt: a connection of its own, one request, the status of its answer. All of it in the endpoint's time.

use std::error::Error;
use std::future::{Future as _, poll_fn};
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use config::TlsMode;
use engine::notify::{Failure, judge};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{StatusCode, header};
use hyper_util::rt::TokioIo;
use runtime::net::{self, SocketProfile};
use tls::{Caller, Keys, Port, Stream};
use tokio::net::TcpStream;

/// Of the file with the secret.
const TOKEN_MAX: u64 = 4096;
/// What the head of an answer may have; its body is not read.
const HEAD_MAX: usize = 64 << 10;

type Failed = (Failure, String);

/// Posts a document.
///
/// # Errors
/// Why it was not taken, without what may be a secret.
pub(super) async fn post(endpoint: &config::Notify, body: &str) -> Result<(), Failed> {
    match tokio::time::timeout(endpoint.timeout, exchange(endpoint, body)).await {
        Ok(Ok(status)) => {
            judge(status.as_u16()).map_err(|failure| (failure, format!("it answers {}", status.as_u16())))
        }
        Ok(Err(failed)) => Err(failed),
        Err(_elapsed) => Err((Failure::Timeout, format!("no answer within {} ms", endpoint.timeout.as_millis()))),
    }
}

async fn exchange(endpoint: &config::Notify, body: &str) -> Result<StatusCode, Failed> {
    let request = request(endpoint, body)?;
    let authority = endpoint.url.authority();
    let stream = net::connect(&authority, SocketProfile::Client, endpoint.timeout).await;
    let stream = guarded(endpoint, stream.map_err(|error| (Failure::Connect, chain(&error)))?).await?;
    let broken = |error: hyper::Error| (Failure::Broken, chain(&error));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = async move { sender.send_request(request).await.map(|response| response.status()) };
    // The connection must be driven while the answer is awaited; when its head is there it is of no more use.
    tokio::pin!(connection);
    tokio::pin!(answer);
    let mut connected = true;
    let status = poll_fn(|context| {
        if connected && connection.as_mut().poll(context).is_ready() {
            // Its end, good or bad, reaches the answer through the sender.
            connected = false;
        }
        answer.as_mut().poll(context)
    });
    status.await.map_err(broken)
}

/// Over TLS, if the endpoint is one of https. The authority is read for each attempt, so that a new one needs no restart.
async fn guarded(endpoint: &config::Notify, stream: TcpStream) -> Result<Stream, Failed> {
    let Some(authority) = &endpoint.authority else { return Ok(Stream::Plain(stream)) };
    let keys = Keys::open_authority(authority).map_err(|error| (Failure::Tls, chain(&error)))?;
    // What is counted by port is a node's; this one counts its own failures.
    let caller = Caller::new(Some(&keys), TlsMode::On, Port::Links).map_err(|error| (Failure::Tls, chain(&error)))?;
    caller.call(stream, &endpoint.url.host).await.map_err(|failed| (Failure::Tls, failed.to_string()))
}

fn request(endpoint: &config::Notify, body: &str) -> Result<hyper::Request<Full<Bytes>>, Failed> {
    let mut head = hyper::Request::post(endpoint.url.path.as_str())
        .header(header::HOST, endpoint.url.authority())
        .header(header::USER_AGENT, concat!("spillway/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(file) = &endpoint.token_file {
        let mut value = bearer(file).map_err(|why| (Failure::Token, format!("{}: {why}", file.display())))?;
        value.set_sensitive(true);
        head = head.header(header::AUTHORIZATION, value);
    }
    // The URL was checked when the cluster file was read.
    head.body(Full::new(Bytes::from(body.to_owned()))).map_err(|error| (Failure::Broken, error.to_string()))
}

/// Read for each attempt, so that a new secret needs no restart.
fn bearer(file: &Path) -> Result<header::HeaderValue, String> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|opened| opened.take(TOKEN_MAX).read_to_string(&mut text));
    read.map_err(|error| error.to_string())?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() {
        return Err("its first line is empty".into());
    }
    header::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "its first line is no token".into())
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
