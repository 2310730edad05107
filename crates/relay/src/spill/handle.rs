//! What outlives the thread: what was asked of it, what it has told, and what it said of itself last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin::{Refusal, SpillAnswer, SpillRequest};
use admin_api::{AuditEntry, Quarantined};
use engine::spill::{LaneView, Lost, is_aggregate};
use engine::time::{Mono, UnixSeconds};
use engine::wire::{Backlog, Done, Frame, LeaseEnd, LeaseRequest, Ticket};
use telemetry::{Metric, Telemetry};
use tokio::sync::{Notify, oneshot};

use super::mode::{Mode, ModeSeen};
use super::news::Announcer;

/// Entries of the audit kept.
pub(crate) const AUDIT_MAX: usize = 1000;
/// Requests that wait for the thread at most; more are refused.
const REQUESTS_MAX: usize = 64;
/// Frames of a link that wait for the thread at most; a peer that sends more does not heed its leases.
const INBOX_MAX: usize = 4096;
/// Bytes of answers that wait to be written to a link before the thread stops lending to it.
pub(crate) const OUTBOX_BYTES: usize = 4 << 20;

/// What the spill adds to a destination's books since this process began, in points:
/// `pending + settled + dropped - carried` is what the live path has handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Persisted {
    pub(crate) pending: u64,
    pub(crate) settled: u64,
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    /// Found at the start, or imported.
    pub(crate) carried: u64,
}

/// How a lane stood when this process began; what came into it by another way than the live path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baseline {
    settled: u64,
    dropped: BTreeMap<&'static str, u64>,
    pub(crate) carried: u64,
}

/// Something the admin API asks.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: SpillRequest,
    pub(crate) answer: oneshot::Sender<Result<SpillAnswer, Refusal>>,
}

/// What a replayer asks.
#[derive(Debug)]
pub(crate) enum FromLink {
    Lease(LeaseRequest),
    Done(Done),
    Ping(u64),
}

/// One link of a replayer.
#[derive(Debug, Default)]
struct Line {
    inbox: VecDeque<FromLink>,
    outbox: VecDeque<Frame>,
    outbox_bytes: usize,
    /// Requests that the thread has in hand, and what it lent for them.
    open: BTreeMap<u64, u32>,
    wake: Arc<Notify>,
}

impl Line {
    fn send(&mut self, frame: Frame) {
        if let Frame::Leased(leased) = &frame {
            *self.open.entry(leased.number).or_default() += 1;
        } else if let Frame::LeaseEnd(end) = &frame {
            self.open.remove(&end.number);
        }
        self.outbox_bytes += weight(&frame);
        self.outbox.push_back(frame);
        self.wake.notify_one();
    }
}

/// Figures for the metrics and the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_nanos: u64,
    pub(crate) written_points: u64,
    pub(crate) written_bytes: u64,
    pub(crate) unsynced_since: Option<Mono>,
}

#[derive(Debug)]
struct State {
    awake: bool,
    mode: ModeSeen,
    requests: VecDeque<Asked>,
    links: BTreeMap<u64, Line>,
    next_link: u64,
    gone: Vec<u64>,
    /// What the witness says since the last sync of this process: for when the whole directory is gone.
    witness: Option<Vec<u8>>,
    /// Of each lane the first ordinal whose owner has not been told.
    told: Option<BTreeMap<u16, u64>>,
    /// Its owner is being told; whether that worked is not known if the thread dies now.
    telling: Option<Ticket>,
    /// What blocks of stores were found written and not told belong to nobody: their senders were told that the spill
    /// takes nothing.
    void_blocks: bool,
    baselines: BTreeMap<u16, Baseline>,
    books: BTreeMap<u16, (String, Persisted)>,
    lanes: Vec<LaneView>,
    figures: Figures,
    audit: VecDeque<AuditEntry>,
    quarantined: Vec<Quarantined>,
}

/// The spill, for everyone but its thread.
#[derive(Debug)]
pub(crate) struct Handle {
    state: Mutex<State>,
    wake: Condvar,
    announcer: Announcer,
}

impl Handle {
    pub(crate) fn new(now: UnixSeconds) -> Handle {
        let mode = ModeSeen { mode: Mode::Starting, since: now, detail: String::new() };
        let state = State {
            awake: false,
            mode,
            requests: VecDeque::new(),
            links: BTreeMap::new(),
            next_link: 0,
            gone: Vec::new(),
            witness: None,
            told: None,
            telling: None,
            void_blocks: false,
            baselines: BTreeMap::new(),
            books: BTreeMap::new(),
            lanes: Vec::new(),
            figures: Figures::default(),
            audit: VecDeque::new(),
            quarantined: Vec::new(),
        };
        Handle { state: Mutex::new(state), wake: Condvar::new(), announcer: Announcer::new(now) }
    }

    /// Every change under this lock is whole before anything in it can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// News of the spill are told there, too.
    pub(crate) fn announce(&self, notices: &Arc<node::notices::Notices>) {
        self.announcer.set(notices);
    }

    /// Something may be due: the thread looks.
    pub(crate) fn wake(&self) {
        self.state().awake = true;
        self.wake.notify_one();
    }

    /// The thread waits for something to do.
    pub(super) fn wait(&self, at_most: Duration) {
        let state = self.state();
        let waited = self.wake.wait_timeout_while(state, at_most, |state| !state.awake);
        waited.unwrap_or_else(PoisonError::into_inner).0.awake = false;
    }

    /// Whether anything is spilled now.
    pub(crate) fn able(&self) -> bool {
        self.state().mode.mode == Mode::Ok
    }

    /// The mode now.
    pub(crate) fn mode(&self) -> ModeSeen {
        self.state().mode.clone()
    }

    /// True: it was another one.
    pub(super) fn set_mode(&self, mode: Mode, detail: &str, now: UnixSeconds) -> bool {
        let mut state = self.state();
        if state.mode.mode == mode {
            return false;
        }
        state.mode = ModeSeen { mode, since: now, detail: detail.to_owned() };
        true
    }

    /// What the spill adds to the books of a destination: `aggregate` or the name of a store.
    pub(crate) fn ledger_of(&self, destination: &str) -> Persisted {
        let state = self.state();
        let mut sum = Persisted::default();
        let is_of = |lane: &str| {
            (destination == engine::spill::AGGREGATE && is_aggregate(lane))
                || lane.strip_prefix(destination).is_some_and(|rest| rest.starts_with('/'))
        };
        for (_, books) in state.books.values().filter(|(lane, _)| is_of(lane)) {
            sum.pending += books.pending;
            sum.settled += books.settled;
            sum.carried += books.carried;
            for (why, n) in &books.dropped {
                *sum.dropped.entry(why).or_default() += n;
            }
        }
        sum
    }

    /// Hands a request to the thread. A dropped sender means that it is being restarted.
    pub(crate) fn request(&self, request: SpillRequest) -> oneshot::Receiver<Result<SpillAnswer, Refusal>> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.requests.len() >= REQUESTS_MAX {
            let refusal = Refusal::unavailable("too much is asked of the spill at once: ask again in a second");
            // The receiver is in our hand.
            answer.send(Err(refusal)).ok();
            return receiver;
        }
        state.requests.push_back(Asked { request, answer });
        drop(state);
        self.wake();
        receiver
    }

    pub(super) fn next_request(&self) -> Option<Asked> {
        self.state().requests.pop_front()
    }

    /// What operators changed, latest first.
    pub(crate) fn audit(&self) -> Vec<AuditEntry> {
        self.state().audit.iter().rev().cloned().collect()
    }

    pub(super) fn set_audit(&self, entries: VecDeque<AuditEntry>) {
        self.state().audit = entries;
    }

    pub(super) fn add_audit(&self, entry: AuditEntry) {
        self.announcer.operator(&entry);
        let mut state = self.state();
        state.audit.push_back(entry);
        while state.audit.len() > AUDIT_MAX {
            state.audit.pop_front();
        }
    }

    pub(super) fn quarantined(&self) -> Vec<Quarantined> {
        self.state().quarantined.clone()
    }

    pub(super) fn add_quarantined(&self, more: impl IntoIterator<Item = Quarantined>) {
        self.state().quarantined.extend(more);
    }

    /// A link of a replayer is up; the number is its holder of leases.
    pub(crate) fn link_up(&self) -> (u64, Arc<Notify>) {
        let mut state = self.state();
        state.next_link += 1;
        let (number, line) = (state.next_link, Line::default());
        let wake = Arc::clone(&line.wake);
        state.links.insert(number, line);
        (number, wake)
    }

    pub(crate) fn link_down(&self, link: u64) {
        let mut state = self.state();
        state.links.remove(&link);
        state.gone.push(link);
        drop(state);
        self.wake();
    }

    /// False: the peer sends more than it may.
    pub(crate) fn said(&self, link: u64, what: FromLink) -> bool {
        let mut state = self.state();
        let Some(line) = state.links.get_mut(&link) else { return true };
        if line.inbox.len() >= INBOX_MAX {
            return false;
        }
        line.inbox.push_back(what);
        drop(state);
        self.wake();
        true
    }

    /// Frames to write to a link, about `max_bytes`.
    pub(crate) fn to_write(&self, link: u64, max_bytes: usize) -> Vec<Frame> {
        let mut state = self.state();
        let Some(line) = state.links.get_mut(&link) else { return Vec::new() };
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(frame) = line.outbox.pop_front()
        {
            bytes += weight(&frame);
            frames.push(frame);
        }
        let was_full = line.outbox_bytes >= OUTBOX_BYTES;
        line.outbox_bytes -= bytes;
        if was_full && line.outbox_bytes < OUTBOX_BYTES {
            drop(state);
            self.wake();
        }
        frames
    }

    /// Links that are up, links that went down since this was asked last.
    pub(super) fn links(&self) -> (Vec<u64>, Vec<u64>) {
        let mut state = self.state();
        (state.links.keys().copied().collect(), std::mem::take(&mut state.gone))
    }

    pub(super) fn take_inbox(&self, link: u64) -> VecDeque<FromLink> {
        let mut state = self.state();
        let Some(line) = state.links.get_mut(&link) else { return VecDeque::new() };
        let inbox = std::mem::take(&mut line.inbox);
        for what in &inbox {
            if let FromLink::Lease(request) = what {
                line.open.insert(request.number, 0);
            }
        }
        inbox
    }

    /// What a former life had in hand of requests ends with what it had lent.
    pub(super) fn end_requests(&self) {
        let mut state = self.state();
        for line in state.links.values_mut() {
            for (number, granted) in std::mem::take(&mut line.open) {
                line.send(Frame::LeaseEnd(LeaseEnd { number, granted }));
            }
        }
    }

    /// Whether a link is up and takes more.
    pub(super) fn has_room(&self, link: u64) -> Option<bool> {
        self.state().links.get(&link).map(|line| line.outbox_bytes < OUTBOX_BYTES)
    }

    pub(super) fn send(&self, link: u64, frame: Frame) {
        let mut state = self.state();
        if let Some(line) = state.links.get_mut(&link) {
            line.send(frame);
        }
    }

    pub(super) fn send_backlog(&self, backlog: &Backlog) {
        let links: Vec<u64> = self.state().links.keys().copied().collect();
        links.into_iter().for_each(|link| self.send(link, Frame::Backlog(backlog.clone())));
    }

    /// Who a successor finds written and must tell: ordinals from these on. `None`: this is the process's first life.
    pub(super) fn told(&self) -> Option<BTreeMap<u16, u64>> {
        self.state().told.clone()
    }

    pub(super) fn keep_witness(&self, witness: Vec<u8>) {
        self.state().witness = Some(witness);
    }

    pub(super) fn kept_witness(&self) -> Option<Vec<u8>> {
        self.state().witness.clone()
    }

    /// The owner of a record is about to be told.
    pub(super) fn telling(&self, ticket: Ticket) {
        self.state().telling = Some(ticket);
    }

    /// The record that was being told when a former life died.
    pub(super) fn doubtful(&self) -> Option<Ticket> {
        self.state().telling.take()
    }

    /// The owner of everything in the lane before `ordinal` has been told.
    pub(super) fn tell(&self, lane: u16, ordinal: u64) {
        let mut state = self.state();
        state.telling = None;
        let told = state.told.get_or_insert_default().entry(lane).or_default();
        *told = (*told).max(ordinal);
    }

    /// The process begins: everything that is there was carried over.
    pub(super) fn carry_over(&self, lanes: &[LaneView]) {
        let mut state = self.state();
        let told = lanes.iter().map(|lane| (lane.lane, lane.tail)).collect();
        state.told = Some(told);
        for lane in lanes {
            let dropped = lane.dropped.iter().map(|(why, tally)| (why.as_str(), tally.points)).collect();
            let baseline = Baseline { settled: lane.settled.points, dropped, carried: lane.pending.points };
            state.baselines.insert(lane.lane, baseline);
        }
    }

    /// Points came into a lane by another way than the live path.
    pub(super) fn carry(&self, lane: u16, points: u64) {
        self.state().baselines.entry(lane).or_default().carried += points;
    }

    /// Blocks that were in the spill's hand are sent again by their senders, or dropped.
    pub(super) fn void_blocks(&self) {
        self.state().void_blocks = true;
    }

    pub(super) fn take_void_blocks(&self) -> bool {
        std::mem::take(&mut self.state().void_blocks)
    }

    /// Brings the books up to date. `untold`: points written whose owners have not been told; they are still theirs.
    pub(super) fn publish(&self, lanes: Vec<LaneView>, untold: &BTreeMap<u16, u64>) {
        let mut state = self.state();
        for lane in &lanes {
            let baseline = state.baselines.get(&lane.lane).cloned().unwrap_or_default();
            let since =
                |why: Lost, now: u64| now.saturating_sub(baseline.dropped.get(why.as_str()).copied().unwrap_or(0));
            let dropped = lane.dropped.iter().map(|(why, tally)| (why.as_str(), since(*why, tally.points)));
            let books = Persisted {
                pending: lane.pending.points.saturating_sub(untold.get(&lane.lane).copied().unwrap_or(0)),
                settled: lane.settled.points.saturating_sub(baseline.settled),
                dropped: dropped.filter(|(_, points)| *points > 0).collect(),
                carried: baseline.carried,
            };
            state.books.insert(lane.lane, (lane.destination.clone(), books));
        }
        self.announcer.gaps(&state.lanes, &lanes);
        state.lanes = lanes;
    }

    pub(super) fn set_figures(&self, figures: &Figures) {
        self.state().figures = figures.clone();
    }

    /// What was published last.
    pub(super) fn seen(&self) -> (ModeSeen, Vec<LaneView>, Figures) {
        let state = self.state();
        (state.mode.clone(), state.lanes.clone(), state.figures.clone())
    }

    /// Brings the metrics up to date.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        let (mode, lanes, figures) = self.seen();
        for known in Mode::ALL {
            let labels = [("mode", known.as_str().to_owned())];
            node::set_gauge(telemetry, Metric::SpillMode, &labels, u64::from(known == mode.mode));
        }
        node::set_gauge(telemetry, Metric::SpillBytes, &[], figures.bytes);
        telemetry.counter(Metric::SpillSyncs, &[]).absolute(figures.syncs);
        telemetry.counter(Metric::SpillSyncSeconds, &[]).absolute(figures.sync_nanos / 1_000_000_000);
        telemetry.counter(Metric::SpillWrittenPoints, &[]).absolute(figures.written_points);
        telemetry.counter(Metric::SpillWrittenBytes, &[]).absolute(figures.written_bytes);
        for lane in lanes {
            let labels = [("lane", lane.destination.clone())];
            node::set_gauge(telemetry, Metric::SpillLanePendingPoints, &labels, lane.pending.points);
            node::set_gauge(telemetry, Metric::SpillLanePendingBytes, &labels, lane.pending.bytes);
            node::set_gauge(telemetry, Metric::SpillGaps, &labels, lane.gaps.len() as u64);
            telemetry.counter(Metric::SpillSettledPoints, &labels).absolute(lane.settled.points);
        }
    }
}

/// What a frame counts for in an outbox.
fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::Leased(leased) => leased.bytes.len() + 64,
        Frame::Hello(_)
        | Frame::HelloOk(_)
        | Frame::Rules(_)
        | Frame::Refuse(_)
        | Frame::Batch { .. }
        | Frame::Durable(_)
        | Frame::Nack { .. }
        | Frame::Watermark(_)
        | Frame::Ping { .. }
        | Frame::Pong { .. }
        | Frame::Drain
        | Frame::Flush(_)
        | Frame::FlushReply(_)
        | Frame::Verdict(_)
        | Frame::LeaseRequest(_)
        | Frame::LeaseEnd(_)
        | Frame::Done(_)
        | Frame::Control(_)
        | Frame::Backlog(_) => 64,
    }
}
