//! Lanes: the open batch of each destination, from the first line until it is sealed by size or linger.
//!
//! Every lane has a lock of its own, taken once a block by whoever appends and never while anything waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use engine::batch::{Builder, PartitionSet};
use engine::store_link::Block;
use engine::time::{Mono, UnixSeconds};

/// Where a lane's lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Destination {
    /// Index of the store and of its address.
    Store(usize, usize),
    /// The aggregation layers; these partitions are fed.
    Aggregate(PartitionSet),
}

/// Lanes for different partition sets. Series that feed more than one partition are rare; beyond this many sets they
/// share one lane that feeds all, which costs the partitions an empty group and nothing else.
const AGGREGATE_LANES_MAX: usize = 192;

/// What was appended to one lane by one block.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) lines: Vec<u8>,
    pub(crate) points: u32,
    pub(crate) min_ts: UnixSeconds,
    pub(crate) max_ts: UnixSeconds,
}

impl Run {
    /// Notes a point whose line was just written to `lines`.
    pub(crate) fn count(&mut self, at: UnixSeconds) {
        if self.points == 0 {
            self.min_ts = at;
            self.max_ts = at;
        }
        self.points += 1;
        self.min_ts = self.min_ts.min(at);
        self.max_ts = self.max_ts.max(at);
    }

    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.points = 0;
    }
}

/// An open batch.
#[derive(Debug)]
pub(crate) enum Open {
    Empty,
    Block { lines: Vec<u8>, points: u32, since: Mono },
    Batch { builder: Builder, since: Mono },
}

/// What was sealed.
#[derive(Debug)]
pub(crate) enum Sealed {
    Block(usize, usize, Block),
    Batch(Builder),
}

/// One lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) destination: Destination,
    open: Mutex<Open>,
    /// Bytes of the batch sealed last: room for the next one, so that it seldom grows by copying.
    hint: AtomicUsize,
}

impl Lane {
    fn new(destination: Destination) -> Arc<Lane> {
        Arc::new(Lane { destination, open: Mutex::new(Open::Empty), hint: AtomicUsize::new(4 << 10) })
    }

    /// How many bytes to make room for in a new batch.
    pub(crate) fn room(&self) -> usize {
        let last = self.hint.load(Ordering::Relaxed);
        last + last / 8
    }

    /// Notes how large a batch has become.
    pub(crate) fn sealed(&self, bytes: usize) {
        self.hint.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Appends what one block brought. `room`: bytes to make room for in a new batch.
    pub(crate) fn append(&mut self, destination: Destination, run: &Run, now: Mono, room: usize) {
        if matches!(self, Open::Empty) {
            *self = match destination {
                Destination::Store(..) => Open::Block { lines: Vec::with_capacity(room), points: 0, since: now },
                Destination::Aggregate(set) => Open::Batch { builder: Builder::new(set, room), since: now },
            };
        }
        match self {
            Open::Empty => {}
            Open::Block { lines, points, .. } => {
                lines.extend_from_slice(&run.lines);
                *points += run.points;
            }
            Open::Batch { builder, .. } => builder.append(&run.lines, run.points, run.min_ts, run.max_ts),
        }
    }

    /// Bytes of lines in it.
    pub(crate) fn len(&self) -> usize {
        match self {
            Open::Empty => 0,
            Open::Block { lines, .. } => lines.len(),
            Open::Batch { builder, .. } => builder.body_len(),
        }
    }

    /// Points in it.
    pub(crate) fn points(&self) -> u64 {
        match self {
            Open::Empty => 0,
            Open::Block { points, .. } => u64::from(*points),
            Open::Batch { builder, .. } => u64::from(builder.points()),
        }
    }

    /// When its first line came.
    pub(crate) fn since(&self) -> Option<Mono> {
        match self {
            Open::Empty => None,
            Open::Block { since, .. } | Open::Batch { since, .. } => Some(*since),
        }
    }

    /// The oldest timestamp in it; batches only.
    pub(crate) fn min_ts(&self) -> Option<UnixSeconds> {
        match self {
            Open::Empty | Open::Block { .. } => None,
            Open::Batch { builder, .. } => builder.min_ts(),
        }
    }

    /// Takes what is open out, if there is anything.
    pub(crate) fn take(&mut self, destination: Destination) -> Option<Sealed> {
        match (std::mem::replace(self, Open::Empty), destination) {
            (Open::Batch { builder, .. }, _) => Some(Sealed::Batch(builder)),
            (Open::Block { lines, points, .. }, Destination::Store(store, address)) => {
                Some(Sealed::Block(store, address, Block { bytes: Bytes::from(lines), points }))
            }
            (Open::Empty | Open::Block { .. }, _) => None,
        }
    }

    /// Puts a block back that its sender does not take yet. Nobody else has its bytes, so nothing is copied.
    pub(crate) fn put_back(&mut self, block: Block, since: Mono) {
        *self = Open::Block { lines: Vec::from(block.bytes), points: block.points, since };
    }
}

/// All lanes of a relay; they are only ever added.
#[derive(Debug)]
pub(crate) struct Lanes {
    all: RwLock<Table>,
    partitions: u16,
}

#[derive(Debug, Default)]
struct Table {
    lanes: Vec<Arc<Lane>>,
    index: BTreeMap<Destination, usize>,
    aggregates: usize,
}

impl Lanes {
    /// `stores`: for each store its number of addresses.
    pub(crate) fn new(stores: &[usize], partitions: u16) -> Lanes {
        let mut table = Table::default();
        for (store, addresses) in stores.iter().enumerate() {
            for address in 0..*addresses {
                table.add(Destination::Store(store, address));
            }
        }
        Lanes { all: RwLock::new(table), partitions }
    }

    /// The lane of a destination, made when it is new.
    pub(crate) fn find(&self, destination: Destination) -> (usize, Arc<Lane>) {
        let mut table = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let full = table.aggregates >= AGGREGATE_LANES_MAX && !table.index.contains_key(&destination);
        let destination = match destination {
            Destination::Aggregate(_) if full => Destination::Aggregate(PartitionSet::all(self.partitions)),
            Destination::Aggregate(_) | Destination::Store(..) => destination,
        };
        let index = table.index.get(&destination).copied().unwrap_or_else(|| table.add(destination));
        (index, Arc::clone(&table.lanes[index]))
    }

    /// Every lane there is.
    pub(crate) fn all(&self) -> Vec<Arc<Lane>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).lanes.clone()
    }
}

impl Table {
    fn add(&mut self, destination: Destination) -> usize {
        self.lanes.push(Lane::new(destination));
        self.index.insert(destination, self.lanes.len() - 1);
        self.aggregates += usize::from(matches!(destination, Destination::Aggregate(_)));
        self.lanes.len() - 1
    }
}
