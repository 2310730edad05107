//! What the workers of a final role share. It outlives each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use engine::final_node::Books;
use engine::ring::Ring;
use engine::rule::RuleSet;
use engine::store_link::Block;
use engine::time::UnixSeconds;
use engine::wire::{Flush, FlushReply, Watermark};
use node::Store;
use runtime::Clock;
use store::{Store as LogStore, StoreError, WriteBatch};

use crate::partial_lock as lock;
use crate::ping::{Bell, Token};
use crate::watermarks::Watermarks;

/// Inputs that wait for one shard. Every partition and lane has one flush out per partial node, so 4096 are the flushes
/// of 128 partial nodes for 16 partitions.
const INPUTS_MAX: usize = 4096;
/// Appends that wait for the log.
const APPENDS_MAX: usize = 4096;

/// The fixed parts of a role.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) node: String,
    pub(crate) clock: Clock,
    /// The partitions that this node owns.
    pub(crate) mine: Vec<u16>,
    pub(crate) shards: usize,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) rings: Vec<Ring>,
    pub(crate) stores: Vec<Store>,
    pub(crate) horizon: Duration,
    pub(crate) memory_bytes: u64,
}

/// Something for a shard.
#[derive(Debug)]
pub(crate) enum Input {
    Flush {
        from: Arc<Connection>,
        flush: Flush,
    },
    /// The log has synced; see [`FinalRole::synced`].
    Synced,
    Ping(Token),
}

/// A write that the log makes durable.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) shard: usize,
    /// Which life of the shard; the log refuses those of former lives.
    pub(crate) generation: u64,
    pub(crate) token: u64,
    pub(crate) batch: WriteBatch,
}

/// A partial node's connection, as far as answers go.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) bell: Arc<Bell>,
    pub(crate) replies: Mutex<Vec<FlushReply>>,
}

impl Connection {
    pub(crate) fn answer(&self, reply: FlushReply) {
        lock(&self.replies).push(reply);
        self.bell.wake.notify_one();
    }
}

/// What a shard shows of itself, and what it must not lose with a life.
#[derive(Debug, Default)]
pub(crate) struct ShardState {
    pub(crate) books: BTreeMap<u16, Books>,
    pub(crate) windows: u64,
    pub(crate) bytes: u64,
    pub(crate) corrections: u64,
    pub(crate) emitted_lines: u64,
    pub(crate) sealed_early: u64,
    /// Lines that were taken out of the windows and that their senders had no room for yet: by store and address.
    pub(crate) unsent: BTreeMap<(usize, usize), Block>,
}

/// Opens the store that the log is in; each call fences the handles given before.
pub(crate) struct Opener(pub(crate) Box<dyn Fn() -> Result<Box<dyn LogStore>, StoreError> + Send + Sync>);

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

#[derive(Debug)]
pub(crate) struct FinalRole {
    pub(crate) setup: Setup,
    open: Opener,
    pub(crate) states: Vec<Mutex<ShardState>>,
    pub(crate) draining: AtomicBool,
    pub(crate) appends: (Sender<Append>, Receiver<Append>),
    /// Taken from the queue and not known to be durable: a restarted log does it again.
    pub(crate) log_in_hand: Mutex<Vec<Append>>,
    /// The one handle; a new life of the log opens a new one, which fences the old.
    store: Mutex<Option<Box<dyn LogStore>>>,
    inputs: Vec<Mutex<Sender<Input>>>,
    /// One a shard: the life that may append, and the highest token that is synced.
    lives: Vec<(AtomicU64, AtomicU64)>,
    watermarks: Watermarks,
    pub(crate) overflow: AtomicU64,
}

impl FinalRole {
    pub(crate) fn new(setup: Setup, open: Opener) -> FinalRole {
        FinalRole {
            open,
            states: (0..setup.shards).map(|_| Mutex::default()).collect(),
            draining: AtomicBool::new(false),
            appends: bounded(APPENDS_MAX),
            log_in_hand: Mutex::default(),
            store: Mutex::new(None),
            inputs: (0..setup.shards).map(|_| Mutex::new(bounded(1).0)).collect(),
            lives: (0..setup.shards).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect(),
            watermarks: Watermarks::default(),
            overflow: AtomicU64::new(0),
            setup,
        }
    }

    /// Opens the store anew; who still holds the old handle is fenced.
    pub(crate) fn open_store(&self) -> Result<(), StoreError> {
        let mut store = lock(&self.store);
        *store = None;
        *store = Some((self.open.0)()?);
        Ok(())
    }

    /// Works with the store, opening it first where nobody has yet.
    pub(crate) fn with_store<T>(
        &self,
        work: impl FnOnce(&mut dyn LogStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut store = lock(&self.store);
        match store.as_mut() {
            Some(open) => work(open.as_mut()),
            None => work(store.insert((self.open.0)()?).as_mut()),
        }
    }

    /// Bytes in the store.
    pub(crate) fn store_bytes(&self) -> u64 {
        self.with_store(|store| Ok(store.bytes())).unwrap_or(0)
    }

    /// Which shard decides for a partition; `None` if this node does not own it.
    pub(crate) fn shard_of(&self, partition: u16) -> Option<usize> {
        let index = self.setup.mine.iter().position(|mine| *mine == partition)?;
        Some(index % self.setup.shards.max(1))
    }

    /// The partitions of a shard.
    pub(crate) fn partitions_of(&self, shard: usize) -> Vec<u16> {
        self.setup.mine.iter().copied().filter(|partition| self.shard_of(*partition) == Some(shard)).collect()
    }

    /// Opens the queue for a new life of a shard. What waited for the old one is gone with it: partial nodes send
    /// their flushes again, verbatim.
    ///
    /// From here on the log refuses what a former life, a ghost, may still append.
    pub(crate) fn begin_shard(&self, shard: usize, generation: u64) -> Receiver<Input> {
        let (sender, receiver) = bounded(INPUTS_MAX);
        *lock(&self.inputs[shard]) = sender;
        self.lives[shard].0.store(generation, Ordering::SeqCst);
        receiver
    }

    /// Whether an append is of a shard's present life.
    pub(crate) fn is_of_present_life(&self, append: &Append) -> bool {
        self.lives[append.shard].0.load(Ordering::SeqCst) == append.generation
    }

    /// Everything that a shard appended up to this token is durable. Tokens of a later life are above those of an
    /// earlier one.
    pub(crate) fn synced(&self, shard: usize) -> u64 {
        self.lives[shard].1.load(Ordering::SeqCst)
    }

    /// Notes that, and wakes the shard.
    pub(crate) fn note_synced(&self, shard: usize, token: u64) {
        self.lives[shard].1.fetch_max(token, Ordering::SeqCst);
        // Only a bell: a shard whose queue is full looks by itself.
        self.give(shard, Input::Synced);
    }

    /// Gives a shard something, without waiting. What does not fit is counted; a flush comes again by itself.
    pub(crate) fn give(&self, shard: usize, input: Input) {
        let sender = lock(&self.inputs[shard]).clone();
        match sender.try_send(input) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.overflow.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sends a ping on its round; `shard` is the next to visit.
    pub(crate) fn pass(&self, shard: usize, token: Token) {
        if shard < self.setup.shards {
            self.give(shard, Input::Ping(token));
        } else {
            token.bell.pong(token.echo);
        }
    }

    pub(crate) fn note_watermark(&self, watermark: Watermark) {
        self.watermarks.note(self.setup.clock.now(), watermark);
    }

    /// The latest word of every sender that is not silent.
    pub(crate) fn watermarks(&self) -> Vec<Watermark> {
        self.watermarks.latest(self.setup.clock.now())
    }

    /// No sender holds anything older than this back; none when no sender is known.
    pub(crate) fn watermark(&self) -> Option<UnixSeconds> {
        self.watermarks().iter().map(|watermark| watermark.at).min()
    }

    /// Inputs that wait, over all shards.
    pub(crate) fn queued(&self) -> usize {
        self.inputs.iter().map(|sender| lock(sender).len()).sum()
    }
}
