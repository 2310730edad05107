//! The worker with the clock: leases run out, and twice a second the rate follows the receivers' queues.

use std::sync::Arc;
use std::time::Duration;

use engine::pace::{STEP, Seen};
use engine::time::Mono;
use runtime::{Worker, WorkerError};

use crate::shared::Shared;

const EVERY: Duration = Duration::from_millis(250);

/// Runs one life of `replayer.keeper`.
pub(crate) async fn run(worker: Worker, shared: Arc<Shared>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    let mut stepped = Mono::ZERO;
    let mut sent = shared.machine().sent();
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("tick").await?;
        let now = shared.clock.now();
        let (delay, total) = {
            let mut machine = shared.machine();
            machine.tick(now);
            (machine.queue_delay(now), machine.sent())
        };
        if now.since(stepped) >= STEP {
            stepped = now;
            let seen = Seen { delay, sent: total - sent };
            sent = total;
            shared.refresh_rate(|controller| controller.step(seen));
            ran_empty(&shared);
        }
        shared.wake_for_settled();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    Ok(())
}

/// With the last point gone, what an operator said of that backlog is over.
fn ran_empty(shared: &Shared) {
    let mut machine = shared.machine();
    if !machine.all_heard() || !machine.is_empty() {
        return;
    }
    let mut control = machine.control().clone();
    if control.ran_empty() {
        machine.set_control(control);
        drop(machine);
        shared.keep();
        shared.refresh_rate(|_| {});
    }
}
