//! End to end: the real binary, real sockets, a sink that counts. Each module is one promise of the README.
//!
//! Tests that load the machine take turns (`one_at_a_time`). A test fails on any WARN or ERROR in the product's log that
//! it did not announce.

#[path = "../support/mod.rs"]
mod support;

mod auth;
mod badlines;
mod final_disk;
mod forget;
mod identity;
mod links;
mod million;
mod pipeline;
mod ports;
mod recv;
mod replay;
mod rules;
mod spill;
mod tls;
mod top;

use std::time::Duration;

use testkit::{Cluster, Sink};

/// Long enough for anything that should happen soon on a machine that is busy with something else too.
const SOON: Duration = Duration::from_secs(20);

/// One node of each layer; every line goes to `sink` and to the aggregation layers, where a rule waits for series that no
/// test sends (without any rule the file would earn a warning).
fn small_cluster(sink: &Sink) -> Cluster {
    Cluster::new(1, 1, 1).store("carbon", &[sink.address()]).route_all(&["aggregate", "carbon"]).with(
        "[[rule]]\nname = \"idle\"\nglob = \"idle.rule.*\"\noutput = \"idle.{function}\"\ninterval = \"10s\"\n\
         functions = [\"sum\"]\nto = [\"carbon\"]\n",
    )
}

/// `Ok` when `holds`, else what was seen instead: for `eventually`.
fn when<T: std::fmt::Debug>(holds: bool, seen: T) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{seen:?}")) }
}

/// What the tests write must be a file without problems, or they would announce warnings that nobody would read.
#[test]
fn the_tests_cluster_file_has_no_problems() {
    let sink = Sink::start(testkit::Keep::Count);
    let text = small_cluster(&sink).with(million::RULE).with("[receive]\nline_timeout = \"1s\"\n").toml();
    match config::load("test.toml", &text) {
        Ok(loaded) => assert_eq!(loaded.warnings.to_string(), "", "{text}"),
        Err(problems) => panic!("{problems}"),
    }
}
