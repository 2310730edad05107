//! A relay's (or replayer's) connection to a partial role.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::batch::Batch;
use engine::partial_node::Connection;
use engine::wire::{Class, Frame, FrameError};
use link::{Ended, Handler, Outgoing};
use tokio::sync::Notify;

use super::role::PartialRole;
use crate::ping::{Bell, Token};
use crate::speaker::Speaker;

#[derive(Debug)]
pub(crate) struct Inbound {
    role: Arc<PartialRole>,
    connection: Connection,
    class: Class,
    bell: Arc<Bell>,
    told_to_drain: AtomicBool,
    speaker: Speaker,
}

impl Inbound {
    pub(crate) fn new(role: Arc<PartialRole>, speaker: Speaker, class: Class) -> Inbound {
        let (connection, bell) = role.connect(class);
        Inbound { role, connection, class, bell, told_to_drain: AtomicBool::new(false), speaker }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.role.disconnect(self.connection);
    }
}

impl Handler for Inbound {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Batch { attempt, class, bytes } => {
                let batch = Batch::decode(bytes).map_err(FrameError::from)?;
                let mut machine = self.role.machine();
                // A replayer's link has a replayer's window: nothing on it is live.
                machine.batch(self.connection, batch, attempt, self.class.max(class));
                self.role.hand_out(&mut machine);
                drop(machine);
                // A refusal, if there was one, is written now.
                self.bell.wake.notify_one();
            }
            Frame::Watermark(watermark) => self.role.note_watermark(watermark),
            Frame::Rules(set) => self.role.learn("relay", &set),
            Frame::Ping { echo } => self.role.pass(0, Token { bell: Arc::clone(&self.bell), echo }),
            Frame::Drain
            | Frame::Verdict(_)
            | Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Control(_)
            | Frame::Refuse(_)
            | Frame::Durable(_)
            | Frame::Nack { .. }
            | Frame::Pong { .. }
            | Frame::Flush(_)
            | Frame::FlushReply(_)
            | Frame::LeaseRequest(_)
            | Frame::Leased(_)
            | Frame::LeaseEnd(_)
            | Frame::Done(_)
            | Frame::Backlog(_) => {
                return Err(Ended::Unexpected("frame that a partial node does not take from a relay"));
            }
        }
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        self.speaker.say(out);
        for echo in self.bell.take_pongs() {
            out.frame(&Frame::Pong { echo });
        }
        let delay = self.role.queue().1;
        let (durable, nacks) = self.role.machine().answers(self.role.setup.clock.now(), self.connection, delay);
        if let Some(durable) = durable {
            out.frame(&Frame::Durable(durable));
        }
        for (id, reason) in nacks {
            out.frame(&Frame::Nack { id, reason });
        }
        if self.role.draining.load(Ordering::Relaxed) && !self.told_to_drain.swap(true, Ordering::Relaxed) {
            out.frame(&Frame::Drain);
        }
    }

    fn wake(&self) -> &Notify {
        &self.bell.wake
    }

    fn tick(&self) {
        // A replay link is told how it is here although it has nothing to be told.
        if self.class == Class::Replay {
            self.bell.wake.notify_one();
        }
    }
}
