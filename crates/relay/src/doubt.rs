//! Whether this relay is the only one with its identity, and still one of the cluster, as far as its peers say.
//!
//! A relay that an operator has forgotten takes no points in this life any more: all that it accepted would be refused.
//!
//! A data directory that was copied makes two relays one sender. A peer refuses the one that greets later for as long as
//! the other is connected. It must not take points then: their batches would have identities that are not its own. What a
//! peer has refused by mistake, because it had not noticed the end of a former connection, is over within seconds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::relay::{Disowned, Peer};
use engine::time::Mono;
use engine::wire::RefuseReason;

use crate::shared::locked;

/// A dead connection is noticed within 5 s; a refusal that lasts longer is meant.
const BELIEVED_AFTER: Duration = Duration::from_secs(6);

#[derive(Debug, Default)]
pub(crate) struct Doubt {
    /// Since when which peer has refused this relay as a second one.
    refused: Mutex<BTreeMap<Peer, Mono>>,
    forgotten: AtomicBool,
}

impl Doubt {
    /// `peer` refuses this relay. True: it has not before.
    pub(crate) fn refused(&self, now: Mono, peer: Peer) -> bool {
        let mut since = locked(&self.refused);
        let is_news = !since.contains_key(&peer);
        since.entry(peer).or_insert(now);
        is_news
    }

    /// `peer` takes this relay for what it says.
    pub(crate) fn welcomed(&self, peer: Peer) {
        locked(&self.refused).remove(&peer);
    }

    /// An operator has forgotten this relay. True: that is news.
    pub(crate) fn forgotten(&self) -> bool {
        !self.forgotten.swap(true, Ordering::Relaxed)
    }

    /// Why this relay must take no points, for an operator; `None`: it may.
    pub(crate) fn trouble(&self, now: Mono, peers: &[String], disowned: Option<Disowned>) -> Option<String> {
        const CURE: &str =
            "a data directory was copied: stop the copy, empty its `data` directory, and restart this node";
        if self.forgotten.load(Ordering::Relaxed) {
            return Some(RefuseReason::Forgotten.explain().to_owned());
        }
        match disowned {
            Some(Disowned::Forgotten) => return Some(RefuseReason::Forgotten.explain().to_owned()),
            Some(Disowned::Duplicate) => {
                return Some(format!("the final layer knows another node with this node's identity; {CURE}"));
            }
            Some(Disowned::Retired { floor }) => {
                return Some(format!("another node retired this node's epochs up to {floor}; {CURE}"));
            }
            None => {}
        }
        let since = locked(&self.refused);
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
    fn who_is_forgotten_stays_so() {
        let doubt = Doubt::default();
        assert!(doubt.forgotten());
        assert!(!doubt.forgotten());
        doubt.welcomed(0);
        let trouble = doubt.trouble(at(0), &[], None).unwrap();
        assert!(trouble.contains("empty its `data` directory"), "{trouble}");
    }

    #[test]
    fn what_the_final_layer_says_is_believed_at_once() {
        let doubt = Doubt::default();
        for (why, says) in [
            (Disowned::Duplicate, "the final layer knows another node"),
            (Disowned::Retired { floor: 9 }, "another node retired this node's epochs up to 9"),
            (Disowned::Forgotten, "an operator has forgotten this node"),
        ] {
            let trouble = doubt.trouble(at(0), &[], Some(why)).unwrap();
            assert!(trouble.starts_with(says), "{trouble}");
        }
    }
}
