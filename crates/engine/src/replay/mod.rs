//! One replayer: it borrows spilled records of relays, sends them on, and says what became of them.
//!
//! A *source* is a relay; each lane of its spill is a pipeline of its own, so that one dead destination holds up only
//! what is for it. A *receiver* is a node that takes batches; lanes of stores have the address of a store instead.
//!
//! ```text
//!        Leased           next_turn          go               pulled by a link
//! spill -------> Ready --------------> Turn -----> Out ---------------------------> Sent
//!                  ^    (room at a           (the pacer                              |
//!                  |     receiver is          let it go)          Durable, released  |  -> Done Delivered
//!                  |     reserved)                                refused for good   |  -> Done with the reason
//!                  +------- receiver lost, Nack "later" --------- lease ran out -----+  -> Done Released
//! ```
//!
//! * Nothing is `Delivered` but what a receiver called durable or a store's sender released. Whatever was borrowed is
//!   settled or given back within [`LEASE`]; only what a store's sender holds stays until that releases it.
//! * A lane may have its *allowance* on the way: it grows with what is delivered and shrinks to one record when nothing
//!   was, and no lane has more than three quarters of all windows.
//! * Lanes take turns by points; within a lane the oldest goes first.
//! * It may be lost at any time: leases run out, and batches that come again are known by their identity.

mod control;
mod lane;
mod meter;
#[cfg(test)]
mod model;
mod receivers;
mod settle;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

pub use control::{
    Caution, Change, Changed, Control, ONE_SOURCE, Plan, SourceControl, Start, known_sources, unknown_source,
};
use lane::{Asked, Lane};
use receivers::{Receiver, Store};
pub use view::{LaneView, ReceiverView};

use crate::batch::{Batch, BatchId};
use crate::time::{Mono, UnixSeconds};
use crate::wire::{Backlog, LaneBacklog, LeaseEnd, LeaseRequest, Leased, Outcome, Ticket};

/// A record that is not settled so long after it was lent is given back: a relay's lease lasts 30 s.
pub const LEASE: Duration = Duration::from_secs(25);
/// Bytes that one lane may have here and on the way.
const AHEAD_BYTES: u64 = 8 << 20;
/// Bytes that all lanes may have here and on the way.
const HERE_MAX: u64 = 64 << 20;
/// Borrowed ahead: what the rate lets through in so many seconds.
const AHEAD_SECONDS: u64 = 5;
/// A request that is not answered for so long is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A lane that had nothing (new) to lend is asked again after so long.
const REST_EMPTY: Duration = Duration::from_secs(1);

/// Names: what is replayed from where to where.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Relays.
    pub sources: Vec<String>,
    /// Nodes that take batches.
    pub receivers: Vec<String>,
    /// Addresses of stores as lanes call them, `<store>/<host:port>`.
    pub stores: Vec<String>,
}

/// Index into [`Settings::sources`].
pub type Source = usize;
/// A record, for ever: whose, and where it lies there.
pub type Key = (Source, Ticket);

/// Where a record goes: an index into the settings' lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Aggregate,
    Store(usize),
}

/// To whom a record is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Receiver(usize),
    Store(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Turn(To),
    Out(To),
    Sent(To),
}

#[derive(Debug)]
struct Record {
    bytes: Bytes,
    id: Option<BatchId>,
    points: u64,
    lent_until: Mono,
    state: State,
    /// The pacer has let it go once already.
    paid: bool,
    checksum_failures: u8,
}

/// A record whose turn it is: pay for its points, then [`Replay::go`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub key: Key,
    /// To pay for; zero if that was done before.
    pub points: u64,
}

/// Of one lane or of all, in points: `leased = delivered + returned + sum(refused) + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Borrowed; what is borrowed again counts again, what came twice at once counts once.
    pub leased: u64,
    pub delivered: u64,
    /// Given back, or taken back by the end of the link to the relay.
    pub returned: u64,
    pub refused: lane::Refused,
    pub in_flight: u64,
}

#[derive(Debug, Default)]
struct Relay {
    up: bool,
    /// Which life of its process lent what is here.
    life: Option<u32>,
    /// It has said its backlog in this life.
    heard: bool,
    next_at: Mono,
    done: BTreeMap<Outcome, Vec<Ticket>>,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct Replay {
    settings: Settings,
    plan: Plan,
    control: Control,
    rate: u64,
    sources: Vec<Relay>,
    lanes: BTreeMap<(Source, u16), Lane>,
    records: BTreeMap<Key, Record>,
    /// Which records are the batch of that name: usually one.
    by_id: BTreeMap<BatchId, Vec<Key>>,
    receivers: Vec<Receiver>,
    stores: Vec<Store>,
    /// Bytes of all records.
    here: u64,
    ready_points: u64,
    next_number: u64,
    meter: meter::Meter,
}

impl Replay {
    /// Nothing is connected, nothing may go yet.
    pub fn new(settings: Settings, plan: Plan, control: Control) -> Replay {
        Replay {
            sources: settings.sources.iter().map(|_| Relay::default()).collect(),
            receivers: settings.receivers.iter().map(|_| Receiver::default()).collect(),
            stores: settings.stores.iter().map(|_| Store::default()).collect(),
            settings,
            plan,
            control,
            rate: 0,
            lanes: BTreeMap::new(),
            records: BTreeMap::new(),
            by_id: BTreeMap::new(),
            here: 0,
            ready_points: 0,
            next_number: 1,
            meter: meter::Meter::default(),
        }
    }

    /// What is in force.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The operator has changed something.
    pub fn set_control(&mut self, control: Control) {
        let narrower = (self.control.from, self.control.to) != (control.from, control.to)
            || self.control.matching != control.matching;
        self.control = control;
        if narrower {
            // What was lent under the old range and has not gone yet is lent again under the new one.
            self.give_back_ready();
        }
        for (lane, relay) in self.lanes.iter_mut().map(|((source, _), lane)| (lane, *source)) {
            lane.next_at = Mono::ZERO;
            self.sources[relay].next_at = Mono::ZERO;
        }
    }

    /// What the pacer lets through now, points per second; zero: nothing takes its turn, nothing is borrowed.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// So many replayers there are now: each takes its equal share. True if that is news.
    pub fn set_replayers(&mut self, replayers: u64) -> bool {
        std::mem::replace(&mut self.plan.replayers, replayers) != replayers
    }

    /// The cluster file's part, with the replayers there are now.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The link to a relay stands. `life`: the epoch of its process. A ticket is a place in a spill, and a relay that lost
    /// its disk, or got an older one back, gives places out anew: of what another life lent, nothing is said any more.
    pub fn source_up(&mut self, source: Source, life: u32) {
        let before = self.sources.get_mut(source).and_then(|relay| relay.life.replace(life));
        if before.is_some_and(|before| before != life) && !mutant!("life_ignored") {
            self.forget_source(source);
        }
        if let Some(relay) = self.sources.get_mut(source) {
            relay.up = true;
            // The former link's leases are over; what is delivered may still be said.
            relay.done.remove(&Outcome::Released);
        }
        self.forget_requests(source);
    }

    /// The link to a relay is gone, and its leases with it. What is on its way goes on.
    pub fn source_down(&mut self, source: Source) {
        if let Some(relay) = self.sources.get_mut(source) {
            relay.up = false;
        }
        self.forget_requests(source);
        let waiting: Vec<Key> = self
            .records
            .range(keys_of(source))
            .filter(|(_, record)| !matches!(record.state, State::Sent(_)))
            .map(|(key, _)| *key)
            .collect();
        for key in waiting {
            self.settle(key, Outcome::Released);
        }
    }

    fn forget_requests(&mut self, source: Source) {
        for (_, lane) in self.lanes.range_mut((source, 0)..=(source, u16::MAX)) {
            lane.asked = None;
            lane.rest_until = Mono::ZERO;
        }
    }

    /// A relay says what its spill holds. True: that made the replay cautious.
    pub fn backlog(&mut self, source: Source, backlog: Backlog) -> bool {
        let Some(relay) = self.sources.get_mut(source) else { return false };
        let first = !std::mem::replace(&mut relay.heard, true);
        // Lanes that are not named hold nothing any more.
        for (_, lane) in self.lanes.range_mut((source, 0)..=(source, u16::MAX)) {
            lane.backlog = empty(&lane.backlog);
        }
        for said in backlog.lanes {
            let target = self.target(&said.destination);
            match self.lanes.get_mut(&(source, said.lane)) {
                Some(lane) if lane.backlog.destination == said.destination => lane.backlog = said,
                Some(_) | None => {
                    let turn = self.lanes.values().map(|lane| lane.turn).max().unwrap_or_default();
                    let mut lane = Lane::new(said, target);
                    lane.turn = turn;
                    self.lanes.insert((source, lane.backlog.lane), lane);
                }
            }
        }
        let points = self.lanes.values().map(|lane| lane.backlog.points).sum();
        let cautious = first && self.control.found_at_start(&self.plan, points);
        if cautious {
            // Nothing more goes at the old rate; the new one is told at once.
            self.rate = 0;
        }
        cautious
    }

    fn target(&self, destination: &str) -> Option<Target> {
        if destination == "aggregate" || destination.starts_with("aggregate:") {
            return Some(Target::Aggregate);
        }
        self.settings.stores.iter().position(|store| store == destination).map(Target::Store)
    }

    /// What to ask a relay for next.
    pub fn next_request(&mut self, now: Mono, source: Source) -> Option<LeaseRequest> {
        if self.rate == 0 || !self.sources.get(source)?.up || self.control.is_paused() {
            return None;
        }
        let points = self.rate.saturating_mul(AHEAD_SECONDS).saturating_sub(self.ready_points);
        // However slow it goes: one record waits.
        let points = if self.ready_points == 0 { points.max(1) } else { points };
        let asked: u64 = self.lanes.values().filter_map(|lane| lane.asked).map(|asked| asked.bytes).sum();
        let room = HERE_MAX.saturating_sub(self.here + asked);
        if points == 0 || room == 0 {
            return None;
        }
        let lanes = (source, 0)..=(source, u16::MAX);
        let (&(_, number), _) = self.lanes.range(lanes).find(|(_, lane)| self.may_ask(now, source, lane))?;
        let request = self.next_number;
        self.next_number += 1;
        let lane = self.lanes.get_mut(&(source, number))?;
        let bytes = room.min(lane.ahead() - lane.here());
        lane.asked = Some(Asked { number: request, at: now, bytes, new: false });
        Some(LeaseRequest {
            number: request,
            lane: number,
            max_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            max_points: u32::try_from(points).unwrap_or(u32::MAX),
            from: self.control.from.unwrap_or(UnixSeconds(0)),
            to: self.control.to.unwrap_or(UnixSeconds(u32::MAX)),
            matching: self.control.matching.clone(),
        })
    }

    fn may_ask(&self, now: Mono, source: Source, lane: &Lane) -> bool {
        let open = lane.asked.is_none_or(|asked| now.since(asked.at) > ASK_AGAIN);
        // `leased` is what the relay has lent as of its last word, to us and to others.
        let more = lane.backlog.points > 0;
        let wanted = lane.here() == 0 || lane.here() < lane.ahead();
        open && more
            && wanted
            && now >= lane.rest_until
            && self.is_reachable(lane)
            && !self.control.source_paused(&self.settings.sources[source], &lane.backlog.destination)
    }

    /// A relay lent a record.
    pub fn leased(&mut self, now: Mono, source: Source, leased: Leased) {
        let key = (source, leased.ticket);
        let Some(lane) = self.lanes.get_mut(&(source, leased.ticket.lane)) else { return };
        if let Some(record) = self.records.get_mut(&key) {
            // Lent again while it is here: the lease is younger, nothing else changes.
            record.lent_until = now + LEASE;
            return;
        }
        if let Some(asked) = &mut lane.asked {
            asked.new |= asked.number == leased.number;
        }
        let (id, points, readable) = match lane.target {
            Some(Target::Aggregate) => match Batch::decode(leased.bytes.clone()) {
                Ok(batch) => (Some(batch.id()), u64::from(batch.header().points), true),
                Err(_) => (None, 0, false),
            },
            Some(Target::Store(_)) | None => (None, lines(&leased.bytes), true),
        };
        let bytes = leased.bytes.len() as u64;
        lane.books.leased += points;
        lane.books.in_flight += points;
        lane.ready.insert(leased.ticket.ordinal);
        lane.ready_bytes += bytes;
        lane.ready_points += points;
        self.ready_points += points;
        self.here += bytes;
        if let Some(id) = id {
            self.by_id.entry(id).or_default().push(key);
        }
        let record = Record {
            bytes: leased.bytes,
            id,
            points,
            lent_until: now + LEASE,
            state: State::Ready,
            paid: false,
            checksum_failures: 0,
        };
        self.records.insert(key, record);
        if !readable {
            self.settle(key, Outcome::BadChecksum);
        }
    }

    /// The answer to a request is complete.
    pub fn lease_end(&mut self, now: Mono, source: Source, end: LeaseEnd) {
        for (_, lane) in self.lanes.range_mut((source, 0)..=(source, u16::MAX)) {
            let Some(asked) = lane.asked.take_if(|asked| asked.number == end.number) else { continue };
            if !asked.new {
                lane.rest_until = lane.rest_until.max(now + REST_EMPTY);
            }
        }
    }

    /// Whose turn it is: of the lanes that may go, the one that had the fewest points so far. Room at its receiver is
    /// reserved. `None`: nothing may go now; ask again after the next event, and a few times a second.
    pub fn next_turn(&mut self, now: Mono) -> Option<Turn> {
        if self.rate == 0 || self.control.is_paused() {
            return None;
        }
        let able = self.lanes.iter().filter(|((source, _), lane)| self.lane_may_go(now, *source, lane));
        let mut able: Vec<(u64, (Source, u16))> = able.map(|(key, lane)| (lane.turn, *key)).collect();
        able.sort_unstable();
        let (key, to) = able.into_iter().find_map(|(_, (source, number))| {
            let ordinal = *self.lanes.get(&(source, number))?.ready.first()?;
            let key = (source, Ticket { lane: number, ordinal });
            Some((key, self.room_for(now, key)?))
        })?;
        self.take_turn(key, to)
    }

    fn take_turn(&mut self, key: Key, to: To) -> Option<Turn> {
        let record = self.records.get_mut(&key)?;
        let (bytes, points) = (record.bytes.len() as u64, record.points);
        record.state = State::Turn(to);
        let owed = if record.paid { 0 } else { points };
        let lane = self.lanes.get_mut(&(key.0, key.1.lane))?;
        lane.ready.remove(&key.1.ordinal);
        lane.ready_bytes -= bytes;
        lane.ready_points -= points;
        lane.out_bytes += bytes;
        let serving = lane.turn;
        lane.turn += points.max(1);
        self.ready_points -= points;
        self.reserve(to, bytes);
        // Lanes that could not go do not make up for it at the cost of the others.
        self.lanes.values_mut().for_each(|lane| lane.turn = lane.turn.max(serving));
        Some(Turn { key, points: owed })
    }

    fn lane_may_go(&self, now: Mono, source: Source, lane: &Lane) -> bool {
        let Some(ordinal) = lane.ready.first() else { return false };
        let key = (source, Ticket { lane: lane.backlog.lane, ordinal: *ordinal });
        let bytes = self.records.get(&key).map_or(0, |record| record.bytes.len() as u64);
        now >= lane.next_at
            && now >= self.sources[source].next_at
            && lane.may_go(bytes)
            && !self.control.source_paused(&self.settings.sources[source], &lane.backlog.destination)
    }

    /// The pacer let a turn go. Says whom to wake; `None` if the record was given back meanwhile.
    pub fn go(&mut self, now: Mono, key: Key) -> Option<To> {
        let record = self.records.get_mut(&key)?;
        record.paid = true;
        let State::Turn(to) = record.state else { return None };
        record.state = State::Out(to);
        // The lease may have run out while it was paid for. That harms nobody, and an answer takes its time.
        record.lent_until = record.lent_until.max(now + LEASE);
        let points = record.points;
        let (relay, lane) = (self.sources.get_mut(key.0)?, self.lanes.get_mut(&(key.0, key.1.lane))?);
        let name = &self.settings.sources[key.0];
        if let Some(rate) = self.control.source_rate(name, &self.plan) {
            relay.next_at = relay.next_at.max(now) + time_of(points, rate);
        }
        let both = format!("{name}/{}", lane.backlog.destination);
        if let Some(rate) = self.control.source_rate(&both, &self.plan) {
            lane.next_at = lane.next_at.max(now) + time_of(points, rate);
        }
        lane.meter.add(now, points);
        self.meter.add(now, points);
        self.queue(to, key);
        Some(to)
    }

    /// The worker that pays for turns begins again: what it had in hand waits.
    pub fn forget_turns(&mut self) {
        let turns = self.records.iter().filter(|(_, record)| matches!(record.state, State::Turn(_)));
        let turns: Vec<Key> = turns.map(|(key, _)| *key).collect();
        turns.into_iter().for_each(|key| self.wait_again(key));
    }

    /// Points sent since the start.
    pub fn sent(&self) -> u64 {
        self.meter.total()
    }
}

fn keys_of(source: Source) -> std::ops::RangeInclusive<Key> {
    (source, Ticket { lane: 0, ordinal: 0 })..=(source, Ticket { lane: u16::MAX, ordinal: u64::MAX })
}

fn time_of(points: u64, rate: u64) -> Duration {
    Duration::from_nanos(points.saturating_mul(1_000_000_000) / rate.max(1))
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn empty(lane: &LaneBacklog) -> LaneBacklog {
    LaneBacklog { points: 0, batches: 0, bytes: 0, leased: 0, head: lane.tail, ..lane.clone() }
}
