//! Which link gets which batch, and when one is sent again.

use std::time::Duration;

use super::{Link, Peer, PeerPace, PeerView, Relay, Sending, State, len};
use crate::batch::Batch;
use crate::pool;
use crate::time::Mono;
use crate::wire::Class;

/// So often a batch is sent before it may be due for the spill (FAULTS A8); more often only within the time-out.
pub(super) const ATTEMPTS_MAX: u32 = 3;

impl Relay {
    /// A link said hello and was welcome.
    pub fn link_up(&mut self, now: Mono, peer: Peer, window_bytes: u64) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link { up: true, window_bytes, ..Link::default() };
        }
        self.assign_slots(now);
    }

    /// A link is gone: whatever was on its way over it is doubtful and goes again.
    pub fn link_down(&mut self, now: Mono, peer: Peer) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link::default();
        }
        self.streams.forget(peer);
        self.assign_slots(now);
        for (&seq, held) in &mut self.held {
            if matches!(held.state, State::Sent { peer: to, .. } if to == peer) {
                held.state = State::Waiting { after: now, avoid: Some(peer) };
                if !mutant!("link_loss_forgets") {
                    self.waiting.insert(seq);
                }
            }
        }
    }

    /// The peer takes no new batches; what is on its way to it may still become durable.
    pub fn peer_draining(&mut self, now: Mono, peer: Peer) {
        // Of a link that is down it would be said of the next one.
        if let Some(link) = self.links.get_mut(peer).filter(|link| link.up) {
            link.draining = true;
        }
        self.assign_slots(now);
    }

    /// Which peers may get work, as long as [`super::Settings::peers`]. All, before this is said for the first time. What
    /// is on its way to one that may not any more may still become durable.
    pub fn set_eligible(&mut self, now: Mono, eligible: &[bool]) {
        self.eligible = eligible.to_vec();
        self.assign_slots(now);
    }

    /// How fast each peer was since this was asked last.
    pub fn take_pace(&mut self) -> Vec<PeerPace> {
        let take = |link: &mut Link| {
            let (sum, count) = std::mem::take(&mut link.answered);
            let queue_delay = Duration::from_millis(u64::from(link.queue_delay_ms));
            PeerPace { took: sum.checked_div(count), queue_delay }
        };
        self.links.iter_mut().map(take).collect()
    }

    fn takes_work(&self, peer: Peer) -> bool {
        self.links.get(peer).is_some_and(|link| link.up && !link.draining)
            && self.eligible.get(peer).copied().unwrap_or(false)
    }

    pub(super) fn assign_slots(&mut self, now: Mono) {
        let disowned = self.disowned.is_some();
        let eligible: Vec<bool> = (0..self.links.len()).map(|peer| !disowned && self.takes_work(peer)).collect();
        if eligible.contains(&true) {
            self.nobody_since = None;
        } else {
            self.nobody_since.get_or_insert(now);
        }
        self.slots = pool::assign(self.settings.partitions, &self.settings.peers, &eligible);
    }

    /// The next batch to write to `peer`, oldest first, within its window. It counts as sent from now on.
    pub fn next_for(&mut self, now: Mono, peer: Peer) -> Option<Sending> {
        let link = self.links.get(peer)?;
        if self.draining || !link.up || link.draining || link.out_bytes >= link.window_bytes {
            return None;
        }
        let room = link.window_bytes - link.out_bytes;
        let empty = link.out_bytes == 0;
        let seq = *self.waiting.iter().find(|seq| self.may_go(now, **seq, peer, room, empty))?;
        let held = self.held.get_mut(&seq)?;
        self.waiting.remove(&seq);
        held.state = State::Sent { peer, at: now };
        let size = len(&held.batch);
        let attempt = held.sends > 0;
        held.sends += 1;
        if attempt {
            self.budget.settle(now);
            self.budget.spend(size);
            self.resent += 1;
        } else {
            self.budget.earn(size);
        }
        let link = self.links.get_mut(peer)?;
        link.out_bytes += size;
        link.out_points += u64::from(held.batch.header().points);
        Some(Sending { batch: held.batch.clone(), attempt, class: Class::Live })
    }

    fn may_go(&self, now: Mono, seq: u32, peer: Peer, room: u64, link_is_empty: bool) -> bool {
        let Some(held) = self.held.get(&seq) else { return false };
        let State::Waiting { after, avoid } = held.state else { return false };
        if now < after || self.target(&held.batch, avoid) != Some(peer) {
            return false;
        }
        // A batch larger than the window goes alone: else it would wait for ever.
        if len(&held.batch) > room && !link_is_empty {
            return false;
        }
        let is_for_the_spill = self.spill_able && self.is_given_up(now, held);
        held.sends == 0 || (!is_for_the_spill && self.budget.allows(now, len(&held.batch)))
    }

    /// The slot of a batch's first partition decides, unless that is the one to avoid and there is another.
    fn target(&self, batch: &Batch, avoid: Option<Peer>) -> Option<Peer> {
        let slot = batch.header().claims.first()?.partition;
        let chosen = (*self.slots.get(usize::from(slot))?)?;
        if Some(chosen) != avoid {
            return Some(chosen);
        }
        let members: Vec<Peer> =
            (0..self.links.len()).filter(|&peer| self.takes_work(peer) && Some(peer) != avoid).collect();
        pool::preference(slot, &self.settings.peers, &members).first().copied().or(Some(chosen))
    }

    /// What was sent and is late waits to be sent again.
    pub(super) fn find_late(&mut self, now: Mono) {
        let timeout = self.settings.ack_timeout;
        let late: Vec<(u32, Peer)> = self
            .held
            .iter()
            .filter_map(|(seq, held)| match held.state {
                State::Sent { peer, at } if self.streams.is_late(now, peer, &held.batch, at, timeout) => {
                    Some((*seq, peer))
                }
                State::Sent { .. } | State::Waiting { .. } | State::Spilling => None,
            })
            .collect();
        for (seq, peer) in late {
            self.wait_again(seq, now, peer);
        }
    }

    pub(super) fn wait_again(&mut self, seq: u32, after: Mono, avoid: Peer) {
        self.take_off_link(seq);
        if let Some(held) = self.held.get_mut(&seq)
            && held.state != State::Spilling
        {
            held.state = State::Waiting { after, avoid: Some(avoid) };
            self.waiting.insert(seq);
        }
    }

    /// Its link may send others in its place.
    pub(super) fn take_off_link(&mut self, seq: u32) {
        if let Some(held) = self.held.get(&seq)
            && let State::Sent { peer, .. } = held.state
            && let Some(link) = self.links.get_mut(peer)
        {
            link.out_bytes = link.out_bytes.saturating_sub(len(&held.batch));
            link.out_points = link.out_points.saturating_sub(u64::from(held.batch.header().points));
        }
    }

    /// How each peer does, as long as [`super::Settings::peers`].
    pub fn peers(&self) -> Vec<PeerView> {
        (0..self.links.len())
            .map(|peer| {
                let link = &self.links[peer];
                let oldest = self
                    .held
                    .values()
                    .filter_map(|held| match held.state {
                        State::Sent { peer: to, at } if to == peer => Some(at),
                        State::Sent { .. } | State::Waiting { .. } | State::Spilling => None,
                    })
                    .min();
                PeerView {
                    up: link.up,
                    draining: link.draining,
                    in_flight_points: link.out_points,
                    in_flight_bytes: link.out_bytes,
                    window_bytes: link.window_bytes,
                    queue_delay_ms: link.queue_delay_ms,
                    oldest,
                }
            })
            .collect()
    }
}
