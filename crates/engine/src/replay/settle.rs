//! What becomes of records, and what the relays are told of it.

use super::{Key, Replay, Source, State, To};
use crate::time::Mono;
use crate::wire::{Done, Outcome};

/// Tickets in one `Done` frame.
const TICKETS_MAX: usize = 10_000;

impl Replay {
    /// The record is off our hands; its relay is to be told.
    pub(super) fn settle(&mut self, key: Key, outcome: Outcome) {
        let Some(record) = self.records.remove(&key) else { return };
        let (bytes, points) = (record.bytes.len() as u64, record.points);
        self.here -= bytes;
        if let Some(id) = record.id
            && let Some(keys) = self.by_id.get_mut(&id)
        {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_id.remove(&id);
            }
        }
        let share = match self.lanes.get(&(key.0, key.1.lane)).and_then(|lane| lane.target) {
            Some(target) => self.lane_share(target),
            None => 0,
        };
        let to = match record.state {
            State::Ready => None,
            State::Turn(to) | State::Out(to) | State::Sent(to) => Some(to),
        };
        if let Some(lane) = self.lanes.get_mut(&(key.0, key.1.lane)) {
            match to {
                Some(_) => lane.out_bytes -= bytes,
                None => {
                    lane.ready.remove(&key.1.ordinal);
                    lane.ready_bytes -= bytes;
                    lane.ready_points -= points;
                    self.ready_points -= points;
                }
            }
            lane.books.in_flight -= points;
            match outcome {
                Outcome::Delivered => {
                    lane.books.delivered += points;
                    lane.delivered(bytes, share);
                }
                Outcome::Released => lane.books.returned += points,
                Outcome::TooOld | Outcome::Poison | Outcome::BadChecksum | Outcome::DuplicateSender => {
                    *lane.books.refused.entry(outcome.as_str()).or_default() += points;
                }
            }
        }
        if let Some(to) = to {
            self.unreserve(to, bytes);
        }
        if let Some(relay) = self.sources.get_mut(key.0)
            && (relay.up || outcome != Outcome::Released)
        {
            let outcome = if mutant!("released_is_delivered") { Outcome::Delivered } else { outcome };
            relay.done.entry(outcome).or_default().push(key.1);
        }
    }

    /// A record on its way goes back to where it waits its turn.
    pub(super) fn wait_again(&mut self, key: Key) {
        let Some(record) = self.records.get_mut(&key) else { return };
        let (bytes, points) = (record.bytes.len() as u64, record.points);
        let (State::Turn(to) | State::Out(to) | State::Sent(to)) = record.state else { return };
        record.state = State::Ready;
        if let Some(lane) = self.lanes.get_mut(&(key.0, key.1.lane)) {
            lane.out_bytes -= bytes;
            lane.ready.insert(key.1.ordinal);
            lane.ready_bytes += bytes;
            lane.ready_points += points;
            self.ready_points += points;
        }
        self.unreserve(to, bytes);
    }

    /// Gives back what waits its turn.
    pub(super) fn give_back_ready(&mut self) {
        let ready = self.records.iter().filter(|(_, record)| record.state == State::Ready);
        let ready: Vec<Key> = ready.map(|(key, _)| *key).collect();
        ready.into_iter().for_each(|key| self.settle(key, Outcome::Released));
    }

    /// What is here of a relay is not its any more. What is on its way goes on, and nobody is told what became of it.
    pub(super) fn forget_source(&mut self, source: Source) {
        let all: Vec<Key> = self.records.range(super::keys_of(source)).map(|(key, _)| *key).collect();
        all.into_iter().for_each(|key| self.settle(key, Outcome::Released));
        self.forget_offers_of(source);
        // Its lanes may have other numbers now: nothing is asked for until it has said what it holds.
        for (_, lane) in self.lanes.range_mut((source, 0)..=(source, u16::MAX)) {
            lane.backlog = super::empty(&lane.backlog);
        }
        if let Some(relay) = self.sources.get_mut(source) {
            relay.done.clear();
        }
    }

    /// To be called a few times a second: what was not settled while it was lent is given back.
    pub fn tick(&mut self, now: Mono) {
        // What a store's sender took is still sent, lease or not: it stays until that says more. So does what is being
        // paid for, however long that takes: else at a low rate nothing would ever have been paid when its lease ends.
        let stays = |state| matches!(state, State::Sent(To::Store(_)) | State::Turn(_));
        let late = self.records.iter().filter(|(_, record)| now >= record.lent_until && !stays(record.state));
        let late: Vec<(Key, bool)> =
            late.map(|(key, record)| (*key, matches!(record.state, State::Sent(To::Receiver(_))))).collect();
        for (key, sent) in late {
            self.settle(key, Outcome::Released);
            if sent && let Some(lane) = self.lanes.get_mut(&(key.0, key.1.lane)) {
                lane.failed(now, "no answer from the final layer within the lease".to_owned());
            }
        }
    }

    /// What to tell a relay.
    pub fn take_done(&mut self, source: Source) -> Vec<Done> {
        let Some(relay) = self.sources.get_mut(source) else { return Vec::new() };
        let mut told = Vec::new();
        for (outcome, tickets) in std::mem::take(&mut relay.done) {
            told.extend(tickets.chunks(TICKETS_MAX).map(|some| Done { outcome, tickets: some.to_vec() }));
        }
        told
    }

    /// Whether [`Replay::take_done`] would give anything.
    pub fn has_done(&self, source: Source) -> bool {
        self.sources.get(source).is_some_and(|relay| !relay.done.is_empty())
    }

    /// Everything borrowed is given back, for the end of the process.
    pub fn give_back_all(&mut self) {
        let stays = |state| matches!(state, State::Sent(_));
        let rest = self.records.iter().filter(|(_, record)| !stays(record.state));
        let rest: Vec<Key> = rest.map(|(key, _)| *key).collect();
        rest.into_iter().for_each(|key| self.settle(key, Outcome::Released));
        self.rate = 0;
    }

    /// Puts the machine right after a panic inside it. What was borrowed is forgotten and lent again when its lease runs
    /// out; what a store's sender holds is sent by it all the same. Links are to be told up again.
    pub fn recover(&mut self) {
        let (settings, plan, control) = (self.settings.clone(), self.plan, self.control.clone());
        let mut fresh = Replay::new(settings, plan, control);
        fresh.rate = self.rate;
        fresh.meter = self.meter.clone();
        fresh.next_number = self.next_number;
        for (relay, old) in fresh.sources.iter_mut().zip(&self.sources) {
            (relay.heard, relay.life) = (old.heard, old.life);
        }
        for (key, lane) in &self.lanes {
            let mut books = lane.books.clone();
            let settled = books.delivered + books.returned + books.refused.values().sum::<u64>();
            books.returned += books.leased.saturating_sub(settled);
            books.in_flight = 0;
            let mut again = super::Lane::new(lane.backlog.clone(), lane.target);
            again.books = books;
            fresh.lanes.insert(*key, again);
        }
        *self = fresh;
    }
}
