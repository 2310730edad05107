//! A final node's senders to plain stores: one machine `engine::store_link` each, and its hand.

use std::time::Duration;

use bytes::Bytes;
use engine::final_node::emit::{self, View};
use engine::store_link::{Block, Command, Event, Overflow, Phase, Receipts, Settings, StoreLink};
use engine::time::Mono;

use crate::node::{Cx, Plain};
use crate::setup::{LinkId, LinkKind};

/// Bytes of a lost connection reach the store within this.
pub const LINGER: Duration = Duration::from_secs(15);
/// As in the aggregator's shell: without a connection for so long a store is away.
const AWAY_AFTER: Duration = Duration::from_secs(3);

struct Sender {
    link: StoreLink,
    to: LinkId,
    seen: Option<Mono>,
    open: bool,
}

/// See the module's head.
pub struct Senders {
    all: Vec<Sender>,
    now: Mono,
    catch_up: bool,
}

impl Senders {
    /// One for each store.
    pub fn new(cx: &mut Cx<'_>) -> Senders {
        let settings = Settings {
            rotate: Duration::from_secs(5),
            receipt_timeout: Duration::from_secs(4),
            linger: LINGER,
            overflow: Overflow::Refuse,
            follows_a_life: true,
            ..Settings::default()
        };
        let to = |index| cx.setup.link_to(cx.me, LinkKind::Plain, index);
        let links: Vec<LinkId> = (0..cx.setup.stores).filter_map(to).collect();
        let all = links
            .into_iter()
            .map(|to| Sender { link: StoreLink::new(settings, cx.rng.number()), to, seen: None, open: false })
            .collect();
        Senders { all, now: cx.now, catch_up: true }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Everything that was offered has its receipt and no re-assert is due.
    pub fn is_quiet(&self) -> bool {
        self.all.iter().all(|sender| {
            let progress = sender.link.progress();
            progress.released == progress.offered
        })
    }

    /// What each takes now; see the aggregator's `finals::targets`.
    pub fn views(&mut self, now: Mono) -> Vec<View> {
        self.now = now;
        let view = |sender: &mut Sender| {
            let up = matches!(sender.link.phase(), Phase::Open | Phase::AwaitingReceipt);
            if up {
                sender.seen = Some(now);
            }
            let was_just_there = sender.seen.is_some_and(|seen| now.since(seen) < AWAY_AFTER);
            let here = sender.link.accepts(now) && (up || was_just_there);
            View { here, roomy: here && up, released: sender.link.progress().released }
        };
        self.all.iter_mut().map(view).collect()
    }

    /// Time passes.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        for sender in &mut self.all {
            sender.link.handle(cx.now, Event::Tick);
            cx.truth.visit(match sender.link.phase() {
                Phase::Disconnected => "store link disconnected",
                Phase::Connecting => "store link connecting",
                Phase::Open => "store link open",
                Phase::AwaitingReceipt => "store link awaits a receipt",
                Phase::Drained => "store link drained",
            });
            if sender.link.receipts() == Receipts::Unsupported {
                cx.truth.visit("store without receipts");
            }
            if !sender.link.books().balance() {
                cx.truth.violated("INV-1", || format!("books of a sender: {:?}", sender.link.books()));
            }
        }
    }

    /// Something happened to a connection.
    pub fn event(&mut self, cx: &mut Cx<'_>, link: LinkId, event: Event) {
        let Some(sender) = self.all.iter_mut().find(|sender| sender.to == link) else { return };
        sender.open = matches!(event, Event::Connected);
        if matches!(event, Event::Reset | Event::PeerClosed) {
            cx.truth.visit("store connection lost");
        }
        sender.link.handle(cx.now, event);
    }

    /// Obeys the machines.
    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        for sender in &mut self.all {
            while let Some(command) = sender.link.next_command() {
                let what = match command {
                    Command::Connect => Plain::Connect,
                    Command::HalfClose => Plain::HalfClose,
                    Command::Close => {
                        sender.open = false;
                        Plain::Abort
                    }
                };
                cx.plain.push((sender.to, what));
            }
            let mut hand: Vec<Bytes> = Vec::new();
            sender.link.next_to_write(cx.now, 64 << 10, 64, &mut hand);
            if !hand.is_empty() {
                let blocks = hand.len();
                cx.plain.push((sender.to, Plain::Write(hand)));
                sender.link.handle(cx.now, Event::Written { blocks });
            }
        }
    }
}

impl emit::Senders for Senders {
    fn offer(&mut self, target: usize, block: Block) -> Option<u64> {
        let sender = self.all.get_mut(target)?;
        sender.link.offer(self.now, block).ok()?;
        Some(sender.link.progress().offered)
    }

    fn may_catch_up(&mut self, _target: usize) -> bool {
        self.catch_up
    }

    fn caught_up(&mut self, _target: usize, _lines: u64) {}
}
