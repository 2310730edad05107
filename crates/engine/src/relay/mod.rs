//! The relay's side of the acknowledged links: what was sealed stays here until it is durable at the final layer, or on
//! disk.
//!
//! One batch is in one of these states, and the books ([`Relay::books`]) name them:
//!
//! ```text
//!            seal                offer to a link             Durable
//!   (lane) -------> Waiting ------------------------> Sent ----------> gone: delivered
//!                    |  ^                              | |
//!                    |  | late, link down, Nack        | | Nack for good: dropped{reason}, and to the dead letters
//!                    |  +------------------------------+ +---------->
//!                    |                                 |
//!                    +---- due for the spill ----> Spilling --------> gone: spilled
//!                                                            synced
//! ```
//!
//! * A batch is forgotten only when it is `Durable`, on disk and synced, or counted as dropped (INV-2). What is due for
//!   the disk stands in `due`. While the spill can take nothing, the oldest is dropped at `retain`, and only while no
//!   peer makes progress: as long as one does, [`Relay::accepts`] is false and the clients wait.
//! * A re-send goes to another peer if there is one, and is paid from a retry budget: 10 % of the bytes sent first, at
//!   least 1 MiB/s so that an outage's tail drains when fresh traffic is low, saved up to 32 MiB so that losing one peer
//!   of several costs no delay (FAULTS A8). What is sent again because it is late: see `streams`.
//! * The state outlives the worker that drives it. After a panic inside, [`Relay::recover`] takes everything that was
//!   on its way as doubtful and sends it again: identities make that harmless.

mod answers;
mod books;
mod budget;
mod canary;
mod due;
mod latency;
mod links;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::batch::{Batch, BatchId, Builder, Claim, Incarnation, Versions};
use crate::time::{Mono, UnixSeconds};
use crate::wire::{Class, Ticket, Watermark};
pub use books::{Books, Drop};
use budget::RetryBudget;
use canary::Canaries;
pub use canary::Canary;
pub use due::Due;
pub use latency::Latency;
use streams::Streams;

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
    /// Every batch goes to disk when it is sealed.
    pub journal: bool,
}

/// How long after its start a relay retires the epochs before its own.
const RETIRE_AFTER: Duration = Duration::from_secs(60);
/// Above `retain` by this share of it clients wait for the spill: 1/8.
const SLACK_SHARE: u64 = 8;

/// Index into [`Settings::peers`].
pub type Peer = usize;

/// The final layer takes nothing of this incarnation any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disowned {
    /// It knows this epoch with another nonce.
    Duplicate,
    /// Another node has retired the epochs up to `floor`, this one among them.
    Retired { floor: u32 },
    /// An operator has forgotten this relay.
    Forgotten,
}

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

/// How fast one peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerPace {
    /// From sending to the answer, on average; `None`: nothing was answered.
    pub took: Option<Duration>,
    /// As it said last.
    pub queue_delay: Duration,
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
    journal: Journal,
    /// How often it was sent.
    sends: u32,
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
    /// The spill has it in hand.
    Spilling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journal {
    /// It is not journalled.
    No,
    Due,
    InHand,
    Done(Ticket),
}

#[derive(Clone, Debug, Default)]
struct Link {
    up: bool,
    draining: bool,
    window_bytes: u64,
    out_bytes: u64,
    out_points: u64,
    queue_delay_ms: u32,
    /// How long answers took since this was asked last: sum and number.
    answered: (Duration, u32),
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
    /// Which peers may get work; who decides is `health`.
    eligible: Vec<bool>,
    canaries: Canaries,
    slots: Vec<Option<Peer>>,
    streams: Streams,
    budget: RetryBudget,
    last_progress: Mono,
    started: Mono,
    /// Since when no link takes batches.
    nobody_since: Option<Mono>,
    disowned: Option<Disowned>,
    spill_able: bool,
    draining: bool,
    /// Oldest epoch and oldest point of this sender in the spill; `None`: not told yet.
    in_spill: Option<(Option<u32>, Option<UnixSeconds>)>,
    /// Of `held_bytes`, what the spill has in hand.
    spilling_bytes: u64,
    /// Numbers of held batches that the journal has not taken yet.
    unjournalled: BTreeSet<u32>,
    /// What the spill answers for, for a late `Durable`: ticket and points.
    handed_over: BTreeMap<u32, (Ticket, u32)>,
    /// Points of what left while the spill had it in hand.
    written_for_nothing: BTreeMap<u32, u32>,
    settled: Vec<Ticket>,
    dead: Vec<(Batch, Drop)>,
    dead_bytes: u64,
    books: Books,
    resent: u64,
    latency: Latency,
}

impl Relay {
    /// An empty machine; no link is up, and the spill can take nothing yet.
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
            eligible: vec![true; peers],
            canaries: Canaries::default(),
            slots,
            streams: Streams::default(),
            budget: RetryBudget::new(now),
            last_progress: now,
            started: now,
            nobody_since: Some(now),
            disowned: None,
            spill_able: false,
            draining: false,
            in_spill: None,
            spilling_bytes: 0,
            unjournalled: BTreeSet::new(),
            handed_over: BTreeMap::new(),
            written_for_nothing: BTreeMap::new(),
            settled: Vec::new(),
            dead: Vec::new(),
            dead_bytes: 0,
            books: Books::default(),
            resent: 0,
            latency: Latency::new(),
            settings,
        }
    }

    /// Takes an open batch over, gives it its identity and keeps it until it is durable or on disk. From here on its
    /// points are owed. An empty one is ignored.
    pub fn seal(&mut self, now: Mono, builder: Builder) -> Option<BatchId> {
        if builder.points() == 0 {
            return None;
        }
        let seq = self.next_seq;
        let claims: Vec<Claim> = builder
            .partitions()
            .iter()
            .map(|partition| Claim {
                partition,
                from: self
                    .claims
                    .get(usize::from(partition))
                    .copied()
                    .filter(|_| !mutant!("claims_too_much"))
                    .unwrap_or(0),
            })
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
        let journal = if self.settings.journal { Journal::Due } else { Journal::No };
        self.held.insert(seq, Held { batch, sealed_at: now, state, journal, sends: 0, checksum_failures: 0 });
        self.waiting.insert(seq);
        if self.settings.journal {
            self.unjournalled.insert(seq);
        }
        self.make_room(now);
        Some(id)
    }

    /// Whether more may be sealed without dropping. False means: let the clients wait, for the spill where it is able,
    /// else for a peer.
    ///
    /// Once disowned it accepts nothing any more: every further batch would be refused.
    pub fn accepts(&self, now: Mono) -> bool {
        let retain = self.settings.retain_bytes;
        if self.disowned.is_some() {
            false
        } else if self.spill_able {
            self.held_bytes < retain.saturating_add(retain / SLACK_SHARE)
        } else {
            self.held_bytes < retain || self.stuck(now)
        }
    }

    /// No peer has acknowledged anything for as long as an acknowledgement may take.
    fn stuck(&self, now: Mono) -> bool {
        !self.held.is_empty() && now.since(self.last_progress) > self.settings.ack_timeout
    }

    fn make_room(&mut self, now: Mono) {
        while !self.spill_able && self.held_bytes > self.settings.retain_bytes && self.stuck(now) {
            let Some((&oldest, held)) = self.held.iter().next() else { return };
            match held.journal {
                Journal::Done(ticket) => self.hand_over(oldest, ticket),
                Journal::No | Journal::Due | Journal::InHand => {
                    let was_sent = held.sends > 0;
                    self.give_up(oldest, if was_sent { Drop::SpillFullUnanswered } else { Drop::SpillFull });
                }
            }
        }
    }

    /// To be called a few times a second: what was not acknowledged in time goes again.
    pub fn tick(&mut self, now: Mono) {
        self.find_late(now);
        if self.held.is_empty() {
            self.last_progress = now;
        }
        self.let_go(now);
        self.make_room(now);
    }

    /// Takes a batch out, whatever becomes of it.
    fn release(&mut self, seq: u32) -> Option<Held> {
        self.take_off_link(seq);
        let held = self.held.remove(&seq)?;
        self.waiting.remove(&seq);
        self.unjournalled.remove(&seq);
        self.held_bytes -= len(&held.batch);
        if held.state == State::Spilling {
            self.spilling_bytes -= len(&held.batch);
        }
        self.books.in_flight -= u64::from(held.batch.header().points);
        Some(held)
    }

    fn give_up(&mut self, seq: u32, why: Drop) -> Option<Batch> {
        let held = self.close(seq)?;
        *self.books.dropped.entry(why).or_default() += u64::from(held.batch.header().points);
        Some(held.batch)
    }

    /// Puts the machine right after a panic inside it: everything held is doubtful and waits, no link is up, the books
    /// are counted anew from what is held. What was delivered, spilled or dropped stays as it was counted; a batch
    /// between two states is settled in favour of sending it again.
    pub fn recover(&mut self, now: Mono) {
        self.held_bytes = 0;
        self.books.in_flight = 0;
        self.books.journalled = 0;
        self.waiting.clear();
        self.unjournalled.clear();
        if mutant!("recover_forgets") {
            self.held.clear();
        }
        for (&seq, held) in &mut self.held {
            held.state = State::Waiting { after: now, avoid: None };
            held.sends = held.sends.max(1);
            self.held_bytes += len(&held.batch);
            let points = u64::from(held.batch.header().points);
            self.books.in_flight += points;
            self.waiting.insert(seq);
            match held.journal {
                Journal::No => {}
                Journal::Done(_) => self.books.journalled += points,
                Journal::Due | Journal::InHand => {
                    held.journal = Journal::Due;
                    self.unjournalled.insert(seq);
                }
            }
        }
        self.spilling_bytes = 0;
        let out = self.books.dropped.values().sum::<u64>() + self.books.in_flight + self.books.spilled;
        self.books.delivered = self.books.owed.saturating_sub(out);
        self.links.iter_mut().for_each(|link| *link = Link::default());
        self.canaries.forget_all();
        self.streams = Streams::default();
        self.assign_slots(now);
    }

    /// "I hold nothing older than this back", in memory or on disk. `else_at`: what to say when nothing is held.
    pub fn watermark(&self, now: Mono, open_min: Option<UnixSeconds>, else_at: UnixSeconds) -> Watermark {
        let held = self.held.values().map(|held| held.batch.header().min_ts).min();
        let me = self.settings.incarnation;
        // Until the spill has said what it holds, it may hold anything.
        let (spilled_epoch, spilled) = self.in_spill.unwrap_or((Some(0), Some(UnixSeconds(0))));
        let at = [held, open_min, spilled].into_iter().flatten().fold(else_at, UnixSeconds::min);
        let oldest = self.held.values().next().map_or(0, |held| now.since(held.sealed_at).as_millis());
        let oldest_ms = u32::try_from(oldest).unwrap_or(u32::MAX);
        // What a partial node took of an older epoch before this process started gets a minute to arrive.
        let is_time = now.since(self.started) > RETIRE_AFTER;
        let kept = spilled_epoch.map_or(me.epoch, |epoch| epoch.min(me.epoch));
        let retired = if is_time { kept.saturating_sub(u32::from(!mutant!("retires_itself"))) } else { 0 };
        Watermark { sender: me.sender, epoch: me.epoch, at, oldest_ms, retired }
    }

    /// The books.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Whether the final layer has refused this incarnation. From then on nothing is sent: what is held goes to the spill,
    /// where it can be looked at and exported. Ends with the process; the next one has an epoch of its own.
    pub fn disowned(&self) -> Option<Disowned> {
        self.disowned
    }

    /// Whether any peer takes batches now.
    pub fn has_peer(&self) -> bool {
        self.nobody_since.is_none()
    }

    /// Whether the spill should look at once: there is more than may be held, or the journal waits.
    pub fn is_pressing(&self) -> bool {
        self.spill_able
            && (!self.unjournalled.is_empty() || self.held_bytes - self.spilling_bytes > self.settings.retain_bytes)
    }

    /// Bytes and batches held.
    pub fn held(&self) -> (u64, usize) {
        (self.held_bytes, self.held.len())
    }

    /// Batches that were sent more than once, counted once a re-send.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// From sealing to `Durable`, over all batches that became durable without the spill.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }
}

fn len(batch: &Batch) -> u64 {
    batch.bytes().len() as u64
}

#[cfg(test)]
mod tests;
