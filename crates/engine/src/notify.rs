//! What is to be told to one endpoint outside of the cluster, and when it is tried next.
//!
//! A queue with an owner: whoever has news offers it and goes on, whatever the endpoint does. One notice is on its way at a
//! time, the oldest first; it stays in the queue until the endpoint has taken it, so it arrives at least once and always
//! under the same id. A failure is followed by a wait with full jitter. Two things end a notice untold, both counted: it
//! is the oldest and the queue is full, or it is older than `age`.
//!
//! One notice may be *held* until a moment and taken back before: several nodes that hear one order say it once.
//!
//! ```text
//!             next                    ended(Ok)
//!   Free ------------> Out(number) ------------> Free
//!    ^                  |     ended(Err)
//!    |  time            v
//!    +------------ Waiting(until)         begin: Out -> Free, for a worker that died with it
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::time::Mono;

/// The first wait after a failure is up to this.
const BASE: Duration = Duration::from_millis(500);
/// No wait is longer: what an endpoint missed is there soon after it is back.
const CAP: Duration = Duration::from_secs(30);

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// What operators have changed.
    Orders,
    /// A layer went lenient or strict by itself, a node was ejected.
    Health,
    /// Something is gone from a spill.
    Gaps,
}

impl Topic {
    /// All there are.
    pub const ALL: [Topic; 3] = [Topic::Orders, Topic::Health, Topic::Gaps];

    /// The word in the cluster file and in the notice.
    pub const fn as_str(self) -> &'static str {
        match self {
            Topic::Orders => "orders",
            Topic::Health => "health",
            Topic::Gaps => "gaps",
        }
    }

    /// The topic of that word.
    pub fn parse(word: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.as_str() == word)
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection.
    Connect,
    /// The connection could not be encrypted, or the endpoint's certificate is not to be trusted.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection ended, or what came was no HTTP.
    Broken,
    /// It answered that this very notice is wrong (400, 413, 422): others may be taken all the same.
    Refused,
    /// It answered with another status that is no success.
    Status,
    /// The file with the secret could not be read here.
    Token,
}

impl Failure {
    /// All there are.
    pub const ALL: [Failure; 7] = [
        Failure::Connect,
        Failure::Tls,
        Failure::Timeout,
        Failure::Broken,
        Failure::Refused,
        Failure::Status,
        Failure::Token,
    ];

    /// The word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Tls => "tls",
            Failure::Timeout => "timeout",
            Failure::Broken => "broken",
            Failure::Refused => "refused",
            Failure::Status => "status",
            Failure::Token => "token",
        }
    }
}

/// What the status of an HTTP answer means.
///
/// # Errors
/// Why it is no success.
pub const fn judge(status: u16) -> Result<(), Failure> {
    match status {
        200..=299 => Ok(()),
        400 | 413 | 422 => Err(Failure::Refused),
        _ => Err(Failure::Status),
    }
}

/// How much an endpoint may owe us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of notices that wait.
    pub bytes: usize,
    /// Older ones are given up.
    pub age: Duration,
}

/// What was told, tried and given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    /// Failed attempts, in the order of [`Failure::ALL`].
    pub failed: [u64; Failure::ALL.len()],
    /// Given up because the queue was full.
    pub queue_full: u64,
    /// Given up because of its age.
    pub too_old: u64,
    /// Taken back before it was told: another node says the same.
    pub retracted: u64,
}

/// One attempt that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// For [`Outbox::ended`].
    pub number: u64,
    pub body: Arc<str>,
}

/// What the worker has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Send(Attempt),
    Wait {
        until: Mono,
    },
    /// Until something is offered.
    Nothing,
}

#[derive(Clone, Debug)]
struct Held {
    number: u64,
    id: Arc<str>,
    body: Arc<str>,
    offered: Mono,
    /// Not told before.
    due: Mono,
}

impl Held {
    fn bytes(&self) -> usize {
        self.id.len() + self.body.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Out(u64),
    Waiting(Mono),
}

/// The notices of one endpoint. See the module's head.
#[derive(Clone, Debug)]
pub struct Outbox {
    limits: Limits,
    queue: VecDeque<Held>,
    bytes: usize,
    next_number: u64,
    state: State,
    backoff: Backoff,
    counts: Counts,
}

impl Outbox {
    /// An endpoint that owes nothing.
    pub fn new(limits: Limits) -> Outbox {
        Outbox {
            limits,
            queue: VecDeque::new(),
            bytes: 0,
            next_number: 0,
            state: State::Free,
            backoff: Backoff::within(BASE, CAP),
            counts: Counts::default(),
        }
    }

    /// Takes a notice, to be told from `due` on. The oldest that are not on their way make room for it.
    pub fn offer(&mut self, now: Mono, id: &str, body: &str, due: Mono) {
        self.next_number += 1;
        let held = Held { number: self.next_number, id: id.into(), body: body.into(), offered: now, due };
        self.bytes += held.bytes();
        self.queue.push_back(held);
        while self.bytes > self.limits.bytes {
            let Some(oldest) = self.queue.iter().position(|held| !self.is_out(held)) else { break };
            self.remove(oldest);
            self.counts.queue_full += 1;
        }
    }

    /// Takes back what was not tried yet. False: it is not there any more, or may have been told.
    pub fn retract(&mut self, now: Mono, id: &str) -> bool {
        let place = self.queue.iter().position(|held| *held.id == *id && held.due > now);
        place.is_some_and(|place| {
            self.remove(place);
            self.counts.retracted += 1;
            true
        })
    }

    /// A worker begins its life: what another one had on its way is tried again.
    pub fn begin(&mut self) {
        if let State::Out(_) = self.state {
            self.state = State::Free;
        }
    }

    /// It ends soon: nothing is held back, and no failure of before is waited out.
    pub fn hurry(&mut self) {
        self.queue.iter_mut().for_each(|held| held.due = Mono::ZERO);
        if let State::Waiting(_) = self.state {
            self.state = State::Free;
        }
    }

    /// What there is to do at `now`. Nothing, while an attempt is on its way.
    pub fn next(&mut self, now: Mono) -> Next {
        match self.state {
            State::Out(_) => return Next::Nothing,
            State::Waiting(until) if now < until => {
                self.give_up_old(now);
                return if self.queue.is_empty() { Next::Nothing } else { Next::Wait { until } };
            }
            State::Waiting(_) | State::Free => self.state = State::Free,
        }
        self.give_up_old(now);
        if let Some(held) = self.queue.iter().find(|held| held.due <= now) {
            self.state = State::Out(held.number);
            return Next::Send(Attempt { number: held.number, body: Arc::clone(&held.body) });
        }
        match self.queue.iter().map(|held| held.due).min() {
            Some(until) => Next::Wait { until },
            None => Next::Nothing,
        }
    }

    /// An attempt has ended. One that is not on its way any more changes nothing. `random`: uniform over all of u64.
    pub fn ended(&mut self, now: Mono, number: u64, result: Result<(), Failure>, random: u64) {
        if self.state != State::Out(number) {
            return;
        }
        self.state = State::Free;
        let place = self.queue.iter().position(|held| held.number == number);
        match result {
            Ok(()) => {
                self.counts.sent += 1;
                self.backoff.forget();
                place.into_iter().for_each(|place| self.remove(place));
            }
            Err(failure) => {
                for (kind, count) in Failure::ALL.iter().zip(&mut self.counts.failed) {
                    *count += u64::from(*kind == failure);
                }
                // One that is refused must not hold up those behind it.
                if let Some(held) = place.filter(|_| failure == Failure::Refused).and_then(|at| self.queue.remove(at)) {
                    self.queue.push_back(held);
                }
                self.state = State::Waiting(now + self.backoff.on_failure(random));
            }
        }
    }

    fn give_up_old(&mut self, now: Mono) {
        let age = self.limits.age;
        while let Some(place) = self.queue.iter().position(|held| now.since(held.offered) > age) {
            self.remove(place);
            self.counts.too_old += 1;
        }
    }

    fn is_out(&self, held: &Held) -> bool {
        self.state == State::Out(held.number)
    }

    fn remove(&mut self, place: usize) {
        if let Some(held) = self.queue.remove(place) {
            self.bytes -= held.bytes();
        }
    }

    /// Totals since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Notices and bytes that wait or are on their way.
    pub fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }

    /// Failures since the endpoint last took something.
    pub fn failures(&self) -> u32 {
        self.backoff.attempts()
    }
}

#[cfg(test)]
mod tests;
