//! From the cluster file's sections to the settings of parts.

use config::{Cluster, Layer, Output, Sending, Supervise};
use engine::restart::RestartPolicy;
use engine::store_link::{Overflow, Settings};
use output::StoreSender;
use runtime::{Clock, Supervisor};

use crate::{StartError, Store, io_error};

/// The smallest share of memory that one store address gets.
const RETAIN_MIN: u64 = 4 << 20;

/// Starts a sender for every address of every store; workers are named `<layer>.store.<store>.<n>`.
///
/// # Errors
/// When the operating system gives no random number.
pub fn start_stores(
    layer: &str,
    cluster: &Cluster,
    supervisor: &Supervisor,
    clock: Clock,
) -> Result<Vec<Store>, StartError> {
    let addresses = cluster.stores.iter().map(|store| store.addresses.len()).sum();
    // Who has a spill uses it. All others can bring a line again, so they wait and nothing is dropped.
    let overflow = if layer == Layer::Relay.as_str() { Overflow::Spill } else { Overflow::Refuse };
    let journal = cluster.send.journal && overflow == Overflow::Spill;
    // Only values of windows are written again with others: a final node that was killed may have written older ones.
    let follows_a_life = layer == Layer::Final.as_str();
    let settings =
        Settings { overflow, journal, follows_a_life, ..store_settings(&cluster.output, &cluster.send, addresses) };
    let start = |store: &engine::route::StoreSpec| {
        let sender = |(index, address): (usize, &engine::route::StoreAddress)| {
            let name = format!("{layer}.store.{}.{index}", store.name);
            let addr = format!("{}:{}", address.host, address.port);
            StoreSender::start(supervisor, clock, name, addr, settings)
        };
        let senders = store.addresses.iter().enumerate().map(sender).collect::<std::io::Result<_>>()?;
        Ok(Store { name: store.name.clone(), senders })
    };
    cluster.stores.iter().map(start).collect::<std::io::Result<_>>().map_err(io_error("a store's sender"))
}

/// Settings of the senders to stores. `addresses`: how many there are in all; they share the memory.
fn store_settings(output: &Output, send: &Sending, addresses: usize) -> Settings {
    let share = (send.retain_bytes as u64 / (addresses.max(1) as u64)).max(RETAIN_MIN);
    Settings {
        rotate: output.rotate,
        rotate_bytes: output.rotate_bytes,
        receipt_timeout: output.receipt_timeout,
        linger: output.linger_bound,
        retain_bytes: share,
        ack_timeout: send.ack_timeout,
        notsent_lowat_bytes: output.notsent_lowat_bytes,
        ..Settings::default()
    }
}

/// The supervisor's rule.
pub fn restart_policy(supervise: &Supervise) -> RestartPolicy {
    RestartPolicy {
        restarts: supervise.restarts,
        within: supervise.within,
        watchdog: supervise.watchdog,
        ..RestartPolicy::default()
    }
}
