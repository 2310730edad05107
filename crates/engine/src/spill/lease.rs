//! Leases: which records are lent to whom. They save work and guard nothing, so they are in memory only, and they end
//! by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::books::Run;
use super::filter::Filter;
use super::{Meta, Origin, Spill, keys, record};
use crate::pattern::PatternError;
use crate::time::Mono;
use crate::wire::{LaneBacklog, LeaseRequest, Leased, Ticket};

/// A lease that nobody answered ends.
pub const LEASE_FOR: Duration = Duration::from_secs(30);
/// Leases at one time, over all lanes and holders.
pub const LEASES_MAX: usize = 65_536;

/// One record, lent.
#[derive(Clone, Copy, Debug)]
struct Lease {
    holder: u64,
    until: Mono,
    meta: Meta,
}

/// Where the search for a lane's next record to lend goes on: nothing before it can be lent under this filter.
#[derive(Clone, Debug)]
struct Resume {
    filter: Filter,
    ordinal: u64,
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    lent: BTreeMap<Ticket, Lease>,
    resume: BTreeMap<u16, Resume>,
}

impl Leases {
    pub(super) fn meta(&self, ticket: Ticket) -> Option<Meta> {
        self.lent.get(&ticket).map(|lease| lease.meta)
    }

    /// The record may be lent again, or is done.
    pub(super) fn end(&mut self, ticket: Ticket) {
        if self.lent.remove(&ticket).is_some()
            && let Some(resume) = self.resume.get_mut(&ticket.lane)
        {
            resume.ordinal = resume.ordinal.min(ticket.ordinal);
        }
    }

    fn end_where(&mut self, mut over: impl FnMut(&Lease) -> bool) -> usize {
        let ended: Vec<Ticket> = self.lent.iter().filter(|(_, lease)| over(lease)).map(|(ticket, _)| *ticket).collect();
        ended.iter().for_each(|ticket| self.end(*ticket));
        ended.len()
    }

    /// Looks at everything in the lane again.
    pub(super) fn start_over(&mut self, lane: u16) {
        self.resume.remove(&lane);
    }

    fn points(&self, lane: u16) -> u64 {
        let of_lane = Ticket { lane, ordinal: 0 }..=Ticket { lane, ordinal: u64::MAX };
        self.lent.range(of_lane).map(|(_, lease)| lease.meta.run.tally().points).sum()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Grant {
    pub number: u64,
    pub holder: u64,
    /// Records lent so far.
    pub granted: u32,
    lane: u16,
    filter: Filter,
    bytes_left: u64,
    points_left: u64,
    /// The next ordinal to look at, and the end of the range that is being looked at.
    at: u64,
    end: u64,
    /// The first record passed over that may be lent later: the live path has it now.
    held_at: Option<u64>,
}

/// What became of a record that was offered to a [`Grant`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is lent.
    Lent(Leased),
    /// It is not meant, or not free. The next one in order, please.
    Skipped,
    /// As before, and so are many after it: the grant's range has moved.
    Jump,
    /// The request has got what it asked for.
    Enough,
}

/// Done records that are passed by reading them; beyond that, seeking is cheaper.
const JUMP: u64 = 16;

impl Spill {
    /// Begins to answer a request of `holder` (a link).
    ///
    /// # Errors
    /// When its glob is none.
    pub fn grant(&mut self, holder: u64, request: &LeaseRequest) -> Result<Grant, PatternError> {
        let filter = Filter::new(request.from, request.to, &request.matching)?;
        let resume = self.leases.resume.get(&request.lane).filter(|resume| resume.filter.same(&filter));
        Ok(Grant {
            number: request.number,
            holder,
            granted: 0,
            lane: request.lane,
            bytes_left: u64::from(request.max_bytes),
            points_left: u64::from(request.max_points),
            at: resume.map_or(0, |resume| resume.ordinal),
            end: 0,
            held_at: None,
            filter,
        })
    }

    /// The keys of the records to offer next, in order; `None`: there is nothing more to lend. `next_held`: the first
    /// ordinal from this one on of which it is known without reading that the live path still has it.
    pub fn grant_range(
        &mut self,
        grant: &mut Grant,
        next_held: &dyn Fn(Ticket) -> Option<u64>,
    ) -> Option<keys::KeyRange> {
        let lane = self.lanes.get(&grant.lane)?;
        loop {
            grant.at = lane.books.next_pending(grant.at);
            let ticket = Ticket { lane: grant.lane, ordinal: grant.at };
            let held = next_held(ticket);
            let is_held = held == Some(grant.at);
            if !is_held && !self.leases.lent.contains_key(&ticket) {
                let end = lane.synced_next.ordinal;
                grant.end = held.map_or(end, |held| held.min(end));
                return (grant.at < end).then(|| keys::records_range(grant.lane, grant.at, grant.end));
            }
            if is_held {
                grant.held_at.get_or_insert(grant.at);
            }
            grant.at += 1;
        }
    }

    /// Offers the next record of the range. `held`: whether the live path still has what is in it.
    pub fn offer(
        &mut self,
        grant: &mut Grant,
        key: &[u8],
        value: &[u8],
        held: &dyn Fn(Origin<'_>) -> bool,
        now: Mono,
    ) -> Offered {
        let Some(keys::Key::Record(_, ordinal)) = keys::read(key) else { return Offered::Skipped };
        let Some(lane) = self.lanes.get_mut(&grant.lane) else { return Offered::Enough };
        // Something pending should have come before it.
        if lane.books.next_pending(grant.at) < ordinal && lane.check.is_none() {
            lane.check();
        }
        let ticket = Ticket { lane: grant.lane, ordinal };
        if lane.books.is_done(ordinal) || self.leases.lent.contains_key(&ticket) {
            grant.at = ordinal + 1;
            return if lane.books.next_pending(ordinal) > ordinal + JUMP { Offered::Jump } else { Offered::Skipped };
        }
        let record = match record::decode(value) {
            Ok(record) if record.header.before.ordinal == ordinal => record,
            Ok(_) | Err(_) => {
                if lane.check.is_none() {
                    lane.check();
                }
                grant.at = ordinal + 1;
                return Offered::Skipped;
            }
        };
        let is_held = held(record.header.origin());
        if is_held {
            grant.held_at.get_or_insert(ordinal);
        }
        if is_held || !grant.filter.overlaps(&record.header) {
            grant.at = ordinal + 1;
            return Offered::Skipped;
        }
        let points = u64::from(record.header.points);
        let bytes = u64::from(record.header.raw_bytes);
        let fits = bytes <= grant.bytes_left && points <= grant.points_left;
        if (grant.granted > 0 && !fits) || self.leases.lent.len() >= LEASES_MAX {
            return Offered::Enough;
        }
        let Ok(content) = self.codec.content(&record) else {
            // Its checksum fits, so it was written like this: no check would find it.
            self.lose_unreadable(grant.lane, record.run());
            grant.at = ordinal + 1;
            return Offered::Skipped;
        };
        grant.at = ordinal + 1;
        if !grant.filter.any_series(record.header.content, &content) {
            return Offered::Skipped;
        }
        grant.granted += 1;
        grant.bytes_left = grant.bytes_left.saturating_sub(bytes);
        grant.points_left = grant.points_left.saturating_sub(points);
        let lease = Lease { holder: grant.holder, until: now + LEASE_FOR, meta: self.meta(&record) };
        self.leases.lent.insert(ticket, lease);
        Offered::Lent(Leased { number: grant.number, ticket, bytes: content })
    }

    /// The scan of a grant's range came to the range's end.
    pub fn grant_ended(&mut self, grant: &mut Grant) {
        let Some(lane) = self.lanes.get_mut(&grant.lane) else { return };
        if lane.books.next_pending(grant.at) < grant.end && lane.check.is_none() {
            lane.check();
        }
        grant.at = grant.end;
    }

    /// Something in the grant's lane could not be read.
    pub fn check_from(&mut self, grant: &Grant) {
        self.check(grant.lane);
    }

    /// The request is answered: the next one of the same kind begins where this one ended.
    pub fn granted(&mut self, grant: Grant) {
        let ordinal = grant.held_at.map_or(grant.at, |held| held.min(grant.at));
        let resume = Resume { filter: grant.filter, ordinal };
        self.leases.resume.insert(grant.lane, resume);
    }

    /// A holder is gone; what it had may be lent again.
    pub fn end_leases_of(&mut self, holder: u64) {
        _ = self.leases.end_where(|lease| lease.holder == holder);
    }

    /// Leases whose time is over end. How many did.
    pub fn end_old_leases(&mut self, now: Mono) -> usize {
        self.leases.end_where(|lease| lease.until <= now)
    }

    /// A record may be lent again.
    pub fn release(&mut self, ticket: Ticket) {
        self.leases.end(ticket);
    }

    /// Something became of a record that cannot be found or read: if it is pending, the check counts it.
    pub fn release_unread(&mut self, ticket: Ticket) {
        if self.is_pending(ticket) {
            self.check(ticket.lane);
        }
        self.release(ticket);
    }

    /// Whether a record is lent now.
    pub fn is_leased(&self, ticket: Ticket) -> bool {
        self.leases.lent.contains_key(&ticket)
    }

    /// Every lane that holds anything, or did since the start.
    pub fn backlog(&self) -> crate::wire::Backlog {
        let shown = self.lanes.iter().filter(|(_, lane)| lane.used || lane.books.pending().batches > 0);
        let lanes = shown.map(|(number, lane)| {
            let pending = lane.books.pending();
            let (oldest, newest) = lane.spans.bounds().unwrap_or_default();
            LaneBacklog {
                lane: *number,
                destination: lane.destination.clone(),
                points: pending.points,
                batches: pending.batches,
                bytes: pending.bytes,
                leased: self.leases.points(*number),
                head: lane.books.head.ordinal,
                tail: lane.books.next.ordinal,
                oldest,
                newest,
            }
        });
        crate::wire::Backlog { lanes: lanes.collect() }
    }

    fn lose_unreadable(&mut self, lane: u16, run: Run) {
        let now = self.now;
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.lose(run, super::Lost::Corrupt, now);
        }
    }
}
