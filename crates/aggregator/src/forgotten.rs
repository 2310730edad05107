//! Relays that an operator has forgotten: nothing of them is taken any more, and nobody waits for them.
//!
//! The orders are the desk's. A relay is refused by its sender; only where that was not known when it was forgotten, by
//! its name, so that another machine may take the name over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use engine::control::Control;
use engine::wire::Hello;

use crate::partial_lock as lock;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    senders: BTreeSet<u64>,
    /// Those whose sender nobody knew.
    names: BTreeSet<String>,
    /// The latest sender of each relay that greeted since the start.
    greeted: BTreeMap<String, u64>,
}

impl Forgotten {
    /// The orders are these now.
    pub(crate) fn set(&self, orders: &Control) {
        let mut state = lock(&self.0);
        (state.senders, state.names) = Default::default();
        for (name, what) in orders.forgotten() {
            match what.sender {
                Some(sender) => _ = state.senders.insert(sender),
                None => _ = state.names.insert(name.to_owned()),
            }
        }
    }

    /// Whether this relay is one of them. Remembers who it is.
    pub(crate) fn refuses(&self, hello: &Hello) -> bool {
        let mut state = lock(&self.0);
        let sender = hello.incarnation.sender;
        state.greeted.insert(hello.node.clone(), sender);
        state.senders.contains(&sender) || state.names.contains(&hello.node)
    }

    /// The sender of a relay that has greeted since the start.
    pub(crate) fn sender_of(&self, name: &str) -> Option<u64> {
        lock(&self.0).greeted.get(name).copied()
    }

    /// Whether nothing of this sender is taken.
    pub(crate) fn has(&self, sender: u64) -> bool {
        let state = lock(&self.0);
        let by_name = || state.greeted.iter().any(|(name, of)| *of == sender && state.names.contains(name));
        state.senders.contains(&sender) || by_name()
    }

    /// All senders that are known of them.
    pub(crate) fn senders(&self) -> Vec<u64> {
        let state = lock(&self.0);
        let by_name = state.names.iter().filter_map(|name| state.greeted.get(name));
        state.senders.iter().chain(by_name).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::batch::{Incarnation, Versions};
    use engine::control::{Forgotten as What, Order, Stamp};
    use engine::wire::{PROTOCOL, Role};

    use super::*;

    fn hello(node: &str, sender: u64) -> Hello {
        Hello {
            protocol: PROTOCOL,
            role: Role::Relay,
            cluster: "c".into(),
            node: node.into(),
            incarnation: Incarnation { sender, epoch: 1, nonce: 2 },
            versions: Versions::default(),
            partitions: 4,
        }
    }

    fn orders(sender: Option<u64>) -> Control {
        let mut control = Control::default();
        let order = Order::Forget { node: "relay-1".into(), what: What { sender, ..What::default() } };
        control.order(&order, Stamp { now_ms: 1, origin: "final-1", by: "me" }).expect("it is news");
        control
    }

    #[test]
    fn a_relay_is_refused_by_its_sender_so_that_another_may_have_its_name() {
        let forgotten = Forgotten::default();
        assert!(!forgotten.refuses(&hello("relay-1", 7)));
        assert_eq!((forgotten.sender_of("relay-1"), forgotten.sender_of("relay-2")), (Some(7), None));
        forgotten.set(&orders(Some(7)));
        assert!(forgotten.refuses(&hello("relay-1", 7)) && forgotten.has(7));
        assert!(!forgotten.refuses(&hello("relay-1", 8)), "a new machine");
        assert_eq!((forgotten.senders(), forgotten.has(8)), (vec![7], false));
    }

    #[test]
    fn a_relay_whose_sender_nobody_knew_is_refused_by_its_name() {
        let forgotten = Forgotten::default();
        forgotten.set(&orders(None));
        assert!(forgotten.senders().is_empty());
        assert!(forgotten.refuses(&hello("relay-1", 7)));
        assert!(!forgotten.refuses(&hello("relay-2", 8)));
        assert_eq!((forgotten.senders(), forgotten.has(7), forgotten.has(8)), (vec![7], true, false));
    }
}
