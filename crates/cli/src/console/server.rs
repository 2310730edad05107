//! The HTTP around the page and its two questions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use engine::recv::{AcceptOutcome, Disposition};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::ConnectionSet;
use runtime::net::SocketProfile;
use serde::Serialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::gate::Refusal;
use super::hub::Hub;
use super::order;
use super::state::state;

/// Connections at once; a browser has six. One more is closed at once.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request, and the silence of a kept connection.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// For a connection in all; a browser makes another.
const CONNECTION_WITHIN: Duration = Duration::from_secs(600);
const HEADERS_MAX: usize = 64;
/// An order has a few dozen bytes.
pub(crate) const BODY_BYTES_MAX: usize = 4096;

type Answer = Response<Full<Bytes>>;

/// The page, as it was built in.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Nothing but what comes from here, nobody's frame, and nothing kept.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// Lets browsers in, for ever.
///
/// # Errors
/// When the listener is of no more use.
pub(super) async fn run(listener: TcpListener, hub: &Arc<Hub>) -> anyhow::Result<()> {
    let mut connections = ConnectionSet::new(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => open(stream, Arc::clone(hub), &mut connections),
            Err(error) => match AcceptOutcome::of_error(error.kind(), error.raw_os_error()).disposition() {
                Disposition::PauseAccept(pause) => tokio::time::sleep(pause).await,
                Disposition::Continue | Disposition::Retry => {}
                Disposition::Close { .. } => return Err(error).context("listen for browsers"),
            },
        }
    }
}

fn open(stream: TcpStream, hub: Arc<Hub>, connections: &mut ConnectionSet) {
    if let Err(error) = runtime::net::apply(&stream, SocketProfile::Client) {
        tracing::debug!(%error, "a browser was gone before it was served");
        return;
    }
    let connection = async move {
        let service = service_fn(move |request| {
            let hub = Arc::clone(&hub);
            async move { Ok::<_, Infallible>(answer(&hub, request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_headers(HEADERS_MAX);
        let served = http.serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION_WITHIN, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a browser's connection ended"),
            Err(_elapsed) => tracing::debug!("a browser's connection lasted too long"),
        }
    };
    // One too many is dropped, which closes it.
    if !connections.spawn(connection) {
        tracing::warn!(limit = CONNECTIONS_MAX, "too many connections to the console; closed one");
    }
}

async fn answer(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    if let Err(refusal) = hub.gate.check(request.uri().path(), request.method(), request.headers()) {
        return refused(refusal);
    }
    let path = request.uri().path();
    if let Some((_, kind, text)) = FILES.iter().find(|(file, _, _)| *file == path) {
        return match *request.method() {
            Method::GET | Method::HEAD => response(StatusCode::OK, kind, Bytes::from_static(text.as_bytes())),
            _ => wrong_method("GET"),
        };
    }
    match (path, request.method()) {
        ("/api/state", &Method::GET) => {
            hub.look().await;
            json_of(StatusCode::OK, &state(hub, &hub.seen()))
        }
        ("/api/state", _) => wrong_method("GET"),
        ("/api/order", &Method::PUT) => change(hub, request).await.unwrap_or_else(refused),
        ("/api/order", _) => wrong_method("PUT"),
        _ => refused(Refusal { code: StatusCode::NOT_FOUND, error: format!("the console has no {path}") }),
    }
}

/// Shows what an order would do, or sends it.
async fn change(hub: &Arc<Hub>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let dry_run = match request.uri().query() {
        None => false,
        Some("dry_run") => true,
        // Nobody who mistypes that finds the order carried out.
        Some(other) => return Err(bad(format!("{other:?} is no question here; there is dry_run"))),
    };
    let body = body_of(request.into_body()).await?;
    let order = order::parse(&hub.cluster, &body).map_err(bad)?;
    let lines = if dry_run {
        hub.look().await;
        hub.foresee(&order).await.ok_or_else(|| Refusal {
            code: StatusCode::SERVICE_UNAVAILABLE,
            error: "no node has been heard for 3 s: what would change is not known".to_owned(),
        })?
    } else {
        hub.order(&order).await
    };
    let lines: Vec<_> = lines.iter().map(|line| json!({ "text": line.text, "bad": line.bad })).collect();
    Ok(json_of(StatusCode::OK, &json!({ "command": order.command(), "dry_run": dry_run, "lines": lines })))
}

async fn body_of(body: Incoming) -> Result<Bytes, Refusal> {
    let too_long = || Refusal {
        code: StatusCode::PAYLOAD_TOO_LARGE,
        error: format!("an order has at most {BODY_BYTES_MAX} bytes"),
    };
    let read = tokio::time::timeout(HEAD_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err(bad(format!("the order breaks off: {error}"))),
        Err(_elapsed) => Err(bad(format!("the order did not come within {} s", HEAD_WITHIN.as_secs()))),
    }
}

fn bad(error: String) -> Refusal {
    Refusal { code: StatusCode::BAD_REQUEST, error }
}

fn refused(refusal: Refusal) -> Answer {
    json_of(refusal.code, &json!({ "error": refusal.error }))
}

fn wrong_method(allowed: &'static str) -> Answer {
    let error = format!("this path takes {allowed} only");
    let mut answer = refused(Refusal { code: StatusCode::METHOD_NOT_ALLOWED, error });
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn json_of(code: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => response(code, "application/json", bytes.into()),
        Err(error) => {
            let text = format!("the answer cannot be encoded: {error}");
            response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", text.into())
        }
    }
}

fn response(code: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}
