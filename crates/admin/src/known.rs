//! `/v1/nodes/NAME`: what this node knows of another one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::routing::get;

use crate::Controls;
use crate::handlers::Node;

pub(crate) fn routes(router: Router<Arc<dyn Controls>>) -> Router<Arc<dyn Controls>> {
    router
        .route(admin_api::paths::NODE, get(async |State(node): Node, Path(name): Path<String>| Json(node.known(&name))))
}
