//! `/v1/spill`: requests to the thread that owns a relay's spill.

use std::sync::Arc;
use std::time::Duration;

use admin_api::{
    CursorAdvance, Refused, SpillDiscard, SpillImported, SpillLoss, SpillPage, SpillStatus, SpillVerified, paths,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Json, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use crate::Controls;
use crate::door::Caller;
use crate::handlers::Node;

/// A page of a spill is read in less; beyond that its owner is stuck in the disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// What an import may send at once.
const IMPORT_BYTES_MAX: usize = 32 << 20;
/// Where an export goes on.
const NEXT: &str = "x-spillway-next";

/// Which records of a spill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Page {
    pub lane: u16,
    /// The first ordinal.
    #[serde(default)]
    pub from: u64,
    /// At most so many; the spill may give fewer.
    #[serde(default = "default_limit")]
    pub limit: u32,
}

fn default_limit() -> u32 {
    1000
}

/// What is asked of a spill.
#[derive(Clone, Debug)]
pub enum SpillRequest {
    Status,
    Records(Page),
    Verify(Page),
    Export(Page),
    /// What an export gave, and who brings it.
    Import(Bytes, String),
    Discard(SpillDiscard),
    Cursor(CursorAdvance),
}

/// What it answers, in the order of [`SpillRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpillAnswer {
    Status(SpillStatus),
    Records(SpillPage),
    Verified(SpillVerified),
    Exported {
        /// Records, each behind its length (u32, little-endian).
        bytes: Bytes,
        next: Option<u64>,
    },
    Imported(SpillImported),
    /// Of a discard and of an advance of the cursor.
    Loss(SpillLoss),
}

/// Why a request was not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: StatusCode,
    body: Refused,
}

impl Refusal {
    /// The request cannot be right.
    pub fn invalid(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error)
    }

    /// This node does not have what was asked for.
    pub fn not_here(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, error)
    }

    /// It would lose data, and `force` was not given.
    pub fn would_lose(error: impl Into<String>, loss: SpillLoss) -> Refusal {
        let mut refusal = Refusal::new(StatusCode::CONFLICT, error);
        refusal.body.would_lose = Some(loss);
        refusal
    }

    /// Not now.
    pub fn unavailable(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    fn new(code: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { code, body: Refused { error: error.into(), would_lose: None } }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, Json(self.body)).into_response()
    }
}

impl IntoResponse for SpillAnswer {
    fn into_response(self) -> Response {
        match self {
            SpillAnswer::Status(status) => Json(status).into_response(),
            SpillAnswer::Records(page) => Json(page).into_response(),
            SpillAnswer::Verified(verified) => Json(verified).into_response(),
            SpillAnswer::Exported { bytes, next } => exported(bytes, next),
            SpillAnswer::Imported(imported) => Json(imported).into_response(),
            SpillAnswer::Loss(loss) => Json(loss).into_response(),
        }
    }
}

fn exported(bytes: Bytes, next: Option<u64>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(next) = next {
        headers.insert(NEXT, HeaderValue::from(next));
    }
    (headers, bytes).into_response()
}

pub(crate) fn routes(router: Router<Arc<dyn Controls>>) -> Router<Arc<dyn Controls>> {
    router
        .route(paths::SPILL, get(async |State(node): Node| ask(&node, Ok(SpillRequest::Status)).await))
        .route(
            paths::SPILL_RECORDS,
            get(async |node: Node, page: AskedPage| paged(node, page, SpillRequest::Records).await),
        )
        .route(
            paths::SPILL_VERIFY,
            get(async |node: Node, page: AskedPage| paged(node, page, SpillRequest::Verify).await),
        )
        .route(
            paths::SPILL_EXPORT,
            get(async |node: Node, page: AskedPage| paged(node, page, SpillRequest::Export).await),
        )
        .route(paths::SPILL_IMPORT, post(import).layer(DefaultBodyLimit::max(IMPORT_BYTES_MAX)))
        .route(paths::SPILL_DISCARD, post(discard))
        .route(paths::SPILL_CURSOR, post(cursor))
}

type AskedPage = Result<Query<Page>, QueryRejection>;

async fn paged(State(node): Node, page: AskedPage, request: fn(Page) -> SpillRequest) -> Response {
    let asked = page.map(|Query(page)| request(page)).map_err(|rejection| rejection.body_text());
    ask(&node, asked).await
}

async fn import(
    State(node): Node,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    // Records have no room for a name.
    let mut by = String::new();
    caller.sign(&mut by);
    ask(&node, body.map(|bytes| SpillRequest::Import(bytes, by)).map_err(|rejection| rejection.body_text())).await
}

async fn discard(
    State(node): Node,
    Extension(caller): Extension<Caller>,
    body: Result<Json<SpillDiscard>, JsonRejection>,
) -> Response {
    let asked = body.map(|Json(mut asked)| {
        caller.sign(&mut asked.by);
        SpillRequest::Discard(asked)
    });
    ask(&node, asked.map_err(|rejection| rejection.body_text())).await
}

async fn cursor(
    State(node): Node,
    Extension(caller): Extension<Caller>,
    body: Result<Json<CursorAdvance>, JsonRejection>,
) -> Response {
    let asked = body.map(|Json(mut asked)| {
        caller.sign(&mut asked.by);
        SpillRequest::Cursor(asked)
    });
    ask(&node, asked.map_err(|rejection| rejection.body_text())).await
}

async fn ask(node: &Arc<dyn Controls>, request: Result<SpillRequest, String>) -> Response {
    let request = match request {
        Ok(request) => request,
        Err(error) => return Refusal::invalid(error).into_response(),
    };
    match tokio::time::timeout(ANSWER_WITHIN, node.spill(request)).await {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(_dropped)) => Refusal::unavailable("the spill is being restarted: ask again").into_response(),
        Err(_elapsed) => {
            Refusal::unavailable("the spill does not answer: look at its disk, and ask again").into_response()
        }
    }
}
