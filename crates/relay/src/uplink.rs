//! The relay's end of a link to one aggregator: it pulls from the retaining machine what may be written, and tells the
//! machine what was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::batch::{Incarnation, Versions};
use engine::relay::Peer;
use engine::time::{Mono, UnixSeconds};
use engine::verdict::Verdict;
use engine::wire::{Frame, Hello, HelloOk, PROTOCOL, RefuseReason, Role};
use link::{Dialer, Ended, Handler, Outgoing, Standing};
use node::desk::Watch;
use node::rules::{RuleBook, Teller};
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::shared::{Shared, locked};

/// Written at once: large enough for few system calls, small enough that a watermark or ping need not wait.
const WRITE_BYTES: usize = 1 << 20;
/// How far behind now a relay that holds nothing back says that it is: clients' points are on their way.
const CLIENT_DELAY_SECONDS: u32 = 2;
const WATERMARK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// Who the relay says it is.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) cluster: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) versions: Versions,
    pub(crate) partitions: u16,
    pub(crate) book: Arc<RuleBook>,
}

#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Peer,
    pub(crate) greeting: Greeting,
    watch: Arc<Watch>,
    standing: Standing,
    watermark_at: AtomicU64,
    teller: Teller,
}

impl Uplink {
    pub(crate) fn new(shared: Arc<Shared>, peer: Peer, greeting: Greeting, watch: Arc<Watch>) -> Uplink {
        Uplink {
            shared,
            peer,
            greeting,
            watch,
            standing: Standing::default(),
            watermark_at: AtomicU64::new(0),
            teller: Teller::default(),
        }
    }

    fn watermark_due(&self, now: Mono) -> bool {
        let last = Mono::from_nanos(self.watermark_at.load(Ordering::Relaxed));
        if now.since(last) < WATERMARK_EVERY {
            return false;
        }
        self.watermark_at.store(now.as_nanos(), Ordering::Relaxed);
        true
    }

    fn oldest_open(&self) -> Option<UnixSeconds> {
        self.shared.lanes.all().iter().filter_map(|lane| lane.open().min_ts()).min()
    }
}

impl Handler for Uplink {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let now = self.shared.clock.now();
        match frame {
            Frame::Durable(durable) => {
                let _moving = self.shared.moving();
                self.shared.machine().durable(now, self.peer, &durable);
                self.standing.progress();
            }
            Frame::Nack { id, reason } => {
                let _moving = self.shared.moving();
                self.shared.machine().nack(now, self.peer, id, reason);
            }
            Frame::Verdict(verdict) => self.watch.tell(|now, pool| pool.verdict(now, self.peer, verdict)),
            Frame::Drain => {
                self.shared.machine().peer_draining(now, self.peer);
                self.watch.tell(|now, pool| pool.verdict(now, self.peer, Verdict::Draining));
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
            | Frame::Backlog(_) => return Err(Ended::Unexpected("frame that a relay does not take")),
        }
        self.shared.wake_links();
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        let now = self.shared.clock.now();
        self.teller.say(&self.greeting.book, out);
        if self.watermark_due(now) {
            let open = self.oldest_open();
            let wall = UnixSeconds(self.shared.clock.unix().0.saturating_sub(CLIENT_DELAY_SECONDS));
            out.frame(&Frame::Watermark(self.shared.machine().watermark(now, open, wall)));
        }
        let canary = self.shared.machine().next_canary(self.peer, self.shared.clock.unix());
        if let Some((sending, round)) = canary {
            out.batch(sending.batch.bytes().clone(), sending.attempt, sending.class);
            self.watch.tell(|now, pool| pool.canary_sent(now, self.peer, round));
        }
        let mut machine = self.shared.machine();
        while out.len() < WRITE_BYTES {
            let Some(sending) = machine.next_for(now, self.peer) else { break };
            out.batch(sending.batch.bytes().clone(), sending.attempt, sending.class);
        }
    }

    fn wake(&self) -> &Notify {
        &self.shared.wakes[self.peer]
    }

    fn tick(&self) {
        self.shared.wakes[self.peer].notify_one();
    }
}

impl Dialer for Uplink {
    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            role: Role::Relay,
            cluster: self.greeting.cluster.clone(),
            node: self.shared.node.clone(),
            incarnation: self.greeting.incarnation,
            versions: self.greeting.versions,
            partitions: self.greeting.partitions,
        }
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn up(&self, welcome: &HelloOk) {
        self.watermark_at.store(0, Ordering::Relaxed);
        self.teller.begin();
        self.shared.doubt.welcomed(self.peer);
        self.shared.machine().link_up(self.shared.clock.now(), self.peer, welcome.window_bytes);
        self.watch.tell(|now, pool| pool.link_up(now, self.peer));
        self.shared.wake_links();
    }

    fn down(&self, why: &Ended, was_up: bool) {
        if was_up {
            *locked(&self.shared.counters.links_closed).entry(why.as_str()).or_default() += 1;
        }
        self.shared.machine().link_down(self.shared.clock.now(), self.peer);
        self.watch.tell(|now, pool| pool.link_down(now, self.peer));
        self.shared.wake_links();
    }

    fn refused(&self, node: &str, peer: &str, reason: RefuseReason) {
        let why = reason.explain();
        if reason == RefuseReason::Forgotten {
            // The keeper says it, once; peers refuse at every attempt.
            self.shared.doubt.forgotten();
        } else if reason != RefuseReason::DuplicateSender {
            error!(node, peer, why, "link refused");
        } else if self.shared.doubt.refused(self.shared.clock.now(), self.peer) {
            // It may be the end of our former life that the peer has not noticed; if not, the verdict says so.
            warn!(node, peer, why, "link refused");
        }
    }
}
