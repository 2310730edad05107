//! What operators ask of a spill, answered by its thread in slices: a page is as long as a slice lets it be, and long
//! work (`Job`) goes on in the next one.

use std::ops::ControlFlow;

use admin::{Page, Refusal, SpillAnswer, SpillRequest};
use admin_api::{Gap, SpillLane, SpillPage, SpillRecord, SpillStatus, SpillVerified};
use bytes::Bytes;
use engine::spill::{self, Content, LaneView, NO_LANE, Record, dead_range, records_from};
use engine::wire::Ticket;
use runtime::Worker;

use super::handle::Asked;
use super::jobs::{Import, Job, split};
use super::session::{SLICE, Session, Trouble};
use super::thread::Thread;

/// Records of a page at most, whatever is asked for.
const LIMIT_MAX: u32 = 10_000;
/// The dead letters among the lanes; their number is the last there is.
pub(super) const DEAD_LETTERS: &str = "dead_letters";
/// Bytes of an export's page.
const EXPORT_BYTES: usize = 8 << 20;
impl Session<'_> {
    /// Answers what was asked, for a slice of time. True: there is more to do.
    pub(super) fn serve_requests(&mut self, worker: &Worker) -> Result<bool, Trouble> {
        if let Some(job) = self.jobs.pop_front() {
            self.go_on(worker, job)?;
        }
        let Some(Asked { request, answer }) = self.thread.handle.next_request() else {
            return Ok(!self.jobs.is_empty());
        };
        let answered = match request {
            SpillRequest::Status => Ok(SpillAnswer::Status(self.status())),
            SpillRequest::Records(page) => self.records(page)?,
            SpillRequest::Verify(page) => self.verify(page)?,
            SpillRequest::Export(page) => self.export(page)?,
            SpillRequest::Cursor(asked) => self.cursor(worker, &asked)?,
            SpillRequest::Import(bytes, by) => match split(&bytes) {
                Ok(records) => {
                    let import = Import::new(records, by);
                    self.jobs.push_back(Job::Import { import, answer });
                    return Ok(true);
                }
                Err(refusal) => Err(refusal),
            },
            SpillRequest::Discard(asked) if asked.destination.as_deref() == Some(DEAD_LETTERS) => {
                self.discard_dead(worker, &asked)?
            }
            SpillRequest::Discard(asked) => match self.search(&asked) {
                Ok(search) => {
                    self.jobs.push_back(Job::Discard { asked, search: Box::new(search), answer });
                    return Ok(true);
                }
                Err(refusal) => Err(refusal),
            },
        };
        // Who asked may have gone.
        answer.send(answered).ok();
        Ok(true)
    }

    fn status(&self) -> SpillStatus {
        let mut status = status_of(self.thread, self.spill.lanes());
        let (backlog, held) = (self.spill.backlog(), self.recent().held(self.thread.live.as_ref()));
        for lane in &mut status.lanes {
            lane.leased_points = backlog.lanes.iter().find(|seen| seen.lane == lane.lane).map_or(0, |seen| seen.leased);
            lane.held_points = held.get(&lane.lane).map_or(0, |held| held.points);
        }
        let dead = self.spill.dead_letters();
        if dead.batches > 0 {
            let dropped = [(DEAD_LETTERS.to_owned(), dead.points)].into();
            let destination = DEAD_LETTERS.to_owned();
            let spilled_points = dead.points;
            status.lanes.push(SpillLane {
                lane: NO_LANE,
                destination,
                spilled_points,
                dropped,
                ..SpillLane::default()
            });
        }
        status
    }

    /// Visits readable records of a page until the slice is over or `each` says stop; gives where to go on.
    fn page(
        &self,
        page: Page,
        each: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> Result<Result<Option<u64>, Refusal>, Trouble> {
        let is_dead = page.lane == NO_LANE;
        let (from, to) = match self.spill.lane(page.lane) {
            Some(lane) => records_from(page.lane, page.from.max(lane.head)),
            None if is_dead => dead_range(),
            None => return Ok(Err(self.no_lane())),
        };
        let (end, clock) = (self.now() + SLICE, self.thread.clock);
        let (mut left, mut next, mut place) = (page.limit.clamp(1, LIMIT_MAX), None, 0);
        self.store.salvage(&from, &to, &mut |key, value| {
            let ordinal = if is_dead { place } else { key.last_chunk().map_or(0, |at| u64::from_be_bytes(*at)) };
            place += 1;
            if left == 0 || clock.now() >= end {
                next = Some(ordinal);
                return ControlFlow::Break(());
            }
            let ticket = Ticket { lane: page.lane, ordinal };
            let is_meant = if is_dead { ordinal >= page.from } else { self.spill.is_pending(ticket) };
            if !is_meant {
                return ControlFlow::Continue(());
            }
            if !each(ordinal, value) {
                next = Some(ordinal);
                return ControlFlow::Break(());
            }
            left -= 1;
            ControlFlow::Continue(())
        })?;
        Ok(Ok(next))
    }

    fn records(&self, page: Page) -> Result<Result<SpillAnswer, Refusal>, Trouble> {
        let mut records = Vec::new();
        let next = self.page(page, &mut |ordinal, value| {
            records.extend(
                spill::decode(value).ok().map(|record| self.shown(Ticket { lane: page.lane, ordinal }, &record)),
            );
            true
        })?;
        Ok(next.map(|next| SpillAnswer::Records(SpillPage { records, next })))
    }

    fn shown(&self, ticket: Ticket, record: &Record<'_>) -> SpillRecord {
        let header = &record.header;
        let id = match header.content {
            Content::Batch(id) => format!("{:016x}/{}/{}", id.sender, id.epoch, id.seq),
            Content::Block { .. } => String::new(),
        };
        let state = match (self.thread.live.holds(header.origin()), self.spill.is_leased(ticket)) {
            _ if ticket.lane == NO_LANE => "dead",
            (true, _) => "held",
            (false, true) => "leased",
            (false, false) => "pending",
        };
        SpillRecord {
            lane: ticket.lane,
            ordinal: ticket.ordinal,
            id,
            points: u64::from(header.points),
            bytes: u64::from(header.raw_bytes),
            stored_bytes: record.stored_bytes,
            min: u64::from(header.min_ts.0),
            max: u64::from(header.max_ts.0),
            spilled_at: u64::from(header.spilled_at.0),
            why: header.why.as_str().to_owned(),
            state: state.to_owned(),
        }
    }

    fn verify(&mut self, page: Page) -> Result<Result<SpillAnswer, Refusal>, Trouble> {
        let mut found = SpillVerified::default();
        let lane = self.spill.lane(page.lane);
        let mut expected = lane.as_ref().map_or(0, |lane| page.from.max(lane.head));
        let missing = |spill: &spill::Spill, damaged: &mut Vec<String>, from, to| {
            for (first, last) in spill.pending_between(page.lane, from, to) {
                damaged.push(format!("lane {} ordinals {first} to {last}: missing", page.lane));
            }
        };
        let mut codec = std::mem::take(self.spill.codec());
        let next = self.page(page, &mut |ordinal, value| {
            missing(&self.spill, &mut found.damaged, expected, ordinal);
            expected = ordinal + 1;
            let verified = spill::decode(value)
                .and_then(|record| codec.verified(&record).map(|_| u64::from(record.header.points)));
            match verified {
                Ok(points) => {
                    found.records += 1;
                    found.points += points;
                }
                Err(error) => found.damaged.push(format!("lane {} ordinal {ordinal}: {error}", page.lane)),
            }
            true
        });
        *self.spill.codec() = codec;
        let next = next?;
        if let (Some(lane), Ok(next)) = (lane, &next) {
            missing(&self.spill, &mut found.damaged, expected, next.unwrap_or(lane.tail));
        }
        if !found.damaged.is_empty() {
            self.spill.check(page.lane);
        }
        Ok(next.map(|next| SpillAnswer::Verified(SpillVerified { next, ..found })))
    }

    fn export(&self, page: Page) -> Result<Result<SpillAnswer, Refusal>, Trouble> {
        let mut bytes = Vec::new();
        let next = self.page(page, &mut |_, value| {
            if !bytes.is_empty() && bytes.len() + value.len() > EXPORT_BYTES {
                return false;
            }
            // What is damaged cannot be imported anywhere.
            if spill::decode(value).is_ok() {
                bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend_from_slice(value);
            }
            true
        })?;
        Ok(next.map(|next| SpillAnswer::Exported { bytes: Bytes::from(bytes), next }))
    }

    pub(super) fn no_lane(&self) -> Refusal {
        let known: Vec<String> =
            self.spill.lanes().into_iter().map(|lane| format!("{} ({})", lane.lane, lane.destination)).collect();
        Refusal::not_here(format!("no such lane; there are: {}", list(&known)))
    }

    /// The lanes that are meant by a destination; all without one.
    pub(super) fn lanes_of(&self, destination: Option<&str>) -> Result<Vec<u16>, Refusal> {
        let lanes = self.spill.lanes();
        let meant: Vec<u16> = lanes
            .iter()
            .filter(|lane| destination.is_none_or(|destination| lane.destination == destination))
            .map(|lane| lane.lane)
            .collect();
        if let Some(destination) = destination.filter(|_| meant.is_empty()) {
            let known: Vec<String> = lanes.into_iter().map(|lane| lane.destination).collect();
            return Err(Refusal::not_here(format!("no lane for {destination}; there are: {}", list(&known))));
        }
        Ok(meant)
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}

/// The status while there is no open store.
pub(super) fn status(thread: &Thread) -> SpillAnswer {
    SpillAnswer::Status(status_of(thread, thread.handle.seen().1))
}

fn status_of(thread: &Thread, lanes: Vec<LaneView>) -> SpillStatus {
    let (mode, _, figures) = thread.handle.seen();
    let now = thread.clock.now();
    let unsynced = figures.unsynced_since.map_or(0, |since| now.since(since).as_millis());
    SpillStatus {
        node: thread.settings.node.clone(),
        mode: mode.mode.as_str().to_owned(),
        mode_since: u64::from(mode.since.0),
        detail: mode.detail,
        quota_bytes: thread.settings.quota_bytes,
        bytes: figures.bytes,
        free_bytes: runtime::free_bytes(&thread.settings.path).unwrap_or(0),
        unsynced_ms: u64::try_from(unsynced).unwrap_or(u64::MAX),
        journal: thread.settings.journal,
        lanes: lanes.into_iter().map(shown_lane).collect(),
        quarantined: thread.handle.quarantined(),
    }
}

fn shown_lane(lane: LaneView) -> SpillLane {
    let gaps = lane.gaps.iter().map(|gap| Gap {
        from: gap.first,
        to: gap.last,
        batches: gap.batches,
        points: gap.points,
        reason: gap.why.as_str().to_owned(),
        at: u64::from(gap.at.0),
    });
    let pending = lane.pending.batches > 0;
    SpillLane {
        lane: lane.lane,
        pending_points: lane.pending.points,
        pending_batches: lane.pending.batches,
        pending_bytes: lane.pending.bytes,
        leased_points: 0,
        held_points: 0,
        head: lane.head,
        tail: lane.tail,
        oldest: lane.span.filter(|_| pending).map(|(oldest, _)| u64::from(oldest.0)),
        newest: lane.span.filter(|_| pending).map(|(_, newest)| u64::from(newest.0)),
        spilled_points: lane.spilled.points,
        settled_points: lane.settled.points,
        dropped: lane.dropped.iter().map(|(why, tally)| (why.as_str().to_owned(), tally.points)).collect(),
        gaps: gaps.collect(),
        checking: lane.checking,
        destination: lane.destination,
    }
}
