//! What producers hold of a sender: offers, books, status.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::store_link::{Block, Books, Counters, Due, Event, Phase, Progress, Receipts, Settings, StoreLink};
use engine::time::Mono;
use engine::wire::Ticket;
use runtime::{Clock, Supervisor};
use thiserror::Error;
use tokio::sync::Notify;

use crate::connection;

/// Why a block was not taken. It comes back; nothing of it is in the books.
#[derive(Debug, Error)]
pub enum OfferError {
    /// The store works off what is held: try again later, or spill.
    #[error("as many bytes as may be are held for the store")]
    Full(Block),
    /// The sender is being shut down.
    #[error("the sender is stopping")]
    Stopping(Block),
}

impl OfferError {
    /// The block that was not taken.
    pub fn into_block(self) -> Block {
        match self {
            OfferError::Full(block) | OfferError::Stopping(block) => block,
        }
    }
}

/// A sender at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// `host:port`.
    pub addr: String,
    /// Where the connection stands.
    pub phase: Phase,
    /// Whether the store answers half-closes.
    pub receipts: Receipts,
    /// Bytes of all blocks held.
    pub held_bytes: u64,
    /// Whether a block would be taken now.
    pub accepts: bool,
    /// The books.
    pub books: Books,
    /// What happened to connections.
    pub counters: Counters,
    /// Why the last connection or attempt ended, if it was no rotation.
    pub last_error: Option<String>,
}

/// Sends to one address of a store. Clones are the same sender.
///
/// What is held and what is counted lives here, not in the worker: a worker that panics or is given up loses its
/// connection and nothing else.
#[derive(Clone, Debug)]
pub struct StoreSender {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) addr: String,
    pub(crate) clock: Clock,
    /// Something was offered.
    pub(crate) work: Notify,
    /// An offer may be taken again.
    pub(crate) room: Notify,
    pub(crate) notsent_lowat: u32,
    held: Mutex<Held>,
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) link: StoreLink,
    pub(crate) last_error: Option<String>,
}

impl Shared {
    // The machine's state is whole between its calls, so a lock poisoned by a panic elsewhere is as good as any.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Mono {
        self.clock.now()
    }

    pub(crate) fn handle(&self, event: Event) {
        let now = self.now();
        self.held().link.handle(now, event);
    }
}

impl StoreSender {
    /// Starts the worker `name` (such as `relay.store.carbon.0`) that sends to `addr` (`host:port`).
    ///
    /// When the worker is asked to stop, it takes no more, writes what is held, asks for the last receipt and ends; the
    /// deadline is the supervisor's.
    ///
    /// # Errors
    /// When the operating system gives no random number for the jitter of reconnects.
    pub fn start(
        supervisor: &Supervisor,
        clock: Clock,
        name: impl Into<String>,
        addr: impl Into<String>,
        settings: Settings,
    ) -> io::Result<StoreSender> {
        let sender = StoreSender::new(clock, addr, settings)?;
        let shared = Arc::clone(&sender.shared);
        supervisor.spawn_task(name, move |worker| connection::run(worker, Arc::clone(&shared)));
        Ok(sender)
    }

    fn new(clock: Clock, addr: impl Into<String>, settings: Settings) -> io::Result<StoreSender> {
        let link = StoreLink::new(settings, runtime::random_u64()?);
        let shared = Shared {
            addr: addr.into(),
            clock,
            work: Notify::new(),
            room: Notify::new(),
            notsent_lowat: settings.notsent_lowat_bytes,
            held: Mutex::new(Held { link, last_error: None }),
        };
        Ok(StoreSender { shared: Arc::new(shared) })
    }

    /// Gives a block to the sender, without waiting. Blocks of one producer are sent in the order of offering.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn try_offer(&self, block: Block) -> Result<(), OfferError> {
        let now = self.shared.now();
        let mut held = self.shared.held();
        let answer = held.link.offer(now, block);
        let is_draining = held.link.is_draining();
        drop(held);
        // A refusal may have asked for a rotation: that is work too.
        self.shared.work.notify_one();
        answer.map_err(|block| if is_draining { OfferError::Stopping(block) } else { OfferError::Full(block) })
    }

    /// Gives a block to the sender, and waits while it is full. Dropping the future before it is ready drops the block,
    /// which is then in no book.
    ///
    /// # Errors
    /// [`OfferError::Stopping`].
    pub async fn offer(&self, block: Block) -> Result<(), OfferError> {
        let mut block = block;
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            room.as_mut().enable();
            match self.try_offer(block) {
                Ok(()) => return Ok(()),
                Err(OfferError::Full(back)) => block = back,
                Err(OfferError::Stopping(back)) => return Err(OfferError::Stopping(back)),
            }
            room.await;
        }
    }

    /// Whether a block would be taken now.
    pub fn accepts(&self) -> bool {
        let now = self.shared.now();
        self.shared.held().link.accepts(now)
    }

    /// How far it is: what was offered, and what of it will never be sent again.
    pub fn progress(&self) -> Progress {
        self.shared.held().link.progress()
    }

    /// What is due for the spill, see [`StoreLink::take_due`].
    pub fn take_due(&self, now: Mono, max_bytes: u64) -> Vec<Due> {
        self.shared.held().link.take_due(now, max_bytes)
    }

    /// Whether [`StoreSender::take_due`] has something.
    pub fn has_due(&self, now: Mono) -> bool {
        self.shared.held().link.has_due(now)
    }

    /// Everything that was taken up to `upto_number` is on disk, synced.
    pub fn spilled(&self, upto_number: u64) {
        let now = self.shared.now();
        self.shared.held().link.spilled(now, upto_number);
        self.shared.room.notify_waiters();
        self.shared.work.notify_one();
    }

    /// A block taken for the journal is on disk, see [`StoreLink::journalled`].
    pub fn journalled(&self, number: u64, ticket: Ticket) -> bool {
        let now = self.shared.now();
        let mut held = self.shared.held();
        let held_bytes = held.link.held_bytes();
        let keeps = held.link.journalled(now, number, ticket);
        let made_room = held.link.held_bytes() < held_bytes;
        drop(held);
        if made_room {
            self.shared.room.notify_waiters();
            self.shared.work.notify_one();
        }
        keeps
    }

    /// Tickets of journalled blocks that are to be settled, see [`StoreLink::take_settled`].
    pub fn take_settled(&self) -> Vec<Ticket> {
        self.shared.held().link.take_settled()
    }

    /// Whether a journalled block is still here, see [`StoreLink::holds`].
    pub fn holds(&self, number: u64) -> bool {
        self.shared.held().link.holds(number)
    }

    /// The spill has nothing in hand any more, see [`StoreLink::spill_restarted`].
    pub fn spill_restarted(&self) {
        self.shared.held().link.spill_restarted();
        self.shared.work.notify_one();
    }

    /// Whether the spill can take anything.
    pub fn set_spill(&self, able: bool) {
        self.shared.held().link.set_spill(able);
        self.shared.work.notify_one();
    }

    /// Shutdown without time for receipts: everything not confirmed is due, see [`StoreLink::drain_to_spill`].
    pub fn drain_to_spill(&self) {
        let now = self.shared.now();
        self.shared.held().link.drain_to_spill(now);
        self.shared.work.notify_one();
    }

    /// The books at this moment.
    pub fn books(&self) -> Books {
        self.shared.held().link.books()
    }

    /// Everything an operator may want to see of this sender.
    pub fn status(&self) -> StoreStatus {
        let now = self.shared.now();
        let held = self.shared.held();
        StoreStatus {
            addr: self.shared.addr.clone(),
            phase: held.link.phase(),
            receipts: held.link.receipts(),
            held_bytes: held.link.held_bytes(),
            accepts: held.link.accepts(now),
            books: held.link.books(),
            counters: held.link.counters(),
            last_error: held.last_error.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn new_without_worker(clock: Clock, addr: String, settings: Settings) -> (StoreSender, Arc<Shared>) {
        let sender = StoreSender::new(clock, addr, settings).unwrap();
        let shared = Arc::clone(&sender.shared);
        (sender, shared)
    }
}
