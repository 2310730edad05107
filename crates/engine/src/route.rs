//! Routes: which destinations a series is owed to.
//!
//! The types here are what an operator wrote; [`RouteTable`] is what decides.

mod table;

pub use table::{Decision, RouteError, RouteTable, Unrouted};

use crate::pattern::Selector;

/// How the addresses of one store share the series. Definitions and test vectors are in `ring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingKind {
    CarbonCh,
    CarbonChCcr,
    Fnv1aCh,
    JumpFnv1aCh,
}

/// One address of a store, as the operator wrote it: host and port are part of some rings' node keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    pub host: String,
    pub port: u16,
    /// `host:port=instance` in the file.
    pub instance: Option<String>,
}

/// A plain Graphite destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    pub name: String,
    pub addresses: Vec<StoreAddress>,
    pub ring: RingKind,
    /// How many different addresses get each series; 1..=addresses.
    pub replicas: usize,
}

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
