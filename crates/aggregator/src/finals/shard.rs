//! A deciding thread: it owns its partitions alone. Its state is a fold of the log, so a new life reads it from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use engine::final_node::{self, Partition};
use engine::time::{Mono, UnixSeconds};
use engine::wire::{Flush, FlushReply};
use runtime::{Worker, WorkerError};
use store::WriteBatch;
use tracing::warn;

use super::role::{Append, Connection, FinalRole, Input};
use super::{emit, recover};
use crate::partial_lock as lock;

const WAIT: Duration = Duration::from_millis(50);
/// How often windows are looked at for emission.
const EMIT_EVERY: Duration = Duration::from_millis(100);
/// How often old windows leave and checkpoints are due.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A checkpoint is taken when the log of a partition has grown by this, or ...
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// ... is not empty and so old.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// Windows that leave memory for their snapshots in one turn.
const EVICT_PER_TURN: usize = 64;

/// One partition and its checkpoint.
struct Owned {
    partition: Partition,
    checkpointed: Mono,
    /// The append that made the latest checkpoint.
    checkpoint_token: u64,
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
struct Shard<'r> {
    worker: &'r Worker,
    role: &'r FinalRole,
    number: usize,
    owned: Vec<Owned>,
    /// Tokens of appends: the generation in the upper half, so that a former life's sync is not taken for ours.
    token: u64,
    synced: u64,
    waiting: VecDeque<Waiting>,
}

/// Runs one life of shard `number`.
pub(crate) fn run(worker: &Worker, role: &FinalRole, number: usize) -> Result<(), WorkerError> {
    let inputs = role.begin_shard(number, worker.generation());
    let token = (worker.generation() << 32) + 1;
    let Some(early) = settle_log(worker, role, number, token, &inputs)? else { return Ok(()) };
    let mut owned = Vec::new();
    for partition in role.partitions_of(number) {
        let partition = recover::partition(partition, role).map_err(WorkerError::new)?;
        owned.push(Owned { partition, checkpointed: worker.clock().now(), checkpoint_token: 0 });
    }
    let mut shard = Shard { worker, role, number, owned, token, synced: token, waiting: VecDeque::new() };
    for input in early {
        shard.take(input)?;
    }
    shard.publish();
    let (mut emitted, mut kept) = (Mono::ZERO, Mono::ZERO);
    loop {
        worker.beat();
        if !worker.is_current() || (worker.should_stop() && inputs.is_empty()) {
            return Ok(());
        }
        if let Ok(input) = inputs.recv_timeout(WAIT) {
            shard.take(input)?;
            for input in inputs.try_iter().take(256) {
                shard.take(input)?;
            }
        }
        shard.settle();
        let now = worker.clock().now();
        if now.since(emitted) >= EMIT_EVERY {
            worker.failpoint("emit")?;
            emitted = now;
            shard.emit();
        }
        if now.since(kept) >= KEEP_EVERY {
            kept = now;
            shard.keep(now);
        }
        shard.publish();
    }
}

/// Waits until what a former life appended is durable, so that recovery reads all of it: the log works in order, so an
/// empty append behind it is the sign. What comes in meanwhile is kept; pings go on. `None`: asked to stop.
fn settle_log(
    worker: &Worker,
    role: &FinalRole,
    shard: usize,
    token: u64,
    inputs: &Receiver<Input>,
) -> Result<Option<Vec<Input>>, WorkerError> {
    let sign = Append { shard, generation: worker.generation(), token, batch: WriteBatch::new() };
    role.appends.0.send(sign).map_err(|_| WorkerError::new("the log's queue is closed"))?;
    let mut early = Vec::new();
    while role.synced(shard) < token {
        worker.beat();
        if worker.should_stop() {
            return Ok(None);
        }
        match inputs.recv_timeout(WAIT) {
            Ok(Input::Ping(ping)) => role.pass(shard + 1, ping),
            Ok(Input::Flush { from, flush }) => early.push(Input::Flush { from, flush }),
            Ok(Input::Synced) | Err(_) => {}
        }
    }
    Ok(Some(early))
}

impl Shard<'_> {
    fn take(&mut self, input: Input) -> Result<(), WorkerError> {
        match input {
            Input::Ping(token) => self.role.pass(self.number + 1, token),
            Input::Synced => {}
            Input::Flush { from, flush } => {
                self.worker.failpoint("flush")?;
                if self.worker.is_current() {
                    self.on_flush(from, flush)?;
                }
            }
        }
        Ok(())
    }

    fn on_flush(&mut self, to: Arc<Connection>, flush: Flush) -> Result<(), WorkerError> {
        let number = flush.partition;
        let Some(owned) = self.owned.iter_mut().find(|owned| owned.partition.number() == number) else { return Ok(()) };
        let outcome = owned.partition.flush(flush);
        if let Some(record) = outcome.record {
            let mut batch = WriteBatch::new();
            batch.put(&final_node::log_key(number, outcome.after), &record);
            self.append(batch)?;
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

    fn append(&mut self, batch: WriteBatch) -> Result<u64, WorkerError> {
        self.token += 1;
        let append = Append { shard: self.number, generation: self.worker.generation(), token: self.token, batch };
        self.role.appends.0.send(append).map_err(|_| WorkerError::new("the log's queue is closed"))?;
        Ok(self.token)
    }

    /// What is durable becomes part of the windows, and is answered.
    fn settle(&mut self) {
        self.synced = self.role.synced(self.number);
        while let Some(done) = self.waiting.pop_front_if(|waiting| waiting.token <= self.synced) {
            let Shard { owned, role, .. } = self;
            if let Some(owned) = owned.iter_mut().find(|owned| owned.partition.number() == done.partition) {
                owned.partition.synced(done.after, &mut |id| recover::load(done.partition, role, id));
            }
            done.to.answer(done.reply);
        }
    }

    fn emit(&mut self) {
        let mut state = lock(&self.role.states[self.number]);
        emit::send(self.role, &mut state);
        for owned in &mut self.owned {
            if !emit::has_room(self.role, &state) {
                return;
            }
            emit::emit(self.role, &mut owned.partition, &mut state);
        }
    }

    /// Retires epochs, lets old windows go, takes checkpoints.
    fn keep(&mut self, now: Mono) {
        let horizon = u32::try_from(self.role.setup.horizon.as_secs()).unwrap_or(u32::MAX);
        let floor = UnixSeconds(self.role.setup.clock.unix().0.saturating_sub(horizon));
        let watermarks = self.role.watermarks();
        for index in 0..self.owned.len() {
            let number = self.owned[index].partition.number();
            self.owned[index].partition.seal_before(floor);
            for watermark in watermarks.iter().filter(|watermark| watermark.retired > 0) {
                if let Some((record, bytes)) = self.owned[index].partition.retire(watermark.sender, watermark.retired) {
                    let mut batch = WriteBatch::new();
                    batch.put(&final_node::log_key(number, record), &bytes);
                    self.or_warn(batch);
                }
            }
            self.checkpoint(index, now);
        }
        self.shrink();
    }

    fn checkpoint(&mut self, index: usize, now: Mono) {
        let owned = &mut self.owned[index];
        let grown = owned.partition.log_bytes();
        let due = grown >= CHECKPOINT_BYTES || (grown > 0 && now.since(owned.checkpointed) >= CHECKPOINT_EVERY);
        if due && let Some(made) = owned.partition.checkpoint() {
            owned.checkpointed = now;
            let mut batch = WriteBatch::new();
            made.puts.iter().for_each(|(key, value)| batch.put(key, value));
            made.deletes.iter().for_each(|key| batch.delete(key));
            batch.delete_range(&made.log.0, &made.log.1);
            let token = self.or_warn(batch);
            self.owned[index].checkpoint_token = token;
        }
        // A window leaves memory only when the snapshot that would bring it back is durable.
        let owned = &mut self.owned[index];
        if owned.checkpoint_token > 0 && owned.checkpoint_token <= self.synced {
            let windows = owned.partition.windows();
            windows.at_rest(EVICT_PER_TURN).into_iter().for_each(|id| {
                windows.evict(id);
            });
        }
    }

    fn or_warn(&mut self, batch: WriteBatch) -> u64 {
        self.append(batch).unwrap_or_else(|error| {
            warn!(node = %self.role.setup.node, %error, "append");
            u64::MAX
        })
    }

    /// Past the memory budget the oldest windows are sealed before their time: the horizon is what memory allows.
    fn shrink(&mut self) {
        let budget = self.role.setup.memory_bytes;
        let live: usize = self.owned.iter().map(|owned| owned.partition.bytes()).sum();
        let used = self.role.store_bytes() + live as u64 * self.role.setup.shards as u64;
        if used * 10 < budget * 9 {
            return;
        }
        let mut sealed = 0;
        for owned in &mut self.owned {
            if let Some(oldest) = owned.partition.windows().oldest() {
                owned.partition.seal_before(UnixSeconds(oldest.0.saturating_add(1)));
                sealed += 1;
            }
        }
        lock(&self.role.states[self.number]).sealed_early += sealed;
    }

    /// Shows what an operator may ask for.
    fn publish(&mut self) {
        let mut state = lock(&self.role.states[self.number]);
        state.windows = self.owned.iter_mut().map(|owned| owned.partition.windows().len() as u64).sum();
        state.bytes = self.owned.iter().map(|owned| owned.partition.bytes() as u64).sum();
        for owned in &self.owned {
            state.books.insert(owned.partition.number(), owned.partition.books());
        }
    }
}
