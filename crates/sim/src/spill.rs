//! The shell of a relay's spill, as the thread `relay.spill` is: pull what is due, write, sync, tell; settle, lend, check.

mod hang;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use engine::batch::{BatchId, Incarnation};
use engine::spill::{self, Lost, Offered, Op, Origin, Settled, Spill};
use engine::time::Mono;
use engine::wire::{Done, Frame, LeaseEnd, LeaseRequest, Outcome, Ticket};
use store::{MemStore, Store, StoreError, WriteBatch};

use crate::live::{Live, Owner, Told, balance, find_untold, finished};
use crate::node::{Cx, Port};

const PULL_BYTES: u64 = 4 << 20;
const REOPEN: Duration = Duration::from_secs(1);
const BACKLOG_EVERY: Duration = Duration::from_secs(1);

struct Session {
    store: MemStore,
    spill: Spill,
    fresh: Vec<(Ticket, Owner)>,
    untold: VecDeque<(Ticket, Owner)>,
    unsynced_since: Option<Mono>,
    oldest: Option<(Option<u32>, Option<engine::time::UnixSeconds>)>,
}

#[derive(Default)]
struct Line {
    inbox: VecDeque<Frame>,
    outbox: VecDeque<Frame>,
}

/// See the module's head.
pub struct Spiller {
    who: Incarnation,
    session: Option<Session>,
    hang: hang::Hang,
    retry_at: Mono,
    /// Of each lane the first ordinal whose owner has not been told; `None`: the first life of the thread.
    tails: Option<BTreeMap<u16, u64>>,
    /// Batches of this life that the machine was told are on disk, and let go or may let go.
    pub told: BTreeSet<BatchId>,
    links: BTreeMap<u64, Line>,
    gone: Vec<u64>,
    backlog_at: Mono,
    able: bool,
    /// The store failed: what it may have of blocks in hand, their senders have back.
    void_blocks: bool,
}

impl Spiller {
    /// Not open yet.
    pub fn new(who: Incarnation) -> Spiller {
        Spiller {
            who,
            session: None,
            hang: hang::Hang::No,
            retry_at: Mono::ZERO,
            tails: None,
            told: BTreeSet::new(),
            links: BTreeMap::new(),
            gone: Vec::new(),
            backlog_at: Mono::ZERO,
            able: false,
            void_blocks: false,
        }
    }

    /// A replayer's link is up.
    pub fn link_up(&mut self, conn: u64) {
        self.links.insert(conn, Line::default());
    }

    /// It is gone.
    pub fn link_down(&mut self, conn: u64) {
        self.links.remove(&conn);
        self.gone.push(conn);
    }

    /// A replayer said something.
    pub fn said(&mut self, conn: u64, frame: Frame) {
        if let Some(line) = self.links.get_mut(&conn) {
            line.inbox.push_back(frame);
        }
    }

    /// What replayers are to be told.
    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        for (conn, line) in &mut self.links {
            for frame in line.outbox.drain(..) {
                cx.out.push((Port::Conn(*conn), frame));
            }
        }
    }

    /// The thread dies where it is; its successor opens the store.
    pub fn thread_dies(&mut self, cx: &mut Cx<'_>) {
        if self.session.take().is_some() {
            cx.truth.visit("spill thread died");
        }
    }

    /// Does what is due.
    pub fn step(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) {
        if self.is_hung(cx, live) {
            return;
        }
        if self.session.is_none() {
            if cx.now < self.retry_at {
                return;
            }
            if let Err(error) = self.open(cx, live) {
                self.failed(cx, live, &error);
                return;
            }
        }
        if let Err(error) = self.work(cx, live) {
            self.failed(cx, live, &error);
        }
    }

    fn failed(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>, error: &StoreError) {
        cx.truth.visit("spill failed");
        cx.trace.say(cx.now, || format!("spill of node {} failed: {error}", cx.me));
        self.session = None;
        self.void_blocks = true;
        self.able = false;
        self.retry_at = cx.now + REOPEN;
        live.set_able(cx, false);
    }

    fn open(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> Result<(), StoreError> {
        let store = cx.disk.store.open();
        let mut entries = Vec::new();
        let (from, to) = spill::books_range();
        store.salvage(&from, &to, &mut |key, value| {
            entries.push((bytes::Bytes::copy_from_slice(key), bytes::Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        let loaded = Spill::load(self.who.sender, "sim", &entries, cx.disk.witness.as_deref());
        let mut spill = loaded.unwrap_or_else(|error| panic!("a spill of our own format: {error}"));
        for (from, to) in spill.beyond_books() {
            store.salvage(&from, &to, &mut |key, value| {
                spill.found(key, value);
                ControlFlow::Continue(())
            })?;
        }
        spill.loaded(cx.unix);
        spill.tick(cx.now, cx.unix);
        let mut session =
            Session { store, spill, fresh: Vec::new(), untold: VecDeque::new(), unsynced_since: None, oldest: None };
        match &self.tails {
            None => self.tails = Some(session.spill.lanes().iter().map(|lane| (lane.lane, lane.tail)).collect()),
            Some(tails) => {
                let life = (self.who, std::mem::take(&mut self.void_blocks));
                session.untold.extend(find_untold((&session.store, &session.spill), tails, life, live.raw)?);
            }
        }
        self.session = Some(session);
        self.sync_written(cx, live)?;
        live.restarted(cx);
        if self.write(cx, live)? {
            self.able = true;
            live.set_able(cx, true);
        }
        Ok(())
    }

    fn work(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.spill.tick(cx.now, cx.unix) > 0 {
            cx.truth.visit("lease ran out");
        }
        if self.able {
            self.pull(cx, live)?;
        } else if cx.now >= self.retry_at {
            self.retry_at = cx.now + REOPEN;
            self.able = true;
            live.set_able(cx, true);
        }
        for ticket in live.take_settled() {
            self.settle(cx, ticket, Outcome::Delivered)?;
        }
        self.serve(cx, live)?;
        self.check()?;
        let Some(session) = &self.session else { return Ok(()) };
        if session.spill.has_changes() {
            self.write(cx, live)?;
        }
        let every = cx.setup.tunables.spill_sync;
        let due = self.session.as_ref().and_then(|session| session.unsynced_since).map(|since| since + every);
        match due {
            Some(due) if due <= cx.now => self.sync_written(cx, live)?,
            Some(due) => cx.wakes.push((due, 0)),
            None => {}
        }
        self.say_oldest(live);
        if cx.now.since(self.backlog_at) >= BACKLOG_EVERY
            && let Some(session) = &self.session
        {
            self.backlog_at = cx.now;
            balance(cx, &session.spill);
            if session.spill.dead_letters().batches > 0 {
                cx.truth.visit("dead letters");
            }
            let backlog = session.spill.backlog();
            self.links.values_mut().for_each(|line| line.outbox.push_back(Frame::Backlog(backlog.clone())));
        }
        Ok(())
    }

    fn pull(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        for (batch, why) in live.machine.take_dead() {
            session.spill.keep_dead(&batch, why.as_str());
        }
        session.fresh.extend(live.append_due(cx, self.who.epoch, PULL_BYTES, &mut session.spill));
        if !session.fresh.is_empty() {
            self.write(cx, live)?;
        }
        Ok(())
    }

    /// False: the disk is full, and what was not written is given back.
    fn write(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> Result<bool, StoreError> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let mut batch = WriteBatch::new();
        for op in session.spill.ops() {
            match op {
                Op::Put { key, value } => batch.put(&key, &value),
                Op::Delete { key } => batch.delete(&key),
            }
        }
        for (key, value) in session.spill.records() {
            batch.put(key, value);
        }
        if session.spill.staged_bytes() == 0 {
            batch.set_frees();
        }
        match session.store.write(&batch) {
            Ok(()) => {}
            Err(StoreError::Full { .. } | StoreError::Busy) => {
                cx.truth.visit("spill full");
                session.spill.refused();
                session.fresh.clear();
                if session.unsynced_since.is_some() {
                    self.sync_written(cx, live)?;
                }
                self.able = false;
                self.retry_at = cx.now + REOPEN;
                live.set_able(cx, false);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        session.spill.written();
        session.untold.extend(session.fresh.drain(..));
        session.unsynced_since.get_or_insert(cx.now);
        Ok(true)
    }

    fn sync_written(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.store.sync()?;
        cx.disk.witness = Some(session.spill.witness());
        session.unsynced_since = None;
        self.say_oldest(live);
        self.tell(cx, live)?;
        let Some(session) = &mut self.session else { return Ok(()) };
        for (from, to) in session.spill.synced() {
            session.store.forget(&from, &to)?;
        }
        Ok(())
    }

    fn tell(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut at_once = Vec::new();
        for (ticket, owner) in std::mem::take(&mut session.untold) {
            let keeps = match owner {
                Owner::Live(told) => {
                    let keeps = live.spilled(cx, told, ticket);
                    if let Told::Batch(id) = told
                        && keeps
                    {
                        self.told.insert(id);
                    }
                    keeps
                }
                Owner::Nobody => true,
                Owner::Void => false,
            };
            if !keeps {
                at_once.push(ticket);
            }
            let tail = self.tails.get_or_insert_default().entry(ticket.lane).or_default();
            *tail = (*tail).max(ticket.ordinal + 1);
        }
        for ticket in at_once {
            let meta = self.meta(ticket)?;
            if let (Some(meta), Some(session)) = (meta, &mut self.session) {
                session.spill.settle(ticket, meta);
            }
        }
        Ok(())
    }

    fn say_oldest(&mut self, live: &mut Live<'_>) {
        let Some(session) = &mut self.session else { return };
        let oldest = session.spill.oldest();
        if session.oldest != Some(oldest) {
            session.oldest = Some(oldest);
            live.set_spilled(oldest);
        }
    }

    fn value(&self, ticket: Ticket) -> Result<Option<bytes::Bytes>, StoreError> {
        let Some(session) = &self.session else { return Ok(None) };
        match session.store.get(&spill::key(ticket.lane, ticket.ordinal)) {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            other => other,
        }
    }

    fn meta(&self, ticket: Ticket) -> Result<Option<spill::Meta>, StoreError> {
        let Some(session) = &self.session else { return Ok(None) };
        if !session.spill.is_pending(ticket) {
            return Ok(None);
        }
        if let Some(meta) = session.spill.leased_meta(ticket) {
            return Ok(Some(meta));
        }
        let Some(value) = self.value(ticket)? else { return Ok(None) };
        Ok(spill::decode(&value).ok().map(|record| session.spill.meta(&record)))
    }

    fn settle(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: Outcome) -> Result<(), StoreError> {
        let meta = self.meta(ticket)?;
        let value = self.value(ticket)?;
        let Some(session) = &mut self.session else { return Ok(()) };
        if outcome == Outcome::Released {
            session.spill.release(ticket);
            return Ok(());
        }
        let lost = Lost::of(outcome);
        let Some(meta) = meta else {
            session.spill.release_unread(ticket);
            return Ok(());
        };
        let settled = match lost {
            None => session.spill.settle(ticket, meta),
            Some(why) => session.spill.bury(ticket, meta, why, value.as_deref()),
        };
        if let Some(record) = value.as_deref().and_then(|value| spill::decode(value).ok())
            && settled == Settled::Now
        {
            let store = cx.setup.store_of(record.header.destination);
            finished(cx, &record.header, store, lost);
        }
        Ok(())
    }

    fn serve(&mut self, cx: &mut Cx<'_>, live: &Live<'_>) -> Result<(), StoreError> {
        if let Some(session) = &mut self.session {
            self.gone.drain(..).for_each(|link| session.spill.end_leases_of(link));
        }
        let conns: Vec<u64> = self.links.keys().copied().collect();
        for conn in conns {
            let inbox = self.links.get_mut(&conn).map(|line| std::mem::take(&mut line.inbox)).unwrap_or_default();
            for frame in inbox {
                match frame {
                    Frame::LeaseRequest(request) => self.lend(cx, live, conn, &request)?,
                    Frame::Done(Done { outcome, tickets }) => {
                        for ticket in tickets {
                            self.settle(cx, ticket, outcome)?;
                        }
                    }
                    _ => cx.hang_ups.push(Port::Conn(conn)),
                }
            }
        }
        Ok(())
    }

    fn lend(&mut self, cx: &mut Cx<'_>, live: &Live<'_>, conn: u64, request: &LeaseRequest) -> Result<(), StoreError> {
        let (Some(session), Some(line)) = (&mut self.session, self.links.get_mut(&conn)) else { return Ok(()) };
        let Ok(mut grant) = session.spill.grant(conn, request) else { return Ok(()) };
        let holds = |origin: Origin<'_>| live.holds(origin);
        while let Some((from, to)) = session.spill.grant_range(&mut grant, &|_| None) {
            let (spill, store) = (&mut session.spill, &session.store);
            let mut stopped = None;
            let scanned = store.scan(&from, &to, &mut |key, value| {
                match spill.offer(&mut grant, key, value, &holds, cx.now) {
                    Offered::Lent(leased) => line.outbox.push_back(Frame::Leased(leased)),
                    Offered::Skipped => {}
                    offered @ (Offered::Jump | Offered::Enough) => {
                        stopped = Some(offered);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
            match (scanned, stopped) {
                (Err(StoreError::Corrupt { .. }), _) => {
                    session.spill.check_from(&grant);
                    break;
                }
                (Err(error), _) => return Err(error),
                (Ok(()), None) => session.spill.grant_ended(&mut grant),
                (Ok(()), Some(Offered::Jump)) => {}
                (Ok(()), Some(_)) => break,
            }
        }
        let end = LeaseEnd { number: grant.number, granted: grant.granted };
        session.spill.granted(grant);
        line.outbox.push_back(Frame::LeaseEnd(end));
        if end.granted > 0 {
            cx.truth.visit("lent");
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some((lane, (from, to))) = session.spill.check_range() {
            let spill = &mut session.spill;
            session.store.salvage(&from, &to, &mut |_, value| {
                spill.checked(lane, value);
                ControlFlow::Continue(())
            })?;
            session.spill.checked_all(lane);
        }
        Ok(())
    }

    /// Points that are pending, and whether the spill is at work.
    pub fn pending(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.spill.lanes().iter().map(|lane| lane.pending.points).sum())
    }
}
