//! The monitor of a simulation is a task: a thread has no virtual time. It hears of the end of a life up to a tick later.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{Shared, Watch};

/// Starts the monitor.
///
/// # Errors
/// Never.
pub(in super::super) fn begin(shared: &Arc<Shared>) -> io::Result<()> {
    let watched = Arc::clone(shared);
    let task = shared.handle.spawn(async move {
        let mut watch = Watch::new(&watched);
        while !watched.inbox.closed.load(Ordering::Acquire) {
            tokio::time::sleep(watch.tick).await;
            let reports = std::mem::take(&mut *watched.inbox.reports.lock().unwrap_or_else(PoisonError::into_inner));
            watch.round(&watched, reports);
        }
    });
    drop(task);
    Ok(())
}
