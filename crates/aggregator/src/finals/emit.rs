//! From due windows to lines for the stores' senders; and what a store missed, again.
//!
//! A target that is away, or whose sender is full, never holds the others up: its windows wait in the partition's cursor.
//! They go when it is back, newest first, in pieces, at the rate that the operator allows for replay; what is due now goes
//! at once and beside that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use engine::final_node::Partition;
use engine::final_node::cursor::Cursor;
use engine::rule::RuleSet;
use engine::store_link::Block;
use engine::time::{Mono, UnixSeconds};
use engine::window::{Again, BlockId, Emission, Windows};

use super::role::{FinalRole, ShardState};
use super::targets::View;

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

/// Every target as it is now, in their order.
pub(crate) fn views(role: &FinalRole, now: Mono) -> Vec<View> {
    role.targets.iter().map(|target| target.view(now)).collect()
}

/// Emits what is due in one partition, and notes who has it.
pub(crate) fn emit(role: &FinalRole, partition: &mut Partition, views: &[View], state: &mut ShardState) {
    let clock = role.setup.clock;
    let (now, rules) = (UnixSeconds(clock.unix().0), &*role.setup.rules);
    let mut out: BTreeMap<usize, Lines> = BTreeMap::new();
    let mut picked = Vec::new();
    let (windows, cursor) = partition.emitting();
    for (target, view) in views.iter().enumerate() {
        cursor.released(target, view.released);
    }
    let emitted = windows.take_emissions(now, role.watermark(), clock.now(), rules, KEYS_PER_TURN, &mut |emission| {
        let stores = rules.spec(emission.rule).map(|spec| spec.to.as_slice()).unwrap_or_default();
        for &store in stores {
            share(role, (store, None), &emission, &mut out, &mut picked);
        }
    });
    state.emitted_lines += emitted.lines;
    state.corrections += emitted.corrections;
    for (target, lines) in out {
        let here = views.get(target).is_some_and(|view| view.here);
        let block = Block { bytes: Bytes::from(lines.bytes), points: lines.points };
        let offered = if here { role.targets[target].offer(block) } else { None };
        for id in lines.of {
            match offered {
                Some(offered) => cursor.handed(target, id, offered),
                None => cursor.wait(target, id, lines_of(windows, rules, id)),
            }
        }
    }
}

/// Emits what waits for targets that are back, as far as the pace allows. Returns blocks that must be read first.
pub(crate) fn catch_up(role: &FinalRole, partition: &mut Partition, views: &[View]) -> Vec<BlockId> {
    let mut missing = Vec::new();
    let (windows, cursor) = partition.emitting();
    for target in (0..views.len()).filter(|target| views[*target].roomy) {
        for _ in 0..PIECES_PER_TURN {
            let Some((id, from)) = cursor.newest(target) else { break };
            if !role.may_catch_up(role.setup.clock.now(), target) {
                break;
            }
            match piece(role, (windows, cursor), target, id, from) {
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
    role: &FinalRole,
    (windows, cursor): (&Windows, &mut Cursor),
    target: usize,
    id: BlockId,
    from: usize,
) -> Again {
    let (mut out, mut picked) = (BTreeMap::new(), Vec::new());
    let at = &role.targets[target];
    let again = windows.emit_again(id, from, KEYS_PER_PIECE, &role.setup.rules, &mut |emission| {
        share(role, (at.store, Some(target)), &emission, &mut out, &mut picked);
    });
    let lines = out.remove(&target).unwrap_or_default();
    let points = lines.points;
    if points > 0 {
        match at.offer(Block { bytes: Bytes::from(lines.bytes), points }) {
            Some(offered) => cursor.handed(target, id, offered),
            None => return again,
        }
        role.caught_up(target, u64::from(points));
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
    role: &FinalRole,
    (store, only): (usize, Option<usize>),
    emission: &Emission<'_>,
    out: &mut BTreeMap<usize, Lines>,
    picked: &mut Vec<usize>,
) {
    let (Some(ring), Some(first)) = (role.setup.rings.get(store), role.first_target(store)) else { return };
    let id = BlockId { window: emission.window, rule: emission.rule };
    if role.setup.stores[store].senders.len() == 1 {
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
