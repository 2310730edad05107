//! The replayer's end of the link to one relay: requests and outcomes out, records in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::wire::{Backlog, Frame, Hello, HelloOk};
use link::{Dialer, Ended, Handler, Outgoing, Standing};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::shared::Shared;

#[derive(Debug)]
pub(crate) struct Borrower {
    shared: Arc<Shared>,
    source: usize,
    name: String,
    standing: Standing,
    /// See `Shared::recovered`.
    begun: AtomicU64,
}

impl Borrower {
    pub(crate) fn new(shared: Arc<Shared>, source: usize, name: String) -> Borrower {
        Borrower { shared, source, name, standing: Standing::default(), begun: AtomicU64::new(0) }
    }

    fn learn(&self, set: &[u8]) {
        if let Err(why) = self.shared.greeting.book.learn(set) {
            warn!(node = %self.shared.node, peer = %self.name, why, "rules of former days are not taken, and not told on");
        }
    }

    fn backlog(&self, backlog: Backlog) {
        let mut machine = self.shared.machine();
        if !machine.backlog(self.source, backlog) {
            return;
        }
        let (points, _) = machine.backlog_size();
        drop(machine);
        self.shared.refresh_rate(|_| {});
        warn!(
            node = %self.shared.node,
            points,
            "a large backlog was found at the start: the replay is cautious until an operator sets a rate or resumes"
        );
        self.shared.keep();
    }
}

impl Handler for Borrower {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let now = self.shared.clock.now();
        match frame {
            Frame::Leased(leased) => self.shared.machine().leased(now, self.source, leased),
            Frame::LeaseEnd(end) => {
                self.shared.machine().lease_end(now, self.source, end);
                self.standing.progress();
                self.shared.source_wakes[self.source].notify_one();
            }
            Frame::Backlog(backlog) => self.backlog(backlog),
            Frame::Rules(set) => self.learn(&set),
            Frame::Verdict(_) => {}
            // A relay that is about to leave keeps its spill; there is nowhere else to borrow it.
            Frame::Drain => info!(node = %self.shared.node, peer = %self.name, "relay is draining"),
            Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Batch { .. }
            | Frame::Durable(_)
            | Frame::Nack { .. }
            | Frame::Watermark(_)
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Flush(_)
            | Frame::FlushReply(_)
            | Frame::LeaseRequest(_)
            | Frame::Done(_) => return Err(Ended::Unexpected("frame that a replayer does not take from a relay")),
        }
        self.shared.turns.notify_one();
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        let now = self.shared.clock.now();
        let mut machine = self.shared.machine();
        machine.take_done(self.source).into_iter().for_each(|done| out.frame(&Frame::Done(done)));
        while let Some(request) = machine.next_request(now, self.source) {
            out.frame(&Frame::LeaseRequest(request));
        }
    }

    fn wake(&self) -> &Notify {
        &self.shared.source_wakes[self.source]
    }

    fn tick(&self) {
        self.shared.source_wakes[self.source].notify_one();
    }
}

impl Dialer for Borrower {
    fn hello(&self) -> Hello {
        self.shared.hello()
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn up(&self, welcome: &HelloOk) {
        self.shared.machine().source_up(self.source, welcome.known_epoch);
        self.begun.store(self.shared.recovered(), Ordering::Relaxed);
        self.shared.source_wakes[self.source].notify_one();
    }

    fn down(&self, _why: &Ended, _was_up: bool) {
        self.shared.machine().source_down(self.source);
    }

    fn may_go_on(&self) -> Result<(), Ended> {
        if self.begun.load(Ordering::Relaxed) == self.shared.recovered() {
            return Ok(());
        }
        Err(Ended::Unexpected("the replay machine was put right: the link begins anew"))
    }
}
