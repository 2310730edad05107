//! The live path of a real relay: the retaining machine, and the senders to stores.

use std::sync::{Arc, Mutex, RwLockReadGuard};

use engine::batch::Batch;
use engine::pool;
use engine::relay::Drop;
use engine::spill::{self, AGGREGATE, Origin, Why};
use engine::time::{Mono, UnixSeconds};
use engine::wire::Ticket;
use output::StoreSender;

use super::live::{Content, Due, Live, Told};
use crate::shared::{Shared, locked};

/// See the module's head.
#[derive(Debug)]
pub(crate) struct LivePath {
    shared: Arc<Shared>,
    /// Of this process.
    epoch: u32,
    /// For each partition the destination of batches that feed it alone.
    owners: Vec<Option<String>>,
    /// Each store's address has a lane of its own.
    senders: Vec<(String, StoreSender)>,
    /// Held while something goes into the spill's hand, or is asked back.
    hand: Mutex<()>,
}

impl LivePath {
    /// `finals`: the names of the final nodes.
    pub(crate) fn new(shared: Arc<Shared>, epoch: u32, partitions: u16, finals: &[String]) -> LivePath {
        let owners = pool::assign(partitions, finals, &vec![true; finals.len()]);
        let named = |owner: Option<usize>| owner.map(|owner| format!("{AGGREGATE}:{}", finals[owner]));
        let of_store = |store: &node::Store| {
            let name = store.name.clone();
            let sender = move |sender: &StoreSender| (format!("{name}/{}", sender.status().addr), sender.clone());
            store.senders.iter().map(sender).collect::<Vec<_>>()
        };
        LivePath {
            senders: shared.stores.iter().flat_map(of_store).collect(),
            owners: owners.into_iter().map(named).collect(),
            hand: Mutex::new(()),
            epoch,
            shared,
        }
    }

    fn sender(&self, destination: &str) -> Option<&StoreSender> {
        self.senders.iter().find(|(name, _)| name == destination).map(|(_, sender)| sender)
    }

    /// The destination of a batch: the final node that owns all of its partitions, if there is one.
    fn destination(&self, batch: &Batch) -> String {
        let owner = |partition: u16| self.owners.get(usize::from(partition)).and_then(Option::as_ref);
        let mut owners = batch.header().claims.iter().map(|claim| owner(claim.partition));
        let first = owners.next().flatten();
        first.filter(|first| owners.all(|owner| owner == Some(*first))).cloned().unwrap_or_else(|| AGGREGATE.to_owned())
    }
}

impl Live for LivePath {
    fn due(&self, now: Mono, max_bytes: u64, is_current: &dyn Fn() -> bool) -> Vec<Due> {
        let _hand = locked(&self.hand);
        if !is_current() {
            return Vec::new();
        }
        let batches = self.shared.machine().next_due(now, max_bytes);
        let of_batch = |due: engine::relay::Due| Due {
            destination: self.destination(&due.batch),
            why: due.why,
            content: Content::Batch(due.batch),
        };
        let mut due: Vec<Due> = batches.into_iter().map(of_batch).collect();
        let bytes = |due: &Due| match &due.content {
            Content::Batch(batch) => batch.bytes().len() as u64,
            Content::Block { lines, .. } => lines.len() as u64,
        };
        let mut left = max_bytes.saturating_sub(due.iter().map(bytes).sum());
        for (destination, sender) in &self.senders {
            if left == 0 {
                break;
            }
            for block in sender.take_due(now, left) {
                left = left.saturating_sub(block.block.bytes.len() as u64);
                let content =
                    Content::Block { lines: block.block.bytes, points: block.block.points, number: block.number };
                due.push(Due { destination: destination.clone(), why: block.why, content });
            }
        }
        due
    }

    fn spilled(&self, now: Mono, told: &Told, ticket: Ticket) -> bool {
        match told {
            Told::Batch(id) => self.shared.machine().spilled(now, *id, ticket),
            Told::Block { destination, number } => {
                if let Some(sender) = self.sender(destination) {
                    sender.spilled(*number);
                }
                true
            }
            Told::Journalled { destination, number } => {
                self.sender(destination).is_none_or(|sender| sender.journalled(*number, ticket))
            }
        }
    }

    fn settled(&self) -> Vec<Ticket> {
        let mut settled = self.shared.machine().take_settled();
        settled.extend(self.senders.iter().flat_map(|(_, sender)| sender.take_settled()));
        settled
    }

    fn dead(&self) -> Vec<(Batch, &'static str)> {
        let dead: Vec<(Batch, Drop)> = self.shared.machine().take_dead();
        dead.into_iter().map(|(batch, why)| (batch, why.as_str())).collect()
    }

    fn holds(&self, origin: Origin<'_>) -> bool {
        match origin.content {
            spill::Content::Batch(id) => self.shared.machine().holds(id),
            spill::Content::Block { epoch, number } => {
                let may_be = epoch == self.epoch && origin.why == Why::Journal;
                may_be && self.sender(origin.destination).is_some_and(|sender| sender.holds(number))
            }
        }
    }

    fn restarted(&self, now: Mono) {
        let _hand = locked(&self.hand);
        self.shared.machine().spill_restarted(now);
        self.senders.iter().for_each(|(_, sender)| sender.spill_restarted());
        self.shared.wake_links();
    }

    fn set_able(&self, now: Mono, able: bool) {
        self.shared.machine().set_spill(now, able);
        self.senders.iter().for_each(|(_, sender)| sender.set_spill(able));
        self.shared.wake_links();
    }

    fn set_spilled(&self, oldest_epoch: Option<u32>, oldest: Option<UnixSeconds>) {
        self.shared.machine().set_spilled(oldest_epoch, oldest);
    }

    fn moving(&self) -> RwLockReadGuard<'_, ()> {
        self.shared.moving()
    }
}
