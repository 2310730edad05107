//! The replayer's end of the link to one node that takes batches: it writes what the pacer let go, in class replay.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use engine::verdict::Verdict;
use engine::wire::{Class, Frame, Hello, HelloOk};
use link::{Dialer, Ended, Handler, Outgoing};
use node::desk::Watch;
use tokio::sync::Notify;
use tracing::{error, info};

use crate::shared::{Shared, locked};

/// Written at once.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    receiver: usize,
    name: String,
    watch: Arc<Watch>,
    pongs: Mutex<Vec<u64>>,
    progressed: AtomicBool,
    /// See `Shared::recovered`.
    begun: AtomicU64,
    last_error: Mutex<Option<String>>,
    verdict: Mutex<Option<Verdict>>,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>, receiver: usize, name: String, watch: Arc<Watch>) -> Sender {
        Sender {
            shared,
            receiver,
            name,
            watch,
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
}

impl Handler for Sender {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let now = self.shared.clock.now();
        match frame {
            Frame::Durable(durable) => {
                self.shared.machine().durable(now, self.receiver, &durable);
                self.progressed.store(true, Ordering::Relaxed);
                self.shared.wake_for_settled();
            }
            Frame::Nack { id, reason } => {
                self.shared.machine().nack(now, self.receiver, id, reason);
                self.shared.wake_for_settled();
            }
            Frame::Verdict(verdict) => {
                *locked(&self.verdict) = Some(verdict.clone());
                self.watch.tell(|now, pool| pool.verdict(now, self.receiver, verdict));
            }
            Frame::Drain => {
                self.shared.machine().receiver_draining(self.receiver);
                self.watch.tell(|now, pool| pool.verdict(now, self.receiver, Verdict::Draining));
            }
            Frame::Ping { echo } => {
                locked(&self.pongs).push(echo);
                self.shared.receiver_wakes[self.receiver].notify_one();
            }
            Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Batch { .. }
            | Frame::Watermark(_)
            | Frame::Pong { .. }
            | Frame::Flush(_)
            | Frame::FlushReply(_)
            | Frame::LeaseRequest(_)
            | Frame::Leased(_)
            | Frame::LeaseEnd(_)
            | Frame::Done(_)
            | Frame::Backlog(_) => {
                return Err(Ended::Unexpected("frame that a replayer does not take from an aggregator"));
            }
        }
        if self.begun.load(Ordering::Relaxed) != self.shared.recovered() {
            return Err(Ended::Unexpected("the replay machine was put right: the link begins anew"));
        }
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        for echo in std::mem::take(&mut *locked(&self.pongs)) {
            out.frame(&Frame::Pong { echo });
        }
        let mut machine = self.shared.machine();
        while out.len() < WRITE_BYTES {
            let Some(batch) = machine.next_batch(self.receiver) else { break };
            out.batch(batch, true, Class::Replay);
        }
    }

    fn wake(&self) -> &Notify {
        &self.shared.receiver_wakes[self.receiver]
    }

    fn tick(&self) {
        self.shared.receiver_wakes[self.receiver].notify_one();
    }
}

impl Dialer for Sender {
    fn hello(&self) -> Hello {
        self.shared.hello()
    }

    fn up(&self, welcome: &HelloOk) {
        info!(node = %self.shared.node, peer = %self.name, "link up");
        locked(&self.pongs).clear();
        *locked(&self.last_error) = None;
        self.shared.machine().receiver_up(self.shared.clock.now(), self.receiver, welcome.window_bytes);
        self.watch.tell(|now, pool| pool.link_up(now, self.receiver));
        self.begun.store(self.shared.recovered(), Ordering::Relaxed);
        self.shared.wake_all();
    }

    fn down(&self, why: &Ended) {
        *locked(&self.verdict) = None;
        if matches!(why, Ended::Refused(_)) {
            error!(node = %self.shared.node, peer = %self.name, %why, "link refused");
        }
        *locked(&self.last_error) = Some(why.to_string());
        self.shared.machine().receiver_down(self.receiver);
        self.watch.tell(|now, pool| pool.link_down(now, self.receiver));
        self.shared.turns.notify_one();
    }

    fn progressed(&self) -> bool {
        self.progressed.swap(false, Ordering::Relaxed)
    }
}
