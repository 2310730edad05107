//! The monitor is a thread, so that nothing that the workers do keeps it from looking. It never waits for anything but its own
//! inbox, so nothing can hang it.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Report, Shared, Watch};

/// Starts the monitor.
///
/// # Errors
/// When the kernel gives no thread.
pub(in super::super) fn begin(shared: &Arc<Shared>) -> io::Result<()> {
    let watched = Arc::clone(shared);
    let name = format!("supervisor.{}", shared.node);
    std::thread::Builder::new().name(name).spawn(move || run(&watched)).map(drop)
}

/// Takes the process with it when the monitor ends in any way but the ordered one: nobody would watch any more.
struct AbortUnlessClosed {
    closed: bool,
}

impl Drop for AbortUnlessClosed {
    fn drop(&mut self) {
        if !self.closed {
            tracing::error!("supervisor's own thread died; the process aborts");
            std::process::abort();
        }
    }
}

fn run(shared: &Arc<Shared>) {
    let mut guard = AbortUnlessClosed { closed: false };
    let mut watch = Watch::new(shared);
    loop {
        let reports = wait(shared, watch.tick);
        watch.round(shared, reports);
        if shared.inbox.closed.load(Ordering::Acquire) {
            guard.closed = true;
            return;
        }
    }
}

/// Waits for the end of a life, one tick at most.
fn wait(shared: &Shared, tick: Duration) -> Vec<Report> {
    let reports = shared.inbox.reports.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut reports, _) = shared
        .inbox
        .wake
        .wait_timeout_while(reports, tick, |reports| reports.is_empty() && !shared.inbox.closed.load(Ordering::Acquire))
        .unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *reports)
}

/// Does to this thread what a bug would do to the monitor's.
#[cfg(test)]
pub(in super::super) fn die() {
    let died = std::thread::spawn(|| {
        let _guard = AbortUnlessClosed { closed: false };
        panic!("BUG: a bug in the monitor");
    });
    assert!(died.join().is_ok(), "the process outlived its monitor");
}
