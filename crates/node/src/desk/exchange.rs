//! Orders on links. Both sides say a digest when the link comes up and whenever theirs changes; who hears another digest
//! than its own sends all its orders, and who has taken them up sends its own back if the peer lacks any. So two nodes agree after
//! one exchange, and a silent link costs nothing. A node that has never had an order does not begin.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::control::DecodeError;
use engine::wire::{Frame, Hello, HelloOk, RefuseReason, Word};
use link::{Dialer, Ended, Handler, Outgoing, Standing};
use tokio::sync::Notify;
use tracing::warn;

use super::Desk;

#[derive(Debug)]
struct Exchange {
    desk: Arc<Desk>,
    /// The digest that this link was told last; 0: none.
    said: AtomicU64,
    owes_all: AtomicBool,
}

impl Exchange {
    fn new(desk: Arc<Desk>) -> Exchange {
        Exchange { desk, said: AtomicU64::new(0), owes_all: AtomicBool::new(false) }
    }

    fn begin(&self) {
        self.said.store(0, Ordering::Relaxed);
        self.owes_all.store(false, Ordering::Relaxed);
    }

    fn has_word(&self) -> bool {
        self.owes_all.load(Ordering::Relaxed) || self.said.load(Ordering::Relaxed) != self.desk.digest()
    }

    fn say(&self, out: &mut Outgoing) {
        if self.owes_all.swap(false, Ordering::Relaxed) {
            let control = self.desk.control();
            self.said.store(control.digest(), Ordering::Relaxed);
            out.frame(&Frame::Control(Word::All(control.encode())));
            return;
        }
        let digest = self.desk.digest();
        if self.said.swap(digest, Ordering::Relaxed) != digest {
            out.frame(&Frame::Control(Word::Digest(digest)));
        }
    }

    fn heard(&self, word: &Word) -> Result<(), Ended> {
        let owes_all = match word {
            Word::Digest(digest) => *digest != self.desk.digest(),
            Word::All(text) => match self.desk.merge(text) {
                Ok(peer_lacks) => peer_lacks,
                // Theirs to read for nodes of their version; ours stay as they are.
                Err(error @ DecodeError::Newer { .. }) => {
                    warn!(%error, "a peer's orders are not taken up");
                    false
                }
                Err(DecodeError::Damaged { what }) => return Err(Ended::Unexpected(what)),
            },
        };
        if owes_all {
            self.owes_all.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A service with orders exchanged on its links, which it does not see.
pub struct Exchanging<I> {
    exchange: Exchange,
    inner: I,
}

/// Of a service that dials.
pub type Linked = Exchanging<Arc<dyn Dialer>>;
/// Of one connection that was accepted.
pub type Accepted<'a> = Exchanging<&'a dyn Handler>;

impl<I> std::fmt::Debug for Exchanging<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchanging").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl Exchanging<Arc<dyn Dialer>> {
    /// Wraps a service, to be dialled with instead of it.
    pub fn new(desk: &Arc<Desk>, inner: Arc<dyn Dialer>) -> Arc<Linked> {
        Arc::new(Exchanging { exchange: Exchange::new(Arc::clone(desk)), inner })
    }
}

impl<'a> Exchanging<&'a dyn Handler> {
    /// Wraps the handler of one connection.
    pub fn new(desk: &Arc<Desk>, inner: &'a dyn Handler) -> Accepted<'a> {
        Exchanging { exchange: Exchange::new(Arc::clone(desk)), inner }
    }
}

impl<I: Deref<Target: Handler> + Send + Sync> Exchanging<I> {
    fn wake_for_word(&self) {
        if self.exchange.has_word() {
            self.inner.wake().notify_one();
        }
    }
}

impl<I: Deref<Target: Handler> + Send + Sync> Handler for Exchanging<I> {
    fn frame(&self, received: Frame) -> Result<(), Ended> {
        let Frame::Control(word) = received else { return self.inner.frame(received) };
        self.exchange.heard(&word)?;
        self.wake_for_word();
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        self.exchange.say(out);
        self.inner.next(out);
    }

    fn wake(&self) -> &Notify {
        self.inner.wake()
    }

    fn tick(&self) {
        self.wake_for_word();
        self.inner.tick();
    }
}

impl Dialer for Linked {
    fn hello(&self) -> Hello {
        self.inner.hello()
    }

    fn up(&self, welcome: &HelloOk) {
        self.exchange.begin();
        self.inner.up(welcome);
    }

    fn standing(&self) -> &Standing {
        self.inner.standing()
    }

    fn down(&self, why: &Ended, was_up: bool) {
        self.inner.down(why, was_up);
    }

    fn may_go_on(&self) -> Result<(), Ended> {
        self.inner.may_go_on()
    }

    fn refused(&self, node: &str, peer: &str, reason: RefuseReason) {
        self.inner.refused(node, peer, reason);
    }
}
