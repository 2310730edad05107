//! What the workers of a partial role share. It outlives each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::batch::{BatchId, Incarnation, Versions};
use engine::partial_node::{Connection, PartialNode, Settings, Work};
use engine::rule::RuleSet;
use engine::wire::Watermark;
use runtime::Clock;
use runtime::queue::{Probe, Receiver, Sender, byte_queue};
use tokio::sync::Notify;
use tracing::error;

use crate::ping::{Bell, Token};
use crate::watermarks::Watermarks;

/// The fixed parts of a role.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) clock: Clock,
    pub(crate) incarnation: Incarnation,
    pub(crate) versions: Versions,
    pub(crate) partitions: u16,
    /// Names of the final nodes.
    pub(crate) finals: Vec<String>,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) flush: Duration,
    pub(crate) settings: Settings,
}

#[derive(Debug)]
pub(crate) struct PartialRole {
    pub(crate) setup: Setup,
    /// One a final node.
    pub(crate) wakes: Vec<Notify>,
    pub(crate) draining: AtomicBool,
    machine: Mutex<PartialNode>,
    ports: Vec<Port>,
    bells: Mutex<BTreeMap<Connection, Arc<Bell>>>,
    watermarks: Watermarks,
    next_connection: AtomicU64,
}

/// The way to one shard. Each life of a shard has queues of its own, so that a ghost takes nothing from its successor.
#[derive(Debug)]
struct Port {
    work: Mutex<Sender<Work>>,
    control: Mutex<Sender<Token>>,
    in_hand: Mutex<Option<BatchId>>,
}

/// The receiving ends of one life of a shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) work: Receiver<Work>,
    pub(crate) control: Receiver<Token>,
}

impl PartialRole {
    pub(crate) fn new(setup: Setup) -> PartialRole {
        let port = |_| {
            let (work, _) = byte_queue("partial.work", 1);
            let (control, _) = byte_queue("partial.control", 1);
            Port { work: Mutex::new(work), control: Mutex::new(control), in_hand: Mutex::new(None) }
        };
        PartialRole {
            wakes: setup.finals.iter().map(|_| Notify::new()).collect(),
            draining: AtomicBool::new(false),
            machine: Mutex::new(PartialNode::new(setup.settings.clone())),
            ports: (0..setup.settings.shards).map(port).collect(),
            bells: Mutex::default(),
            watermarks: Watermarks::default(),
            next_connection: AtomicU64::new(1),
            setup,
        }
    }

    /// The machine; put right first if a worker died inside it.
    pub(crate) fn machine(&self) -> MutexGuard<'_, PartialNode> {
        self.machine.lock().unwrap_or_else(|poisoned| {
            self.machine.clear_poison();
            let mut machine = poisoned.into_inner();
            error!(node = %self.setup.node, "a worker died inside the partial machine: what is held is forgotten, relays send it again");
            machine.recover();
            machine
        })
    }

    /// A new number for a connection, and its bell.
    pub(crate) fn connect(&self) -> (Connection, Arc<Bell>) {
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let bell = Arc::new(Bell::default());
        lock(&self.bells).insert(connection, Arc::clone(&bell));
        self.machine().connected(connection);
        (connection, bell)
    }

    pub(crate) fn disconnect(&self, connection: Connection) {
        lock(&self.bells).remove(&connection);
        self.machine().disconnected(connection);
    }

    /// Hands the machine's work to the shards. The caller holds the machine, so nobody overtakes.
    pub(crate) fn hand_out(&self, machine: &mut PartialNode) {
        for work in machine.take_work() {
            let bytes = work.batch.bytes().len() as u64;
            let shard = work.shard;
            // The queue has room for twice what the machine may hold, so this fails only when the shard is between two
            // lives; the next one asks the machine for everything.
            if lock(&self.ports[shard].work).try_send(work, bytes).is_err() {
                tracing::debug!(shard, "work for a shard that is being restarted");
            }
        }
    }

    /// Opens the queues for a new life of a shard and fills them with all that it must fold.
    pub(crate) fn begin_shard(&self, shard: usize, generation: u64) -> Inbox {
        let limit = self.setup.settings.hold_bytes.saturating_mul(4);
        let (work_in, work) = byte_queue("partial.work", limit);
        let (control_in, control) = byte_queue("partial.control", 1 << 20);
        let mut machine = self.machine();
        *lock(&self.ports[shard].work) = work_in;
        *lock(&self.ports[shard].control) = control_in;
        let in_hand = lock(&self.ports[shard].in_hand).take();
        machine.shard_started(shard, generation, in_hand);
        self.hand_out(&mut machine);
        Inbox { work, control }
    }

    /// Notes what a shard is working on, for the case that it dies of it.
    pub(crate) fn set_in_hand(&self, shard: usize, id: Option<BatchId>) {
        *lock(&self.ports[shard].in_hand) = id;
    }

    /// Sends a ping on its round; `shard` is the next to visit.
    pub(crate) fn pass(&self, shard: usize, token: Token) {
        match self.ports.get(shard) {
            Some(port) => {
                let sender = lock(&port.control).clone();
                if sender.try_send(token, 1).is_err() {
                    tracing::debug!(shard, "ping not passed on: the shard is being restarted");
                }
            }
            None => token.bell.pong(token.echo),
        }
    }

    /// Lets every connection look for answers.
    pub(crate) fn ring_all(&self) {
        lock(&self.bells).values().for_each(|bell| bell.wake.notify_one());
    }

    pub(crate) fn wake_finals(&self) {
        self.wakes.iter().for_each(Notify::notify_one);
    }

    pub(crate) fn note_watermark(&self, watermark: Watermark) {
        self.watermarks.note(self.setup.clock.now(), watermark);
    }

    /// The latest word of every sender that is not silent.
    pub(crate) fn watermarks(&self) -> Vec<Watermark> {
        self.watermarks.latest(self.setup.clock.now())
    }

    /// The highest epoch of a sender that was heard of lately; 0: none.
    pub(crate) fn epoch_of(&self, sender: u64) -> u32 {
        self.watermarks.epoch_of(sender)
    }

    /// The fullest shard queue.
    pub(crate) fn queue(&self) -> (u64, Duration) {
        let probes: Vec<Probe> = self.ports.iter().map(|port| lock(&port.work).probe()).collect();
        let bytes = probes.iter().map(Probe::queued_bytes).sum();
        (bytes, probes.iter().map(Probe::oldest_age).max().unwrap_or_default())
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
