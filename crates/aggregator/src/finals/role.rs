//! What the workers of a final role share. It outlives each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use super::catch_up::CatchUp;
use super::disk::{Disk, Opener};
use super::journal::Append;
use super::mode::Mode;
use super::targets::Target;
use crate::forgotten::Forgotten;
use crate::partial_lock as lock;
use crate::ping::{Bell, Token};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use engine::final_node::cursor::Waiting;
use engine::final_node::emit::{Outlet, Senders};
use engine::final_node::included::Known;
use engine::final_node::pace::Debt;
use engine::final_node::{Books, Finding};
use engine::ring::Ring;
use engine::store_link::Block;
use engine::time::{Mono, UnixSeconds};
use engine::verdict::Worry;
use engine::watermarks::Watermarks;
use engine::window::BlockId;
use engine::wire::{Flush, FlushReply, Lane, Watermark};
use node::Store;
use node::rules::RuleBook;
use runtime::Clock;
use tracing::warn;

/// Inputs that wait for one shard, in each lane. Every partition and lane has one flush out per partial node, so 4096 are
/// the flushes of 256 partial nodes for 16 partitions.
const INPUTS_MAX: usize = 4096;
/// Appends that wait for the log.
pub(crate) const APPENDS_MAX: usize = 4096;
/// Bytes of appends that are not durable; beyond them flushes are put off.
const APPEND_BYTES_MAX: u64 = 64 << 20;
/// Share of the quota from which on flushes are put off. The rest is for checkpoints, which raise the floor and free space.
const QUOTA_FLUSHES_PERCENT: u64 = 95;
/// How often to look whether the store is free.
const DISK_POLL: Duration = Duration::from_millis(1);
/// Sentences about damage that are kept for the operator.
const NOTES_MAX: usize = 32;
/// Said until the next start.
const INCLUDED_LOST: &str = "damage has taken the included set of a partition: batches that were merged before and come \
     again, from a spill or a slow relay, are counted a second time; discard spills of that time if exact values matter \
     (said until this node is started again)";

/// The fixed parts of a role.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) node: String,
    pub(crate) clock: Clock,
    /// The partitions that this node owns.
    pub(crate) mine: Vec<u16>,
    pub(crate) shards: usize,
    pub(crate) book: Arc<RuleBook>,
    pub(crate) rings: Vec<Ring>,
    pub(crate) stores: Vec<Store>,
    pub(crate) horizon: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) quota_bytes: u64,
}

/// Something for a shard.
#[derive(Debug)]
pub(crate) enum Input {
    Flush {
        from: Arc<Connection>,
        flush: Flush,
    },
    /// The log has synced, or read blocks; see [`FinalRole::synced`] and [`FinalRole::take_loaded`].
    Log,
    Ping(Token),
}

/// Where a shard's inputs come out: first sends, pings and the log's bell; and re-sends, which wait for those (INV-5).
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) first: Receiver<Input>,
    pub(crate) second: Receiver<Input>,
}

/// Snapshots that the log has read for a shard; `None`: damaged.
pub(crate) type Loaded = Vec<(u16, BlockId, Option<Bytes>)>;

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

/// What a shard shows of itself.
#[derive(Debug, Default)]
pub(crate) struct ShardState {
    pub(crate) books: BTreeMap<u16, Books>,
    pub(crate) senders: BTreeMap<u64, Known>,
    /// What waits for each target.
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) windows: u64,
    pub(crate) bytes: u64,
    pub(crate) corrections: u64,
    pub(crate) emitted_lines: u64,
    pub(crate) sealed_early: u64,
    pub(crate) dead_letters_unkept: u64,
    /// Flushes that got no answer because the disk, the log or the memory did not let them; they come again.
    pub(crate) put_off: u64,
}

#[derive(Debug)]
pub(crate) struct FinalRole {
    pub(crate) setup: Setup,
    /// Every address of every store.
    pub(crate) targets: Vec<Target>,
    pub(crate) catch_up: CatchUp,
    pub(crate) debts: Mutex<Vec<Debt>>,
    pub(crate) states: Vec<Mutex<ShardState>>,
    pub(crate) draining: AtomicBool,
    pub(crate) appends: (Sender<Append>, Receiver<Append>),
    append_bytes: AtomicU64,
    /// Taken from the queue and not known to be durable: a restarted log does it again.
    pub(crate) log_in_hand: Mutex<Vec<Append>>,
    disk: Mutex<Disk>,
    mode: Mutex<(Mode, String)>,
    used_bytes: AtomicU64,
    births: AtomicU64,
    inputs: Vec<Mutex<[Sender<Input>; 2]>>,
    loaded: Vec<Mutex<Loaded>>,
    /// One a shard: the life that may append, and the highest token that is synced.
    lives: Vec<(AtomicU64, AtomicU64)>,
    watermarks: Mutex<Watermarks>,
    pub(crate) overflow: AtomicU64,
    pub(crate) included_lost: AtomicBool,
    notes: Mutex<Vec<String>>,
}

impl FinalRole {
    /// A partial node told rules that this node may not know.
    pub(crate) fn learn(&self, set: &[u8]) {
        if let Err(why) = self.setup.book.learn(set) {
            warn!(node = %self.setup.node, why, "rules of former days are not taken: their windows are kept and not emitted");
        }
    }

    pub(crate) fn new(setup: Setup, open: Opener, catch_up: CatchUp) -> FinalRole {
        let targets = Target::all(&setup.stores);
        FinalRole {
            debts: Mutex::new(vec![Debt::default(); targets.len() + 1]),
            targets,
            catch_up,
            states: (0..setup.shards).map(|_| Mutex::default()).collect(),
            draining: AtomicBool::new(false),
            appends: bounded(APPENDS_MAX),
            append_bytes: AtomicU64::new(0),
            log_in_hand: Mutex::default(),
            disk: Mutex::new(Disk::new(open)),
            mode: Mutex::default(),
            used_bytes: AtomicU64::new(0),
            births: AtomicU64::new(0),
            inputs: (0..setup.shards).map(|_| Mutex::new([bounded(1).0, bounded(1).0])).collect(),
            loaded: (0..setup.shards).map(|_| Mutex::default()).collect(),
            lives: (0..setup.shards).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect(),
            watermarks: Mutex::default(),
            overflow: AtomicU64::new(0),
            included_lost: AtomicBool::new(false),
            notes: Mutex::default(),
            setup,
        }
    }

    /// The store and the journal, for the log; and for a shard that recovers, which may take seconds: `beat` is called
    /// while this waits.
    pub(crate) fn disk(&self, beat: &dyn Fn()) -> MutexGuard<'_, Disk> {
        loop {
            match self.disk.try_lock() {
                Ok(disk) => return disk,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    beat();
                    std::thread::sleep(DISK_POLL);
                }
            }
        }
    }

    /// Says what the disk lets the node do.
    pub(crate) fn set_mode(&self, mode: Mode, why: &str) {
        *lock(&self.mode) = (mode, why.to_owned());
    }

    /// What the log found out about the disk.
    pub(crate) fn raw_mode(&self) -> Mode {
        lock(&self.mode).0
    }

    /// What the disk lets the node do, and why.
    pub(crate) fn mode(&self) -> (Mode, String) {
        let (mode, why) = lock(&self.mode).clone();
        if mode == Mode::Ok && self.is_near_quota() {
            let why = format!("{} bytes of a quota of {}", self.used_bytes(), self.setup.quota_bytes);
            return (Mode::Quota, why);
        }
        (mode, why)
    }

    /// Whether a flush may be taken up. If not, it gets no answer and comes again.
    pub(crate) fn admits(&self) -> bool {
        lock(&self.mode).0 == Mode::Ok
            && !self.is_near_quota()
            && self.append_bytes.load(Ordering::Relaxed) < APPEND_BYTES_MAX
    }

    fn is_near_quota(&self) -> bool {
        self.used_bytes() / QUOTA_FLUSHES_PERCENT >= self.setup.quota_bytes / 100
    }

    /// Shows the shards how often the store was found empty.
    pub(crate) fn note_births(&self, births: u64) {
        if self.births.swap(births, Ordering::Relaxed) < births {
            let note = "the store was found empty under the running node: what is in memory is written again, windows that \
                        were only on disk are lost and counted when they are asked for";
            tracing::error!(node = %self.setup.node, "{note}");
            self.note(note.to_owned());
        }
    }

    /// How often a store was found empty that had been in use.
    pub(crate) fn births(&self) -> u64 {
        self.births.load(Ordering::Relaxed)
    }

    /// Bytes in the store, as of the log's last look.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_used_bytes(&self, bytes: u64) {
        self.used_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of appends came into the queue, or left the log's hand.
    pub(crate) fn count_append(&self, bytes: u64, came: bool) {
        if came {
            self.append_bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.append_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Keeps what was found damaged for the operator, and says it in the log.
    pub(crate) fn note_findings(&self, partition: u16, findings: &[Finding]) {
        let mut notes = lock(&self.notes);
        for finding in findings {
            let note = super::sentence(partition, *finding);
            tracing::error!(node = %self.setup.node, "{note}");
            if *finding == Finding::IncludedLost {
                self.included_lost.store(true, Ordering::Relaxed);
            }
            if notes.len() < NOTES_MAX {
                notes.push(note);
            }
        }
    }

    /// What the node's verdict says besides its workers, the gravest first. A lost included set is said until the process
    /// ends: nobody can tell when the last batch that might be merged twice has come.
    pub(crate) fn worries(&self) -> Vec<Worry> {
        let (mode, why) = self.mode();
        let mut worries = Vec::new();
        if mode != Mode::Ok {
            worries.push(Worry { part: "final.log", why: format!("the store is in mode {}: {why}", mode.as_str()) });
        }
        if self.included_lost.load(Ordering::Relaxed) {
            worries.push(Worry { part: "final.store", why: INCLUDED_LOST.to_owned() });
        }
        worries
    }

    /// Keeps a sentence for the operator.
    pub(crate) fn note(&self, note: String) {
        let mut notes = lock(&self.notes);
        if notes.len() < NOTES_MAX {
            notes.push(note);
        }
    }

    /// What was found damaged since the start of the process.
    pub(crate) fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// What the final layer knows of a sender, here: its highest epoch and its floor.
    pub(crate) fn known(&self, sender: u64) -> Option<Known> {
        let known = self.states.iter().filter_map(|state| lock(state).senders.get(&sender).copied());
        known.reduce(Known::or_more)
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

    /// Opens the queues for a new life of a shard. What waited for the old one is gone with it: partial nodes send
    /// their flushes again, verbatim.
    ///
    /// From here on the log refuses what a former life, a ghost, may still append.
    pub(crate) fn begin_shard(&self, shard: usize, generation: u64) -> Inputs {
        let ((first, first_out), (second, second_out)) = (bounded(INPUTS_MAX), bounded(INPUTS_MAX));
        *lock(&self.inputs[shard]) = [first, second];
        lock(&self.loaded[shard]).clear();
        self.lives[shard].0.store(generation, Ordering::SeqCst);
        Inputs { first: first_out, second: second_out }
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
        self.give(shard, Input::Log);
    }

    /// Hands a shard what was read for it.
    pub(crate) fn note_loaded(&self, shard: usize, blocks: Loaded) {
        if !blocks.is_empty() {
            lock(&self.loaded[shard]).extend(blocks);
            self.give(shard, Input::Log);
        }
    }

    /// What was read for a shard since it last asked.
    pub(crate) fn take_loaded(&self, shard: usize) -> Loaded {
        std::mem::take(&mut lock(&self.loaded[shard]))
    }

    /// Gives a shard something, without waiting. What does not fit is counted; a flush comes again by itself.
    pub(crate) fn give(&self, shard: usize, input: Input) {
        let lane = match &input {
            Input::Flush { flush, .. } if flush.lane == Lane::Suspect => 1,
            Input::Flush { .. } | Input::Log | Input::Ping(_) => 0,
        };
        let sender = lock(&self.inputs[shard])[lane].clone();
        match sender.try_send(input) {
            Ok(()) | Err(TrySendError::Full(Input::Log) | TrySendError::Disconnected(Input::Log)) => {}
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
        lock(&self.watermarks).note(self.setup.clock.now(), watermark);
    }

    /// The latest word of every sender that is neither silent nor forgotten.
    pub(crate) fn watermarks(&self) -> Vec<Watermark> {
        let mut latest = lock(&self.watermarks).latest(self.setup.clock.now());
        latest.retain(|watermark| !self.setup.forgotten.has(watermark.sender));
        latest
    }

    /// No sender holds anything older than this back; none when no sender is known.
    pub(crate) fn watermark(&self) -> Option<UnixSeconds> {
        self.watermarks().iter().map(|watermark| watermark.at).min()
    }

    /// Every store, with its targets.
    pub(crate) fn outlets(&self) -> Vec<Outlet<'_>> {
        let (mut first, mut outlets) = (0, Vec::with_capacity(self.setup.rings.len()));
        for (ring, store) in self.setup.rings.iter().zip(&self.setup.stores) {
            let addresses = store.senders.len();
            outlets.push(Outlet { ring, first, addresses });
            first += addresses;
        }
        outlets
    }

    /// Whether lines may go to a target that catches up: neither its own ceiling nor that of all is used up.
    pub(crate) fn may_catch_up(&self, now: Mono, target: usize) -> bool {
        let (all, own) = self.catch_up.rates(&self.targets[target].source());
        let mut debts = lock(&self.debts);
        debts[0].is_paid(now, all) && own.is_none_or(|rate| debts[target + 1].is_paid(now, rate))
    }

    /// So many lines went to a target that catches up.
    pub(crate) fn caught_up(&self, target: usize, lines: u64) {
        let mut debts = lock(&self.debts);
        debts[0].add(lines);
        debts[target + 1].add(lines);
        drop(debts);
        self.targets[target].caught_up(lines);
    }

    /// Inputs that wait, over all shards.
    pub(crate) fn queued(&self) -> usize {
        self.inputs.iter().map(|lanes| lock(lanes).iter().map(Sender::len).sum::<usize>()).sum()
    }
}

impl Senders for &FinalRole {
    fn offer(&mut self, target: usize, block: Block) -> Option<u64> {
        self.targets[target].offer(block)
    }

    fn may_catch_up(&mut self, target: usize) -> bool {
        FinalRole::may_catch_up(self, self.setup.clock.now(), target)
    }

    fn caught_up(&mut self, target: usize, lines: u64) {
        FinalRole::caught_up(self, target, lines);
    }
}
