//! A folding thread: its own partitions, its own memory, no locks while it folds.

use std::time::Duration;

use engine::fold::Folders;
use engine::partial_node::Built;
use engine::time::Mono;
use engine::wire::Lane;
use runtime::{Worker, WorkerError};

use super::role::PartialRole;

/// How long the thread waits for work before it looks at pings and flushes.
const WAIT: Duration = Duration::from_millis(20);

/// Runs one life of shard `shard`.
pub(crate) fn run(worker: &Worker, role: &PartialRole, shard: usize) -> Result<(), WorkerError> {
    let inbox = role.begin_shard(shard, worker.generation());
    let book = &role.setup.book;
    let mut folder = Folders::new(book.in_force(), book.former(), role.setup.partitions);
    let mine: Vec<u16> = (0..role.setup.partitions)
        .filter(|partition| usize::from(*partition) % role.setup.settings.shards.max(1) == shard)
        .collect();
    let mut flushed = worker.clock().now();
    loop {
        worker.beat();
        if !worker.is_current() {
            return Ok(());
        }
        while let Some(token) = inbox.control.try_recv() {
            role.pass(shard + 1, token.into_item());
        }
        if let Some(work) = inbox.next(WAIT) {
            role.set_in_hand(shard, Some(work.batch.id()));
            worker.failpoint("fold")?;
            if !folder.knows(&work.batch) {
                folder.learn(book.former());
            }
            folder.fold(&work.batch, work.partitions, work.lane);
            if !worker.is_current() {
                return Ok(());
            }
            role.set_in_hand(shard, None);
        } else if worker.should_stop() {
            return Ok(());
        }
        let now = worker.clock().now();
        if now.since(flushed) >= role.setup.flush {
            worker.failpoint("flush")?;
            flush(worker, role, shard, &mine, &mut folder);
            flushed = next_beat(flushed, role.setup.flush, now);
        }
    }
}

/// Keeps the rhythm without catching up on beats that were missed.
fn next_beat(last: Mono, every: Duration, now: Mono) -> Mono {
    let next = last + every;
    if now.since(next) > every { now } else { next }
}

/// Hands over what is open, where no earlier flush is out.
fn flush(worker: &Worker, role: &PartialRole, shard: usize, mine: &[u16], folder: &mut Folders) {
    let now = worker.clock().now();
    let due: Vec<(u16, Lane)> = {
        let mut machine = role.machine();
        // First sends before all that may be a copy.
        let all = Lane::ALL.into_iter().flat_map(|lane| mine.iter().map(move |partition| (*partition, lane)));
        let full = all.filter(|(partition, lane)| folder.has(*partition, *lane));
        full.filter(|(partition, lane)| machine.wants_flush(now, *partition, *lane)).collect()
    };
    // Encoded outside the lock; only this shard hands over for its partitions, so what was free stays free.
    let built: Vec<Built> = due
        .into_iter()
        .map(|(partition, lane)| Built { partition, lane, groups: folder.take(partition, lane) })
        .collect();
    folder.trim();
    if built.is_empty() {
        return;
    }
    let mut machine = role.machine();
    for flush in built {
        machine.built(shard, worker.generation(), flush);
    }
    drop(machine);
    role.wake_finals();
}
