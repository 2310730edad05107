//! The node's verdict on itself, said on every link that it accepted, once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::time::Mono;
use engine::verdict::{Verdict, worried};
use engine::wire::Frame;
use link::Outgoing;
use node::VerdictKeeper;
use runtime::Clock;

use crate::finals::FinalRole;
use crate::partial::PartialRole;

const EVERY: Duration = Duration::from_secs(1);

/// Says the verdict on one connection.
#[derive(Debug)]
pub(crate) struct Speaker {
    voice: Arc<Voice>,
    last: AtomicU64,
}

/// Where the verdict comes from.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) keeper: Arc<VerdictKeeper>,
    pub(crate) clock: Clock,
    pub(crate) partial: Option<Arc<PartialRole>>,
    pub(crate) finals: Option<Arc<FinalRole>>,
}

impl Voice {
    /// The verdict now.
    pub(crate) fn verdict(&self) -> Verdict {
        let (bytes, delay) = self.partial.as_ref().map_or((0, Duration::ZERO), |role| role.queue());
        let worries = self.finals.iter().flat_map(|role| role.worries());
        worried(self.keeper.judge(bytes, delay), worries)
    }
}

impl Speaker {
    pub(crate) fn new(voice: Arc<Voice>) -> Speaker {
        Speaker { voice, last: AtomicU64::new(0) }
    }

    /// Adds the verdict to what is written, if it is time.
    pub(crate) fn say(&self, out: &mut Outgoing) {
        let now = self.voice.clock.now();
        if now.since(Mono::from_nanos(self.last.load(Ordering::Relaxed))) >= EVERY {
            self.last.store(now.as_nanos(), Ordering::Relaxed);
            out.frame(&Frame::Verdict(self.voice.verdict()));
        }
    }
}
