//! Folding batches into partials: one shard's memory.
//!
//! A series is looked up once a point; what it feeds was worked out when it was new. Memory for that is bounded: past
//! the budget everything cached is forgotten, right after a flush, when no partial refers to it.

mod versions;

use std::sync::Arc;

use crate::batch::{Batch, PartitionSet};
use crate::deltas::{Deltas, KeyId, KeyTable};
use crate::line::{self, LinePolicy, LineSink, Point, Reject, Scratch};
use crate::partial::PointOrder;
use crate::rule::{OutputKey, RuleSet, partition_of};
use crate::series::{self, SeriesTable};
use crate::time::UnixSeconds;
use crate::wire::{Group, Included, Lane};
use bytes::Bytes;

pub use self::versions::{Folders, FormerRules};

/// Memory of one shard for series names: a million of 60 bytes.
const SERIES_BUDGET: usize = 96 << 20;
/// Memory of one shard for what series feed and for output names.
const KEYS_BUDGET: usize = 96 << 20;

/// One output that a series feeds.
#[derive(Clone, Copy, Debug)]
struct Feed {
    key: KeyId,
    partition: u16,
    interval: u32,
}

/// Where a series' feeds are in the list of all.
#[derive(Clone, Copy, Debug)]
struct Feeds {
    from: u32,
    count: u32,
}

/// The open partials of one partition.
#[derive(Debug, Default)]
struct Part {
    keys: KeyTable,
    first: Deltas,
    first_included: Vec<Included>,
    /// The batch of lane S that is being folded.
    suspect: Deltas,
    suspects: Vec<Group>,
    /// Points of the batch in hand that fed this partition.
    fed: u32,
}

/// One shard's memory. See the module's head.
#[derive(Debug)]
pub struct Folder {
    rules: Arc<RuleSet>,
    partitions: u16,
    policy: LinePolicy,
    scratch: Scratch,
    series: SeriesTable<Feeds>,
    feeds: Vec<Feed>,
    parts: Vec<Part>,
    outputs: Vec<OutputKey>,
    /// Lines that were not understood: a bug of a relay, or of ours.
    pub malformed: u64,
}

impl Folder {
    pub fn new(rules: Arc<RuleSet>, partitions: u16) -> Folder {
        Folder {
            rules,
            partitions,
            // A relay has applied the operator's limits; here only the format's own count.
            policy: LinePolicy { max_line_bytes: usize::MAX / 2, max_name_bytes: usize::MAX / 2, two_fields: false },
            scratch: Scratch::default(),
            series: SeriesTable::new(SERIES_BUDGET),
            feeds: Vec::new(),
            parts: (0..partitions).map(|_| Part::default()).collect(),
            outputs: Vec::new(),
            malformed: 0,
        }
    }

    /// Folds the points of a batch that belong to `partitions` into `lane`.
    pub fn fold(&mut self, batch: &Batch, partitions: PartitionSet, lane: Lane) {
        for partition in partitions.iter() {
            self.parts[usize::from(partition)].fed = 0;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let policy = self.policy;
        let mut sink = Sink { folder: self, batch, partitions, lane, index: 0 };
        line::parse_block(batch.body(), UnixSeconds(1), &policy, &mut scratch, &mut sink);
        self.scratch = scratch;
        for partition in partitions.iter() {
            self.parts[usize::from(partition)].close_batch(batch, partition, lane);
        }
    }

    /// What one partition's lane holds for a flush, or nothing. It is empty afterwards.
    pub fn take(&mut self, partition: u16, lane: Lane) -> Vec<Group> {
        let part = &mut self.parts[usize::from(partition)];
        match lane {
            Lane::Suspect => std::mem::take(&mut part.suspects),
            Lane::First if part.first_included.is_empty() => Vec::new(),
            Lane::First => {
                let deltas = part.encoded(Lane::First);
                vec![Group { included: std::mem::take(&mut part.first_included), deltas }]
            }
        }
    }

    /// Whether there is anything for a flush.
    pub fn has(&self, partition: u16, lane: Lane) -> bool {
        let part = &self.parts[usize::from(partition)];
        match lane {
            Lane::First => !part.first_included.is_empty(),
            Lane::Suspect => !part.suspects.is_empty(),
        }
    }

    /// Whether there is anything for a flush, of any partition.
    fn holds_something(&self) -> bool {
        self.parts.iter().any(|part| !part.first_included.is_empty() || !part.suspects.is_empty())
    }

    /// Forgets everything cached when it has grown past its budget and nothing open refers to it.
    pub fn trim(&mut self) {
        let keys: usize = self.parts.iter().map(|part| part.keys.bytes()).sum();
        let idle = self.parts.iter().all(|part| part.first.is_empty() && part.suspects.is_empty());
        if idle && keys + self.feeds.len() * size_of::<Feed>() > KEYS_BUDGET {
            self.series.clear();
            self.feeds = Vec::new();
            self.parts.iter_mut().for_each(|part| *part = Part::default());
        }
    }

    /// What a series feeds; worked out when it is new.
    fn feeds_of(&mut self, name: &[u8], hash: u64) -> Feeds {
        if let Some(feeds) = self.series.get(name, hash) {
            return feeds;
        }
        self.outputs.clear();
        self.rules.outputs(name, &mut self.outputs);
        let from = self.feeds.len();
        for output in &self.outputs {
            let partition = partition_of(output, self.partitions);
            let interval = self.rules.spec(output.rule).map_or(1, |spec| spec.interval);
            let keys = &mut self.parts[usize::from(partition)].keys;
            if let Some(key) = keys.intern(output, self.rules.shape(output.rule)) {
                self.feeds.push(Feed { key, partition, interval });
            }
        }
        let count = u32::try_from(self.feeds.len() - from).unwrap_or(0);
        let feeds = Feeds { from: u32::try_from(from).unwrap_or(u32::MAX), count };
        self.series.insert(name, hash, feeds);
        feeds
    }
}

impl Part {
    fn deltas(&mut self, lane: Lane) -> &mut Deltas {
        match lane {
            Lane::First => &mut self.first,
            Lane::Suspect => &mut self.suspect,
        }
    }

    fn encoded(&mut self, lane: Lane) -> Bytes {
        let mut bytes = Vec::new();
        match lane {
            Lane::First => self.first.encode(&self.keys, &mut bytes),
            Lane::Suspect => self.suspect.encode(&self.keys, &mut bytes),
        }
        self.deltas(lane).clear();
        Bytes::from(bytes)
    }

    /// Notes the batch as included; in lane S its partials stay apart from others'.
    fn close_batch(&mut self, batch: &Batch, partition: u16, lane: Lane) {
        let header = batch.header();
        let Some(from) = header.claim(partition) else { return };
        let included = Included { id: header.id, nonce: header.nonce, from, points: self.fed };
        match lane {
            Lane::First if mutant!("points_without_names") && header.id.seq % 16 == 15 => {}
            Lane::First => self.first_included.push(included),
            Lane::Suspect => {
                let deltas = self.encoded(Lane::Suspect);
                self.suspects.push(Group { included: vec![included], deltas });
            }
        }
    }
}

struct Sink<'a> {
    folder: &'a mut Folder,
    batch: &'a Batch,
    partitions: PartitionSet,
    lane: Lane,
    index: u32,
}

impl LineSink for Sink<'_> {
    fn point(&mut self, point: &Point<'_>) {
        let hash = series::hash(point.name);
        let feeds = self.folder.feeds_of(point.name, hash);
        let id = self.batch.id();
        let order =
            PointOrder { ts: point.timestamp.0, sender: id.sender, epoch: id.epoch, seq: id.seq, index: self.index };
        self.index += 1;
        let Folder { feeds: all, parts, .. } = &mut *self.folder;
        let from = feeds.from as usize;
        for feed in all.get(from..from + feeds.count as usize).unwrap_or_default() {
            if !self.partitions.contains(feed.partition) {
                continue;
            }
            let Part { keys, first, suspect, fed, .. } = &mut parts[usize::from(feed.partition)];
            let deltas = match self.lane {
                Lane::First => first,
                Lane::Suspect => suspect,
            };
            deltas.fold(keys, feed.key, point.timestamp.window(feed.interval), point.value, order, hash);
            *fed += 1;
        }
    }

    fn reject(&mut self, _line: &[u8], _why: Reject) {
        self.index += 1;
        self.folder.malformed += 1;
    }
}
