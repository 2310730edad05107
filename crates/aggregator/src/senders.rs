//! Which relays are connected: of one sender only one incarnation at a time.
//!
//! Two nodes on copies of one data directory are one sender with two nonces. The one that came later is refused for as
//! long as the other is connected, so that it says so instead of sending batches whose identities are not its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::batch::Incarnation;

use crate::partial_lock as lock;

/// A node that was killed and started again greets before the end of its former connection was noticed.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Senders {
    /// Sender to nonce and number of connections.
    present: Mutex<BTreeMap<u64, (u64, usize)>>,
}

/// A connection counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Presence {
    senders: Arc<Senders>,
    sender: u64,
}

impl Senders {
    /// Lets an incarnation in, or `None`: another one of the same sender is connected.
    pub(crate) fn enter(self: &Arc<Senders>, who: Incarnation) -> Option<Presence> {
        let mut present = lock(&self.present);
        let (nonce, links) = present.entry(who.sender).or_insert((who.nonce, 0));
        if *nonce != who.nonce {
            return None;
        }
        *links += 1;
        Some(Presence { senders: Arc::clone(self), sender: who.sender })
    }

    /// The same, waiting a little for the other one to be gone.
    pub(crate) async fn enter_soon(self: &Arc<Senders>, who: Incarnation) -> Option<Presence> {
        let entered = async {
            loop {
                match self.enter(who) {
                    Some(presence) => return presence,
                    None => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, entered).await.ok()
    }

    /// Whether a link of this sender is there.
    pub(crate) fn is_present(&self, sender: u64) -> bool {
        lock(&self.present).contains_key(&sender)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut present = lock(&self.senders.present);
        if let Some((_, links)) = present.get_mut(&self.sender) {
            *links -= 1;
            if *links == 0 {
                present.remove(&self.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(sender: u64, nonce: u64) -> Incarnation {
        Incarnation { sender, epoch: 1, nonce }
    }

    #[test]
    fn the_copy_of_a_node_waits_until_the_other_is_gone_with_all_its_links() {
        let senders = Arc::new(Senders::default());
        let first = senders.enter(who(1, 7)).unwrap();
        let second = senders.enter(who(1, 7)).unwrap();
        assert!(senders.enter(who(1, 8)).is_none(), "another nonce");
        assert!(senders.enter(who(2, 8)).is_some(), "another sender");
        drop(first);
        assert!(senders.enter(who(1, 8)).is_none());
        drop(second);
        assert!(senders.enter(who(1, 8)).is_some());
    }
}
