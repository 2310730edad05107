//! The keeper: seals lanes that have lingered, re-sends what was not acknowledged, and looks whether there is room.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Worker, WorkerError};
use tracing::{error, info};

use crate::shared::Shared;

/// Re-sends are counted in seconds; ten looks a second are plenty.
const TICKS_PER_MACHINE_TICK: u32 = 10;

pub(crate) async fn run(worker: Worker, shared: Arc<Shared>) -> Result<(), WorkerError> {
    let every = (shared.linger / 4).clamp(Duration::from_millis(2), Duration::from_millis(10));
    let stop = worker.stopping();
    let mut turn = 0u32;
    let mut told = None;
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("tick").await?;
        shared.seal_older_than(shared.linger);
        shared.look_for_room();
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(TICKS_PER_MACHINE_TICK) {
            let _moving = shared.moving();
            shared.machine().tick(shared.clock.now());
            shared.wake_links();
            let trouble = shared.trouble();
            if trouble != told {
                tell(&shared, trouble.as_deref());
                told = trouble;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
    Ok(())
}

/// A trouble is said once, when it begins and when it ends.
fn tell(shared: &Shared, trouble: Option<&str>) {
    match trouble {
        Some(why) => error!(node = %shared.node, why, "no points are taken"),
        None => info!(node = %shared.node, "points are taken again"),
    }
}
