//! What the relay's workers share: lanes, the retaining machine, stores and counters. It outlives every worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use engine::line::{LinePolicy, Reject};
use engine::recv::CloseReason;
use engine::relay::Relay;
use engine::time::Mono;
use node::Store;
use output::StoreSender;
use runtime::Clock;
use tokio::sync::Notify;

use crate::bad::BadLines;
use crate::decide::{Decider, Nowhere};
use crate::doubt::Doubt;
use crate::lanes::{Lane, Lanes, Open, Run, Sealed};
use crate::spill;

/// Totals since the node's start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) rejected: [AtomicU64; Reject::ALL.len()],
    pub(crate) nowhere: [AtomicU64; Nowhere::ALL.len()],
    pub(crate) opened: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) closed: [AtomicU64; CloseReason::ALL.len()],
    pub(crate) accept_pauses: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) backpressure_nanos: AtomicU64,
    pub(crate) links_closed: Mutex<BTreeMap<&'static str, u64>>,
}

/// Buffers for blocks of lines, used again: fresh ones would cost a page fault for every 4 KiB read.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// Kept at most: some per reading thread and router.
const BUFFERS_MAX: usize = 32;
/// Larger ones are not kept.
const BUFFER_BYTES_MAX: usize = 256 << 10;

impl Buffers {
    /// An empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        locked(&self.0).pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        let mut kept = locked(&self.0);
        if kept.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

/// A lock whose holder's panic does not matter: what it guards is whole between two statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds to a total.
pub(crate) fn add(total: &AtomicU64, n: u64) {
    total.fetch_add(n, Ordering::Relaxed);
}

/// Reads a total.
pub(crate) fn get(total: &AtomicU64) -> u64 {
    total.load(Ordering::Relaxed)
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) clock: Clock,
    pub(crate) started: Mono,
    pub(crate) policy: LinePolicy,
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) lanes: Lanes,
    pub(crate) decider: Decider,
    pub(crate) stores: Vec<Store>,
    /// Blocks for stores go to disk when they are sealed.
    journal: bool,
    pub(crate) peers: Vec<String>,
    /// One a peer: something may be written to it.
    pub(crate) wakes: Vec<Notify>,
    pub(crate) counters: Counters,
    pub(crate) bad: BadLines,
    pub(crate) buffers: Buffers,
    /// Whether clients are read; see [`Shared::look_for_room`].
    pub(crate) accepting: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) doubt: Doubt,
    pub(crate) spill: Arc<spill::Handle>,
    machine: Mutex<Relay>,
    /// Whoever moves points from one class of the books to another holds it for reading; who reads the books holds it
    /// for writing, and so sees no point twice or not at all.
    gate: RwLock<()>,
}

/// The fixed parts of a [`Shared`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) node: String,
    pub(crate) clock: Clock,
    pub(crate) policy: LinePolicy,
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) lanes: Lanes,
    pub(crate) decider: Decider,
    pub(crate) stores: Vec<Store>,
    pub(crate) journal: bool,
    pub(crate) peers: Vec<String>,
    pub(crate) machine: Relay,
    pub(crate) spill: Arc<spill::Handle>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Shared {
        Shared {
            started: parts.clock.now(),
            wakes: parts.peers.iter().map(|_| Notify::new()).collect(),
            node: parts.node,
            clock: parts.clock,
            policy: parts.policy,
            batch_bytes: parts.batch_bytes,
            linger: parts.linger,
            lanes: parts.lanes,
            decider: parts.decider,
            stores: parts.stores,
            journal: parts.journal,
            peers: parts.peers,
            counters: Counters::default(),
            bad: BadLines::default(),
            buffers: Buffers::default(),
            accepting: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            doubt: Doubt::default(),
            spill: parts.spill,
            machine: Mutex::new(parts.machine),
            gate: RwLock::new(()),
        }
    }

    /// The retaining machine; put right first if a worker died inside it.
    pub(crate) fn machine(&self) -> MutexGuard<'_, Relay> {
        self.machine.lock().unwrap_or_else(|poisoned| {
            self.machine.clear_poison();
            let mut machine = poisoned.into_inner();
            machine.recover(self.clock.now());
            machine
        })
    }

    /// To be held while points change their class in the books.
    pub(crate) fn moving(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while the books are read.
    pub(crate) fn standing_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every link look for something to write.
    pub(crate) fn wake_links(&self) {
        self.wakes.iter().for_each(Notify::notify_one);
    }

    /// Appends what one block brought for one lane. The caller is [`Shared::moving`].
    pub(crate) fn append(&self, lane: &Lane, run: &Run) {
        let now = self.clock.now();
        let mut open = lane.open();
        open.append(lane.destination, run, now, lane.room());
        if open.len() >= self.batch_bytes {
            self.seal(lane, &mut open);
        }
    }

    /// Closes a lane's open batch and hands it to who sends it. The caller is [`Shared::moving`].
    pub(crate) fn seal(&self, lane: &Lane, open: &mut Open) {
        let since = open.since().unwrap_or_default();
        lane.sealed(open.len());
        match open.take(lane.destination) {
            None => {}
            Some(Sealed::Batch(builder)) => {
                let mut machine = self.machine();
                machine.seal(self.clock.now(), builder);
                let is_pressing = machine.is_pressing();
                drop(machine);
                if is_pressing {
                    self.spill.wake();
                }
                self.wake_links();
            }
            // A sender that is full takes it for the spill; it refuses only when the spill does not keep up.
            Some(Sealed::Block(store, address, block)) => {
                let refused = self.stores[store].senders[address].try_offer(block).err();
                if self.journal || refused.is_some() {
                    self.spill.wake();
                }
                if let Some(refused) = refused {
                    open.put_back(refused.into_block(), since);
                    self.accepting.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    /// Seals every lane whose first line came longer than `age` ago.
    pub(crate) fn seal_older_than(&self, age: Duration) {
        let now = self.clock.now();
        for lane in self.lanes.all() {
            let _moving = self.moving();
            let mut open = lane.open();
            if open.since().is_some_and(|since| now.since(since) >= age) {
                self.seal(&lane, &mut open);
            }
        }
    }

    /// Why no point may be taken, whatever the room: see [`Doubt`].
    pub(crate) fn trouble(&self) -> Option<String> {
        let disowned = self.machine().disowned();
        self.doubt.trouble(self.clock.now(), &self.peers, disowned)
    }

    /// Decides whether clients are read on: every destination must have room, or a spill that keeps up, or be so stuck
    /// that it drops its oldest.
    pub(crate) fn look_for_room(&self) {
        let now = self.clock.now();
        let room = self.machine().accepts(now)
            && self.trouble().is_none()
            && self.stores.iter().flat_map(|store| &store.senders).all(StoreSender::accepts);
        self.accepting.store(room, Ordering::Relaxed);
    }

    /// Counts a line that never became part of a block.
    pub(crate) fn reject(&self, peer: &str, why: Reject, line: &[u8]) {
        self.bad.keep(self.clock.unix(), peer, why, line);
        let _moving = self.moving();
        add(&self.counters.received, 1);
        add(&self.counters.rejected[why.index()], 1);
    }
}
