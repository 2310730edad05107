//! Router threads: blocks of lines become runs of canonical lines in lanes.
//!
//! A thread parses a block into scratch memory of its own and publishes the result in one [`commit`]. The block stays
//! in the [`Slot`], outside the thread, until then: a successor takes it again. Twice in hand at a death, it is poison:
//! its lines are counted, and the thread goes on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::line::{self, LineSink, Point, Reject};
use engine::series::{self, SeriesTable};
use engine::time::UnixSeconds;
use runtime::queue::{Credited, Receiver};
use runtime::{Worker, WorkerError};
use tracing::error;

use crate::decide::{Decision, Nowhere};
use crate::lanes::Run;
use crate::shared::{Shared, add};

/// Memory for the cache of decisions of one thread: a million series of 60 bytes.
const SERIES_BUDGET: usize = 128 << 20;
/// How long a router waits for a block before it beats again.
const WAIT: Duration = Duration::from_millis(100);
/// How long a router rests while no destination has room.
const REST: Duration = Duration::from_millis(2);
/// A block that killed its router so often is not tried again.
const STRIKES_MAX: u8 = 2;
/// Samples of bad lines taken from one block.
const SAMPLES_PER_BLOCK: usize = 16;

/// Whole lines from one client.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) lines: Vec<u8>,
    pub(crate) peer: Arc<str>,
}

/// What a router has in hand, kept where its successor finds it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    generation: u64,
    in_hand: Option<(Arc<Credited<Input>>, u8)>,
}

impl Slot {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is in hand.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner().in_hand.is_none()
    }
}

/// Runs one life of a router.
pub(crate) fn run(worker: &Worker, shared: &Shared, slot: &Slot, queue: &Receiver<Input>) -> Result<(), WorkerError> {
    begin(worker, shared, slot);
    let mut local = Local::new();
    loop {
        worker.beat();
        if rests(shared) {
            std::thread::sleep(REST);
            add(&shared.counters.backpressure_nanos, u64::try_from(REST.as_nanos()).unwrap_or(0));
            if worker.should_stop() {
                return Ok(());
            }
            continue;
        }
        let Some(input) = take(worker, slot, queue) else {
            if !worker.is_current() || (worker.should_stop() && queue.is_empty()) {
                return Ok(());
            }
            continue;
        };
        // It was waited for, and there may be no room any more: then the block stays in hand.
        if rests(shared) {
            continue;
        }
        worker.failpoint("block")?;
        local.parse(&input, shared);
        worker.failpoint("commit")?;
        if !commit(worker, shared, slot, &mut local) {
            return Ok(());
        }
        // Ours alone again: the slot has let go of it.
        if let Some(input) = Arc::into_inner(input) {
            shared.buffers.give_back(input.into_item().lines);
        }
    }
}

/// No destination has room, or no point may be taken.
fn rests(shared: &Shared) -> bool {
    !shared.accepting.load(Ordering::Relaxed) && !shared.draining.load(Ordering::Relaxed)
}

/// Takes the slot over; what a predecessor died with is tried once more.
fn begin(worker: &Worker, shared: &Shared, slot: &Slot) {
    let mut inner = slot.inner();
    inner.generation = worker.generation();
    let Some((input, strikes)) = &mut inner.in_hand else { return };
    *strikes += 1;
    if *strikes < STRIKES_MAX {
        return;
    }
    let lines = memchr_lines(&input.lines);
    error!(worker = worker.name(), peer = %input.peer, lines, "block killed its router twice; its lines are dropped");
    let _moving = shared.moving();
    add(&shared.counters.received, lines);
    add(&shared.counters.accepted, lines);
    add(&shared.counters.nowhere[Nowhere::Poison.index()], lines);
    inner.in_hand = None;
}

fn memchr_lines(block: &[u8]) -> u64 {
    block.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The block in hand, or the next one; `None` if there is none or the slot has another owner.
fn take(worker: &Worker, slot: &Slot, queue: &Receiver<Input>) -> Option<Arc<Credited<Input>>> {
    {
        let inner = slot.inner();
        if inner.generation != worker.generation() {
            return None;
        }
        if let Some((input, _)) = &inner.in_hand {
            return Some(Arc::clone(input));
        }
    }
    let input = Arc::new(queue.recv_timeout(WAIT)?);
    slot.inner().in_hand = Some((Arc::clone(&input), 0));
    Some(input)
}

/// Publishes a parsed block: all of it, or nothing if a successor has taken over.
fn commit(worker: &Worker, shared: &Shared, slot: &Slot, local: &mut Local) -> bool {
    let mut inner = slot.inner();
    if inner.generation != worker.generation() {
        return false;
    }
    let _moving = shared.moving();
    let counters = &shared.counters;
    let rejected: u64 = local.rejected.iter().sum();
    add(&counters.received, local.accepted + rejected);
    add(&counters.accepted, local.accepted);
    for (total, n) in counters.rejected.iter().zip(&local.rejected) {
        if *n > 0 {
            add(total, *n);
        }
    }
    for (total, n) in counters.nowhere.iter().zip(&local.nowhere) {
        if *n > 0 {
            add(total, *n);
        }
    }
    for &lane in &local.touched {
        let (run, target) = &local.runs[lane];
        if let Some(target) = target {
            shared.append(target, run);
        }
    }
    inner.in_hand = None;
    true
}

/// A thread's own memory.
#[derive(Debug)]
struct Local {
    series: SeriesTable<u32>,
    decisions: Vec<Option<Arc<Decision>>>,
    scratch: line::Scratch,
    runs: Vec<(Run, Option<Arc<crate::lanes::Lane>>)>,
    touched: Vec<usize>,
    accepted: u64,
    rejected: [u64; Reject::ALL.len()],
    nowhere: [u64; Nowhere::ALL.len()],
}

impl Local {
    fn new() -> Local {
        Local {
            series: SeriesTable::new(SERIES_BUDGET),
            decisions: Vec::new(),
            scratch: line::Scratch::default(),
            runs: Vec::new(),
            touched: Vec::new(),
            accepted: 0,
            rejected: [0; Reject::ALL.len()],
            nowhere: [0; Nowhere::ALL.len()],
        }
    }

    fn parse(&mut self, input: &Input, shared: &Shared) {
        for &lane in &self.touched {
            self.runs[lane].0.clear();
        }
        self.touched.clear();
        self.accepted = 0;
        self.rejected = [0; Reject::ALL.len()];
        self.nowhere = [0; Nowhere::ALL.len()];
        let now = shared.clock.unix();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut sink = Sink { local: self, shared, peer: &input.peer, now, samples: 0 };
        line::parse_block(&input.lines, now, &shared.policy, &mut scratch, &mut sink);
        self.scratch = scratch;
    }

    /// The decision for a series, from the cache where it is known.
    fn decide(&mut self, name: &[u8], shared: &Shared) -> usize {
        let hash = series::hash(name);
        if let Some(number) = self.series.get(name, hash) {
            let number = number as usize;
            if self.decisions.get(number).is_some_and(Option::is_some) {
                return number;
            }
        }
        let (number, decision) = shared.decider.decide(name, &shared.lanes);
        self.series.insert(name, hash, number);
        let number = number as usize;
        if self.decisions.len() <= number {
            self.decisions.resize(number + 1, None);
        }
        for (lane, target) in &decision.lanes {
            if self.runs.len() <= *lane {
                self.runs.resize_with(lane + 1, || (Run::default(), None));
            }
            self.runs[*lane].1 = Some(Arc::clone(target));
        }
        self.decisions[number] = Some(decision);
        number
    }
}

struct Sink<'a> {
    local: &'a mut Local,
    shared: &'a Shared,
    peer: &'a str,
    now: UnixSeconds,
    samples: usize,
}

impl Sink<'_> {
    /// Gives a point to its lanes; `write` appends its canonical line.
    #[inline]
    fn give(&mut self, point: &Point<'_>, write: impl Fn(&mut Vec<u8>)) {
        let number = self.local.decide(point.name, self.shared);
        let Local { decisions, runs, touched, accepted, nowhere, .. } = &mut *self.local;
        *accepted += 1;
        let Some(Some(decision)) = decisions.get(number) else { return };
        if let Some(why) = decision.nowhere {
            nowhere[why.index()] += 1;
        }
        for (lane, _) in &decision.lanes {
            let run = &mut runs[*lane].0;
            if run.points == 0 {
                touched.push(*lane);
            }
            write(&mut run.lines);
            run.count(point.timestamp);
        }
    }
}

impl LineSink for Sink<'_> {
    fn point(&mut self, point: &Point<'_>) {
        self.give(point, |lines| line::write_canonical(point, lines));
    }

    fn canonical(&mut self, point: &Point<'_>, line: &[u8]) {
        self.give(point, |lines| lines.extend_from_slice(line));
    }

    fn reject(&mut self, line: &[u8], why: Reject) {
        self.local.rejected[why.index()] += 1;
        if why.warns() && self.samples < SAMPLES_PER_BLOCK {
            self.samples += 1;
            self.shared.bad.keep(self.now, self.peer, why, line);
        }
    }
}
