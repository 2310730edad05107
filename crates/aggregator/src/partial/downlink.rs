//! The partial role's end of the link to one final node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::time::Mono;
use engine::wire::{Frame, Hello, HelloOk, PROTOCOL, Role};
use link::{Dialer, Ended, Handler, Outgoing, Standing};
use node::desk::Watch;
use node::rules::Teller;
use tokio::sync::Notify;
use tracing::info;

use super::role::PartialRole;

const WRITE_BYTES: usize = 1 << 20;
const WATERMARK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Downlink {
    role: Arc<PartialRole>,
    owner: usize,
    watch: Arc<Watch>,
    standing: Standing,
    watermark_at: AtomicU64,
    teller: Teller,
}

impl Downlink {
    pub(crate) fn new(role: Arc<PartialRole>, owner: usize, watch: Arc<Watch>) -> Downlink {
        Downlink {
            role,
            owner,
            watch,
            standing: Standing::default(),
            watermark_at: AtomicU64::new(0),
            teller: Teller::default(),
        }
    }

    pub(crate) fn peer(&self) -> &str {
        &self.role.setup.finals[self.owner]
    }
}

impl Handler for Downlink {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::FlushReply(reply) => {
                let mut machine = self.role.machine();
                machine.flush_reply(&reply);
                self.role.hand_out(&mut machine);
                drop(machine);
                self.standing.progress();
                self.role.ring_all();
            }
            Frame::Verdict(verdict) => self.watch.tell(|now, pool| pool.verdict(now, self.owner, verdict)),
            // A final node that drains still answers; there is nowhere else to go with its partitions.
            Frame::Drain => info!(node = %self.role.setup.node, peer = self.peer(), "final node is draining"),
            Frame::Rules(bytes) => self.role.learn(self.peer(), &bytes),
            Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Batch { .. }
            | Frame::LeaseRequest(_)
            | Frame::Leased(_)
            | Frame::LeaseEnd(_)
            | Frame::Done(_)
            | Frame::Backlog(_)
            | Frame::Durable(_)
            | Frame::Nack { .. }
            | Frame::Watermark(_)
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Flush(_) => {
                return Err(Ended::Unexpected("frame that a partial node does not take from a final node"));
            }
        }
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        let now = self.role.setup.clock.now();
        if now.since(Mono::from_nanos(self.watermark_at.load(Ordering::Relaxed))) >= WATERMARK_EVERY {
            self.watermark_at.store(now.as_nanos(), Ordering::Relaxed);
            self.role.watermarks().into_iter().for_each(|watermark| out.frame(&Frame::Watermark(watermark)));
        }
        // Before what was folded by them.
        self.teller.say(&self.role.setup.book, out);
        let mut machine = self.role.machine();
        while out.len() < WRITE_BYTES {
            let Some(flush) = machine.next_flush(now, self.owner) else { break };
            out.frame(&Frame::Flush(flush.clone()));
        }
    }

    fn wake(&self) -> &Notify {
        &self.role.wakes[self.owner]
    }

    fn tick(&self) {
        self.role.wakes[self.owner].notify_one();
    }
}

impl Dialer for Downlink {
    fn hello(&self) -> Hello {
        let setup = &self.role.setup;
        Hello {
            protocol: PROTOCOL,
            role: Role::Partial,
            cluster: setup.cluster.clone(),
            node: setup.node.clone(),
            incarnation: setup.incarnation,
            versions: setup.versions,
            partitions: setup.partitions,
        }
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn up(&self, _welcome: &HelloOk) {
        self.watermark_at.store(0, Ordering::Relaxed);
        self.teller.begin();
        self.role.machine().owner_connected(self.owner);
        self.watch.tell(|now, pool| pool.link_up(now, self.owner));
        self.role.wakes[self.owner].notify_one();
    }

    fn down(&self, _why: &Ended, _was_up: bool) {
        self.role.machine().owner_disconnected(self.owner);
        self.watch.tell(|now, pool| pool.link_down(now, self.owner));
    }
}
