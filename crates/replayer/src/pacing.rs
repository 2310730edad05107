//! The worker that pays for one record after another. What is in its hand is in the machine, too.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Worker, WorkerError};

use crate::shared::Shared;

/// Without a turn the machine is asked again after so long: ceilings of single sources pass with time alone.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Records in a row before other tasks of the thread get a turn.
const RUN: u32 = 64;

/// Runs one life of `replayer.pacer`.
pub(crate) async fn run(worker: Worker, shared: Arc<Shared>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    shared.machine().forget_turns();
    let mut run = 0;
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("turn").await?;
        let now = shared.clock.now();
        let turn = shared.machine().next_turn(now);
        let Some(turn) = turn else {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                looked = tokio::time::timeout(LOOK_EVERY, shared.turns.notified()) => drop(looked),
            }
            continue;
        };
        let points = u32::try_from(turn.points).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = worker.idle(shared.pacer.acquire(points)) => {}
        }
        let to = shared.machine().go(shared.clock.now(), turn.key);
        if let Some(to) = to {
            shared.wake(to);
        }
        run += 1;
        if run % RUN == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
