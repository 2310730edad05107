//! What `top` and `console` share: the questions to all nodes, what is made of the answers, and the orders of an operator.

mod look;
mod model;
mod order;

pub(crate) use look::{ASK_EVERY, Outcome, look, send};
pub(crate) use model::{AGGREGATE, Flow, HISTORY, Look, Model, NodeView};
pub(crate) use order::Order;
