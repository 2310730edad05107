//! What each path answers.

use std::sync::Arc;

use admin_api::{Failpoint, Verdict, paths};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Json, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, http::Method, middleware};
use serde::Serialize;

use crate::door::{Caller, Keeper, guard, invite};
use crate::{Controls, known, orders, replay, spill};

pub(crate) type Node = State<Arc<dyn Controls>>;

/// What an answer that is none says.
#[derive(Serialize)]
struct Failed {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    known_paths: Vec<&'static str>,
}

pub(crate) fn router(controls: Arc<dyn Controls>, keeper: &Arc<Keeper>) -> Router {
    let mut router = Router::new()
        .route(paths::LIVE, get(live))
        .route(paths::HEALTH, get(health))
        .route(paths::STATUS, get(async |State(node): Node| Json(node.status())))
        .route(paths::LEDGER, get(async |State(node): Node| Json(node.ledger())))
        .route(paths::WORKERS, get(async |State(node): Node| Json(node.workers())))
        .route(paths::BADLINES, get(async |State(node): Node| Json(node.badlines())))
        .route(paths::METRICS, get(metrics));
    router = orders::routes(known::routes(spill::routes(replay::routes(router))));
    if runtime::failpoints::ENABLED {
        router = router.route(paths::FAILPOINT, post(failpoint));
    }
    let router = router.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(controls);
    router.layer(middleware::from_fn_with_state(Arc::clone(keeper), guard))
}

/// The paths of this build.
fn known_paths() -> Vec<&'static str> {
    let mut known =
        vec![paths::LIVE, paths::HEALTH, paths::STATUS, paths::LEDGER, paths::WORKERS, paths::BADLINES, paths::METRICS];
    known.extend([
        paths::NODE,
        paths::REPLAY,
        paths::REPLAY_AUDIT,
        paths::SPILL,
        paths::SPILL_RECORDS,
        paths::SPILL_VERIFY,
    ]);
    known.extend([paths::SPILL_EXPORT, paths::SPILL_IMPORT, paths::SPILL_DISCARD, paths::SPILL_CURSOR]);
    known.extend([paths::HEALTH_MODE, paths::NODE_CHANGE, paths::CONTROL_AUDIT]);
    if runtime::failpoints::ENABLED {
        known.push(paths::FAILPOINT);
    }
    known
}

async fn live() -> Json<&'static str> {
    Json("live")
}

async fn health(State(node): Node, Extension(caller): Extension<Caller>) -> Response {
    let mut health = node.health();
    let code = match health.verdict {
        Verdict::Ready | Verdict::Overloaded { .. } => StatusCode::OK,
        Verdict::Starting | Verdict::Degraded { .. } | Verdict::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    if !caller.is_known {
        health.verdict = health.verdict.without_reason();
        let mut response = (code, Json(health)).into_response();
        invite(&mut response);
        return response;
    }
    if let Some(orders) = node.orders() {
        health.pools = orders.pools();
        health.events = orders.events();
    }
    (code, Json(health)).into_response()
}

async fn metrics(State(node): Node) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], node.metrics())
}

async fn failpoint(State(node): Node, asked: Result<Json<Failpoint>, JsonRejection>) -> Response {
    let armed = match asked {
        Ok(Json(failpoint)) => node.failpoint(failpoint),
        Err(rejection) => Err(rejection.body_text()),
    };
    match armed {
        Ok(()) => Json("armed").into_response(),
        Err(error) => failed(StatusCode::BAD_REQUEST, error, Vec::new()),
    }
}

async fn unknown(uri: Uri) -> Response {
    failed(StatusCode::NOT_FOUND, format!("no path {}", uri.path()), known_paths())
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    failed(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()), Vec::new())
}

fn failed(code: StatusCode, error: String, known_paths: Vec<&'static str>) -> Response {
    (code, Json(Failed { error, known_paths })).into_response()
}
