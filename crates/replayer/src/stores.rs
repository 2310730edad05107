//! Feeds the senders to stores, and tells the machine how far they are.

use std::sync::Arc;
use std::time::Duration;

use config::Cluster;
use engine::store_link::{Block, Overflow, Settings};
use node::{StartError, io_error};
use output::StoreSender;
use runtime::{Clock, Supervisor, Worker, WorkerError};

use crate::shared::Shared;

const EVERY: Duration = Duration::from_millis(50);
/// A lease lasts 30 s; the receipt is to come in less.
const ROTATE_MAX: Duration = Duration::from_secs(5);
/// Half of what may be on its way to a store, so that a receipt is asked for while there is more to send. With a larger one,
/// receipts would come by time alone, and replay would go at so many bytes in five seconds.
const ROTATE_BYTES_MAX: u64 = 4 << 20;
/// Held for one address at the most.
const RETAIN_BYTES: u64 = 32 << 20;

/// Starts a sender of the replayer's own for every address of every store, by the name that lanes call it.
///
/// # Errors
/// When the operating system gives no random number.
pub(crate) fn start(
    cluster: &Cluster,
    supervisor: &Supervisor,
    clock: Clock,
) -> Result<Vec<(String, StoreSender)>, StartError> {
    let output = &cluster.output;
    let settings = Settings {
        rotate: output.rotate.min(ROTATE_MAX),
        rotate_bytes: output.rotate_bytes.min(ROTATE_BYTES_MAX),
        receipt_timeout: output.receipt_timeout,
        linger: output.linger_bound,
        retain_bytes: RETAIN_BYTES,
        ack_timeout: cluster.send.ack_timeout,
        notsent_lowat_bytes: output.notsent_lowat_bytes,
        overflow: Overflow::Refuse,
        ..Settings::default()
    };
    let mut senders = Vec::new();
    for store in &cluster.stores {
        for (index, address) in store.addresses.iter().enumerate() {
            let name = format!("replayer.store.{}.{index}", store.name);
            let addr = format!("{}:{}", address.host, address.port);
            let lane = format!("{}/{addr}", store.name);
            let sender = StoreSender::start(supervisor, clock, name, addr, settings);
            senders.push((lane, sender.map_err(io_error("a store's sender"))?));
        }
    }
    Ok(senders)
}

/// Runs one life of `replayer.stores`.
pub(crate) async fn run(worker: Worker, shared: Arc<Shared>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("feed").await?;
        for (store, (_, sender)) in shared.senders.iter().enumerate() {
            feed(&shared, store, sender);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            woken = tokio::time::timeout(EVERY, shared.store_wake.notified()) => drop(woken),
        }
    }
    Ok(())
}

fn feed(shared: &Shared, store: usize, sender: &StoreSender) {
    let mut machine = shared.machine();
    machine.store_state(store, sender.accepts());
    while let Some((key, bytes, points)) = machine.next_block(store) {
        if sender.try_offer(Block { bytes, points }).is_err() {
            machine.block_refused(store, key);
            break;
        }
        machine.block_offered(store, key, sender.progress().offered);
    }
    let before = machine.here();
    machine.store_released(store, sender.progress().released);
    let settled = machine.here() != before;
    drop(machine);
    if settled {
        shared.wake_for_settled();
    }
}
