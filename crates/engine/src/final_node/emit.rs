//! From due windows to lines for the stores' senders; and what a store missed, again.
//!
//! A target that is away, or whose sender is full, never holds the others up: its windows wait in the partition's cursor.
//! They go when it is back, newest first, in pieces, at the rate that the operator allows for replay; what is due now goes
//! at once and beside that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Partition;
use super::cursor::Cursor;
use crate::ring::Ring;
use crate::rule::RuleSet;
use crate::store_link::Block;
use crate::time::{Mono, UnixSeconds};
use crate::window::{Again, BlockId, Emission, Emitted, Windows};

/// Keys emitted from one partition before the shard looks at its input again.
const KEYS_PER_TURN: usize = 2048;
/// Keys in one piece of what a store missed.
const KEYS_PER_PIECE: usize = 256;
/// Pieces for one target before the shard looks at its input again.
const PIECES_PER_TURN: usize = 16;

/// Lines for one target.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    points: u32,
    of: BTreeSet<BlockId>,
}

/// What a target takes now.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// It is there: lines are given to its sender. Otherwise its windows wait.
    pub here: bool,
    /// There is room beside what live windows need, for what it missed.
    pub roomy: bool,
    /// How many blocks of lines its sender will never send again.
    pub released: u64,
}

/// One store: its addresses are targets that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Outlet<'a> {
    pub ring: &'a Ring,
    /// The target that is its first address.
    pub first: usize,
    pub addresses: usize,
}

/// Where lines go, and which lines.
#[derive(Clone, Copy, Debug)]
pub struct Outlets<'a> {
    pub rules: &'a RuleSet,
    pub stores: &'a [Outlet<'a>],
    /// Every target as it is now, in their order.
    pub views: &'a [View],
}

/// The senders to the targets.
pub trait Senders {
    /// Gives a target's sender a block of lines; how many it has been offered then. `None`: it does not take it.
    fn offer(&mut self, target: usize, block: Block) -> Option<u64>;
    /// Whether lines may go now to a target that catches up: no ceiling is used up.
    fn may_catch_up(&mut self, target: usize) -> bool;
    /// So many lines went to a target that catches up.
    fn caught_up(&mut self, target: usize, lines: u64);
}

/// What time it is, as far as windows ask.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub now: UnixSeconds,
    /// No sender holds anything older than this back; none when no sender is known.
    pub watermark: Option<UnixSeconds>,
    pub mono: Mono,
}

/// Emits what is due in one partition, and notes who has it.
pub fn emit(partition: &mut Partition, outlets: Outlets<'_>, times: Times, senders: &mut impl Senders) -> Emitted {
    let Times { now, watermark, mono } = times;
    let rules = outlets.rules;
    let mut out: BTreeMap<usize, Lines> = BTreeMap::new();
    let mut picked = Vec::new();
    let (windows, cursor) = partition.emitting();
    for (target, view) in outlets.views.iter().enumerate() {
        cursor.released(target, view.released);
    }
    let emitted = windows.take_emissions(now, watermark, mono, rules, KEYS_PER_TURN, &mut |emission| {
        let stores = rules.spec(emission.rule).map(|spec| spec.to.as_slice()).unwrap_or_default();
        for &store in stores {
            share(outlets, (store, None), &emission, &mut out, &mut picked);
        }
    });
    for (target, lines) in out {
        let here = outlets.views.get(target).is_some_and(|view| view.here);
        let block = Block { bytes: Bytes::from(lines.bytes), points: lines.points };
        let offered = if here { senders.offer(target, block) } else { None };
        for id in lines.of {
            match offered {
                Some(offered) => cursor.handed(target, id, offered),
                None => cursor.wait(target, id, lines_of(windows, rules, id)),
            }
        }
    }
    emitted
}

/// Emits what waits for targets that are back, as far as the pace allows. Returns blocks that must be read first.
pub fn catch_up(partition: &mut Partition, outlets: Outlets<'_>, senders: &mut impl Senders) -> Vec<BlockId> {
    let mut missing = Vec::new();
    let (windows, cursor) = partition.emitting();
    for target in (0..outlets.views.len()).filter(|target| outlets.views[*target].roomy) {
        for _ in 0..PIECES_PER_TURN {
            let Some((id, from)) = cursor.newest(target) else { break };
            if !senders.may_catch_up(target) {
                break;
            }
            match piece(outlets, (windows, cursor), senders, target, (id, from)) {
                Again::Absent => {
                    missing.push(id);
                    break;
                }
                Again::Gone => cursor.done(target, id),
                Again::Done | Again::More(_) => {}
            }
            if cursor.newest(target) == Some((id, from)) {
                break; // its sender is full
            }
        }
    }
    missing
}

/// One piece of one block for one target.
fn piece(
    outlets: Outlets<'_>,
    (windows, cursor): (&Windows, &mut Cursor),
    senders: &mut impl Senders,
    target: usize,
    (id, from): (BlockId, usize),
) -> Again {
    let (mut out, mut picked) = (BTreeMap::new(), Vec::new());
    let is_of = |outlet: &Outlet<'_>| (outlet.first..outlet.first + outlet.addresses).contains(&target);
    let Some(store) = outlets.stores.iter().position(is_of) else { return Again::Gone };
    let again = windows.emit_again(id, from, KEYS_PER_PIECE, outlets.rules, &mut |emission| {
        share(outlets, (store, Some(target)), &emission, &mut out, &mut picked);
    });
    let lines = out.remove(&target).unwrap_or_default();
    let points = lines.points;
    if points > 0 {
        match senders.offer(target, Block { bytes: Bytes::from(lines.bytes), points }) {
            Some(offered) => cursor.handed(target, id, offered),
            None => return again,
        }
        senders.caught_up(target, u64::from(points));
    }
    match again {
        Again::Done => cursor.done(target, id),
        Again::More(next) => cursor.resume_at(target, id, next),
        Again::Absent | Again::Gone => {}
    }
    again
}

/// About how many lines a block has.
fn lines_of(windows: &Windows, rules: &RuleSet, id: BlockId) -> u64 {
    let each = rules.spec(id.rule).map_or(1, |spec| spec.functions.len() + usize::from(spec.completeness));
    u64::from(windows.keys(id)) * each as u64
}

/// Gives the lines of an emission to the targets that a store's ring picks for each; `only`: to this one alone.
fn share(
    outlets: Outlets<'_>,
    (store, only): (usize, Option<usize>),
    emission: &Emission<'_>,
    out: &mut BTreeMap<usize, Lines>,
    picked: &mut Vec<usize>,
) {
    let Some(&Outlet { ring, first, addresses }) = outlets.stores.get(store) else { return };
    let id = BlockId { window: emission.window, rule: emission.rule };
    if addresses == 1 {
        let to = out.entry(first).or_default();
        to.bytes.extend_from_slice(emission.bytes);
        to.points += emission.lines;
        to.of.insert(id);
        return;
    }
    for line in emission.bytes.split_inclusive(|byte| *byte == b'\n') {
        picked.clear();
        ring.pick(line.split(|byte| *byte == b' ').next().unwrap_or_default(), picked);
        let targets = picked.iter().map(|address| first + address);
        for target in targets.filter(|target| only.is_none_or(|only| only == *target)) {
            let to = out.entry(target).or_default();
            to.bytes.extend_from_slice(line);
            to.points += 1;
            to.of.insert(id);
        }
    }
}
