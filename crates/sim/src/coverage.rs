//! Rare branches and states that some seed of a thousand must have met: a simulator that never gets to one proves nothing of it.

use std::collections::BTreeMap;

use crate::faults::KINDS;

/// So many seeds, and each of [`MUST`] was met.
pub const SEEDS: u64 = 1000;

/// See the module's head; the names are those of `Truth::visit`.
pub const MUST: &[&str] = &[
    // Final nodes.
    "group merged",
    "group refused",
    "group of a retired epoch",
    "group of a duplicate sender",
    "epoch retired",
    "checkpoint",
    "window corrected",
    "window evicted",
    "window read back",
    "flush put off",
    "log failed",
    "final recovered",
    "final shard died",
    "final shard fenced",
    // Partial nodes.
    "batch folded again",
    "partial shard died",
    "partial shard fenced",
    "partial shard woke as a ghost",
    "a batch killed its shard",
    "partial machine recovered",
    "former rules learnt",
    "newer rules refused",
    "batch of former rules",
    // Relays, and why they do not keep something.
    "clients wait",
    "relay sends again",
    "relay dropped",
    "relay machine recovered",
    "spill full",
    "spill failed",
    "spill thread died",
    "spill thread fenced",
    "spill thread woke as a ghost",
    "memory",
    "timeout",
    "no_peer",
    "journal",
    "dead letters",
    "record damaged",
    // Raw lines.
    "block spilled",
    "block journalled",
    "block replayed",
    "block settled",
    "block dropped",
    "relay disowned",
    "relay is forgotten",
    "two relays in one epoch",
    "two batches of one name",
    "relay is a second one",
    "sender forgotten",
    // Answers to batches.
    "overloaded",
    "retired",
    "poison",
    // Replay.
    "lent",
    "lease ran out",
    "settled by replay",
    "replay paused",
    "replay refused",
    "replay machine recovered",
    "duplicate_sender",
    "corrupt",
    // Pools.
    "floor of a pool",
    "stance strict",
    "stance lenient",
    "stance auto strict",
    "stance auto lenient",
    // Links, and senders to stores.
    "link refused",
    "link silent",
    "heard again",
    "store connection lost",
    "store link disconnected",
    "store link connecting",
    "store link open",
    "store link awaits a receipt",
    "store without receipts",
];

/// What was not met: kinds of faults that struck nothing, then states.
pub fn missed<T>(seen: &BTreeMap<&'static str, T>) -> Vec<&'static str> {
    KINDS.iter().chain(MUST).filter(|what| !seen.contains_key(*what)).copied().collect()
}
