//! How fast a replay may go: below the operator's ceiling, as fast as the receivers' queues allow (FAULTS B9).
//!
//! A delay-target controller in the manner of LEDBAT. Every [`STEP`] it is told the receivers' queue delay `d` and sets
//!
//! ```text
//! off = (50 ms - d) / 50 ms
//! off >= 0    rate += 0.5 % of the reference * off
//! off <  0    rate *= max(1/2, 1 + off/2)
//! d > 250 ms  nothing goes until d < 50 ms; then it begins at the floor
//! ```
//!
//! between floor and ceiling. The reference is the ceiling, but no more than twice what really goes where the ceiling is
//! beyond [`REFERENCE_MIN`]: half a percent of "a billion a second" is no small step. For the same reason a rate that
//! is far above what really goes comes down from there, not from the number.
//!
//! The ceiling takes effect at once: downwards always, upwards if nothing but the ceiling held the rate.

use std::time::Duration;

/// How often [`Controller::step`] is to be called.
pub const STEP: Duration = Duration::from_millis(500);
/// The queue delay aimed at.
pub const TARGET: Duration = Duration::from_millis(50);
/// With a longer delay nothing is sent.
pub const STOP: Duration = Duration::from_millis(250);
/// Ceilings up to this (points per second) are taken at their word as the measure of a step.
pub const REFERENCE_MIN: u64 = 1_000_000;
/// Part of the reference that the rate grows by in a step with empty queues.
const GROWTH: f64 = 0.005;
/// What went in a second is the most of so many last steps.
const MEMORY: usize = 4;

/// What the operator allows, in points per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Never above this; `u64::MAX` is no ceiling.
    pub ceiling: u64,
    /// Adaptation does not go below this, except to zero while the receivers are overloaded.
    pub floor: u64,
    pub paused: bool,
    /// False: the ceiling alone counts.
    pub adaptive: bool,
}

/// What was seen since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The longest queue delay among the receivers; `None` if none said anything.
    pub delay: Option<Duration>,
    /// Points that were sent.
    pub sent: u64,
}

/// What holds the rate where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Paused,
    /// By the ceiling.
    Operator,
    /// By the receivers' queues.
    Receiver,
}

impl Held {
    /// The word in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Held::Paused => "paused",
            Held::Operator => "operator",
            Held::Receiver => "receiver",
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Controller {
    bounds: Bounds,
    rate: f64,
    /// The receivers are overloaded; until their queues are short again.
    stopped: bool,
    sent: [u64; MEMORY],
}

impl Controller {
    /// Begins at `start` points per second, or at the ceiling if that is less.
    pub fn new(bounds: Bounds, start: u64) -> Controller {
        let mut controller = Controller { bounds, rate: 0.0, stopped: false, sent: [0; MEMORY] };
        controller.rate = whole(start.min(controller.bounds.ceiling));
        controller
    }

    /// The operator changed something. In force at once.
    pub fn set(&mut self, bounds: Bounds) {
        let at_ceiling = self.rate >= whole(self.bounds.ceiling);
        if at_ceiling && !self.stopped || !bounds.adaptive {
            self.rate = whole(bounds.ceiling);
        }
        if !bounds.adaptive {
            self.stopped = false;
        }
        self.bounds = bounds;
        self.rate = self.rate.clamp(self.floor(), whole(bounds.ceiling));
    }

    /// Half a second has passed.
    pub fn step(&mut self, seen: Seen) {
        self.sent.rotate_right(1);
        self.sent[0] = seen.sent;
        if !self.bounds.adaptive {
            self.rate = whole(self.bounds.ceiling);
            return;
        }
        let Some(delay) = seen.delay else { return };
        if delay > STOP {
            self.stopped = true;
            self.rate = self.floor();
            return;
        }
        if self.stopped && delay >= TARGET {
            return;
        }
        self.stopped = false;
        let off = 1.0 - delay.as_secs_f64() / TARGET.as_secs_f64();
        self.rate = if off >= 0.0 {
            self.rate + GROWTH * self.reference() * off
        } else {
            self.from() * (1.0 + off / 2.0).max(0.5)
        };
        self.rate = self.rate.clamp(self.floor(), whole(self.bounds.ceiling));
    }

    /// Points per second that may go now.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and the ceiling")]
    pub fn rate(&self) -> u64 {
        if self.bounds.paused || self.stopped {
            return 0;
        }
        if self.rate >= whole(self.bounds.ceiling) { self.bounds.ceiling } else { self.rate as u64 }
    }

    /// What holds the rate.
    pub fn held(&self) -> Held {
        if self.bounds.paused {
            Held::Paused
        } else if self.rate() >= self.bounds.ceiling {
            Held::Operator
        } else {
            Held::Receiver
        }
    }

    fn floor(&self) -> f64 {
        whole(self.bounds.floor.min(self.bounds.ceiling))
    }

    /// Points that really go in a second.
    fn really(&self) -> u64 {
        let most = self.sent.iter().copied().max().unwrap_or_default();
        most.saturating_mul(1000 / u64::try_from(STEP.as_millis()).unwrap_or(1000).max(1))
    }

    fn reference(&self) -> f64 {
        whole(self.really().saturating_mul(2).max(REFERENCE_MIN).min(self.bounds.ceiling))
    }

    /// Where a decrease starts: not at a number that nothing ever came near.
    fn from(&self) -> f64 {
        match self.really() {
            0 => self.rate,
            really => self.rate.min(whole(really.saturating_mul(2))),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "rates above 2^53 a second are no rates")]
fn whole(points: u64) -> f64 {
    points as f64
}

#[cfg(test)]
mod tests;
