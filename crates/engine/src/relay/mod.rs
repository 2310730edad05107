//! The relay's side of the acknowledged links: what was sealed stays here until it is durable at the final layer.
//!
//! One batch is in one of these states, and the books ([`Relay::books`]) name them:
//!
//! ```text
//!            seal                offer to a link             Durable
//!   (lane) -------> Waiting ------------------------> Sent ----------> gone: delivered
//!                      ^                                |
//!                      | time-out, link down, Nack      | Nack for good: dropped{reason}
//!                      +--------------------------------+ over `retain` and nothing moves: dropped{retain_full}
//! ```
//!
//! * A batch is forgotten only when it is `Durable`, or counted as dropped (INV-2). The spill joins these with the
//!   disk; until then the oldest is dropped at the bound, and only while no peer makes progress: as long as one does,
//!   [`Relay::accepts`] is false and the clients wait.
//! * A re-send carries `attempt`, goes to another peer if there is one, and is paid from a retry budget: 10 % of the
//!   bytes sent first, at least 1 MiB/s so that an outage's tail drains when fresh traffic is low, saved up to 32 MiB
//!   so that losing one peer of several costs no delay (FAULTS A8).
//! * The state outlives the worker that drives it. After a panic inside, [`Relay::recover`] takes everything that was
//!   on its way as doubtful and sends it again: identities make that harmless.

mod books;
mod budget;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::batch::{Batch, BatchId, Builder, Claim, Incarnation, Versions};
use crate::pool;
use crate::time::{Mono, UnixSeconds};
use crate::wire::{Class, Durable, NackReason, Watermark};
pub use books::{Books, Drop};
use budget::RetryBudget;

/// Names and bounds of one relay.
#[derive(Clone, Debug)]
pub struct Settings {
    pub incarnation: Incarnation,
    pub versions: Versions,
    pub partitions: u16,
    /// The nodes that take batches: the partial layer, or the final one where there is no partial.
    pub peers: Vec<String>,
    pub ack_timeout: Duration,
    pub retain_bytes: u64,
}

/// How long after its start a relay retires the epochs before its own.
const RETIRE_AFTER: Duration = Duration::from_secs(60);

/// Index into [`Settings::peers`].
pub type Peer = usize;

/// How one link does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    pub up: bool,
    pub draining: bool,
    pub in_flight_points: u64,
    pub in_flight_bytes: u64,
    pub window_bytes: u64,
    pub queue_delay_ms: u32,
    pub oldest: Option<Mono>,
}

/// What a link writes next.
#[derive(Clone, Debug)]
pub struct Sending {
    pub batch: Batch,
    pub attempt: bool,
    pub class: Class,
}

#[derive(Debug)]
struct Held {
    batch: Batch,
    sealed_at: Mono,
    state: State,
    attempt: bool,
    checksum_failures: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not before `after`; not to `avoid` if there is another.
    Waiting {
        after: Mono,
        avoid: Option<Peer>,
    },
    Sent {
        peer: Peer,
        at: Mono,
    },
}

#[derive(Clone, Debug, Default)]
struct Link {
    up: bool,
    draining: bool,
    window_bytes: u64,
    out_bytes: u64,
    out_points: u64,
    queue_delay_ms: u32,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    next_seq: u32,
    /// For each partition, the first number that no batch of it has claimed.
    claims: Vec<u32>,
    held: BTreeMap<u32, Held>,
    /// Numbers of held batches that wait, so that a link need not look through all.
    waiting: BTreeSet<u32>,
    held_bytes: u64,
    links: Vec<Link>,
    slots: Vec<Option<Peer>>,
    budget: RetryBudget,
    last_progress: Mono,
    started: Mono,
    books: Books,
    resent: u64,
}

impl Relay {
    /// An empty machine; no link is up.
    pub fn new(settings: Settings, now: Mono) -> Relay {
        let peers = settings.peers.len();
        let slots = vec![None; usize::from(settings.partitions)];
        Relay {
            next_seq: 0,
            claims: vec![0; usize::from(settings.partitions)],
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            held_bytes: 0,
            links: vec![Link::default(); peers],
            slots,
            budget: RetryBudget::new(now),
            last_progress: now,
            started: now,
            books: Books::default(),
            resent: 0,
            settings,
        }
    }

    /// Takes an open batch over, gives it its identity and keeps it until it is durable. From here on its points are
    /// owed. An empty one is ignored.
    pub fn seal(&mut self, now: Mono, builder: Builder) -> Option<BatchId> {
        if builder.points() == 0 {
            return None;
        }
        let seq = self.next_seq;
        let claims: Vec<Claim> = builder
            .partitions()
            .iter()
            .map(|partition| Claim { partition, from: self.claims.get(usize::from(partition)).copied().unwrap_or(0) })
            .collect();
        let batch = builder.seal(self.settings.incarnation, seq, self.settings.versions, &claims);
        self.next_seq += 1;
        for claim in &claims {
            if let Some(from) = self.claims.get_mut(usize::from(claim.partition)) {
                *from = seq + 1;
            }
        }
        let id = batch.id();
        self.books.owed += u64::from(batch.header().points);
        self.books.in_flight += u64::from(batch.header().points);
        self.held_bytes += len(&batch);
        let state = State::Waiting { after: Mono::ZERO, avoid: None };
        self.held.insert(seq, Held { batch, sealed_at: now, state, attempt: false, checksum_failures: 0 });
        self.waiting.insert(seq);
        self.make_room(now);
        Some(id)
    }

    /// Whether more may be sealed without dropping. False means: let the clients wait.
    pub fn accepts(&self, now: Mono) -> bool {
        self.held_bytes < self.settings.retain_bytes || self.stuck(now)
    }

    /// No peer has acknowledged anything for as long as an acknowledgement may take.
    fn stuck(&self, now: Mono) -> bool {
        !self.held.is_empty() && now.since(self.last_progress) > self.settings.ack_timeout
    }

    fn make_room(&mut self, now: Mono) {
        while self.held_bytes > self.settings.retain_bytes && self.stuck(now) {
            let Some(&oldest) = self.held.keys().next() else { return };
            self.give_up(oldest, Drop::RetainFull);
        }
    }

    /// A link said hello and was welcome.
    pub fn link_up(&mut self, peer: Peer, window_bytes: u64) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link { up: true, window_bytes, ..Link::default() };
        }
        self.assign_slots();
    }

    /// A link is gone: whatever was on its way over it is doubtful and goes again.
    pub fn link_down(&mut self, now: Mono, peer: Peer) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link::default();
        }
        self.assign_slots();
        for (&seq, held) in &mut self.held {
            if matches!(held.state, State::Sent { peer: to, .. } if to == peer) {
                held.state = State::Waiting { after: now, avoid: Some(peer) };
                held.attempt = true;
                self.waiting.insert(seq);
            }
        }
    }

    /// The peer takes no new batches; what is on its way to it may still become durable.
    pub fn peer_draining(&mut self, peer: Peer) {
        if let Some(link) = self.links.get_mut(peer) {
            link.draining = true;
        }
        self.assign_slots();
    }

    fn assign_slots(&mut self) {
        let eligible: Vec<bool> = self.links.iter().map(|link| link.up && !link.draining).collect();
        self.slots = pool::assign(self.settings.partitions, &self.settings.peers, &eligible);
    }

    /// The next batch to write to `peer`, oldest first, within its window. It counts as sent from now on.
    pub fn next_for(&mut self, now: Mono, peer: Peer) -> Option<Sending> {
        let link = self.links.get(peer)?;
        if !link.up || link.draining || link.out_bytes >= link.window_bytes {
            return None;
        }
        let room = link.window_bytes - link.out_bytes;
        let empty = link.out_bytes == 0;
        let seq = *self.waiting.iter().find(|seq| self.may_go(now, **seq, peer, room, empty))?;
        let held = self.held.get_mut(&seq)?;
        self.waiting.remove(&seq);
        held.state = State::Sent { peer, at: now };
        let size = len(&held.batch);
        if held.attempt {
            self.budget.settle(now);
            self.budget.spend(size);
            self.resent += 1;
        } else {
            self.budget.earn(size);
        }
        let link = self.links.get_mut(peer)?;
        link.out_bytes += size;
        link.out_points += u64::from(held.batch.header().points);
        Some(Sending { batch: held.batch.clone(), attempt: held.attempt, class: Class::Live })
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
        !held.attempt || self.budget.allows(now, len(&held.batch))
    }

    /// The slot of a batch's first partition decides, unless that is the one to avoid and there is another.
    fn target(&self, batch: &Batch, avoid: Option<Peer>) -> Option<Peer> {
        let slot = batch.header().claims.first()?.partition;
        let chosen = (*self.slots.get(usize::from(slot))?)?;
        if Some(chosen) != avoid {
            return Some(chosen);
        }
        let members: Vec<Peer> = (0..self.links.len())
            .filter(|&peer| self.links[peer].up && !self.links[peer].draining && Some(peer) != avoid)
            .collect();
        pool::preference(slot, &self.settings.peers, &members).first().copied().or(Some(chosen))
    }

    /// Batches are safe at the final layer: they are forgotten here, whoever says so.
    pub fn durable(&mut self, now: Mono, peer: Peer, durable: &Durable) {
        if let Some(link) = self.links.get_mut(peer) {
            link.window_bytes = durable.window_bytes;
            link.queue_delay_ms = durable.queue_delay_ms;
        }
        let me = self.settings.incarnation;
        for range in &durable.ranges {
            if range.sender != me.sender || range.epoch != me.epoch {
                continue;
            }
            let done: Vec<u32> = self.held.range(range.first..=range.last).map(|(seq, _)| *seq).collect();
            for seq in done {
                if let Some(held) = self.release(seq) {
                    self.books.delivered += u64::from(held.batch.header().points);
                    self.last_progress = now;
                }
            }
        }
    }

    /// One batch was not taken.
    pub fn nack(&mut self, now: Mono, peer: Peer, id: BatchId, reason: NackReason) {
        let me = self.settings.incarnation;
        if id.sender != me.sender || id.epoch != me.epoch {
            return;
        }
        match reason {
            NackReason::Overloaded { retry_after_ms } => {
                self.wait_again(id.seq, now + Duration::from_millis(u64::from(retry_after_ms)), peer);
            }
            NackReason::TooManyHoles => self.wait_again(id.seq, now + self.settings.ack_timeout, peer),
            NackReason::BadChecksum => {
                let failures = self.held.get_mut(&id.seq).map(|held| {
                    held.checksum_failures += 1;
                    held.checksum_failures
                });
                if failures.is_some_and(|n| n > 1) {
                    self.give_up(id.seq, Drop::BadChecksum);
                } else {
                    self.wait_again(id.seq, now, peer);
                }
            }
            NackReason::TooOld => self.give_up(id.seq, Drop::TooOld),
            NackReason::UnknownVersion => self.give_up(id.seq, Drop::UnknownVersion),
            NackReason::Poison => self.give_up(id.seq, Drop::Poison),
            NackReason::DuplicateSender | NackReason::Retired { .. } => self.give_up(id.seq, Drop::DuplicateSender),
        }
    }

    /// To be called a few times a second: what was not acknowledged in time goes again.
    pub fn tick(&mut self, now: Mono) {
        let late: Vec<(u32, Peer)> = self
            .held
            .iter()
            .filter_map(|(seq, held)| match held.state {
                State::Sent { peer, at } if now.since(at) > self.settings.ack_timeout => Some((*seq, peer)),
                State::Sent { .. } | State::Waiting { .. } => None,
            })
            .collect();
        for (seq, peer) in late {
            self.wait_again(seq, now, peer);
        }
        if self.held.is_empty() {
            self.last_progress = now;
        }
        self.make_room(now);
    }

    fn wait_again(&mut self, seq: u32, after: Mono, avoid: Peer) {
        let Some(held) = self.held.get_mut(&seq) else { return };
        let size = len(&held.batch);
        let points = u64::from(held.batch.header().points);
        if let State::Sent { peer, .. } = held.state
            && let Some(link) = self.links.get_mut(peer)
        {
            link.out_bytes = link.out_bytes.saturating_sub(size);
            link.out_points = link.out_points.saturating_sub(points);
        }
        held.state = State::Waiting { after, avoid: Some(avoid) };
        held.attempt = true;
        self.waiting.insert(seq);
    }

    fn release(&mut self, seq: u32) -> Option<Held> {
        let held = self.held.remove(&seq)?;
        self.waiting.remove(&seq);
        let size = len(&held.batch);
        let points = u64::from(held.batch.header().points);
        self.held_bytes -= size;
        self.books.in_flight -= points;
        if let State::Sent { peer, .. } = held.state
            && let Some(link) = self.links.get_mut(peer)
        {
            link.out_bytes = link.out_bytes.saturating_sub(size);
            link.out_points = link.out_points.saturating_sub(points);
        }
        Some(held)
    }

    fn give_up(&mut self, seq: u32, why: Drop) {
        if let Some(held) = self.release(seq) {
            *self.books.dropped.entry(why).or_default() += u64::from(held.batch.header().points);
        }
    }

    /// Puts the machine right after a panic inside it: everything held is doubtful and waits, no link is up, the books
    /// are counted anew from what is held. What was delivered or dropped stays as it was counted; a batch between two
    /// states is settled in favour of sending it again.
    pub fn recover(&mut self, now: Mono) {
        self.held_bytes = 0;
        self.books.in_flight = 0;
        self.waiting.clear();
        for (&seq, held) in &mut self.held {
            held.state = State::Waiting { after: now, avoid: None };
            held.attempt = true;
            self.held_bytes += len(&held.batch);
            self.books.in_flight += u64::from(held.batch.header().points);
            self.waiting.insert(seq);
        }
        let out: u64 = self.books.dropped.values().sum::<u64>() + self.books.in_flight;
        self.books.delivered = self.books.owed.saturating_sub(out);
        self.links.iter_mut().for_each(|link| *link = Link::default());
        self.assign_slots();
    }

    /// "I hold nothing older than this back", as far as batches go. `else_at`: what to say when nothing is held.
    pub fn watermark(&self, now: Mono, open_min: Option<UnixSeconds>, else_at: UnixSeconds) -> Watermark {
        let held = self.held.values().map(|held| held.batch.header().min_ts).min();
        let at = [held, open_min].into_iter().flatten().fold(else_at, UnixSeconds::min);
        let oldest = self.held.values().next().map_or(0, |held| now.since(held.sealed_at).as_millis());
        let me = self.settings.incarnation;
        let oldest_ms = u32::try_from(oldest).unwrap_or(u32::MAX);
        // Without a spill nothing of an older epoch can still come from here; what a partial node took of it before
        // this process started gets a minute to arrive.
        let retired = if now.since(self.started) > RETIRE_AFTER { me.epoch.saturating_sub(1) } else { 0 };
        Watermark { sender: me.sender, epoch: me.epoch, at, oldest_ms, retired }
    }

    /// The books.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Bytes and batches held.
    pub fn held(&self) -> (u64, usize) {
        (self.held_bytes, self.held.len())
    }

    /// Batches that were sent more than once, counted once a re-send.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// How each peer does, as long as [`Settings::peers`].
    pub fn peers(&self) -> Vec<PeerView> {
        (0..self.links.len())
            .map(|peer| {
                let link = &self.links[peer];
                let oldest = self
                    .held
                    .values()
                    .filter_map(|held| match held.state {
                        State::Sent { peer: to, at } if to == peer => Some(at),
                        State::Sent { .. } | State::Waiting { .. } => None,
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

fn len(batch: &Batch) -> u64 {
    batch.bytes().len() as u64
}

#[cfg(test)]
mod tests;
