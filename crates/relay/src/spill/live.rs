//! The live path, as the spill sees it: who holds what is due, and who is told what became of it.

use std::fmt::Debug;
use std::sync::RwLockReadGuard;

use bytes::Bytes;
use engine::batch::{Batch, BatchId};
use engine::spill::{Entry, Origin, Why};
use engine::time::{Mono, UnixSeconds};
use engine::wire::Ticket;

/// Who is to be told that something is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Batch(BatchId),
    /// Everything that this sender (a destination) gave up to `number`.
    Block {
        destination: String,
        number: u64,
    },
    /// One block, which this sender has all the same.
    Journalled {
        destination: String,
        number: u64,
    },
}

/// What is due.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Batch(Batch),
    Block { lines: Bytes, points: u32, number: u64 },
}

/// Something that is to be spilled.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) destination: String,
    pub(crate) why: Why,
    pub(crate) content: Content,
}

impl Due {
    /// `epoch`: of this process.
    pub(crate) fn entry(&self, epoch: u32) -> Entry<'_> {
        match &self.content {
            Content::Batch(batch) => Entry::batch(&self.destination, batch, self.why),
            Content::Block { lines, points, number } => {
                Entry::block(&self.destination, lines, *points, epoch, *number, self.why)
            }
        }
    }

    pub(crate) fn told(&self) -> Told {
        match &self.content {
            Content::Batch(batch) => Told::Batch(batch.id()),
            Content::Block { number, .. } => {
                let (destination, number) = (self.destination.clone(), *number);
                match self.why {
                    Why::Journal => Told::Journalled { destination, number },
                    Why::Timeout | Why::Memory | Why::NoPeer | Why::Shutdown | Why::Import => {
                        Told::Block { destination, number }
                    }
                }
            }
        }
    }

    pub(crate) fn points(&self) -> u64 {
        match &self.content {
            Content::Batch(batch) => u64::from(batch.header().points),
            Content::Block { points, .. } => u64::from(*points),
        }
    }
}

/// What the thread asks of the retaining machine and of the senders to stores. Nothing here waits.
pub(crate) trait Live: Send + Sync + Debug {
    /// Oldest first, about `max_bytes`. It is in the spill's hand from then on. Nothing to a life of the thread that
    /// is not current any more: its successor has asked for what was in hand already, and would never get this back.
    fn due(&self, now: Mono, max_bytes: u64, is_current: &dyn Fn() -> bool) -> Vec<Due>;
    /// It is on disk, synced. False: it was delivered or dropped meanwhile, the ticket is to be settled at once.
    fn spilled(&self, now: Mono, told: &Told, ticket: Ticket) -> bool;
    /// Tickets of what became durable by another way.
    fn settled(&self) -> Vec<Ticket>;
    /// What a peer refused for good: counted by the live path, to be kept as dead letters.
    fn dead(&self) -> Vec<(Batch, &'static str)>;
    /// Whether the live path still has what is in a record, so that it is to be neither lent nor given up.
    fn holds(&self, origin: Origin<'_>) -> bool;
    /// The spill has nothing in hand any more.
    fn restarted(&self, now: Mono);
    /// Whether the spill takes anything.
    fn set_able(&self, now: Mono, able: bool);
    /// What the spill holds of this sender.
    fn set_spilled(&self, oldest_epoch: Option<u32>, oldest: Option<UnixSeconds>);
    /// To be held while points change their class in the books.
    fn moving(&self) -> RwLockReadGuard<'_, ()>;
}
