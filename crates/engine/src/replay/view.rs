//! What a replayer knows, for status pages.

use std::time::Duration;

use super::{Books, Replay, Source, Target};
use crate::time::{Mono, UnixSeconds};
use crate::wire::LaneBacklog;

/// One lane of one relay.
#[derive(Clone, Debug)]
pub struct LaneView {
    pub source: Source,
    pub backlog: LaneBacklog,
    pub connected: bool,
    pub books: Books,
    /// Points per second.
    pub rate_now: u64,
    pub paused: bool,
    /// Its own ceiling as the operator set it.
    pub rate: Option<u64>,
    pub limited_by: &'static str,
    pub last_error: Option<String>,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverView {
    pub up: bool,
    pub draining: bool,
    pub in_flight_bytes: u64,
    pub window_bytes: u64,
    pub queue_delay: Option<Duration>,
}

impl Replay {
    /// The names.
    pub fn settings(&self) -> &super::Settings {
        &self.settings
    }

    /// Sources that an operator may name: relays, and their lanes with destinations, known or possible.
    pub fn known_sources(&self) -> Vec<String> {
        let mut known = self.settings.sources.clone();
        for ((source, _), lane) in &self.lanes {
            known.push(format!("{}/{}", self.settings.sources[*source], lane.backlog.destination));
        }
        known
    }

    /// Every lane. `limited`: what limits all of them.
    pub fn lanes(&self, now: Mono, limited: &'static str) -> Vec<LaneView> {
        let view = |(&(source, _), lane): (&(Source, u16), &super::Lane)| {
            let name = &self.settings.sources[source];
            let destination = &lane.backlog.destination;
            let paused = self.control.source_paused(name, destination);
            let own = |name: &str| self.control.sources.get(name).and_then(|own| own.rate);
            let rate = [own(name), own(&format!("{name}/{destination}"))].into_iter().flatten().min();
            let limited_by = if lane.backlog.points == 0 && lane.here() == 0 {
                "idle"
            } else if paused {
                "paused"
            } else if lane.next_at > now || self.sources[source].next_at > now {
                "operator"
            } else if !self.sources[source].up || now < lane.rest_until || !self.is_reachable(lane) {
                "network"
            } else {
                limited
            };
            LaneView {
                source,
                backlog: lane.backlog.clone(),
                connected: self.sources[source].up,
                books: lane.books.clone(),
                rate_now: lane.meter.per_second(now),
                paused,
                rate,
                limited_by,
                last_error: lane.last_error.clone(),
            }
        };
        self.lanes.iter().map(view).collect()
    }

    /// Every receiver, in the order of the settings.
    pub fn receivers(&self) -> Vec<ReceiverView> {
        let view = |to: &super::Receiver| ReceiverView {
            up: to.up,
            draining: to.draining,
            in_flight_bytes: to.out_bytes,
            window_bytes: to.window,
            queue_delay: to.queue_delay,
        };
        self.receivers.iter().map(view).collect()
    }

    /// Whether each relay answers, in the order of the settings.
    pub fn sources_up(&self) -> Vec<bool> {
        self.sources.iter().map(|relay| relay.up).collect()
    }

    /// Points and bytes that wait in the relays' spills.
    pub fn backlog_size(&self) -> (u64, u64) {
        let lanes = self.lanes.values().map(|lane| (lane.backlog.points, lane.backlog.bytes));
        lanes.fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// The timestamp of the oldest point that waits.
    pub fn oldest(&self) -> Option<UnixSeconds> {
        self.lanes.values().filter(|lane| lane.backlog.points > 0).map(|lane| lane.backlog.oldest).min()
    }

    /// Points per second, mean of the last five seconds.
    pub fn rate_now(&self, now: Mono) -> u64 {
        self.meter.per_second(now)
    }

    /// Whether every relay has said its backlog in this life.
    pub fn all_heard(&self) -> bool {
        self.sources.iter().all(|relay| relay.heard)
    }

    /// Nothing waits in any spill that answers, and nothing is here.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.lanes.values().all(|lane| lane.backlog.points == 0)
    }

    /// Whether something waits here whose turn it could be.
    pub fn has_ready(&self) -> bool {
        self.ready_points > 0
    }

    /// Bytes and records here.
    pub fn here(&self) -> (u64, usize) {
        (self.here, self.records.len())
    }

    /// The books by destination, and in all.
    pub fn books(&self) -> (std::collections::BTreeMap<String, Books>, Books) {
        let mut by = std::collections::BTreeMap::<String, Books>::new();
        let mut all = Books::default();
        for lane in self.lanes.values() {
            let name = match lane.target {
                Some(Target::Aggregate) => "aggregate".to_owned(),
                Some(Target::Store(_)) | None => {
                    lane.backlog.destination.split('/').next().unwrap_or_default().to_owned()
                }
            };
            by.entry(name).or_default().add(&lane.books);
            all.add(&lane.books);
        }
        (by, all)
    }
}

impl Books {
    fn add(&mut self, other: &Books) {
        self.leased += other.leased;
        self.delivered += other.delivered;
        self.returned += other.returned;
        self.in_flight += other.in_flight;
        for (reason, points) in &other.refused {
            *self.refused.entry(reason).or_default() += points;
        }
    }

    /// Whether they add up.
    pub fn balance(&self) -> bool {
        self.leased == self.delivered + self.returned + self.in_flight + self.refused.values().sum::<u64>()
    }
}
