//! The connections of a server that runs in a runtime of its own ([`crate::Supervisor::spawn_isolated`]).

use std::future::Future;

use tokio::task::{JoinError, JoinSet};

/// At most so many connections at once, on the current runtime; all are dropped with the set.
#[derive(Debug)]
pub struct ConnectionSet {
    tasks: JoinSet<()>,
    limit: usize,
    panics: u64,
}

impl ConnectionSet {
    /// `limit`: connections at once.
    pub fn new(limit: usize) -> ConnectionSet {
        ConnectionSet { tasks: JoinSet::new(), limit, panics: 0 }
    }

    /// Runs a connection, or drops it and says `false` when there are too many. Call inside a tokio runtime.
    pub fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) -> bool {
        while let Some(ended) = self.tasks.try_join_next() {
            self.count(ended);
        }
        if self.tasks.len() >= self.limit {
            return false;
        }
        self.tasks.spawn(connection);
        true
    }

    /// Connections that ended by a panic, as far as their end has been seen.
    pub fn panics(&self) -> u64 {
        self.panics
    }

    /// Waits until every connection has ended.
    pub async fn drained(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.count(ended);
        }
    }

    fn count(&mut self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.panics += 1;
        }
    }
}
