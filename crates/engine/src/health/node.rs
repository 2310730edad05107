//! What is known of one node.

use std::time::Duration;

use super::Evidence;
use crate::time::Mono;
use crate::verdict::{LATE, Verdict};

/// A new latency counts for one part in so many of the smoothed one.
const SMOOTHING: u32 = 8;
/// A node that stands out for so long is ejected.
const STANDS_OUT_FOR: Duration = Duration::from_secs(5);
/// The first ejection; the n-th lasts n times as long ...
const EJECTED_FOR: Duration = Duration::from_secs(30);
/// ... and at most so long.
const EJECTED_MAX: Duration = Duration::from_secs(300);
/// Who was good for so long is ejected as for the first time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub(super) struct Node {
    link: Link,
    outlier: Outlier,
    canaries_acked: u64,
    canaries_failed: u64,
    ejections: u64,
}

/// What is known of a link exists only while it is up.
#[derive(Clone, Debug)]
enum Link {
    Down,
    Up { verdict: Option<Verdict>, proof: Proof, latency: Option<Duration>, queue_delay: Option<Duration> },
}

#[derive(Clone, Copy, Debug)]
enum Proof {
    /// No canary was acknowledged yet, or the last one that counts was not.
    None,
    Clean {
        since: Mono,
    },
}

/// `times`: ejections that are not forgiven.
#[derive(Clone, Copy, Debug)]
enum Outlier {
    In { since: Mono, times: u32 },
    Suspect { since: Mono, times: u32 },
    Out { until: Mono, times: u32 },
}

impl Node {
    pub(super) fn new(now: Mono) -> Node {
        let outlier = Outlier::In { since: now, times: 0 };
        Node { link: Link::Down, outlier, canaries_acked: 0, canaries_failed: 0, ejections: 0 }
    }

    pub(super) fn link_up(&mut self, now: Mono, has_proof: bool) {
        let proof = if has_proof { Proof::Clean { since: now } } else { Proof::None };
        self.link = Link::Up { verdict: None, proof, latency: None, queue_delay: None };
    }

    pub(super) fn link_down(&mut self, now: Mono) {
        self.link = Link::Down;
        // An ejection goes on; a suspicion rested on what is gone.
        if let Outlier::Suspect { times, .. } = self.outlier {
            self.outlier = Outlier::In { since: now, times };
        }
    }

    pub(super) fn verdict(&mut self, said: Verdict) {
        if let Link::Up { verdict, queue_delay, .. } = &mut self.link {
            match &said {
                Verdict::Overloaded { lag_ms, .. } => *queue_delay = Some(Duration::from_millis(*lag_ms)),
                // Who is ready has been late for no second.
                Verdict::Ready => *queue_delay = queue_delay.map(|delay| delay.min(LATE)),
                Verdict::Starting | Verdict::Degraded { .. } | Verdict::Draining => {}
            }
            *verdict = Some(said);
        }
    }

    pub(super) fn canary_acked(&mut self, now: Mono, took: Duration) {
        self.canaries_acked += 1;
        if let Link::Up { proof, .. } = &mut self.link
            && let Proof::None = proof
        {
            *proof = Proof::Clean { since: now };
        }
        self.latency(took);
    }

    /// Held against the node, unless it says that it is overloaded: that is no evidence.
    pub(super) fn canary_failed(&mut self) {
        if let Link::Up { proof, verdict, .. } = &mut self.link
            && !matches!(verdict, Some(Verdict::Overloaded { .. }))
        {
            *proof = Proof::None;
            self.canaries_failed += 1;
        }
    }

    pub(super) fn latency(&mut self, took: Duration) {
        if let Link::Up { latency, .. } = &mut self.link {
            *latency = Some(latency.map_or(took, |old| old - old / SMOOTHING + took / SMOOTHING));
        }
    }

    pub(super) fn queue_delay(&mut self, delay: Duration) {
        if let Link::Up { queue_delay, .. } = &mut self.link {
            *queue_delay = Some(delay);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    pub(super) fn says(&self) -> Option<&Verdict> {
        match &self.link {
            Link::Up { verdict, .. } => verdict.as_ref(),
            Link::Down => None,
        }
    }

    /// For how long it has been clean.
    pub(super) fn clean(&self, now: Mono) -> Option<Duration> {
        match self.link {
            Link::Up { proof: Proof::Clean { since }, .. } => Some(now.since(since)),
            Link::Up { proof: Proof::None, .. } | Link::Down => None,
        }
    }

    /// Ack latency and queue delay.
    pub(super) fn samples(&self) -> (Option<Duration>, Option<Duration>) {
        match self.link {
            Link::Up { latency, queue_delay, .. } => (latency, queue_delay),
            Link::Down => (None, None),
        }
    }

    /// How long it is still ejected.
    pub(super) fn ejected(&self, now: Mono) -> Option<Duration> {
        match self.outlier {
            Outlier::Out { until, .. } => Some(until.since(now)).filter(|left| !left.is_zero()),
            Outlier::In { .. } | Outlier::Suspect { .. } => None,
        }
    }

    /// Whether it stands out now. True: it has for long enough, and may be ejected.
    pub(super) fn stands_out(&mut self, now: Mono, stands_out: bool) -> bool {
        self.outlier = match self.outlier {
            Outlier::In { times, .. } if stands_out => Outlier::Suspect { since: now, times },
            Outlier::In { since, times } if times > 0 && now.since(since) >= FORGIVEN_AFTER => {
                Outlier::In { since, times: 0 }
            }
            Outlier::Suspect { times, .. } if !stands_out => Outlier::In { since: now, times },
            Outlier::Out { until, times } if now >= until => Outlier::In { since: now, times },
            same @ (Outlier::In { .. } | Outlier::Suspect { .. } | Outlier::Out { .. }) => same,
        };
        match self.outlier {
            Outlier::Suspect { since, .. } => now.since(since) >= STANDS_OUT_FOR,
            Outlier::In { .. } | Outlier::Out { .. } => false,
        }
    }

    /// `jitter`: any number; it moves the end by up to a fifth, so that not all observers take a node back at once.
    pub(super) fn eject(&mut self, now: Mono, jitter: u64) {
        if let Outlier::Suspect { times, .. } = self.outlier {
            let times = times.saturating_add(1);
            let full = EJECTED_FOR.saturating_mul(times).min(EJECTED_MAX);
            let percent = 80 + u32::try_from(jitter % 41).unwrap_or(0);
            self.outlier = Outlier::Out { until: now + full * percent / 100, times };
            self.ejections += 1;
        }
    }

    pub(super) fn evidence(&self, now: Mono) -> Evidence {
        let (latency, queue_delay) = self.samples();
        Evidence {
            up: self.is_up(),
            verdict: self.says().cloned(),
            clean: self.clean(now),
            latency,
            queue_delay,
            canaries_acked: self.canaries_acked,
            canaries_failed: self.canaries_failed,
            ejections: self.ejections,
        }
    }
}
