//! What a node posts to the endpoints of `[[notify]]`.

use serde::{Deserialize, Serialize};

/// One document. Fields may be added, never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same in every attempt, and of no other notice: who has seen it has seen the notice.
    pub id: String,
    pub cluster: String,
    /// The node that says it, and its layer.
    pub node: String,
    pub layer: String,
    /// `orders`, `health` or `gaps`.
    pub event: String,
    /// When it happened, in seconds since 1970.
    pub at: u64,
    /// What it is about, such as `drain/partial-1`, `replay.rate`, `pool/partial`, `spill/aggregate`.
    pub what: String,
    /// Empty where there was none.
    pub old: String,
    pub new: String,
    /// Who asked, and on which node it was ordered; empty for what nobody ordered.
    pub by: String,
    /// The same as a sentence.
    pub text: String,
}
