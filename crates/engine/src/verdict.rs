//! What a node says of itself, from what it sees of itself.
//!
//! Crashed and overloaded are never confused: *overloaded* needs every heartbeat fresh and a queue that has been late
//! for a whole second; a worker that is not running, or whose heart stands still, is *degraded*, however full its queue
//! is. Overload is no evidence against a node, and clears as soon as the queue does.
//!
//! A node all of whose workers are well may still have a *worry* that its operator must hear of: a disk that takes nothing,
//! or damage that may show in figures. It is then degraded as well, by the name of what is worried about.

use std::time::Duration;

use crate::time::Mono;

/// A queue delay above this is late.
pub const LATE: Duration = Duration::from_secs(1);
/// Overloaded is who has been late for this long.
pub const LATE_FOR: Duration = Duration::from_secs(1);
/// A worker that failed less than this ago is still reported.
pub const RECENT: Duration = Duration::from_secs(5);

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not accepting yet.
    Starting,
    /// Accepting, and on time.
    Ready,
    /// Every worker runs, and the work comes faster than it is done.
    Overloaded { queue_bytes: u64, lag_ms: u64 },
    /// A worker has failed: it does not run, or has only just come back.
    Degraded { worker: String, restarts: u64, error: String },
    /// Asked to stop; finishes what it holds.
    Draining,
}

impl Verdict {
    /// The word for logs and labels.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Verdict::Starting => "starting",
            Verdict::Ready => "ready",
            Verdict::Overloaded { .. } => "overloaded",
            Verdict::Degraded { .. } => "degraded",
            Verdict::Draining => "draining",
        }
    }
}

/// How far a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Serving,
    Draining,
}

/// One worker as its supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen<'a> {
    pub name: &'a str,
    /// It has a life that runs.
    pub running: bool,
    pub heartbeat_age: Duration,
    pub restarts: u64,
    /// When it last failed.
    pub last_failure: Option<Mono>,
    pub last_error: &'a str,
}

/// The fullest queue of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSeen {
    /// Bytes queued.
    pub bytes: u64,
    /// Age of the oldest item.
    pub delay: Duration,
}

/// Remembers since when the queue has been late. One for each node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lateness {
    since: Option<Mono>,
}

impl Lateness {
    /// Notes the queue's delay at `now` and says whether it has been late for [`LATE_FOR`]. Call at least each second.
    pub fn observe(&mut self, now: Mono, delay: Duration) -> bool {
        if delay <= LATE {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.since(since) >= LATE_FOR
    }
}

/// Decides the verdict at `now`.
///
/// `watchdog`: a heartbeat older than this stands still. `late`: what [`Lateness::observe`] says of `queue`. Of several
/// ill workers, one that is down comes before one that has only just come back, and otherwise the first given.
pub fn classify(
    now: Mono,
    stage: Stage,
    workers: &[WorkerSeen<'_>],
    watchdog: Duration,
    queue: QueueSeen,
    late: bool,
) -> Verdict {
    match stage {
        Stage::Starting => return Verdict::Starting,
        Stage::Draining => return Verdict::Draining,
        Stage::Serving => {}
    }
    let down = workers.iter().find(|worker| !worker.running || worker.heartbeat_age > watchdog);
    let shaken = || workers.iter().find(|worker| worker.last_failure.is_some_and(|at| now.since(at) < RECENT));
    if let Some(worker) = down.or_else(shaken) {
        let error = if worker.running && worker.heartbeat_age > watchdog {
            format!("no heartbeat for {} ms", worker.heartbeat_age.as_millis())
        } else {
            worker.last_error.to_owned()
        };
        return Verdict::Degraded { worker: worker.name.to_owned(), restarts: worker.restarts, error };
    }
    if late {
        let lag_ms = u64::try_from(queue.delay.as_millis()).unwrap_or(u64::MAX);
        return Verdict::Overloaded { queue_bytes: queue.bytes, lag_ms };
    }
    Verdict::Ready
}

/// A part of a node that does not do all it promises, or did not, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worry {
    pub part: &'static str,
    pub why: String,
}

/// The verdict of a node with the gravest of its worries, given in that order: said only where nothing graver is the matter.
pub fn worried(verdict: Verdict, worries: impl IntoIterator<Item = Worry>) -> Verdict {
    if verdict != Verdict::Ready {
        return verdict;
    }
    match worries.into_iter().next() {
        Some(Worry { part, why }) => Verdict::Degraded { worker: part.to_owned(), restarts: 0, error: why },
        None => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono::from_millis(100_000);
    const WATCHDOG: Duration = Duration::from_secs(2);
    const FULL: QueueSeen = QueueSeen { bytes: 9_000, delay: Duration::from_millis(1_500) };

    fn well(name: &str) -> WorkerSeen<'_> {
        WorkerSeen {
            name,
            running: true,
            heartbeat_age: Duration::from_millis(100),
            restarts: 0,
            last_failure: None,
            last_error: "",
        }
    }

    #[track_caller]
    fn check(stage: Stage, workers: &[WorkerSeen<'_>], late: bool, expected: &str) {
        let verdict = classify(NOW, stage, workers, WATCHDOG, FULL, late);
        let said = match &verdict {
            Verdict::Starting | Verdict::Ready | Verdict::Draining => verdict.as_str().to_owned(),
            Verdict::Overloaded { queue_bytes, lag_ms } => format!("overloaded {queue_bytes} {lag_ms}"),
            Verdict::Degraded { worker, restarts, error } => format!("degraded {worker} {restarts} {error}"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn stage_decides_before_and_after_serving() {
        let down = WorkerSeen { running: false, ..well("a") };
        check(Stage::Starting, std::slice::from_ref(&down), true, "starting");
        check(Stage::Draining, &[down], true, "draining");
        check(Stage::Serving, &[], false, "ready");
    }

    #[test]
    fn late_queue_is_overload_only_while_every_heart_beats() {
        check(Stage::Serving, &[well("a"), well("b")], false, "ready");
        check(Stage::Serving, &[well("a"), well("b")], true, "overloaded 9000 1500");
        let crashed = WorkerSeen { running: false, restarts: 3, last_error: "panic: boom", ..well("b") };
        check(Stage::Serving, &[well("a"), crashed], true, "degraded b 3 panic: boom");
        let hung = WorkerSeen { heartbeat_age: Duration::from_millis(2_001), ..well("b") };
        check(Stage::Serving, &[well("a"), hung], true, "degraded b 0 no heartbeat for 2001 ms");
    }

    #[test]
    fn a_worry_is_said_when_nothing_graver_is_the_matter() {
        let worry = |part| Worry { part, why: "because".to_owned() };
        let of = |part: &str| Verdict::Degraded { worker: part.to_owned(), restarts: 0, error: "because".to_owned() };
        assert_eq!(worried(Verdict::Ready, []), Verdict::Ready);
        assert_eq!(worried(Verdict::Ready, [worry("first"), worry("second")]), of("first"));
        let late = Verdict::Overloaded { queue_bytes: 1, lag_ms: 2 };
        for graver in [Verdict::Starting, Verdict::Draining, late, of("a worker")] {
            assert_eq!(worried(graver.clone(), [worry("first")]), graver);
        }
    }

    #[test]
    fn worker_that_just_came_back_is_reported_for_a_while() {
        let failed = |ago_ms| WorkerSeen {
            restarts: 1,
            last_failure: Some(NOW - Duration::from_millis(ago_ms)),
            last_error: "error: x",
            ..well("a")
        };
        check(Stage::Serving, &[failed(4_999)], true, "degraded a 1 error: x");
        check(Stage::Serving, &[failed(5_000)], true, "overloaded 9000 1500");
        check(Stage::Serving, &[failed(5_000)], false, "ready");
    }

    #[test]
    fn worker_that_is_down_comes_before_one_that_came_back() {
        let back = WorkerSeen { restarts: 1, last_failure: Some(NOW), last_error: "x", ..well("a") };
        let down = WorkerSeen { running: false, restarts: 2, last_error: "y", ..well("b") };
        check(Stage::Serving, &[back, down], false, "degraded b 2 y");
    }

    #[test]
    fn queue_must_be_late_for_a_second_without_a_break() {
        let mut lateness = Lateness::default();
        let mut seen = |at: u64, delay: u64| lateness.observe(Mono::from_millis(at), Duration::from_millis(delay));
        assert!(!seen(0, 1_000), "not late at all");
        assert!(!seen(100, 1_001));
        assert!(!seen(1_099, 5_000));
        assert!(seen(1_100, 5_000));
        assert!(!seen(1_200, 900), "clears at once");
        assert!(!seen(1_300, 2_000), "and must be proven again");
        assert!(seen(2_300, 2_000));
    }
}
