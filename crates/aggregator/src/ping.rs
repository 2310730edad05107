//! Pings are answered by the workers: a token visits every shard, and the last one answers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What is to be written to one connection besides its payload, and the bell to ring for it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    pongs: Mutex<Vec<u64>>,
    pub(crate) wake: Notify,
}

impl Bell {
    /// Queues an answer.
    pub(crate) fn pong(&self, echo: u64) {
        self.pongs.lock().unwrap_or_else(PoisonError::into_inner).push(echo);
        self.wake.notify_one();
    }

    /// The answers that are due.
    pub(crate) fn take_pongs(&self) -> Vec<u64> {
        std::mem::take(&mut *self.pongs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A ping on its way through the shards.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) bell: Arc<Bell>,
    pub(crate) echo: u64,
}
