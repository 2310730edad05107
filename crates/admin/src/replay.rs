//! `/v1/replay`: what is replayed, and the operator's hand on it.

use std::sync::Arc;

use admin_api::{AuditEntry, ReplayChange, paths};
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Json, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::door::Caller;
use crate::handlers::Node;
use crate::{Controls, Refusal};

pub(crate) fn routes(router: Router<Arc<dyn Controls>>) -> Router<Arc<dyn Controls>> {
    router.route(paths::REPLAY, get(status).put(change)).route(paths::REPLAY_AUDIT, get(audit))
}

async fn status(State(node): Node) -> Response {
    node.replay().map(Json).into_response()
}

async fn change(
    State(node): Node,
    Extension(caller): Extension<Caller>,
    asked: Result<Json<ReplayChange>, JsonRejection>,
) -> Response {
    let answer = match asked {
        Ok(Json(mut change)) => {
            caller.sign(&mut change.by);
            node.change_replay(change)
        }
        // Negative, not a number, of a wrong type: what is in force is said all the same.
        Err(rejection) => node.replay().and_then(|status| {
            let in_force = engine::rate::show(status.settings.rate);
            Err(Refusal::invalid(format!("{}; the rate in force: {in_force}", rejection.body_text())))
        }),
    };
    answer.map(Json).into_response()
}

async fn audit(State(node): Node) -> Json<Vec<AuditEntry>> {
    Json(node.audit())
}
