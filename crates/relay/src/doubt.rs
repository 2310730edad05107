//! Whether this relay is the only one with its identity, as far as its peers say.
//!
//! A data directory that was copied makes two relays one sender. A peer refuses the one that greets later for as long as
//! the other is connected. It must not take points then: their batches would have identities that are not its own. What a
//! peer has refused by mistake, because it had not noticed the end of a former connection, is over within seconds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use engine::relay::{Disowned, Peer};
use engine::time::Mono;

use crate::shared::locked;

/// A dead connection is noticed within 5 s; a refusal that lasts longer is meant.
const BELIEVED_AFTER: Duration = Duration::from_secs(6);

/// Since when which peer has refused this relay as a second one.
#[derive(Debug, Default)]
pub(crate) struct Doubt(Mutex<BTreeMap<Peer, Mono>>);

impl Doubt {
    /// `peer` refuses this relay. True: it has not before.
    pub(crate) fn refused(&self, now: Mono, peer: Peer) -> bool {
        let mut since = locked(&self.0);
        let is_news = !since.contains_key(&peer);
        since.entry(peer).or_insert(now);
        is_news
    }

    /// `peer` takes this relay for what it says.
    pub(crate) fn welcomed(&self, peer: Peer) {
        locked(&self.0).remove(&peer);
    }

    /// Why this relay must take no points, for an operator; `None`: it may.
    pub(crate) fn trouble(&self, now: Mono, peers: &[String], disowned: Option<Disowned>) -> Option<String> {
        const CURE: &str =
            "a data directory was copied: stop the copy, empty its `data` directory, and restart this node";
        match disowned {
            Some(Disowned::Duplicate) => {
                return Some(format!("the final layer knows another node with this node's identity; {CURE}"));
            }
            Some(Disowned::Retired { floor }) => {
                return Some(format!("another node retired this node's epochs up to {floor}; {CURE}"));
            }
            None => {}
        }
        let since = locked(&self.0);
        let (peer, _) = since.iter().find(|(_, since)| now.since(**since) >= BELIEVED_AFTER)?;
        let name = peers.get(*peer).map_or("a peer", String::as_str);
        Some(format!("{name} is connected to another node with this node's identity; {CURE}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    #[test]
    fn a_refusal_is_believed_when_it_lasts_and_forgotten_when_it_ends() {
        let (doubt, peers) = (Doubt::default(), ["partial-1".to_owned(), "partial-2".to_owned()]);
        assert!(doubt.refused(at(0), 1));
        assert!(!doubt.refused(at(3_000), 1));
        assert_eq!(doubt.trouble(at(5_999), &peers, None), None);
        let trouble = doubt.trouble(at(6_000), &peers, None).unwrap();
        assert!(trouble.starts_with("partial-2 is connected to another node"), "{trouble}");
        doubt.welcomed(1);
        assert_eq!(doubt.trouble(at(6_001), &peers, None), None);
    }

    #[test]
    fn what_the_final_layer_says_is_believed_at_once() {
        let doubt = Doubt::default();
        for (why, says) in [
            (Disowned::Duplicate, "the final layer knows another node"),
            (Disowned::Retired { floor: 9 }, "another node retired this node's epochs up to 9"),
        ] {
            let trouble = doubt.trouble(at(0), &[], Some(why)).unwrap();
            assert!(trouble.starts_with(says), "{trouble}");
        }
    }
}
