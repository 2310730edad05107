//! A partial node's connection to a final role.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::wire::Frame;
use link::{Ended, Handler, Outgoing};
use node::rules::Teller;
use tokio::sync::Notify;

use super::role::{Connection, FinalRole, Input};
use crate::partial_lock as lock;
use crate::ping::Token;
use crate::speaker::Speaker;

#[derive(Debug)]
pub(crate) struct Inbound {
    role: Arc<FinalRole>,
    connection: Arc<Connection>,
    told_to_drain: AtomicBool,
    teller: Teller,
    speaker: Speaker,
}

impl Inbound {
    pub(crate) fn new(role: Arc<FinalRole>, speaker: Speaker) -> Inbound {
        let told_to_drain = AtomicBool::new(false);
        Inbound { role, connection: Arc::default(), told_to_drain, teller: Teller::default(), speaker }
    }
}

impl Handler for Inbound {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Flush(flush) => {
                let Some(shard) = self.role.shard_of(flush.partition) else {
                    return Err(Ended::Unexpected("flush for a partition that this node does not own"));
                };
                self.role.give(shard, Input::Flush { from: Arc::clone(&self.connection), flush });
            }
            Frame::Watermark(watermark) => self.role.note_watermark(watermark),
            Frame::Rules(set) => self.role.learn(&set),
            Frame::Ping { echo } => self.role.pass(0, Token { bell: Arc::clone(&self.connection.bell), echo }),
            Frame::Drain
            | Frame::Verdict(_)
            | Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Batch { .. }
            | Frame::Durable(_)
            | Frame::Nack { .. }
            | Frame::Pong { .. }
            | Frame::FlushReply(_)
            | Frame::LeaseRequest(_)
            | Frame::Leased(_)
            | Frame::LeaseEnd(_)
            | Frame::Done(_)
            | Frame::Backlog(_) => {
                return Err(Ended::Unexpected("frame that a final node does not take from a partial node"));
            }
        }
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        self.speaker.say(out);
        self.teller.say(&self.role.setup.book, out);
        for echo in self.connection.bell.take_pongs() {
            out.frame(&Frame::Pong { echo });
        }
        for reply in std::mem::take(&mut *lock(&self.connection.replies)) {
            out.frame(&Frame::FlushReply(reply));
        }
        if self.role.draining.load(Ordering::Relaxed) && !self.told_to_drain.swap(true, Ordering::Relaxed) {
            out.frame(&Frame::Drain);
        }
    }

    fn wake(&self) -> &Notify {
        &self.connection.bell.wake
    }
}
