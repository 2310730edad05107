//! What a node knows of another one, for who wants to forget it.

use serde::{Deserialize, Serialize};

/// `GET /v1/nodes/NAME`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKnown {
    /// Who says it.
    pub node: String,
    /// Of whom.
    pub about: String,
    /// A link between the two is up now.
    pub linked: bool,
    /// Of a relay: its sender, 16 hex digits, if it was heard of since this node's start.
    pub sender: Option<String>,
}
