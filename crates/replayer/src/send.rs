//! The replayer's end of the link to one node that takes batches: it writes what the pacer let go, in class replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::verdict::Verdict;
use engine::wire::{Class, Frame, Hello, HelloOk};
use link::{Dialer, Ended, Handler, Outgoing, Standing};
use node::desk::Watch;
use node::rules::Teller;
use tokio::sync::Notify;

use crate::shared::Shared;

/// Written at once.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    receiver: usize,
    watch: Arc<Watch>,
    standing: Standing,
    /// See `Shared::recovered`.
    begun: AtomicU64,
    teller: Teller,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>, receiver: usize, watch: Arc<Watch>) -> Sender {
        Sender {
            shared,
            receiver,
            watch,
            standing: Standing::default(),
            begun: AtomicU64::new(0),
            teller: Teller::default(),
        }
    }
}

impl Handler for Sender {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let now = self.shared.clock.now();
        match frame {
            Frame::Durable(durable) => {
                self.shared.machine().durable(now, self.receiver, &durable);
                self.standing.progress();
                self.shared.wake_for_settled();
            }
            Frame::Nack { id, reason } => {
                self.shared.machine().nack(now, self.receiver, id, reason);
                self.shared.wake_for_settled();
            }
            Frame::Verdict(verdict) => self.watch.tell(|now, pool| pool.verdict(now, self.receiver, verdict)),
            Frame::Drain => {
                self.shared.machine().receiver_draining(self.receiver);
                self.watch.tell(|now, pool| pool.verdict(now, self.receiver, Verdict::Draining));
            }
            Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Rules(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Batch { .. }
            | Frame::Watermark(_)
            | Frame::Ping { .. }
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
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        // Before what was made for them.
        self.teller.say(&self.shared.greeting.book, out);
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

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn up(&self, welcome: &HelloOk) {
        self.teller.begin();
        self.shared.machine().receiver_up(self.shared.clock.now(), self.receiver, welcome.window_bytes);
        self.watch.tell(|now, pool| pool.link_up(now, self.receiver));
        self.begun.store(self.shared.recovered(), Ordering::Relaxed);
        self.shared.wake_all();
    }

    fn down(&self, _why: &Ended, _was_up: bool) {
        self.shared.machine().receiver_down(self.receiver);
        self.watch.tell(|now, pool| pool.link_down(now, self.receiver));
        self.shared.turns.notify_one();
    }

    fn may_go_on(&self) -> Result<(), Ended> {
        if self.begun.load(Ordering::Relaxed) == self.shared.recovered() {
            return Ok(());
        }
        Err(Ended::Unexpected("the replay machine was put right: the link begins anew"))
    }
}
