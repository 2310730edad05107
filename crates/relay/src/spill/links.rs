//! Links of replayers: what they say goes to the thread, what it answers goes out. Pings are answered by the thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use engine::batch::Versions;
use engine::time::Mono;
use engine::wire::{Frame, Hello, HelloOk, PROTOCOL, RefuseReason, Role};
use link::{Ended, Greeted, Handler, Outgoing};
use node::VerdictKeeper;
use node::desk::{Accepted, Desk};
use node::rules::{RuleBook, Teller};
use runtime::Clock;
use runtime::queue::Probe;
use tls::{Door, Stream};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::info;

use super::handle::{FromLink, Handle};
use crate::shared::{Shared, locked};
use crate::uplink::Greeting;

const VERDICT_EVERY: Duration = Duration::from_secs(1);
/// Taken from the thread's answers at once.
const WRITE_BYTES: usize = 1 << 20;

/// What the relay expects of who dials its `link` port.
#[derive(Debug)]
pub(crate) struct Lender {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) versions: Versions,
    pub(crate) book: Arc<RuleBook>,
    pub(crate) partitions: u16,
    /// Of this process.
    pub(crate) epoch: u32,
    pub(crate) handle: Arc<Handle>,
    pub(crate) keeper: Arc<VerdictKeeper>,
    /// What the verdict looks at.
    pub(crate) queue: Probe,
    pub(crate) clock: Clock,
    pub(crate) desk: Arc<Desk>,
    pub(crate) door: Door,
    /// Links that ended, by reason.
    pub(crate) closed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Lender {
    pub(crate) fn new(
        shared: &Shared,
        greeting: &Greeting,
        keeper: &Arc<VerdictKeeper>,
        queue: Probe,
        (desk, door): (Arc<Desk>, Door),
    ) -> Lender {
        Lender {
            node: shared.node.clone(),
            cluster: greeting.cluster.clone(),
            versions: greeting.versions,
            book: Arc::clone(&greeting.book),
            partitions: greeting.partitions,
            epoch: greeting.incarnation.epoch,
            handle: Arc::clone(&shared.spill),
            keeper: Arc::clone(keeper),
            queue,
            clock: shared.clock,
            desk,
            door,
            closed: Mutex::default(),
        }
    }
}

impl Lender {
    /// Serves one connection until its end.
    pub(crate) async fn serve(&self, stream: TcpStream) -> Ended {
        let ended = match link::greeted(stream, &self.door).await {
            Ok(Greeted { mut stream, hello, early }) => match self.refusal(&hello) {
                Some(reason) => link::refuse(&mut stream, reason).await,
                None => self.lend(stream, early, &hello).await,
            },
            Err(ended) => ended,
        };
        *locked(&self.closed).entry(ended.as_str()).or_default() += 1;
        ended
    }

    fn refusal(&self, hello: &Hello) -> Option<RefuseReason> {
        match hello.role {
            _ if hello.protocol != PROTOCOL => Some(RefuseReason::Protocol),
            _ if hello.cluster != self.cluster => Some(RefuseReason::Cluster),
            _ if hello.partitions != self.partitions => Some(RefuseReason::Partitions),
            _ if hello.versions.map != self.versions.map => Some(RefuseReason::Versions),
            Role::Replayer => None,
            Role::Relay | Role::Partial | Role::Visitor => Some(RefuseReason::Role),
        }
    }

    async fn lend(&self, mut stream: Stream, early: BytesMut, hello: &Hello) -> Ended {
        // A replayer asks for what it takes, so its window is nothing. The epoch tells it our lives apart.
        let known_epoch = self.epoch;
        let welcome = HelloOk { node: self.node.clone(), window_bytes: 0, known_epoch, retired: 0 };
        if let Err(ended) = link::send(&mut stream, &Frame::HelloOk(welcome)).await {
            return ended;
        }
        info!(node = %self.node, peer = %hello.node, "link accepted");
        let replayer = Replayer::new(self);
        link::run(stream, early, &Accepted::new(&self.desk, &replayer), self.clock).await
    }
}

/// One connection. When it is over, its leases are.
#[derive(Debug)]
struct Replayer {
    book: Arc<RuleBook>,
    teller: Teller,
    handle: Arc<Handle>,
    link: u64,
    wake: Arc<Notify>,
    keeper: Arc<VerdictKeeper>,
    queue: Probe,
    clock: Clock,
    /// 0: the verdict is due.
    said_at: AtomicU64,
}

impl Replayer {
    fn new(lender: &Lender) -> Replayer {
        let (link, wake) = lender.handle.link_up();
        let (handle, keeper) = (Arc::clone(&lender.handle), Arc::clone(&lender.keeper));
        let queue = lender.queue.clone();
        let book = Arc::clone(&lender.book);
        Replayer {
            book,
            teller: Teller::default(),
            handle,
            link,
            wake,
            keeper,
            queue,
            clock: lender.clock,
            said_at: AtomicU64::new(0),
        }
    }

    fn verdict_is_due(&self) -> bool {
        let now = self.clock.now();
        let said = self.said_at.load(Ordering::Relaxed);
        let due = said == 0 || now.since(Mono::from_nanos(said)) >= VERDICT_EVERY;
        if due {
            self.said_at.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
        due
    }

    fn pass_on(&self, what: FromLink) -> Result<(), Ended> {
        if self.handle.said(self.link, what) {
            Ok(())
        } else {
            Err(Ended::Unexpected("more requests at once than a relay takes from a replayer"))
        }
    }
}

impl Handler for Replayer {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::LeaseRequest(request) => self.pass_on(FromLink::Lease(request)),
            Frame::Done(done) => self.pass_on(FromLink::Done(done)),
            Frame::Ping { echo } => self.pass_on(FromLink::Ping(echo)),
            Frame::Drain => Ok(()),
            Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Rules(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Batch { .. }
            | Frame::Durable(_)
            | Frame::Nack { .. }
            | Frame::Watermark(_)
            | Frame::Pong { .. }
            | Frame::Flush(_)
            | Frame::FlushReply(_)
            | Frame::Verdict(_)
            | Frame::Leased(_)
            | Frame::LeaseEnd(_)
            | Frame::Backlog(_) => Err(Ended::Unexpected("frame that a relay does not take from a replayer")),
        }
    }

    fn next(&self, out: &mut Outgoing) {
        // Before what was made for them.
        self.teller.say(&self.book, out);
        for frame in self.handle.to_write(self.link, WRITE_BYTES) {
            out.frame(&frame);
        }
        if self.verdict_is_due() {
            out.frame(&Frame::Verdict(self.keeper.judge(self.queue.queued_bytes(), self.queue.oldest_age())));
        }
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }

    fn tick(&self) {
        self.wake.notify_one();
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        self.handle.link_down(self.link);
    }
}
