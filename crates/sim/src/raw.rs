//! A relay's raw lines: its lanes to plain stores and the senders behind them, one machine `engine::store_link` each, with a
//! spill and perhaps a journal. As `relay::{lanes, shared, spill::path}` do it.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::spill::Why;
use engine::store_link::{Block, Event, Overflow, Receipts, Settings};
use engine::time::Mono;
use engine::wire::Ticket;

use crate::lines::Kept;
use crate::node::Cx;
use crate::rng::Rng;
use crate::sender::{self, Sender};
use crate::setup::{LinkId, LinkKind, Role, raw_name};

/// What one lane has open: lines, and which they are.
struct Open {
    lines: Vec<u8>,
    ids: Vec<u64>,
    since: Mono,
}

struct Lane {
    sender: Sender,
    /// Index of the store.
    store: usize,
    /// As the spill calls it.
    destination: String,
    open: Option<Open>,
    /// What each block that was offered and is not released holds.
    offered: VecDeque<Vec<u64>>,
    released: u64,
    /// Points that it let go of and that are nowhere.
    nowhere: u64,
    /// `reasserts_skipped` of its books.
    skipped: u64,
    /// A block was refused: clients are not read until there is room.
    full: bool,
}

/// A block that is due for the spill.
pub struct DueBlock {
    pub store: usize,
    pub destination: String,
    pub lines: Bytes,
    pub points: u32,
    pub number: u64,
    pub why: Why,
}

/// See the module's head. Without raw lines in this run there are no lanes.
pub struct RawLines {
    rng: Rng,
    relay: usize,
    epoch: u32,
    lanes: Vec<Lane>,
}

impl RawLines {
    /// Of a new process.
    pub fn new(cx: &mut Cx<'_>, epoch: u32) -> RawLines {
        let relay = match cx.setup.nodes[cx.me] {
            Role::Relay(relay) => relay,
            _ => 0,
        };
        let Some(raw) = &cx.setup.raw else {
            return RawLines { rng: Rng::new(0), relay, epoch, lanes: Vec::new() };
        };
        let mut rng = Rng::new(raw.seed ^ (relay as u64) << 48 ^ u64::from(epoch));
        let settings = Settings {
            overflow: Overflow::Spill,
            retain_bytes: raw.retain_bytes,
            journal: cx.setup.tunables.journal,
            ..sender::settings()
        };
        let mut lane = |store: usize| {
            let to = cx.setup.link_to(cx.me, LinkKind::Plain, store)?;
            Some(Lane {
                sender: Sender::new(settings, rng.number(), to),
                store,
                destination: raw.names[store].clone(),
                open: None,
                offered: VecDeque::new(),
                released: 0,
                nowhere: 0,
                skipped: 0,
                full: false,
            })
        };
        let lanes = (0..cx.setup.stores).filter_map(&mut lane).collect();
        RawLines { rng, relay, epoch, lanes }
    }

    /// Whether every destination has room.
    pub fn accepts(&self, now: Mono) -> bool {
        self.lanes.iter().all(|lane| !lane.full && lane.sender.link.accepts(now))
    }

    /// Clients send lines.
    pub fn input(&mut self, cx: &mut Cx<'_>) {
        let Some(raw) = &cx.setup.raw else { return };
        for _ in 0..self.rng.range(0, 3) {
            let routes = &raw.to[self.relay];
            let series = self.rng.index(routes.len());
            let at = cx.unix.0;
            let name = raw_name(self.relay, series);
            let id = cx.truth.lines.accepted(cx.me, (name.clone().into_bytes(), at), &routes[series]);
            for store in &routes[series] {
                let Some(lane) = self.lanes.iter_mut().find(|lane| lane.store == *store) else { continue };
                let open = lane.open.get_or_insert_with(|| Open { lines: Vec::new(), ids: Vec::new(), since: cx.now });
                open.lines.extend_from_slice(format!("{name} {id} {at}\n").as_bytes());
                open.ids.push(id);
            }
        }
        let full = cx.setup.tunables.batch_bytes;
        for lane in &mut self.lanes {
            if lane.open.as_ref().is_some_and(|open| open.lines.len() >= full) {
                lane.seal(cx);
            }
        }
    }

    /// Time passes: what has lingered is sealed, and the senders are told.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        let linger = cx.setup.tunables.linger;
        for lane in &mut self.lanes {
            lane.full = false;
            if lane.open.as_ref().is_some_and(|open| cx.now.since(open.since) >= linger) {
                lane.seal(cx);
            }
            lane.sender.tick(cx);
            lane.account(cx);
        }
    }

    /// Something happened to a connection.
    pub fn event(&mut self, cx: &mut Cx<'_>, link: LinkId, event: Event) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sender.to == link) {
            lane.sender.event(cx, event);
            lane.account(cx);
        }
    }

    /// Obeys the machines.
    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        self.lanes.iter_mut().for_each(|lane| lane.sender.pump(cx));
    }

    /// Nothing is held.
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.open.is_none() && lane.sender.is_quiet())
    }

    fn lane(&mut self, store: usize) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.store == store)
    }

    /// The store behind a destination of the spill.
    pub fn store_of(&self, destination: &str) -> Option<usize> {
        self.lanes.iter().find(|lane| lane.destination == destination).map(|lane| lane.store)
    }

    /// What is due for the spill.
    pub fn take_due(&mut self, cx: &mut Cx<'_>, max_bytes: u64) -> Vec<DueBlock> {
        let (mut all, mut left) = (Vec::new(), max_bytes);
        for lane in &mut self.lanes {
            if left == 0 {
                break;
            }
            for due in lane.sender.link.take_due(cx.now, left) {
                left = left.saturating_sub(due.block.bytes.len() as u64);
                let is_journal = due.why == Why::Journal;
                cx.truth.visit(if is_journal { "block journalled" } else { "block spilled" });
                if !is_journal {
                    cx.truth.lines.order_is_lost(cx.me, lane.store);
                }
                let kept = Kept { node: cx.me, epoch: self.epoch, store: lane.store, is_journal, number: due.number };
                cx.truth.lines.taken(kept, &due.block.bytes);
                all.push(DueBlock {
                    store: lane.store,
                    destination: lane.destination.clone(),
                    lines: due.block.bytes,
                    points: due.block.points,
                    number: due.number,
                    why: due.why,
                });
            }
        }
        all
    }

    /// Everything taken up to this number is on disk.
    pub fn spilled(&mut self, cx: &mut Cx<'_>, store: usize, number: u64) {
        let epoch = self.epoch;
        let Some(lane) = self.lane(store) else { return };
        cx.truth.lines.on_disk(Kept { node: cx.me, epoch, store, is_journal: false, number });
        lane.sender.link.spilled(cx.now, number);
        lane.account(cx);
    }

    /// A block of the journal is on disk.
    pub fn journalled(&mut self, cx: &mut Cx<'_>, store: usize, number: u64, ticket: Ticket) -> bool {
        let epoch = self.epoch;
        let Some(lane) = self.lane(store) else { return true };
        cx.truth.lines.on_disk(Kept { node: cx.me, epoch, store, is_journal: true, number });
        let keeps = lane.sender.link.journalled(cx.now, number, ticket);
        lane.account(cx);
        keeps
    }

    /// Tickets to be settled.
    pub fn take_settled(&mut self) -> Vec<Ticket> {
        self.lanes.iter_mut().flat_map(|lane| lane.sender.link.take_settled()).collect()
    }

    /// Whether a journalled block is still here.
    pub fn holds(&self, destination: &str, epoch: u32, number: u64) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.destination == destination);
        epoch == self.epoch && lane.is_some_and(|lane| lane.sender.link.holds(number))
    }

    /// The spill has nothing in hand any more.
    pub fn spill_restarted(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.sender.link.spill_restarted());
    }

    /// Whether the spill takes anything.
    pub fn set_spill(&mut self, able: bool) {
        self.lanes.iter_mut().for_each(|lane| lane.sender.link.set_spill(able));
    }
}

impl Lane {
    fn seal(&mut self, cx: &mut Cx<'_>) {
        let Some(open) = self.open.take() else { return };
        let points = u32::try_from(open.ids.len()).unwrap_or(u32::MAX);
        let block = Block { bytes: Bytes::from(open.lines), points };
        match self.sender.link.offer(cx.now, block) {
            Ok(()) => self.offered.push_back(open.ids),
            Err(block) => {
                cx.truth.visit("block refused");
                self.open = Some(Open { lines: block.bytes.to_vec(), ..open });
                self.full = true;
            }
        }
        self.account(cx);
    }

    /// INV-1, INV-2 and INV-6 of one sender: what it let go of was read, is on disk, or is counted.
    fn account(&mut self, cx: &mut Cx<'_>) {
        let link = &self.sender.link;
        let (books, receipts) = (link.books(), link.receipts());
        let dropped = books.dropped_retain_full + books.dropped_spill_full;
        if dropped > 0 {
            cx.truth.visit("block dropped");
            cx.truth.dropped("spill_full");
        }
        // Hazard 9: what the spill has, it having been journalled or not, comes later.
        if dropped + books.spilled + books.reasserts_skipped > 0 || receipts == Receipts::Unsupported {
            cx.truth.lines.order_is_lost(cx.me, self.store);
        }
        // Under pressure a store that seems to give no receipts loses what a dead connection has: see `README.md`.
        let gives_up = books.reasserts_skipped > self.skipped;
        self.skipped = books.reasserts_skipped;
        let may_be_lost = gives_up && receipts == Receipts::Unsupported;
        let released = link.progress().released;
        for ids in self.offered.drain(..usize::try_from(released - self.released).unwrap_or(0)) {
            let nowhere = cx.truth.lines.let_go(&ids, self.store, receipts == Receipts::Unsupported && !may_be_lost);
            if may_be_lost {
                cx.truth.visit("unconfirmed given up");
            } else {
                self.nowhere += nowhere;
            }
        }
        self.released = released;
        let nowhere = self.nowhere;
        if nowhere > dropped {
            let to = &self.destination;
            cx.truth.violated("INV-2", || {
                format!("a sender to {to} let go of {nowhere} points that are neither read nor on disk: {books:?}")
            });
        }
        let retain = cx.setup.raw.as_ref().map_or(0, |raw| raw.retain_bytes);
        let held = link.held_bytes();
        // One block may come when there is just room.
        let slack = retain / 8 + 8 * cx.setup.tunables.batch_bytes as u64;
        if held > retain + slack {
            cx.truth.violated("INV-6", || format!("a sender holds {held} bytes of {retain}"));
        }
    }
}
