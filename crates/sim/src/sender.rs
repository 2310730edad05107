//! Senders to plain stores: the machine `engine::store_link` and its hand, and those of a final node.

use std::time::Duration;

use bytes::Bytes;
use engine::final_node::emit::{self, View};
use engine::store_link::{Block, Command, Event, Overflow, Phase, Receipts, Settings, StoreLink};
use engine::time::Mono;

use crate::node::{Cx, Plain};
use crate::setup::{LinkId, LinkKind};

/// A kernel gives a connection up when what was sent is not acknowledged for so long.
pub const SILENCE: Duration = Duration::from_secs(15);
/// Bytes of a lost connection reach the store within this.
pub const LINGER: Duration = Duration::from_secs(15);
/// As in the aggregator's shell: without a connection for so long a store is away.
const AWAY_AFTER: Duration = Duration::from_secs(3);

/// What all senders have in common.
pub fn settings() -> Settings {
    Settings {
        rotate: Duration::from_secs(5),
        receipt_timeout: Duration::from_secs(4),
        linger: LINGER,
        silence: SILENCE,
        overflow: Overflow::Refuse,
        ..Settings::default()
    }
}

/// One machine and where its bytes go.
pub struct Sender {
    pub link: StoreLink,
    pub to: LinkId,
}

impl Sender {
    /// `seed`: for the jitter of its reconnects.
    pub fn new(settings: Settings, seed: u64, to: LinkId) -> Sender {
        Sender { link: StoreLink::new(settings, seed), to }
    }

    /// Everything that was offered has its receipt and no re-assert is due.
    pub fn is_quiet(&self) -> bool {
        let progress = self.link.progress();
        progress.released == progress.offered
    }

    /// Time passes.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        self.link.handle(cx.now, Event::Tick);
        cx.truth.visit(match self.link.phase() {
            Phase::Disconnected => "store link disconnected",
            Phase::Connecting => "store link connecting",
            Phase::Open => "store link open",
            Phase::AwaitingReceipt => "store link awaits a receipt",
            Phase::Drained => "store link drained",
        });
        if self.link.receipts() == Receipts::Unsupported {
            cx.truth.visit("store without receipts");
            cx.truth.lines.unsupported.insert(cx.setup.links[self.to].index);
        }
        if !self.link.books().balance() {
            cx.truth.violated("INV-1", || format!("books of a sender: {:?}", self.link.books()));
        }
    }

    /// Something happened to its connection.
    pub fn event(&mut self, cx: &mut Cx<'_>, event: Event) {
        if matches!(event, Event::Reset | Event::PeerClosed) {
            cx.truth.visit("store connection lost");
        }
        self.link.handle(cx.now, event);
    }

    /// Obeys the machine.
    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        while let Some(command) = self.link.next_command() {
            let what = match command {
                Command::Connect => Plain::Connect,
                Command::HalfClose => Plain::HalfClose,
                Command::Close => Plain::Abort,
            };
            cx.plain.push((self.to, what));
        }
        let mut hand: Vec<Bytes> = Vec::new();
        self.link.next_to_write(cx.now, 64 << 10, 64, &mut hand);
        if !hand.is_empty() {
            let blocks = hand.len();
            cx.plain.push((self.to, Plain::Write(hand)));
            self.link.handle(cx.now, Event::Written { blocks });
        }
    }
}

/// Those of a final node.
pub struct Senders {
    all: Vec<(Sender, Option<Mono>)>,
    now: Mono,
    catch_up: bool,
}

impl Senders {
    /// One for each store.
    pub fn new(cx: &mut Cx<'_>) -> Senders {
        let settings = Settings { follows_a_life: true, ..settings() };
        let to = |index| cx.setup.link_to(cx.me, LinkKind::Plain, index);
        let links: Vec<LinkId> = (0..cx.setup.stores).filter_map(to).collect();
        let all = links.into_iter().map(|to| (Sender::new(settings, cx.rng.number(), to), None)).collect();
        Senders { all, now: cx.now, catch_up: true }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// See [`Sender::is_quiet`].
    pub fn is_quiet(&self) -> bool {
        self.all.iter().all(|(sender, _)| sender.is_quiet())
    }

    /// What each takes now; see the aggregator's `finals::targets`.
    pub fn views(&mut self, now: Mono) -> Vec<View> {
        self.now = now;
        let view = |(sender, seen): &mut (Sender, Option<Mono>)| {
            let up = matches!(sender.link.phase(), Phase::Open | Phase::AwaitingReceipt);
            if up {
                *seen = Some(now);
            }
            let was_just_there = seen.is_some_and(|seen| now.since(seen) < AWAY_AFTER);
            let here = sender.link.accepts(now) && (up || was_just_there);
            View { here, roomy: here && up, released: sender.link.progress().released }
        };
        self.all.iter_mut().map(view).collect()
    }

    /// Time passes.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        self.all.iter_mut().for_each(|(sender, _)| sender.tick(cx));
    }

    /// Something happened to a connection.
    pub fn event(&mut self, cx: &mut Cx<'_>, link: LinkId, event: Event) {
        if let Some((sender, _)) = self.all.iter_mut().find(|(sender, _)| sender.to == link) {
            sender.event(cx, event);
        }
    }

    /// Obeys the machines.
    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        self.all.iter_mut().for_each(|(sender, _)| sender.pump(cx));
    }
}

impl emit::Senders for Senders {
    fn offer(&mut self, target: usize, block: Block) -> Option<u64> {
        let (sender, _) = self.all.get_mut(target)?;
        sender.link.offer(self.now, block).ok()?;
        Some(sender.link.progress().offered)
    }

    fn may_catch_up(&mut self, _target: usize) -> bool {
        self.catch_up
    }

    fn caught_up(&mut self, _target: usize, _lines: u64) {}
}
