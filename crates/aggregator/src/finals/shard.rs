//! A deciding thread: it owns its partitions alone. Its state is a fold of the log, so a new life reads it from there.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, select};
use engine::final_node::Partition;
use engine::final_node::emit::{self, Outlets, Times, View};
use engine::time::Mono;
use engine::window::BlockId;
use engine::wire::{Flush, FlushReply};
use runtime::{Worker, WorkerError};

use super::journal::Append;
use super::recover;
use super::role::{APPENDS_MAX, Connection, FinalRole, Input, Inputs};
use crate::partial_lock as lock;

const WAIT: Duration = Duration::from_millis(50);
/// How often windows are looked at for emission.
const EMIT_EVERY: Duration = Duration::from_millis(100);
/// How often old windows leave and checkpoints are due.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Inputs taken before the shard looks at the clock again.
const INPUTS_PER_TURN: usize = 256;
/// How long to wait before a store is read again that could not be.
const REREAD: Duration = Duration::from_millis(500);

/// One partition and its checkpoint.
pub(super) struct Owned {
    pub(super) partition: Partition,
    pub(super) checkpointed: Mono,
    /// The append that ended the latest checkpoint.
    pub(super) checkpoint_token: u64,
    /// Records up to this one are durable.
    durable: Option<u64>,
}

/// An answer that waits until its token is synced.
struct Waiting {
    token: u64,
    partition: u16,
    after: u64,
    to: Arc<Connection>,
    reply: FlushReply,
}

/// One life of a shard.
pub(super) struct Shard<'r> {
    worker: &'r Worker,
    pub(super) role: &'r FinalRole,
    pub(super) number: usize,
    pub(super) owned: Vec<Owned>,
    /// Tokens of appends: the generation in the upper half, so that a former life's sync is not taken for ours.
    token: u64,
    pub(super) synced: u64,
    waiting: VecDeque<Waiting>,
    /// Blocks that the log was asked for.
    requested: BTreeSet<(u16, BlockId)>,
    /// The windows take more memory than they may: no flush is taken up until some have left.
    pub(super) is_over_memory: bool,
    /// How often the store had been found empty when the windows were last written as a whole.
    pub(super) births: u64,
}

/// Runs one life of shard `number`.
pub(crate) fn run(worker: &Worker, role: &FinalRole, number: usize) -> Result<(), WorkerError> {
    let inputs = role.begin_shard(number, worker.generation());
    let token = (worker.generation() << 32) + 1;
    let Some(early) = settle_log(worker, role, number, token, &inputs)? else { return Ok(()) };
    let Some(owned) = recover_all(worker, role, number)? else { return Ok(()) };
    let mut shard = Shard {
        worker,
        role,
        number,
        owned,
        token,
        synced: token,
        waiting: VecDeque::new(),
        requested: BTreeSet::new(),
        is_over_memory: false,
        births: role.births(),
    };
    shard.say_what_is_covered()?;
    for input in early {
        shard.take(input)?;
    }
    shard.publish();
    let (mut emitted, mut kept) = (Mono::ZERO, Mono::ZERO);
    loop {
        worker.beat();
        // Who stops answers for what it has taken up.
        let is_idle = inputs.first.is_empty() && inputs.second.is_empty() && shard.waiting.is_empty();
        if !worker.is_current() || (worker.should_stop() && is_idle) {
            return Ok(());
        }
        shard.take_inputs(&inputs)?;
        shard.settle()?;
        let now = worker.clock().now();
        if now.since(emitted) >= EMIT_EVERY {
            worker.failpoint("emit")?;
            emitted = now;
            shard.emit(now)?;
        }
        if now.since(kept) >= KEEP_EVERY {
            kept = now;
            shard.keep(now)?;
            shard.publish();
        }
    }
}

/// Waits until what a former life appended is durable, so that recovery reads all of it: the log works in order, so an
/// empty append behind it is the sign. What comes in meanwhile is kept; pings go on. `None`: asked to stop.
fn settle_log(
    worker: &Worker,
    role: &FinalRole,
    shard: usize,
    token: u64,
    inputs: &Inputs,
) -> Result<Option<Vec<Input>>, WorkerError> {
    let sign = Append { shard, generation: worker.generation(), token, ..Append::default() };
    if !send(worker, role, sign)? {
        return Ok(None);
    }
    let mut early = Vec::new();
    while role.synced(shard) < token {
        worker.beat();
        if worker.should_stop() || !worker.is_current() {
            return Ok(None);
        }
        match inputs.first.recv_timeout(WAIT) {
            Ok(Input::Ping(ping)) => role.pass(shard + 1, ping),
            Ok(Input::Flush { from, flush }) => early.push(Input::Flush { from, flush }),
            Ok(Input::Log) | Err(_) => {}
        }
    }
    Ok(Some(early))
}

/// Every partition of the shard from the store. A store that cannot be read now is read again; `None`: asked to stop.
fn recover_all(worker: &Worker, role: &FinalRole, shard: usize) -> Result<Option<Vec<Owned>>, WorkerError> {
    let names: Vec<String> = role.targets.iter().map(|target| target.name.clone()).collect();
    let numbers = role.partitions_of(shard);
    let beat = || worker.beat();
    let recovered = loop {
        let read = role
            .disk(&beat)
            .read(|disk, store| recover::partitions(&numbers, &names, store, &|number| disk.mark(number), &beat));
        match read {
            Ok(Ok(recovered)) => break recovered,
            Ok(Err(newer)) => return Err(WorkerError::new(newer.to_string())),
            Err(error) if worker.should_stop() || !worker.is_current() => {
                tracing::info!(%error, "recovery was ended");
                return Ok(None);
            }
            Err(_) => std::thread::sleep(REREAD), // the log says why, and opens it again
        }
        worker.beat();
    };
    let now = worker.clock().now();
    let own = |(partition, findings): recover::Recovered| {
        role.note_findings(partition.number(), &findings);
        Owned { partition, checkpointed: now, checkpoint_token: 0, durable: None }
    };
    Ok(Some(recovered.into_iter().map(own).collect()))
}

/// Gives an append to the log, beating while its queue is full. False: this life is over.
fn send(worker: &Worker, role: &FinalRole, append: Append) -> Result<bool, WorkerError> {
    role.count_append(append.bytes(), true);
    let mut append = append;
    loop {
        match role.appends.0.send_timeout(append, WAIT) {
            Ok(()) => return Ok(true),
            Err(SendTimeoutError::Disconnected(_)) => return Err(WorkerError::new("the log's queue is closed")),
            Err(SendTimeoutError::Timeout(back)) => append = back,
        }
        worker.beat();
        if !worker.is_current() || worker.should_stop() {
            role.count_append(append.bytes(), false);
            return Ok(false);
        }
    }
}

impl Shard<'_> {
    /// First sends before re-sends (INV-5): while a first send waits, no other is taken.
    fn take_inputs(&mut self, inputs: &Inputs) -> Result<(), WorkerError> {
        let waited = select! {
            recv(inputs.first) -> input => input.ok(),
            default => None,
        };
        let first = waited.or_else(|| {
            select! {
                recv(inputs.first) -> input => input.ok(),
                recv(inputs.second) -> input => input.ok(),
                default(WAIT) => None,
            }
        });
        let Some(first) = first else { return Ok(()) };
        self.take(first)?;
        for _ in 1..INPUTS_PER_TURN {
            let Ok(input) = inputs.first.try_recv().or_else(|_| inputs.second.try_recv()) else { break };
            self.take(input)?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input) -> Result<(), WorkerError> {
        match input {
            Input::Ping(token) => self.role.pass(self.number + 1, token),
            Input::Log => {}
            Input::Flush { from, flush } => {
                self.worker.failpoint("flush")?;
                if self.worker.is_current() {
                    self.on_flush(from, flush)?;
                }
            }
        }
        Ok(())
    }

    /// Appends that may be out, so that sending one never waits for the disk.
    pub(super) fn has_room(&self) -> bool {
        self.token.saturating_sub(self.synced) < (APPENDS_MAX / self.role.setup.shards / 2) as u64
    }

    fn on_flush(&mut self, to: Arc<Connection>, flush: Flush) -> Result<(), WorkerError> {
        let number = flush.partition;
        let may = self.role.admits() && self.has_room() && !self.is_over_memory;
        let Some(owned) = self.owned.iter_mut().find(|owned| owned.partition.number() == number) else { return Ok(()) };
        if !may {
            // No answer: the partial node sends it again, and relays keep or spill what is in it.
            lock(&self.role.states[self.number]).put_off += 1;
            return Ok(());
        }
        let outcome = owned.partition.flush(flush);
        let mark = owned.partition.mark();
        if outcome.record.is_some() {
            let loads = self.not_requested(number, outcome.loads);
            let (record, mark) = (outcome.record, Some((number, mark)));
            self.append(Append { record, mark, loads, ..Append::default() })?;
        }
        // Also an answer without a record speaks of what may not be synced yet: it waits for the latest append.
        self.waiting.push_back(Waiting {
            token: self.token,
            partition: number,
            after: outcome.after,
            to,
            reply: outcome.reply,
        });
        Ok(())
    }

    pub(super) fn append(&mut self, append: Append) -> Result<u64, WorkerError> {
        self.token += 1;
        let (shard, generation, token) = (self.number, self.worker.generation(), self.token);
        send(self.worker, self.role, Append { shard, generation, token, ..append })?;
        Ok(token)
    }

    fn not_requested(&mut self, partition: u16, ids: Vec<BlockId>) -> Vec<(u16, BlockId)> {
        let requested = &mut self.requested;
        ids.into_iter().map(|id| (partition, id)).filter(|block| requested.insert(*block)).collect()
    }

    /// Asks the log for blocks that are on disk only.
    pub(super) fn request(&mut self, partition: u16, ids: Vec<BlockId>) -> Result<(), WorkerError> {
        let loads = self.not_requested(partition, ids);
        if !loads.is_empty() {
            self.append(Append { loads, ..Append::default() })?;
        }
        Ok(())
    }

    /// What is durable is answered and becomes part of the windows.
    fn settle(&mut self) -> Result<(), WorkerError> {
        self.synced = self.role.synced(self.number);
        let loaded = self.role.take_loaded(self.number);
        let news = !loaded.is_empty();
        for (number, id, bytes) in loaded {
            self.requested.remove(&(number, id));
            let Shard { owned, role, .. } = self;
            if let Some(owned) = owned.iter_mut().find(|owned| owned.partition.number() == number)
                && let Some(finding) = owned.partition.loaded(id, bytes.as_deref())
            {
                role.note_findings(number, &[finding]);
            }
        }
        let mut settled = news;
        while let Some(done) = self.waiting.pop_front_if(|waiting| waiting.token <= self.synced) {
            if let Some(owned) = self.owned.iter_mut().find(|owned| owned.partition.number() == done.partition) {
                owned.durable = owned.durable.max(Some(done.after));
                settled = true;
            }
            done.to.answer(done.reply);
        }
        if settled {
            for index in 0..self.owned.len() {
                let owned = &mut self.owned[index];
                let missing = owned.durable.map(|durable| owned.partition.synced(durable)).unwrap_or_default();
                let number = owned.partition.number();
                self.request(number, missing)?;
            }
        }
        Ok(())
    }

    fn emit(&mut self, now: Mono) -> Result<(), WorkerError> {
        let views: Vec<View> = self.role.targets.iter().map(|target| target.view(now)).collect();
        let stores = self.role.outlets();
        let rules = self.role.setup.book.in_force();
        let outlets = Outlets { rules: &rules, stores: &stores, views: &views };
        let times = Times {
            now: self.role.setup.clock.unix(),
            watermark: self.role.watermark(),
            mono: self.role.setup.clock.now(),
        };
        let mut senders = self.role;
        for index in 0..self.owned.len() {
            let partition = &mut self.owned[index].partition;
            let mut state = lock(&self.role.states[self.number]);
            let emitted = emit::emit(partition, outlets, times, &mut senders);
            state.emitted_lines += emitted.lines;
            state.corrections += emitted.corrections;
            drop(state);
            let mut missing = emit::catch_up(partition, outlets, &mut senders);
            missing.extend(partition.windows().wanted().take(WANTED_PER_TURN));
            let number = partition.number();
            self.request(number, missing)?;
        }
        Ok(())
    }

    /// The log may forget what the checkpoints of a former life hold.
    fn say_what_is_covered(&mut self) -> Result<(), WorkerError> {
        for index in 0..self.owned.len() {
            let partition = &mut self.owned[index].partition;
            let floor = partition.windows().sealed_before();
            let (number, mark) = (partition.number(), partition.mark());
            let covers = Some((number, partition.log_from(), floor));
            self.append(Append { covers, mark: Some((number, mark)), ..Append::default() })?;
        }
        Ok(())
    }
}

/// Blocks on disk that are asked for at a time, to be emitted.
const WANTED_PER_TURN: usize = 16;
