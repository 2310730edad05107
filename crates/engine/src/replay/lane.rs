//! One lane of one relay's spill, as the replayer sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::meter::Meter;
use super::{AHEAD_BYTES, Books, Target};
use crate::time::Mono;
use crate::wire::LaneBacklog;

/// What a lane may have on its way before anything of it was delivered.
const ALLOWANCE_START: u64 = 1 << 20;
/// A lane that had no success rests so long, doubled with each time up to the maximum.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) backlog: LaneBacklog,
    /// Where its records go; `None`: to nothing that this replayer knows.
    pub(super) target: Option<Target>,
    /// Ordinals of records that were lent and wait here.
    pub(super) ready: BTreeSet<u64>,
    pub(super) ready_bytes: u64,
    pub(super) ready_points: u64,
    /// Bytes that are on their way to receivers.
    pub(super) out_bytes: u64,
    /// Bytes that may be on their way: grows with what is delivered, shrinks to one record when nothing is.
    pub(super) allowance: u64,
    /// The request that is not answered yet: number, when, bytes, and whether it brought anything new.
    pub(super) asked: Option<Asked>,
    pub(super) rest_until: Mono,
    rest: Duration,
    /// With a ceiling of its own: when it has paid for what went.
    pub(super) next_at: Mono,
    /// Points that went, for fairness; see `Replay::next_turn`.
    pub(super) turn: u64,
    pub(super) meter: Meter,
    pub(super) books: Books,
    pub(super) last_error: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) at: Mono,
    pub(super) bytes: u64,
    pub(super) new: bool,
}

impl Lane {
    pub(super) fn new(backlog: LaneBacklog, target: Option<Target>) -> Lane {
        let last_error = target.is_none().then(|| {
            let destination = &backlog.destination;
            format!("nothing of this cluster file is called {destination}: its points stay in the spill")
        });
        Lane {
            backlog,
            target,
            ready: BTreeSet::new(),
            ready_bytes: 0,
            ready_points: 0,
            out_bytes: 0,
            allowance: ALLOWANCE_START,
            asked: None,
            rest_until: Mono::ZERO,
            rest: REST_MIN,
            next_at: Mono::ZERO,
            turn: 0,
            meter: Meter::default(),
            books: Books::default(),
            last_error,
        }
    }

    /// Bytes that it may have here and on the way.
    pub(super) fn ahead(&self) -> u64 {
        AHEAD_BYTES.min(self.allowance.saturating_mul(2))
    }

    /// Bytes of it that are here or on the way.
    pub(super) fn here(&self) -> u64 {
        self.ready_bytes + self.out_bytes
    }

    /// Whether a record of so many bytes may go, as far as the lane itself goes.
    pub(super) fn may_go(&self, bytes: u64) -> bool {
        self.out_bytes == 0 || self.out_bytes + bytes <= self.allowance
    }

    pub(super) fn delivered(&mut self, bytes: u64, most: u64) {
        self.allowance = (self.allowance + bytes).min(most.max(ALLOWANCE_START));
        self.rest = REST_MIN;
        if self.target.is_some() {
            self.last_error = None;
        }
    }

    /// What was sent got no answer, or one that says "later": less at once, and not so soon.
    pub(super) fn failed(&mut self, now: Mono, why: String) {
        self.allowance = 1;
        self.last_error = Some(why);
        if now >= self.rest_until {
            self.rest_until = now + self.rest;
            self.rest = (self.rest * 2).min(REST_MAX);
        }
    }
}

/// Per reason, points that were refused for good.
pub(super) type Refused = BTreeMap<&'static str, u64>;
