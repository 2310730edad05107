//! What every node has in common, whatever its layer: its verdict on itself, its books, how it shows its peers and
//! workers, and how the cluster file's settings become those of its parts.

mod admin_server;
mod audit_log;
mod books;
pub mod desk;
pub mod notices;
mod own_metrics;
mod record;
pub mod rules;
mod settings;
mod start_error;
mod tls;
mod verdict;

pub use admin_server::serve_admin;
pub use audit_log::AuditLog;
pub use books::{add_store_books, close_books};
pub use own_metrics::report_own_metrics;
pub use record::{record_ledger, record_peers, record_self, record_workers, set_gauge};
pub use settings::{restart_policy, start_stores};
pub use start_error::{StartError, io_error, listed};
pub use tls::Tls;
pub use verdict::{VerdictKeeper, for_api};

use admin_api::PeerStatus;
use engine::store_link::Phase;
use output::{StoreSender, StoreStatus};
use std::time::Duration;

/// A store and its senders, one an address.
#[derive(Debug)]
pub struct Store {
    pub name: String,
    pub senders: Vec<StoreSender>,
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One address of a store among a node's peers.
pub fn store_peer(store: &str, status: &StoreStatus) -> PeerStatus {
    let state = match status.phase {
        Phase::Open => "up",
        Phase::Connecting => "connecting",
        Phase::AwaitingReceipt | Phase::Drained => "draining",
        Phase::Disconnected => "down",
    };
    PeerStatus {
        peer: format!("{store}/{}", status.addr),
        state: state.into(),
        in_flight_points: status.books.in_flight,
        in_flight_bytes: status.held_bytes,
        oldest_unacked_ms: 0,
        verdict: None,
        last_error: status.last_error.clone(),
    }
}
