//! Which windows are due, and the lines they are emitted as.

use std::time::Duration;

use super::block::{Phase, Taken};
use super::{BlockId, Rest, Windows};
use crate::rule::{RuleId, RuleSet, RuleSpec};
use crate::time::{Mono, UnixSeconds};

/// Changed values of a block are emitted at most this often (FAULTS C8): replay of an hour would otherwise emit each
/// window as many times as it has batches.
const CORRECTION_EVERY: Duration = Duration::from_secs(5);

/// The lines of one key in one window.
#[derive(Debug)]
pub struct Emission<'a> {
    pub rule: RuleId,
    pub window: UnixSeconds,
    /// The key was emitted with other values before.
    pub correction: bool,
    /// How many lines.
    pub lines: u32,
    /// `name value timestamp\n` for each, all functions of the rule in its order, then the completeness series.
    pub bytes: &'a [u8],
}

/// What [`Windows::take_emissions`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    pub keys: u64,
    pub lines: u64,
    /// Keys that were emitted again because their values had changed.
    pub corrections: u64,
    /// Values that could not be emitted, because the result is outside the range of `f64`, or a component is missing
    /// after a change of the rule's functions.
    pub valueless: u64,
    /// The limit was reached; there may be more due now.
    pub more: bool,
}

/// What [`Windows::emit_again`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// All of the block is emitted.
    Done,
    /// Go on with the key of this number.
    More(usize),
    /// The block must be restored first.
    Absent,
    /// There is no such block any more, or its rule is unknown.
    Gone,
}

/// When [`Windows::take_emissions`] has work even if nothing is merged and the watermark stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The earliest end of a grace time.
    pub at: Option<UnixSeconds>,
    /// The earliest moment for a correction that waits.
    pub correction_at: Option<Mono>,
}

/// What is known about time at one call.
#[derive(Clone, Copy)]
struct Times {
    now: UnixSeconds,
    watermark: Option<UnixSeconds>,
    mono: Mono,
}

impl Windows {
    /// Emits what is due: newest windows first, at most `limit` keys.
    ///
    /// `now`: the wall clock; it only ends grace times. `watermark`: the senders hold back nothing older than this; none
    /// when unknown. Blocks of a rule that `rules` does not know stay as they are.
    pub fn take_emissions(
        &mut self,
        now: UnixSeconds,
        watermark: Option<UnixSeconds>,
        mono: Mono,
        rules: &RuleSet,
        limit: usize,
        emit: &mut impl FnMut(Emission<'_>),
    ) -> Emitted {
        let times = Times { now, watermark, mono };
        let mut lines = Lines { rules, total: Emitted::default(), bytes: Vec::new(), name: Vec::new() };
        let pending: Vec<BlockId> = self.pending.iter().rev().copied().collect();
        for id in pending {
            let left = limit.saturating_sub(usize::try_from(lines.total.keys).unwrap_or(usize::MAX));
            if left == 0 {
                lines.total.more = true;
                break;
            }
            self.emit_block(id, times, &mut lines, left, emit);
        }
        self.corrections += lines.total.corrections;
        lines.total
    }

    /// Emits up to `limit` keys of a block, from key number `from` on, as they are now and whatever was emitted before:
    /// for a store that may not have them.
    pub fn emit_again(
        &self,
        id: BlockId,
        from: usize,
        limit: usize,
        rules: &RuleSet,
        emit: &mut impl FnMut(Emission<'_>),
    ) -> Again {
        if self.absent.contains_key(&id) {
            return Again::Absent;
        }
        let (Some(block), Some(spec)) = (self.blocks.get(&id), rules.spec(id.rule)) else { return Again::Gone };
        let complete = matches!(block.phase, Phase::Emitted { complete: true, .. });
        let mut lines = Lines { rules, total: Emitted::default(), bytes: Vec::new(), name: Vec::new() };
        for taken in block.entries(from, limit) {
            emit(lines.write(id, spec, complete, self.names.get(taken.name), &taken));
        }
        let next = from.saturating_add(limit);
        if next < block.keys() as usize { Again::More(next) } else { Again::Done }
    }

    /// See [`Due`].
    pub fn next_due(&self, rules: &RuleSet) -> Due {
        let mut due = Due::default();
        for id in &self.pending {
            let (Some(block), Some(spec)) = (self.blocks.get(id), rules.spec(id.rule)) else { continue };
            match block.phase {
                Phase::Open => due.at = earlier(due.at, grace_end(*id, spec)),
                Phase::Emitted { next_at, .. } if block.dirty_keys() > 0 => {
                    due.correction_at = earlier(due.correction_at, next_at)
                }
                Phase::Emitted { .. } => {}
            }
        }
        due
    }

    fn emit_block(
        &mut self,
        id: BlockId,
        times: Times,
        lines: &mut Lines<'_>,
        limit: usize,
        emit: &mut impl FnMut(Emission<'_>),
    ) {
        let Some(spec) = lines.rules.spec(id.rule) else { return };
        if let Some(rest) = self.absent.get(&id).copied() {
            self.want(id, spec, rest, times);
            return;
        }
        let Some(block) = self.blocks.get_mut(&id) else {
            self.pending.remove(&id);
            return;
        };
        let passed = times.watermark.is_some_and(|watermark| watermark >= end(id, spec));
        let (next_at, was_complete) = match block.phase {
            Phase::Open if passed || times.now >= grace_end(id, spec) => (times.mono, passed),
            Phase::Open => return,
            Phase::Emitted { next_at, complete } => (next_at, complete),
        };
        // Complete once is complete for good: a sender that joins later may move the watermark back.
        let complete = passed || was_complete;
        if complete && !was_complete && spec.completeness {
            // What was emitted as incomplete is right now; say so once.
            block.mark_emitted_dirty();
        }
        block.phase = Phase::Emitted { next_at, complete };
        if block.dirty_keys() > 0 && next_at <= times.mono {
            let names = &self.names;
            block.take_dirty(limit, |taken| {
                let emission = lines.write(id, spec, complete, names.get(taken.name), &taken);
                emit(emission);
            });
            self.changed.insert(id);
            if block.dirty_keys() == 0 {
                block.phase = Phase::Emitted { next_at: times.mono + CORRECTION_EVERY, complete };
            } else {
                lines.total.more = true;
            }
        }
        if complete != was_complete {
            self.changed.insert(id);
        }
        if block.dirty_keys() == 0 && (complete || !spec.completeness) {
            self.pending.remove(&id);
        }
    }
}

impl Windows {
    /// An absent block is wanted when it is due; at rest, nobody has to look at it.
    fn want(&mut self, id: BlockId, spec: &RuleSpec, rest: Rest, times: Times) {
        let passed = times.watermark.is_some_and(|watermark| watermark >= end(id, spec));
        let due = if rest.emitted {
            rest.dirty || (spec.completeness && passed && !rest.complete)
        } else {
            passed || times.now >= grace_end(id, spec)
        };
        if due {
            self.wanted.insert(id);
        } else if rest.emitted && (rest.complete || !spec.completeness) {
            self.pending.remove(&id);
        }
    }
}

/// The buffers of one call.
struct Lines<'r> {
    rules: &'r RuleSet,
    total: Emitted,
    bytes: Vec<u8>,
    name: Vec<u8>,
}

impl Lines<'_> {
    fn write(
        &mut self,
        id: BlockId,
        spec: &RuleSpec,
        complete: bool,
        key_name: &[u8],
        taken: &Taken<'_>,
    ) -> Emission<'_> {
        self.bytes.clear();
        let mut count = 0;
        for (position, function) in spec.functions.iter().enumerate() {
            let Some(value) = taken.partial.value(*function, spec.interval) else {
                self.total.valueless += 1;
                continue;
            };
            self.rules.output_name(id.rule, key_name, position, &mut self.name);
            put_line(&mut self.bytes, &self.name, value, id.window);
            count += 1;
        }
        if spec.completeness {
            self.rules.complete_name(key_name, &mut self.name);
            put_line(&mut self.bytes, &self.name, f64::from(u8::from(complete)), id.window);
            count += 1;
        }
        self.total.keys += 1;
        self.total.lines += u64::from(count);
        self.total.corrections += u64::from(taken.correction);
        Emission { rule: id.rule, window: id.window, correction: taken.correction, lines: count, bytes: &self.bytes }
    }
}

fn end(id: BlockId, spec: &RuleSpec) -> UnixSeconds {
    UnixSeconds(id.window.0.saturating_add(spec.interval))
}

fn grace_end(id: BlockId, spec: &RuleSpec) -> UnixSeconds {
    UnixSeconds(end(id, spec).0.saturating_add(spec.grace))
}

fn earlier<T: Ord>(left: Option<T>, right: T) -> Option<T> {
    Some(left.into_iter().fold(right, Ord::min))
}

/// Appends `name value timestamp\n`.
fn put_line(out: &mut Vec<u8>, name: &[u8], value: f64, window: UnixSeconds) {
    out.extend_from_slice(name);
    out.push(b' ');
    put_value(out, value);
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(window.0).as_bytes());
    out.push(b'\n');
}

/// Appends the shortest decimal that reads back as `value`; integers below 2^53 in plain digits.
fn put_value(out: &mut Vec<u8>, value: f64) {
    const PLAIN_BELOW: f64 = 9_007_199_254_740_992.0;
    if value.trunc() == value && value.abs() < PLAIN_BELOW {
        #[allow(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
        let integer = value as i64;
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}
