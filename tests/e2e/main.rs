//! End to end: the real binary, real sockets, a sink that counts. Each module is one promise of the README.
//!
//! Tests that load the machine take turns (`one_at_a_time`). A test fails on any WARN or ERROR in the product's log that
//! it did not announce.

#[path = "../support/mod.rs"]
mod support;

mod badlines;
mod million;
mod pipeline;
mod ports;
mod recv;

use std::time::Duration;

use testkit::{Cluster, Sink};

/// Long enough for anything that should happen soon on a machine that is busy with something else too.
const SOON: Duration = Duration::from_secs(20);

/// One node of each layer; every line goes to `sink` and to the aggregation layers.
fn small_cluster(sink: &Sink) -> Cluster {
    Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate", "carbon"])
}

/// `Ok` when `holds`, else what was seen instead: for `eventually`.
fn when<T: std::fmt::Debug>(holds: bool, seen: T) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{seen:?}")) }
}
