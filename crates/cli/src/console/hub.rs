//! What was seen of the cluster, and the rounds of questions that go on while somebody looks.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin_api::{AuditEntry, paths};
use config::{Cluster, Layer};
use engine::time::Mono;
use runtime::Clock;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::audit::{self, Change};
use super::gate::Gate;
use crate::client::{Answer, Request, exchange_all};
use crate::order::Line;
use crate::watch::{ASK_EVERY, Flow, Model, Order, foresee, look, send};

/// Seconds of history: ten minutes.
pub(super) const HISTORY_MAX: usize = 600;
/// Changes that are shown, and kept of each log: the latest ones.
const AUDIT_MAX: usize = 100;
/// Older than this, what was seen is called stale, and no preview is made of it.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(3);
/// Nobody has looked for so long: nodes are left in peace.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// Who comes after a while waits so long for a first look: a node that does not answer takes two seconds.
const FRESH_WITHIN: Duration = Duration::from_millis(2_500);
/// One round in so many asks for the audit logs too.
const AUDIT_EVERY: u64 = 5;

/// The whole cluster in one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Mono,
    /// Points per second; `None` when no node of that kind said enough.
    pub(super) taken_in: Option<u64>,
    pub(super) to_stores: Option<u64>,
    pub(super) spilled: Option<u64>,
    pub(super) replayed: Option<u64>,
    /// Points that wait in spills.
    pub(super) pending: Option<u64>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) model: Model,
    /// Oldest first, at most [`HISTORY_MAX`].
    pub(super) history: VecDeque<Moment>,
    /// What each node's logs said last, of replay and of orders; latest first, at most [`AUDIT_MAX`] each.
    logs: BTreeMap<(String, &'static str), Vec<AuditEntry>>,
    /// When the last round ended.
    pub(super) at: Option<Mono>,
    /// When somebody looked last.
    wanted: Option<Mono>,
}

#[derive(Debug)]
pub(super) struct Hub {
    pub(super) cluster: Cluster,
    /// Who is let in.
    pub(super) gate: Gate,
    /// For the audit logs of the nodes.
    by: String,
    clock: Clock,
    seen: Mutex<Seen>,
    somebody: Notify,
    /// An order was sent: the logs have something new.
    is_news: AtomicBool,
    rounds: watch::Sender<u64>,
}

impl Hub {
    pub(super) fn new(cluster: Cluster, gate: Gate, by: String) -> Hub {
        let model = Model::new(&cluster);
        let seen = Seen { model, history: VecDeque::new(), logs: BTreeMap::new(), at: None, wanted: None };
        let (seen, rounds) = (Mutex::new(seen), watch::Sender::new(0));
        Hub {
            cluster,
            gate,
            by,
            clock: Clock::new(),
            seen,
            somebody: Notify::new(),
            is_news: AtomicBool::new(false),
            rounds,
        }
    }

    pub(super) fn now(&self) -> Mono {
        self.clock.now()
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        // What a panic left half-written is a picture a second old at the most.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks: the rounds go on, and if the last one is old, the next one is waited for.
    pub(super) async fn look(&self) {
        let mut rounds = self.rounds.subscribe();
        rounds.mark_unchanged();
        let stale = {
            let mut seen = self.seen();
            let now = self.now();
            seen.wanted = Some(now);
            seen.at.is_none_or(|at| now.since(at) > STALE_AFTER)
        };
        self.somebody.notify_one();
        if stale {
            // When no round ends in time the answer says how old it is.
            timeout(FRESH_WITHIN, rounds.changed()).await.ok();
        }
    }

    /// What an order would do. `None`: nobody has been heard for too long to say it.
    pub(super) async fn foresee(&self, order: &Order) -> Option<Vec<Line>> {
        let known = {
            let now = self.now();
            let seen = self.seen();
            if seen.at.is_none_or(|at| now.since(at) > STALE_AFTER) {
                return None;
            }
            order.preview(&seen.model)
        };
        match known {
            Some(lines) => Some(lines),
            None => Some(foresee(&self.cluster, order, &self.by, self.clock.unix()).await),
        }
    }

    /// Sends an order, at once, and lets the next round ask for the logs.
    pub(super) async fn order(&self, order: &Order) -> Vec<Line> {
        let lines = send(&self.cluster, order, &self.by, self.clock.unix()).await;
        self.is_news.store(true, Ordering::Relaxed);
        lines
    }

    /// Asks all nodes once a second while somebody looks.
    pub(super) async fn collect(&self) -> Infallible {
        let mut ticks = interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0u64;
        loop {
            while self.is_idle() {
                self.somebody.notified().await;
            }
            ticks.tick().await;
            let is_news = self.is_news.swap(false, Ordering::Relaxed);
            if is_news || round.is_multiple_of(AUDIT_EVERY) {
                let (looks, ()) = tokio::join!(look(&self.cluster), self.ask_audit());
                self.take(looks);
            } else {
                let looks = look(&self.cluster).await;
                self.take(looks);
            }
            round = round.wrapping_add(1);
            self.rounds.send_replace(round);
        }
    }

    fn is_idle(&self) -> bool {
        let now = self.now();
        self.seen().wanted.is_none_or(|wanted| now.since(wanted) > IDLE_AFTER)
    }

    fn take(&self, looks: Vec<(&str, crate::watch::Look)>) {
        let now = self.now();
        let mut seen = self.seen();
        for (name, look) in looks {
            seen.model.see(now, name, look);
        }
        seen.at = Some(now);
        let moment = moment(now, &seen.model);
        seen.history.push_back(moment);
        if seen.history.len() > HISTORY_MAX {
            seen.history.pop_front();
        }
    }

    async fn ask_audit(&self) {
        let nodes = &self.cluster.nodes;
        let replay = nodes.iter().filter(|node| matches!(node.layer, Layer::Relay | Layer::Final | Layer::Replayer));
        let questions = replay.map(|node| (node, paths::REPLAY_AUDIT));
        let questions: Vec<_> = questions.chain(nodes.iter().map(|node| (node, paths::CONTROL_AUDIT))).collect();
        let requests = questions.iter().map(|(node, path)| (*node, Request::get(*path)));
        let answers = exchange_all(requests.collect()).await;
        let answers = answers.into_iter().map(Answer::decoded::<Vec<AuditEntry>>);
        let mut seen = self.seen();
        for (answer, (node, path)) in answers.zip(questions) {
            // A node that does not answer now has not forgotten what it said before.
            let Ok(mut entries) = answer.result else { continue };
            entries.truncate(AUDIT_MAX);
            seen.logs.insert((node.name.clone(), path), entries);
        }
    }
}

impl Seen {
    /// Changes by operators, latest first.
    pub(super) fn changes(&self) -> Vec<Change<'_>> {
        let entries = self.logs.iter().map(|((node, _), entries)| (node.as_str(), entries.as_slice()));
        let mut changes = audit::merged(entries);
        changes.truncate(AUDIT_MAX);
        changes
    }
}

/// The cluster's sums. What relays take in is what the cluster takes in.
fn moment(at: Mono, model: &Model) -> Moment {
    Moment {
        at,
        taken_in: total(model, &[Layer::Relay], |flow| flow.taken_in),
        to_stores: total(model, &[Layer::Relay, Layer::Final], |flow| flow.to_stores),
        spilled: total(model, &[Layer::Relay], |flow| flow.spilled),
        replayed: total(model, &[Layer::Replayer], |flow| flow.replayed),
        pending: sum(model.nodes.iter().filter_map(|node| node.backlog())),
    }
}

/// What flows through these layers in all; `None` when no node of them has a rate.
pub(super) fn total(model: &Model, layers: &[Layer], part: fn(Flow) -> u64) -> Option<u64> {
    let nodes = model.nodes.iter().filter(|node| layers.contains(&node.layer));
    sum(nodes.filter_map(|node| node.flow().map(part)))
}

/// Of what is known; `None` when nothing is.
pub(super) fn sum(parts: impl Iterator<Item = u64>) -> Option<u64> {
    parts.fold(None, |sum, part| Some(sum.unwrap_or(0).saturating_add(part)))
}
