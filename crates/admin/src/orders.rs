//! `/v1/health/mode`, `/v1/nodes/...`, `/v1/control/audit`: what operators order.

use std::sync::Arc;

use admin_api::{AuditEntry, HealthEvent, ModeChange, ModeStatus, NodeChange, Ordered, PoolStatus, paths};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Json, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::door::Caller;
use crate::handlers::Node;
use crate::{Controls, Refusal};

/// Who keeps a node's orders and the pools that they are for. Done, and kept for the next start, when it returns.
pub trait Orders: Send + Sync {
    /// The pools of this node.
    fn pools(&self) -> Vec<PoolStatus>;
    /// What happened in them lately, latest first.
    fn events(&self) -> Vec<HealthEvent>;
    /// The modes in force.
    fn modes(&self) -> ModeStatus;
    /// Switches the mode of a layer, or of all.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing has changed then.
    fn change_mode(&self, change: ModeChange) -> Result<Ordered, Refusal>;
    /// Drains a node, or takes that back, or forgets it.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing has changed then.
    fn change_node(&self, node: &str, what: NodeOrder, change: NodeChange) -> Result<Ordered, Refusal>;
    /// Every change that this node has heard of, latest first.
    fn audit(&self) -> Vec<AuditEntry>;
}

/// What may be ordered for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeOrder {
    Drain,
    Undrain,
    Forget,
}

impl NodeOrder {
    fn parse(word: &str) -> Option<NodeOrder> {
        match word {
            "drain" => Some(NodeOrder::Drain),
            "undrain" => Some(NodeOrder::Undrain),
            "forget" => Some(NodeOrder::Forget),
            _ => None,
        }
    }
}

pub(crate) fn routes(router: Router<Arc<dyn Controls>>) -> Router<Arc<dyn Controls>> {
    router
        .route(paths::HEALTH_MODE, get(modes).put(change_mode))
        .route(paths::NODE_CHANGE, post(change_node))
        .route(paths::CONTROL_AUDIT, get(audit))
}

fn of(node: &Arc<dyn Controls>) -> Result<&dyn Orders, Refusal> {
    node.orders().ok_or_else(|| Refusal::not_here("this node takes no orders"))
}

async fn modes(State(node): Node) -> Response {
    of(&node).map(|orders| Json(orders.modes())).into_response()
}

async fn change_mode(
    State(node): Node,
    Extension(caller): Extension<Caller>,
    asked: Result<Json<ModeChange>, JsonRejection>,
) -> Response {
    let change = asked.map_err(|rejection| Refusal::invalid(rejection.body_text()));
    let done = change.and_then(|Json(mut change)| {
        caller.sign(&mut change.by);
        of(&node)?.change_mode(change)
    });
    done.map(Json).into_response()
}

/// An empty body is no change of the defaults.
async fn change_node(
    State(node): Node,
    Extension(caller): Extension<Caller>,
    Path((name, what)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let Some(what) = NodeOrder::parse(&what) else {
        let error = format!("a node takes drain, undrain or forget, not {what}");
        return Refusal::not_here(error).into_response();
    };
    let change = if body.is_empty() { Ok(NodeChange::default()) } else { serde_json::from_slice(&body) };
    let change = change.map_err(|error| Refusal::invalid(error.to_string()));
    let done = change.and_then(|mut change| {
        caller.sign(&mut change.by);
        of(&node)?.change_node(&name, what, change)
    });
    done.map(Json).into_response()
}

async fn audit(State(node): Node) -> Response {
    of(&node).map(|orders| Json(orders.audit())).into_response()
}
