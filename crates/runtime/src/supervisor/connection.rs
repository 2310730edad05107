//! Tasks of one connection each: counted, never restarted, a panic in one ends only that one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::run::{CatchPanic, Outcome};
use super::{Inbox, Shared, Supervisor};

/// The connections of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Dotted, such as `relay.connection`.
    pub name: String,
    /// Open now.
    pub live: usize,
    /// Ever opened.
    pub opened: u64,
    /// Ended by a panic.
    pub panics: u64,
}

pub(super) struct Group {
    /// Asks the connections to end; ends at once those that do not listen.
    pub(super) stop: CancellationToken,
    /// Drops whatever is left.
    pub(super) abort: CancellationToken,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    live: AtomicUsize,
    opened: AtomicU64,
    panics: AtomicU64,
}

/// Counts a connection down however its task ends, also when the runtime drops it.
struct Live {
    tally: Arc<Tally>,
    inbox: Arc<Inbox>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.tally.live.fetch_sub(1, Ordering::AcqRel);
        self.inbox.changed.notify_waiters();
    }
}

impl Group {
    pub(super) fn new(shared: &Shared) -> Group {
        Group { stop: shared.stop.child_token(), abort: CancellationToken::new(), tally: Arc::default() }
    }

    pub(super) fn live(&self) -> usize {
        self.tally.live.load(Ordering::Acquire)
    }

    pub(super) fn count(&self, name: &str) -> ConnectionCount {
        ConnectionCount {
            name: name.to_owned(),
            live: self.live(),
            opened: self.tally.opened.load(Ordering::Acquire),
            panics: self.tally.panics.load(Ordering::Acquire),
        }
    }
}

impl Supervisor {
    /// Runs one connection to its end, or until its group is stopped: then it is dropped where it waits.
    pub fn spawn_connection<Fut>(&self, name: &str, connection: Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.open(name, |stop| (connection, stop));
    }

    /// Runs one connection that hands over what it holds when `stop` is cancelled. It is dropped only at the deadline
    /// of [`Supervisor::shutdown`] or [`Supervisor::stop_some`].
    pub fn spawn_draining_connection<Make, Fut>(&self, name: &str, make: Make)
    where
        Make: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let abort = self.shared.group(name, |group| group.abort.clone());
        self.open(name, |stop| (make(stop), abort));
    }

    /// Every name of connections, and how many there are, in the order of the names.
    pub fn connections(&self) -> Vec<ConnectionCount> {
        self.shared.state().groups.iter().map(|(name, group)| group.count(name)).collect()
    }

    /// `make` turns the group's stop token into the connection and the token that drops it.
    fn open<Fut>(&self, name: &str, make: impl FnOnce(CancellationToken) -> (Fut, CancellationToken))
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (stop, tally) = self.shared.group(name, |group| (group.stop.clone(), Arc::clone(&group.tally)));
        tally.live.fetch_add(1, Ordering::AcqRel);
        tally.opened.fetch_add(1, Ordering::AcqRel);
        let live = Live { tally, inbox: Arc::clone(&self.shared.inbox) };
        let (connection, end) = make(stop);
        let name = name.to_owned();
        self.shared.handle.spawn(async move {
            let connection = CatchPanic(Box::pin(async move {
                connection.await;
                Ok(())
            }));
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                outcome = connection => if let Outcome::Panic(message) = outcome {
                    live.tally.panics.fetch_add(1, Ordering::AcqRel);
                    tracing::error!(connection = name, panic = message, "connection panicked; only it has ended");
                },
            }
            drop(live);
        });
    }
}
