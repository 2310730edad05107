//! What the end-to-end tests and the benchmarks share: a real process under test, a load that can be counted, a sink
//! that counts it, and the eyes (admin API, logs, CPU time) to judge what happened between them.
//!
//! Ring "test": nothing that ships depends on this crate. It speaks to the product only as an operator or a Graphite
//! peer would - sockets, signals, files - so a test that uses it proves what an operator would see. Everything that
//! waits is bounded and says, when it gives up, what it was waiting for and what it saw last.
#![allow(
    clippy::disallowed_methods,
    reason = "a test driver has no supervisor: its threads are joined by their owners, its clock is the wall's"
)]

mod api;
mod authority;
mod bad_disk;
mod cluster;
mod cpu;
mod dir;
mod disk;
mod feed;
mod fleet;
mod hook;
pub mod http;
mod lab;
mod load;
mod logs;
mod memory;
mod oracle;
mod ports;
mod probe;
mod process;
mod proxy;
mod run;
mod sink;
mod wait;

pub use api::Admin;
pub use authority::Authority;
pub use bad_disk::{BadDisk, Broken};
pub use cluster::{Cluster, Layer, Node, Store};
pub use cpu::{CpuTime, tree_cpu};
pub use dir::TempDir;
pub use disk::SmallDisk;
pub use feed::{Feed, Feeding, Point, Sent, mix};
pub use fleet::Fleet;
pub use hook::{Hook, Mood, Posted};
pub use lab::{Lab, Space};
pub use load::{Load, LoadReport, Running};
pub use logs::{announced_only, unannounced};
pub use memory::{Resident, resident};
pub use oracle::{Expected, Oracle};
pub use ports::reserve;
pub use probe::{Latencies, Probe};
pub use process::{Process, raise_open_files};
pub use proxy::{Fault, Proxy};
pub use sink::{Behaviour, Keep, Seen, Sink};
pub use wait::{eventually, growth, unix_now, within};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by a test for as long as it loads the machine: two loads at once on two cores would measure each other.
/// A test that failed while holding it does not fail the others.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static GATE: Mutex<()> = Mutex::new(());
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}
