//! The replayer's end of the link to one relay: requests and outcomes out, records in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use engine::verdict::Verdict;
use engine::wire::{Backlog, Frame, Hello, HelloOk};
use link::{Dialer, Ended, Handler, Outgoing};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::shared::{Shared, locked};

#[derive(Debug)]
pub(crate) struct Borrower {
    shared: Arc<Shared>,
    source: usize,
    name: String,
    pongs: Mutex<Vec<u64>>,
    progressed: AtomicBool,
    /// See `Shared::recovered`.
    begun: AtomicU64,
    last_error: Mutex<Option<String>>,
    verdict: Mutex<Option<Verdict>>,
}

impl Borrower {
    pub(crate) fn new(shared: Arc<Shared>, source: usize, name: String) -> Borrower {
        Borrower {
            shared,
            source,
            name,
            pongs: Mutex::default(),
            progressed: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            last_error: Mutex::default(),
            verdict: Mutex::default(),
        }
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        locked(&self.last_error).clone()
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        locked(&self.verdict).clone()
    }

    fn backlog(&self, backlog: Backlog) {
        let mut machine = self.shared.machine();
        if !machine.backlog(self.source, backlog) {
            return;
        }
        let control = machine.control().clone();
        let (points, _) = machine.backlog_size();
        drop(machine);
        self.shared.refresh_rate(|_| {});
        warn!(
            node = %self.shared.node,
            points,
            "a large backlog was found at the start: the replay is cautious until an operator sets a rate or resumes"
        );
        self.shared.keep(&control);
    }
}

impl Handler for Borrower {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let now = self.shared.clock.now();
        match frame {
            Frame::Leased(leased) => self.shared.machine().leased(now, self.source, leased),
            Frame::LeaseEnd(end) => {
                self.shared.machine().lease_end(now, self.source, end);
                self.progressed.store(true, Ordering::Relaxed);
                self.shared.source_wakes[self.source].notify_one();
            }
            Frame::Backlog(backlog) => self.backlog(backlog),
            Frame::Verdict(verdict) => *locked(&self.verdict) = Some(verdict),
            Frame::Ping { echo } => {
                locked(&self.pongs).push(echo);
                self.shared.source_wakes[self.source].notify_one();
            }
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
            | Frame::Pong { .. }
            | Frame::Flush(_)
            | Frame::FlushReply(_)
            | Frame::LeaseRequest(_)
            | Frame::Done(_) => return Err(Ended::Unexpected("frame that a replayer does not take from a relay")),
        }
        self.shared.turns.notify_one();
        if self.begun.load(Ordering::Relaxed) != self.shared.recovered() {
            return Err(Ended::Unexpected("the replay machine was put right: the link begins anew"));
        }
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        for echo in std::mem::take(&mut *locked(&self.pongs)) {
            out.frame(&Frame::Pong { echo });
        }
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

    fn up(&self, _welcome: &HelloOk) {
        info!(node = %self.shared.node, peer = %self.name, "link up");
        locked(&self.pongs).clear();
        *locked(&self.last_error) = None;
        self.shared.machine().source_up(self.source);
        self.begun.store(self.shared.recovered(), Ordering::Relaxed);
        self.shared.source_wakes[self.source].notify_one();
    }

    fn down(&self, why: &Ended) {
        *locked(&self.verdict) = None;
        if matches!(why, Ended::Refused(_)) {
            error!(node = %self.shared.node, peer = %self.name, %why, "link refused");
        }
        *locked(&self.last_error) = Some(why.to_string());
        self.shared.machine().source_down(self.source);
    }

    fn progressed(&self) -> bool {
        self.progressed.swap(false, Ordering::Relaxed)
    }
}
