//! What operators have ordered, on every node of a cluster: a map that any two nodes can merge.
//!
//! A key has an entry: a value in words, a version, where and when it was ordered, and by whom. Keys are `mode/<layer>`,
//! `drain/<node>` and `forget/<node>`; what this version does not know is kept and passed on.
//!
//! * The version is a hybrid clock: the wall clock in milliseconds, but above every version that this node has seen. So
//!   the newest order wins, and one given after another was seen is newer, whatever the clocks say.
//! * Of two entries the greater stays, compared field by field ([`Entry`]): merging is commutative, associative and
//!   idempotent, so nodes agree in whatever order they hear of things, and how often.
//! * An order that says what is in force changes nothing: no version, no audit entry.
//! * What is ordered for a time carries its end and what holds then; each node reverts by its own clock and nobody
//!   writes anything.
//! * A forgotten node stays forgotten: there is no order that takes it back.
//!
//! `text` has the format, the same in the file and on links.

mod text;
mod value;

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::health::{Hand, Mode};
pub use text::DecodeError;
use value::{ACTIVE, DRAINED, InForce};
pub use value::{Forgotten, Lasting, ModeValue};

/// Entries kept at most: three a node would be enough for 300 nodes.
pub const ENTRIES_MAX: usize = 1024;
/// Bytes of one field.
pub const FIELD_MAX: usize = 256;

/// One order. The order of the fields is the order of comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub version: u64,
    /// The node that took it.
    pub origin: String,
    pub value: String,
    /// Seconds since 1970, by that node's clock.
    pub when: u64,
    /// Who asked.
    pub by: String,
}

/// When, where and by whom something is ordered.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    pub origin: &'a str,
    pub by: &'a str,
}

/// What an operator may order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// For one layer; `until`: seconds since 1970, `None` for good.
    Mode {
        layer: String,
        mode: Mode,
        until: Option<u64>,
    },
    Drain {
        node: String,
    },
    Undrain {
        node: String,
    },
    /// With the sender of a relay, if it is known, so that the final layer can retire its epochs.
    Forget {
        node: String,
        what: Forgotten,
    },
}

/// What has changed, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// Empty: there was none.
    pub old: String,
    pub entry: Entry,
}

/// The mode of a layer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeNow {
    pub mode: Mode,
    /// Second in which it reverts, and to what.
    pub until: Option<(u64, Mode)>,
    /// Whether an operator ordered it; else the cluster file says so.
    pub ordered: bool,
}

/// The map. See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    entries: BTreeMap<String, Entry>,
}

impl Control {
    /// Takes an order. `None`: it is in force already.
    pub fn order(&mut self, order: &Order, stamp: Stamp<'_>) -> Option<Change> {
        let now = stamp.now_ms / 1_000;
        let (key, value) = match order {
            Order::Mode { layer, mode, until } => {
                let in_force = self.mode_value(layer).map(|value| value.at(now));
                let ordered = ModeValue { mode: *mode, until: until.map(|end| (end, Lasting::Default)) };
                if in_force.is_some_and(|value| value.says_the_same(ordered)) {
                    return None;
                }
                // What holds afterwards is what would hold without this order.
                let then = in_force.map_or(Lasting::Default, InForce::lasting);
                let value = ModeValue { mode: *mode, until: until.map(|end| (end, then)) };
                (mode_key(layer), value.to_string())
            }
            Order::Drain { node } if self.hand(node) != Hand::Off => return None,
            Order::Drain { node } => (drain_key(node), DRAINED.to_owned()),
            Order::Undrain { node } if !self.is_drained(node) => return None,
            Order::Undrain { node } => (drain_key(node), ACTIVE.to_owned()),
            Order::Forget { node, what } => {
                // Said again it is news only if the sender was not known.
                let known = self.forgotten_node(node);
                if known.is_some_and(|known| what.sender.is_none() || what.sender == known.sender) {
                    return None;
                }
                (forget_key(node), what.to_string())
            }
        };
        self.put(text::clean(&key), value, stamp)
    }

    fn put(&mut self, key: String, value: String, stamp: Stamp<'_>) -> Option<Change> {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            return None;
        }
        let seen = self.entries.values().map(|entry| entry.version).max().unwrap_or(0);
        let entry = Entry {
            version: stamp.now_ms.max(seen.saturating_add(1)),
            origin: text::clean(stamp.origin),
            value: text::clean(&value),
            when: stamp.now_ms / 1_000,
            by: text::clean(stamp.by),
        };
        let old = self.entries.insert(key.clone(), entry.clone());
        Some(Change { key, old: old.map(|old| old.value).unwrap_or_default(), entry })
    }

    /// Takes up what another node has; says what is new here.
    pub fn merge(&mut self, other: &Control) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, theirs) in &other.entries {
            let mine = self.entries.get(key);
            let is_new = mine.is_none_or(|mine| mine < theirs);
            if is_new && (mine.is_some() || self.entries.len() < ENTRIES_MAX) {
                let old = self.entries.insert(key.clone(), theirs.clone());
                let old = old.map(|old| old.value).unwrap_or_default();
                changes.push(Change { key: key.clone(), old, entry: theirs.clone() });
            }
        }
        changes
    }

    /// A number that is the same for the same content.
    pub fn digest(&self) -> u64 {
        if self.entries.is_empty() { 0 } else { xxh3_64(self.encode().as_bytes()) }
    }

    /// The mode of a layer. `default`: what the cluster file says. `now`: seconds since 1970.
    pub fn mode(&self, layer: &str, default: Mode, now: u64) -> ModeNow {
        let Some(value) = self.mode_value(layer).map(|value| value.at(now)) else {
            return ModeNow { mode: default, until: None, ordered: false };
        };
        let of = |lasting: Lasting| lasting.mode().unwrap_or(default);
        ModeNow {
            mode: of(value.mode_or_default()),
            until: value.until.map(|(end, then)| (end, of(then))),
            ordered: value.mode_or_default() != Lasting::Default,
        }
    }

    /// What was ordered for a node.
    pub fn hand(&self, node: &str) -> Hand {
        if self.forgotten_node(node).is_some() {
            Hand::Forgotten
        } else if self.is_drained(node) {
            Hand::Drained
        } else {
            Hand::Off
        }
    }

    /// What was ordered with a node that was forgotten.
    pub fn forgotten_node(&self, node: &str) -> Option<Forgotten> {
        Forgotten::parse(&self.entries.get(&forget_key(node))?.value)
    }

    /// Every node that was forgotten.
    pub fn forgotten(&self) -> impl Iterator<Item = (&str, Forgotten)> {
        let nodes = self.entries.keys().filter_map(|key| key.strip_prefix("forget/"));
        nodes.filter_map(|node| Some((node, self.forgotten_node(node)?)))
    }

    /// Every entry, keys ascending.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The entry of a layer's mode.
    pub fn mode_entry(&self, layer: &str) -> Option<&Entry> {
        self.entries.get(&mode_key(layer))
    }

    /// Modes that reverted after the second `from`, up to and including `to`: layer, value, what holds now.
    pub fn reverted(&self, from: u64, to: u64) -> Vec<(String, String, String)> {
        let ended = |(key, entry): (&String, &Entry)| {
            let layer = key.strip_prefix("mode/")?;
            let (end, then) = ModeValue::parse(&entry.value)?.until?;
            (from < end && end <= to).then(|| (layer.to_owned(), entry.value.clone(), then.as_str().to_owned()))
        };
        self.entries.iter().filter_map(ended).collect()
    }

    fn mode_value(&self, layer: &str) -> Option<ModeValue> {
        ModeValue::parse(&self.entries.get(&mode_key(layer))?.value)
    }

    fn is_drained(&self, node: &str) -> bool {
        self.entries.get(&drain_key(node)).is_some_and(|entry| entry.value == DRAINED)
    }
}

fn mode_key(layer: &str) -> String {
    format!("mode/{layer}")
}

fn drain_key(node: &str) -> String {
    format!("drain/{node}")
}

fn forget_key(node: &str) -> String {
    format!("forget/{node}")
}

#[cfg(test)]
mod tests;
