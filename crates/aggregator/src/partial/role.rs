//! What the workers of a partial role share. It outlives each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::batch::{BatchId, Incarnation, Versions};
use engine::partial_node::{Connection, PartialNode, Settings, Work};
use engine::watermarks::Watermarks;
use engine::wire::{Class, Watermark};
use node::rules::RuleBook;
use runtime::Clock;
use runtime::queue::{Credited, Probe, Receiver, Sender, byte_queue};
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::forgotten::Forgotten;
use crate::ping::{Bell, Token};

/// The fixed parts of a role.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) clock: Clock,
    pub(crate) incarnation: Incarnation,
    pub(crate) versions: Versions,
    pub(crate) book: Arc<RuleBook>,
    pub(crate) partitions: u16,
    /// Names of the final nodes.
    pub(crate) finals: Vec<String>,
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
    watermarks: Mutex<Watermarks>,
    next_connection: AtomicU64,
}

/// The way to one shard. Each life of a shard has queues of its own, so that a ghost takes nothing from its successor.
#[derive(Debug)]
struct Port {
    live: Mutex<Sender<Work>>,
    replay: Mutex<Sender<Work>>,
    control: Mutex<Sender<Token>>,
    in_hand: Mutex<Option<BatchId>>,
}

/// The receiving ends of one life of a shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    live: Receiver<Work>,
    replay: Receiver<Work>,
    pub(crate) control: Receiver<Token>,
}

impl Inbox {
    /// The next work: replay only when no live work waits (INV-5). `wait`: how long for live work, when there is neither.
    pub(crate) fn next(&self, wait: Duration) -> Option<Credited<Work>> {
        self.live.try_recv().or_else(|| self.replay.try_recv()).or_else(|| self.live.recv_timeout(wait))
    }
}

impl PartialRole {
    pub(crate) fn new(setup: Setup) -> PartialRole {
        let port = |_| {
            let (live, _) = byte_queue("partial.live", 1);
            let (replay, _) = byte_queue("partial.replay", 1);
            let (control, _) = byte_queue("partial.control", 1);
            Port {
                live: Mutex::new(live),
                replay: Mutex::new(replay),
                control: Mutex::new(control),
                in_hand: Mutex::new(None),
            }
        };
        PartialRole {
            wakes: setup.finals.iter().map(|_| Notify::new()).collect(),
            draining: AtomicBool::new(false),
            machine: Mutex::new(PartialNode::new(setup.settings.clone())),
            ports: (0..setup.settings.shards).map(port).collect(),
            bells: Mutex::default(),
            watermarks: Mutex::default(),
            next_connection: AtomicU64::new(1),
            setup,
        }
    }

    /// A peer told rules that this node may not know. Shards can have them before the machine takes batches for them.
    pub(crate) fn learn(&self, peer: &str, set: &[u8]) {
        match self.setup.book.learn(set) {
            Ok(None) => {}
            Ok(Some(version)) => {
                self.machine().know_rules(version);
                self.wake_finals();
            }
            Err(why) => {
                warn!(node = %self.setup.node, peer, why, "rules of former days are not taken: batches made for them wait");
            }
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
    pub(crate) fn connect(&self, class: Class) -> (Connection, Arc<Bell>) {
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let bell = Arc::new(Bell::default());
        lock(&self.bells).insert(connection, Arc::clone(&bell));
        self.machine().connected(connection, class);
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
            let port = &self.ports[shard];
            let queue = match work.class {
                Class::Live => &port.live,
                Class::Replay => &port.replay,
            };
            // The queue has room for twice what the machine may hold, so this fails only when the shard is between two
            // lives; the next one asks the machine for everything.
            if lock(queue).try_send(work, bytes).is_err() {
                tracing::debug!(shard, "work for a shard that is being restarted");
            }
        }
    }

    /// Opens the queues for a new life of a shard and fills them with all that it must fold.
    pub(crate) fn begin_shard(&self, shard: usize, generation: u64) -> Inbox {
        let limit = self.setup.settings.hold_bytes.saturating_mul(4);
        let (live_in, live) = byte_queue("partial.live", limit);
        let (replay_in, replay) = byte_queue("partial.replay", limit);
        let (control_in, control) = byte_queue("partial.control", 1 << 20);
        let mut machine = self.machine();
        *lock(&self.ports[shard].live) = live_in;
        *lock(&self.ports[shard].replay) = replay_in;
        *lock(&self.ports[shard].control) = control_in;
        let in_hand = lock(&self.ports[shard].in_hand).take();
        machine.shard_started(shard, generation, in_hand);
        self.hand_out(&mut machine);
        Inbox { live, replay, control }
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
        lock(&self.watermarks).note(self.setup.clock.now(), watermark);
    }

    /// The latest word of every sender that is neither silent nor forgotten.
    pub(crate) fn watermarks(&self) -> Vec<Watermark> {
        let mut latest = lock(&self.watermarks).latest(self.setup.clock.now());
        latest.retain(|watermark| !self.setup.forgotten.has(watermark.sender));
        latest
    }

    /// The highest epoch of a sender that was heard of lately; 0: none.
    pub(crate) fn epoch_of(&self, sender: u64) -> u32 {
        lock(&self.watermarks).epoch_of(sender)
    }

    /// Live work that waits for shards: bytes, and how long the oldest has. Replay waits by design.
    pub(crate) fn queue(&self) -> (u64, Duration) {
        let probes: Vec<Probe> = self.ports.iter().map(|port| lock(&port.live).probe()).collect();
        let bytes = probes.iter().map(Probe::queued_bytes).sum();
        (bytes, probes.iter().map(Probe::oldest_age).max().unwrap_or_default())
    }

    /// The window of a new link.
    pub(crate) fn window_bytes(&self, class: Class) -> u64 {
        let delay = self.queue().1;
        self.machine().window_bytes(self.setup.clock.now(), class, delay)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use engine::batch::{Batch, Builder, Incarnation, PartitionSet, Versions};
    use engine::time::UnixSeconds;
    use engine::wire::Lane;

    use super::*;

    fn work(class: Class) -> Work {
        let mut builder = Builder::new(PartitionSet::default().with(0), 16);
        builder.append(b"a 1 1\n", 1, UnixSeconds(1), UnixSeconds(1));
        let incarnation = Incarnation { sender: 1, epoch: 1, nonce: 1 };
        let claim = engine::batch::Claim { partition: 0, from: 0 };
        let batch: Batch = builder.seal(incarnation, 0, Versions::default(), &[claim]);
        Work { shard: 0, batch, partitions: PartitionSet::default().with(0), lane: Lane::First, class }
    }

    #[test]
    fn live_work_waits_for_one_work_of_replay_at_the_most() {
        let (live_in, live) = byte_queue("live", 1 << 20);
        let (replay_in, replay) = byte_queue("replay", 1 << 20);
        let (_control_in, control) = byte_queue("control", 1);
        let inbox = Inbox { live, replay, control };
        for round in 0..100 {
            // There is always replay to do, and now and then something live comes, in runs.
            while replay_in.probe().queued_bytes() < 10_000 {
                replay_in.try_send(work(Class::Replay), 1_000).unwrap();
            }
            for _ in 0..round % 3 {
                live_in.try_send(work(Class::Live), 1_000).unwrap();
            }
            let mut waited = 0;
            while live_in.probe().queued_bytes() > 0 {
                let taken = inbox.next(Duration::ZERO).unwrap().into_item();
                waited += u32::from(taken.class == Class::Replay);
            }
            assert_eq!(waited, 0, "what is taken next is live as long as any waits");
            // The one that a shard may have in hand when live work comes.
            assert_eq!(inbox.next(Duration::ZERO).unwrap().into_item().class, Class::Replay);
        }
        while inbox.next(Duration::ZERO).is_some() {}
    }
}
