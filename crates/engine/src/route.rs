//! Routes: which destinations a series is owed to.
//!
//! The types here are what an operator wrote; [`RouteTable`] is what decides.

mod table;

pub use table::{Decision, RouteError, RouteTable, Unrouted};

use crate::pattern::Selector;

pub use crate::ring::{RingKind, StoreAddress, StoreSpec};

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The aggregation layers.
    Aggregate,
    /// Nowhere, on purpose; counted as dropped by rule unless an earlier route took the series. No later route sees it.
    Drop,
    /// Index into the list of stores.
    Store(usize),
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    pub selector: Selector,
    pub to: Vec<Target>,
    /// No later route sees a series that this one took.
    pub stop: bool,
}
