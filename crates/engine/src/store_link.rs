//! The sender to one address of a plain Graphite store, which acknowledges nothing.
//!
//! A store keeps the last write per (series, timestamp). So sending twice does no harm **if the last write is the newest
//! value**; all rules here serve that. Blocks are whole canonical lines; they are sent in the order of offering, and the
//! machine only ever goes *back* to a point in that order and sends everything from there again.
//!
//! **Receipts.** Every `rotate` or `rotate_bytes` the connection is half-closed. A FIN then says that the store has read
//! everything (`delivered`); until then points are `delivered_unconfirmed`. The next connection opens only after the old
//! one's FIN, its loss, or `receipt_timeout` (offers wait meanwhile). The patience doubles with each missing receipt up
//! to `linger`, and is twice what the last one took: a store that is merely slow must not be buried under repetitions. A store
//! that twice in a row, and never before otherwise, gives no FIN is [`Receipts::Unsupported`]; so is one whose FIN was perhaps
//! its end, when the longest patience was twice in vain. The last connection is given up like those before, and what it took
//! goes again (the store may only be slow). After that the store is not rotated and nothing is re-sent for want of a FIN; its
//! points stay `delivered_unconfirmed` for ever and their bytes go after `silence` and `linger`: not before a dead connection
//! would have been noticed, whose bytes go again. When such a store ends a connection itself (a restart, perhaps of another
//! program), one more rotation may answer the question anew. At shutdown it is asked for a last time, and believed without an answer.
//!
//! **Loss.** After a reset, an early EOF or a missing receipt everything unconfirmed is owed again (`in_flight`) and goes
//! out first on the next connection, and everything since the oldest of it once more `linger` after the loss.
//!
//! **Hazards of order**, and what meets each:
//! 1. *Two connections at once*: the store may read the newer one first. Only one is open, see above.
//! 2. *Bytes of a lost connection that the store reads later than their re-sent copies* would put an old value back. They
//!    have gone by `linger` after the loss; the re-assert then writes all newer values again. Therefore receipted blocks
//!    are also kept while a re-assert is due. The shell aborts a lost connection, so that our own kernel, which repeats
//!    for minutes, holds none. Not covered: a store that sits on such bytes for longer than `linger`.
//! 3. *A re-assert or a re-send cut short* leaves an old value where a newer one was. It goes on, from its beginning, on
//!    the next connection; its copies cannot be given up once its first block is out.
//! 4. *Copies given up under memory pressure*: only a prefix goes, so what is still sent again ends with the newest. The
//!    series in the prefix lose hazard 2's cure: `reasserts_skipped` counts their points.
//! 5. *A dropped block* (`dropped_retain_full`) of which an older value is sent again leaves that older value: a loss, and
//!    counted as one.
//! 6. *A block written in part* counts as not written for the books, and as written for hazard 2.
//! 7. *The store closes by itself at the moment of our half-close*: its FIN is no receipt. The shell must tell the two
//!    apart (see `output`), the machine takes `PeerClosed` in any state as a loss.
//! 8. *A process that was here before, and died*, wrote bytes that the store reads later than ours. Where that matters
//!    ([`Settings::follows_a_life`]), a start counts as a loss: what is written in its first `linger` is written once more.
//! 9. *A block that the spill took* comes later, by a replay or because the spill gave it back, like a block that was
//!    offered again; an older value that is re-asserted after that stays. Only raw lines can meet this, where one (series, timestamp) is written twice.
//!
//! **Journal.** Where it is asked for, the spill writes every block that is offered, and is told to settle it when the
//! block is released; see `journal` and `spill`.
//!
//! **Memory.** At most `retain_bytes` and one block are held. Over it copies go first, then a rotation is forced; what
//! comes then, see [`Overflow`] and, for the spill, `spill`.
//!
//! The machine survives its shell: after a crash of the shell the connection is gone, so the shell begins with `Reset`.

mod books;
mod journal;
mod log;
#[cfg(test)]
mod model;
mod settings;
mod spill;
#[cfg(test)]
mod tests;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

pub use self::books::{Books, Counters, Progress};
use self::log::Log;
pub use self::settings::{Overflow, Settings};
pub use self::spill::Due;
pub use self::words::{Block, Command, Event, Phase, Receipts};
use crate::backoff::{self, Backoff};
use crate::time::Mono;

#[derive(Clone, Copy, Debug)]
enum State {
    Disconnected { until: Mono },
    Connecting,
    Open { since: Mono, first_write: Option<Mono> },
    HalfClosed { since: Mono, until: Mono },
    Drained,
}

/// The machine. See the module for its rules.
#[derive(Debug)]
pub struct StoreLink {
    settings: Settings,
    state: State,
    log: Log,
    commands: VecDeque<Command>,
    receipts: Receipts,
    /// Rotations without FIN since the last one with.
    missed: u32,
    /// How long receipts take of late.
    receipt_takes: Duration,
    rotate_now: bool,
    draining: bool,
    progress_at: Option<Mono>,
    /// Since when there has been no connection, rotations included.
    away_since: Option<Mono>,
    spill_able: bool,
    /// Time has begun.
    begun: bool,
    /// Shutdown: nothing is sent any more, what is not confirmed is for the spill.
    to_spill: bool,
    backoff: Backoff,
    random: u64,
    counters: Counters,
}

impl StoreLink {
    /// A link that wants to connect at once. `seed`: for the jitter of reconnects, different for every link.
    pub fn new(settings: Settings, seed: u64) -> StoreLink {
        StoreLink {
            settings,
            state: State::Disconnected { until: Mono::ZERO },
            log: Log::new(settings.journal && settings.overflow == Overflow::Spill),
            commands: VecDeque::new(),
            receipts: Receipts::Unknown,
            missed: 0,
            receipt_takes: Duration::ZERO,
            rotate_now: false,
            draining: false,
            progress_at: None,
            away_since: None,
            spill_able: false,
            begun: false,
            to_spill: false,
            backoff: Backoff::from(settings.backoff_base),
            random: seed,
            counters: Counters::default(),
        }
    }

    /// Takes one block, or gives it back when [`StoreLink::accepts`] says no. May drop older blocks, see the module.
    ///
    /// # Errors
    /// The block itself; nothing of it is in the books.
    pub fn offer(&mut self, now: Mono, block: Block) -> Result<(), Block> {
        // A store that was never tried has `ack_timeout` to show itself.
        self.progress_at.get_or_insert(now);
        if !self.accepts(now) {
            self.ask_for_room(now);
            return Err(block);
        }
        if block.bytes.is_empty() {
            debug_assert!(block.points == 0, "BUG: points without bytes");
            return Ok(());
        }
        self.log.push(block);
        self.make_room(now);
        self.step(now);
        Ok(())
    }

    /// Whether [`StoreLink::offer`] would take a block. No: back-pressure while the store works off what is held.
    pub fn accepts(&self, now: Mono) -> bool {
        let releasable = match self.receipts {
            Receipts::Unknown | Receipts::Supported => self.log.copy_bytes(),
            Receipts::Unsupported => self.log.copy_bytes() + self.log.unreceipted_bytes(),
        };
        let held_bytes = self.log.bytes() - releasable;
        let retain = self.settings.retain_bytes;
        let has_room = match self.settings.overflow {
            Overflow::Refuse => held_bytes < retain,
            Overflow::Spill if self.spill_able => held_bytes + self.log.taken_bytes() < retain + retain / 8,
            Overflow::DropOldest | Overflow::Spill => held_bytes < retain || !self.is_progressing(now),
        };
        has_room && !self.draining
    }

    /// Whether the link is being shut down, so that it takes no block any more.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Hands the shell the next blocks for one large write: nothing while it still holds some, or must not write.
    ///
    /// At least one block if there is one, otherwise at most `bytes_max` bytes and `blocks_max` blocks, appended to `out`.
    pub fn next_to_write(&mut self, now: Mono, bytes_max: usize, blocks_max: usize, out: &mut Vec<Bytes>) {
        self.step(now);
        if matches!(self.state, State::Open { .. }) && self.commands.is_empty() && self.log.hand_is_empty() {
            self.log.hand(bytes_max, blocks_max, out);
        }
    }

    /// Applies one event. The shell then drains [`StoreLink::next_command`]. An event that does not fit the state (a late
    /// word of a connection already given up) changes nothing.
    pub fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Connected => self.connected(now),
            Event::ConnectFailed => self.connect_failed(now),
            Event::Written { blocks } => self.wrote(now, blocks),
            Event::PeerClosed => self.peer_closed(now),
            Event::Reset => self.reset(now),
            Event::Fin => self.fin(now),
            Event::Tick => {}
            Event::Drain => {
                self.draining = true;
                self.log.forget_reasserts();
            }
        }
        self.step(now);
    }

    /// The next effect the shell owes the world, oldest first.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When `Tick` must be handled even if nothing else happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.state {
            State::Disconnected { until } | State::HalfClosed { until, .. } => Some(until),
            State::Connecting | State::Drained => None,
            State::Open { first_write, .. } => {
                let release = match self.receipts {
                    Receipts::Unknown | Receipts::Supported => first_write.map(|at| at + self.settings.rotate),
                    Receipts::Unsupported => self.log.written_release_at(self.unconfirmed_for()),
                };
                // With blocks in the shell's hand the next `Written` comes first.
                [self.log.reassert_due(), release].into_iter().flatten().min().filter(|_| self.log.hand_is_empty())
            }
        }
    }

    /// The books at this moment.
    pub fn books(&self) -> Books {
        self.log.books()
    }

    /// What happened to connections so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the store answers half-closes.
    pub fn receipts(&self) -> Receipts {
        self.receipts
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.log.progress()
    }

    /// Bytes of all blocks held.
    pub fn held_bytes(&self) -> u64 {
        self.log.bytes() + self.log.taken_bytes()
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Disconnected { .. } => Phase::Disconnected,
            State::Connecting => Phase::Connecting,
            State::Open { .. } => Phase::Open,
            State::HalfClosed { .. } => Phase::AwaitingReceipt,
            State::Drained => Phase::Drained,
        }
    }

    fn connected(&mut self, now: Mono) {
        if matches!(self.state, State::Connecting) {
            self.state = State::Open { since: now, first_write: None };
            self.counters.connects += 1;
            self.away_since = None;
            self.rotate_now = false;
        }
    }

    fn connect_failed(&mut self, now: Mono) {
        if matches!(self.state, State::Connecting) {
            self.counters.connect_failures += 1;
            self.back_off(now);
        }
    }

    fn wrote(&mut self, now: Mono, blocks: usize) {
        if let State::Open { since, first_write } = &mut self.state {
            let is_new = self.log.wrote(blocks as u64, now);
            first_write.get_or_insert(now);
            // A store that accepts, takes a send buffer full of repetitions and dies, again and again, makes no progress.
            if is_new || now.since(*since) >= self.settings.ack_timeout {
                self.progress_at = Some(now);
            }
        }
    }

    fn fin(&mut self, now: Mono) {
        if let State::HalfClosed { since, .. } = self.state {
            self.log.receipt();
            self.counters.receipts += 1;
            self.receipt_takes = now.since(since).max(self.receipt_takes / 2);
            self.receipts = Receipts::Supported;
            self.missed = 0;
            self.backoff.forget();
            self.progress_at = Some(now);
            self.commands.push_back(Command::Close);
            self.state = State::Disconnected { until: now };
        } else {
            self.peer_closed(now);
        }
    }

    fn peer_closed(&mut self, now: Mono) {
        if mutant!("end_is_a_receipt") && matches!(self.state, State::Open { .. } | State::HalfClosed { .. }) {
            self.log.receipt();
        }
        if self.lost(now) {
            self.counters.peer_closes += 1;
        }
    }

    fn reset(&mut self, now: Mono) {
        if self.lost(now) {
            self.counters.resets += 1;
        } else if matches!(self.state, State::Connecting) {
            // The shell died over the attempt.
            self.commands.clear();
            self.back_off(now);
        }
    }

    /// The connection is gone. False if there was none.
    fn lost(&mut self, now: Mono) -> bool {
        match self.state {
            State::Disconnected { .. } | State::Connecting | State::Drained => return false,
            State::Open { since, .. } => {
                if now.since(since) >= backoff::PROOF {
                    self.backoff.forget();
                }
            }
            State::HalfClosed { .. } => {}
        }
        if self.receipts == Receipts::Unsupported {
            self.receipts = Receipts::Unknown;
            self.missed = 1;
        }
        self.log.lose(self.reassert_due(now));
        // What was still to be done to that connection is void.
        self.commands.clear();
        self.commands.push_back(Command::Close);
        self.back_off(now);
        true
    }

    fn no_receipt(&mut self, now: Mono) {
        self.counters.receipts_missed += 1;
        let longest = self.settings.linger.max(self.settings.receipt_timeout);
        let is_last = match self.receipts {
            Receipts::Unknown => self.missed >= 1,
            Receipts::Supported => self.missed >= 1 && self.patience(self.missed - 1) == longest,
            Receipts::Unsupported => false,
        };
        self.missed = self.missed.saturating_add(1);
        match self.receipts {
            // Asked only at shutdown: who never answers would get the same again and again.
            Receipts::Unsupported => {}
            Receipts::Unknown | Receipts::Supported => {
                // Also at the last miss: a store that is only slow has perhaps not read what goes with the connection.
                self.log.lose(self.reassert_due(now));
                if is_last {
                    self.receipts = Receipts::Unsupported;
                }
            }
        }
        self.commands.push_back(Command::Close);
        self.back_off(now);
    }

    /// How long what was written to a store without receipts is kept.
    fn unconfirmed_for(&self) -> Duration {
        self.settings.silence + self.settings.linger
    }

    fn reassert_due(&self, now: Mono) -> Option<Mono> {
        (!self.draining).then(|| now + self.settings.linger)
    }

    fn back_off(&mut self, now: Mono) {
        let random = self.next_random();
        self.state = State::Disconnected { until: now + self.backoff.on_failure(random) };
    }

    /// splitmix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Does what is due, as far as the state allows it.
    fn step(&mut self, now: Mono) {
        if !std::mem::replace(&mut self.begun, true) && self.settings.follows_a_life && !mutant!("no_reassert_at_start")
        {
            self.log.assert_from_start(now + self.settings.linger);
        }
        match self.state {
            State::Disconnected { until } => {
                self.away_since.get_or_insert(now);
                if self.draining && self.is_settled() {
                    self.state = State::Drained;
                } else if until <= now && !self.to_spill {
                    self.commands.push_back(Command::Connect);
                    self.state = State::Connecting;
                }
            }
            State::Connecting | State::Drained => {}
            State::Open { first_write, .. } => {
                // With blocks in the shell's hand nothing may move; `next_to_write` gives none until this was done.
                if self.log.hand_is_empty() {
                    self.step_open(now, first_write);
                }
            }
            State::HalfClosed { until, .. } => {
                if until <= now {
                    self.no_receipt(now);
                    self.step(now);
                }
            }
        }
    }

    fn step_open(&mut self, now: Mono, first_write: Option<Mono>) {
        self.log.begin_reasserts(now);
        let rotate = match self.receipts {
            Receipts::Unknown | Receipts::Supported => {
                let rotate_bytes = self.settings.rotate_bytes.min(self.settings.retain_bytes / 2);
                let is_old = first_write.is_some_and(|at| at + self.settings.rotate <= now);
                let is_due = self.rotate_now || is_old || self.log.unreceipted_bytes() >= rotate_bytes;
                self.log.has_unreceipted() && is_due
            }
            Receipts::Unsupported => {
                self.log.release_written(now, self.unconfirmed_for());
                false
            }
        };
        if rotate || (self.draining && self.log.all_written()) {
            self.rotate_now = false;
            self.commands.push_back(Command::HalfClose);
            self.state = State::HalfClosed { since: now, until: now + self.patience(self.missed) };
        }
    }

    /// How long a receipt is waited for after so many that were missed.
    fn patience(&self, missed: u32) -> Duration {
        let first = self.settings.receipt_timeout.max(self.receipt_takes.saturating_mul(2));
        let longest = self.settings.linger.max(self.settings.receipt_timeout);
        first.saturating_mul(1 << missed.min(16)).min(longest)
    }

    /// Nothing is left that this link could still do for what it holds.
    fn is_settled(&self) -> bool {
        let has_its_receipts = match self.receipts {
            Receipts::Unknown | Receipts::Supported => !self.log.has_unreceipted(),
            Receipts::Unsupported => true,
        };
        has_its_receipts && self.log.all_written() && self.log.taken_bytes() == 0
    }

    fn make_room(&mut self, now: Mono) {
        let limit = self.settings.retain_bytes.saturating_sub(self.log.taken_bytes());
        self.log.give_up_copies(limit);
        match self.receipts {
            Receipts::Unknown | Receipts::Supported => {}
            Receipts::Unsupported => self.log.give_up_written(limit),
        }
        if self.log.bytes() <= limit {
            return;
        }
        self.ask_for_room(now);
        let spills = match self.settings.overflow {
            Overflow::Refuse => return,
            Overflow::DropOldest => false,
            Overflow::Spill => true,
        };
        if spills && self.spill_able {
            self.let_go(now);
            return;
        }
        while !self.is_progressing(now) && self.log.bytes() > limit && self.log.drop_oldest_owed(spills) {}
    }

    fn ask_for_room(&mut self, now: Mono) {
        self.rotate_now = self.log.has_unreceipted();
        self.step(now);
    }

    fn is_progressing(&self, now: Mono) -> bool {
        self.progress_at.is_some_and(|at| now.since(at) < self.settings.ack_timeout)
    }
}
