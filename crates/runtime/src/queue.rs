//! A queue from tasks to threads, bounded in bytes.
//!
//! A sender waits until there is credit for its item; credit comes back when the receiver drops the [`Credited`] item,
//! so what a worker has in hand still counts. An item larger than the whole limit takes the whole limit: it passes
//! alone. Waiting senders are served in their order, so a large item is not overtaken for ever.
//!
//! The queue is made outside its workers and outlives them: a receiver clone in a new life finds what is queued.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::time::Mono;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::Clock;

/// Every receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("queue {0} has no receiver")]
pub struct Closed(pub &'static str);

/// Why an item was not taken; the item comes back.
#[derive(Debug, Error)]
pub enum TrySendError<T> {
    #[error("queue is full")]
    Full(T),
    #[error("queue has no receiver")]
    Closed(T),
}

/// Makes a queue.
///
/// `limit_bytes`: queued and in hand together; at least 1, at most 4 GiB - 1 (what is outside is taken as the bound).
pub fn byte_queue<T>(name: &'static str, limit_bytes: u64) -> (Sender<T>, Receiver<T>) {
    let limit = u32::try_from(limit_bytes.max(1)).unwrap_or(u32::MAX);
    // Unbounded in items, because every item holds at least one byte of credit.
    let (tx, rx) = crossbeam_channel::unbounded();
    // A semaphore of u32 permits cannot overflow tokio's maximum on a 64-bit machine.
    let permits = usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        name,
        limit,
        credit: Arc::new(Semaphore::new(permits)),
        bytes: AtomicU64::new(0),
        enqueued: Mutex::new(VecDeque::new()),
        clock: Clock::new(),
    });
    (Sender { tx, shared: Arc::clone(&shared) }, Receiver { rx, shared })
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    limit: u32,
    credit: Arc<Semaphore>,
    bytes: AtomicU64,
    /// When each queued item was sent, oldest first; never shorter than the channel.
    enqueued: Mutex<VecDeque<Mono>>,
    clock: Clock,
}

impl Shared {
    fn enqueued(&self) -> MutexGuard<'_, VecDeque<Mono>> {
        self.enqueued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permits(&self, bytes: u64) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.limit)
    }
}

/// How full a queue is. Does not keep the queue open.
#[derive(Clone, Debug)]
pub struct Probe(Arc<Shared>);

impl Probe {
    /// The queue's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The limit, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.0.limit)
    }

    /// Bytes queued and in hand. May exceed the limit by the size of one item.
    pub fn queued_bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// How long the oldest item that nobody has taken has waited; zero for an empty queue.
    pub fn oldest_age(&self) -> Duration {
        let oldest = self.0.enqueued().front().copied();
        oldest.map_or(Duration::ZERO, |at| self.0.clock.now().since(at))
    }
}

/// The sending side, for tasks.
#[derive(Debug)]
pub struct Sender<T> {
    tx: crossbeam_channel::Sender<Credited<T>>,
    shared: Arc<Shared>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { tx: self.tx.clone(), shared: Arc::clone(&self.shared) }
    }
}

/// Room for one item.
#[derive(Debug)]
pub struct Slot<'a, T> {
    sender: &'a Sender<T>,
    bytes: u64,
    permit: OwnedSemaphorePermit,
}

impl<T> Slot<'_, T> {
    /// Puts the item in; never waits.
    ///
    /// # Errors
    /// When every receiver is gone. The item is dropped with the queue's other items.
    pub fn send(self, item: T) -> Result<(), Closed> {
        let name = self.sender.shared.name;
        self.sender.put(item, self.bytes, self.permit).map_err(|_| Closed(name))
    }
}

impl<T> Sender<T> {
    /// Waits for room for `bytes`. Dropping the future loses nothing, so this is how to wait inside `select!`.
    ///
    /// # Errors
    /// When every receiver is gone.
    pub async fn reserve(&self, bytes: u64) -> Result<Slot<'_, T>, Closed> {
        let credit = Arc::clone(&self.shared.credit);
        match credit.acquire_many_owned(self.shared.permits(bytes)).await {
            Ok(permit) => Ok(Slot { sender: self, bytes, permit }),
            Err(_) => Err(Closed(self.shared.name)),
        }
    }

    /// Waits for room and puts the item in. Dropping the future drops the item; see [`Sender::reserve`].
    ///
    /// # Errors
    /// When every receiver is gone; the item is dropped.
    pub async fn send(&self, item: T, bytes: u64) -> Result<(), Closed> {
        self.reserve(bytes).await?.send(item)
    }

    /// Puts the item in if there is room now.
    ///
    /// # Errors
    /// Gives the item back when there is no room, or when every receiver is gone.
    pub fn try_send(&self, item: T, bytes: u64) -> Result<(), TrySendError<T>> {
        let credit = Arc::clone(&self.shared.credit);
        match credit.try_acquire_many_owned(self.shared.permits(bytes)) {
            Ok(permit) => self.put(item, bytes, permit).map_err(TrySendError::Closed),
            Err(TryAcquireError::NoPermits) => Err(TrySendError::Full(item)),
            Err(TryAcquireError::Closed) => Err(TrySendError::Closed(item)),
        }
    }

    /// How full the queue is.
    pub fn probe(&self) -> Probe {
        Probe(Arc::clone(&self.shared))
    }

    fn put(&self, item: T, bytes: u64, permit: OwnedSemaphorePermit) -> Result<(), T> {
        // Before the channel, so that a receiver never finds an item without its time. Two senders may swap their
        // times, which differ by no more than this function takes.
        self.shared.enqueued().push_back(self.shared.clock.now());
        self.shared.bytes.fetch_add(bytes, Ordering::AcqRel);
        let hold = Hold { queued: true, bytes, shared: Arc::clone(&self.shared), _permit: permit };
        self.tx.send(Credited { item, hold }).map_err(|refused| refused.into_inner().into_item())
    }
}

/// The receiving side, for threads. Clones share the queue; each item goes to one of them.
#[derive(Debug)]
pub struct Receiver<T> {
    rx: crossbeam_channel::Receiver<Credited<T>>,
    shared: Arc<Shared>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { rx: self.rx.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<T> Receiver<T> {
    /// The next item, or `None` when none came in time, also when every sender is gone.
    pub fn recv_timeout(&self, wait: Duration) -> Option<Credited<T>> {
        use crossbeam_channel::RecvTimeoutError::{Disconnected, Timeout};
        match self.rx.recv_timeout(wait) {
            Ok(item) => Some(self.taken(item)),
            Err(Timeout) => None,
            Err(Disconnected) => {
                // A loop around this function must not spin because nobody sends any more.
                std::thread::sleep(wait);
                None
            }
        }
    }

    /// The next item if there is one now.
    pub fn try_recv(&self) -> Option<Credited<T>> {
        self.rx.try_recv().ok().map(|item| self.taken(item))
    }

    /// Items queued.
    pub fn len(&self) -> usize {
        self.rx.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.rx.is_empty()
    }

    /// How full the queue is.
    pub fn probe(&self) -> Probe {
        Probe(Arc::clone(&self.shared))
    }

    fn taken(&self, mut item: Credited<T>) -> Credited<T> {
        item.hold.leave_queue();
        item
    }
}

#[derive(Debug)]
struct Hold {
    /// Still in the channel, or dropped with it.
    queued: bool,
    bytes: u64,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Hold {
    fn leave_queue(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.shared.enqueued().pop_front();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.leave_queue();
        self.shared.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// An item that holds its credit until it is dropped.
#[derive(Debug)]
pub struct Credited<T> {
    item: T,
    hold: Hold,
}

impl<T> Credited<T> {
    /// The bytes it was sent with.
    pub fn bytes(&self) -> u64 {
        self.hold.bytes
    }

    /// The item alone; its credit goes back now.
    pub fn into_item(self) -> T {
        self.item
    }
}

impl<T> Deref for Credited<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for Credited<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

#[cfg(test)]
mod tests;
