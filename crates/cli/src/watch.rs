//! What `top` and `console` share: the questions to all nodes, what is made of the answers, and the orders of an operator.

mod look;
mod model;
mod order;
mod traffic;

pub(crate) use look::{ASK_EVERY, foresee, look, send};
pub(crate) use model::{AGGREGATE, Flow, HISTORY, Look, Model, NodeView};
pub(crate) use order::Order;
pub(crate) use traffic::{Mode, Traffic};
