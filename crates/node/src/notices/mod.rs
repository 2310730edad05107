//! Tells endpoints outside of the cluster what happened: a JSON document each ([`admin_api::Notice`]), by POST.
//!
//! Who has news puts it into queues in memory ([`engine::notify::Outbox`]) and goes on: nothing here is waited for, and
//! nothing that an endpoint does reaches the caller. Each endpoint has a worker of its own, `<layer>.notify.<endpoint>`, so a
//! hanging one holds up no other. What waits when the process ends gets a second; what is not taken then is gone, the audit
//! log has it.
//!
//! An order is told by the node that took it. The CLI gives an order to every node at once; each holds its notice for
//! [`SETTLE`], and who hears meanwhile that another node's word has won takes its own back ([`Notices::superseded`]).

mod post;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin_api::{AuditEntry, Notice};
use config::{Cluster, Node};
use engine::control::{Change, Entry};
use engine::notify::{Failure, Limits, Next, Outbox, Topic};
use runtime::{Clock, Supervisor, Worker, WorkerError};
use telemetry::{Metric, Telemetry};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::desk::Desk;

/// Nodes with links agree in less.
const SETTLE: Duration = Duration::from_secs(1);
/// What waits when the worker is asked to stop gets so long.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of one field of a notice.
const FIELD_MAX: usize = 1024;

/// What a node has to tell, and to whom.
#[derive(Debug)]
pub struct Notices {
    cluster: String,
    node: String,
    layer: &'static str,
    clock: Clock,
    endpoints: Vec<Arc<Endpoint>>,
    /// The latest number of a notice that is no order: milliseconds since 1970, but above every one before.
    number: AtomicU64,
}

#[derive(Debug)]
struct Endpoint {
    config: config::Notify,
    clock: Clock,
    outbox: Mutex<Outbox>,
    wake: Notify,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub struct News<'n> {
    pub topic: Topic,
    pub what: &'n str,
    pub old: &'n str,
    pub new: &'n str,
    pub text: &'n str,
}

/// Starts the workers of every endpoint of the cluster file; the desk, its pools and the node tell it from now on.
pub fn start(cluster: &Cluster, me: &Node, supervisor: &Supervisor, clock: Clock, desk: &Desk) {
    let endpoint = |config: &config::Notify| {
        let limits = Limits { bytes: config.queue_bytes, age: config.give_up };
        let outbox = Mutex::new(Outbox::new(limits));
        Arc::new(Endpoint { config: config.clone(), clock, outbox, wake: Notify::new() })
    };
    let notices = Notices {
        cluster: cluster.name.clone(),
        node: me.name.clone(),
        layer: me.layer.as_str(),
        clock,
        endpoints: cluster.notify.iter().map(endpoint).collect(),
        number: AtomicU64::new(0),
    };
    for endpoint in &notices.endpoints {
        let (name, endpoint) = (format!("{}.notify.{}", notices.layer, endpoint.config.name), Arc::clone(endpoint));
        supervisor.spawn_task(name, move |worker| run(worker, Arc::clone(&endpoint)));
    }
    desk.announce(Arc::new(notices));
}

impl Notices {
    /// Tells what nobody ordered.
    pub fn say(&self, news: News<'_>) {
        let News { topic, what, old, new, text } = news;
        let (id, at) = (self.own_id(topic), u64::from(self.clock.unix().0));
        let notice =
            Notice { id, at, what: cut(what), old: cut(old), new: cut(new), text: cut(text), ..Notice::default() };
        self.tell(topic, notice, Duration::ZERO);
    }

    /// Tells what an operator changed on this node alone. `of`: what the settings are those of, such as `replay`.
    pub fn changed(&self, of: &str, changes: &[AuditEntry]) {
        for AuditEntry { at, by, what, old, new } in changes {
            let (what, by) = (format!("{of}{what}"), format!("{by} on {}", self.node));
            let (what, old, new, by) = (cut(&what), cut(old), cut(new), cut(&by));
            let text = sentence(&what, &old, &new, &by);
            let id = self.own_id(Topic::Orders);
            let notice = Notice { id, at: *at, what, old, new, by, text, ..Notice::default() };
            self.tell(Topic::Orders, notice, Duration::ZERO);
        }
    }

    /// Tells an order that this node took.
    pub(crate) fn ordered(&self, change: &Change) {
        let Change { key, old, entry } = change;
        let by = format!("{} on {}", entry.by, entry.origin);
        let text = sentence(key, old, &entry.value, &by);
        let (what, old, new) = (key.clone(), old.clone(), entry.value.clone());
        let id = order_id(key, entry);
        let notice = Notice { id, at: entry.when, what, old, new, by, text, ..Notice::default() };
        self.tell(Topic::Orders, notice, SETTLE);
    }

    /// Another node's order says the same as this entry, and has won: that node tells it.
    pub(crate) fn superseded(&self, key: &str, entry: &Entry) {
        let now = self.clock.now();
        for endpoint in self.endpoints.iter().filter(|_| entry.origin == self.node) {
            endpoint.outbox().retract(now, &order_id(key, entry));
        }
    }

    fn tell(&self, topic: Topic, notice: Notice, hold: Duration) {
        let notice = Notice {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            layer: self.layer.to_owned(),
            event: topic.as_str().to_owned(),
            ..notice
        };
        let now = self.clock.now();
        // Strings and numbers always have a JSON form.
        let Ok(body) = serde_json::to_string(&notice) else { return };
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.config.events.contains(&topic)) {
            endpoint.outbox().offer(now, &notice.id, &body, now + hold);
            endpoint.wake.notify_one();
        }
    }

    fn own_id(&self, topic: Topic) -> String {
        let now = self.clock.unix_millis();
        let next = |last: u64| now.max(last.saturating_add(1));
        let last = self.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        format!("{}/{}/{}", topic.as_str(), self.node, next(last.unwrap_or_default()))
    }

    /// What was told, tried, given up, and waits.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        for endpoint in &self.endpoints {
            let name = ("endpoint", endpoint.config.name.clone());
            let outbox = endpoint.outbox();
            let (counts, (waiting, _)) = (outbox.counts(), outbox.waiting());
            drop(outbox);
            telemetry.counter(Metric::NotificationsSent, std::slice::from_ref(&name)).absolute(counts.sent);
            for (failure, total) in Failure::ALL.iter().zip(counts.failed) {
                let labels = [name.clone(), ("reason", failure.as_str().to_owned())];
                telemetry.counter(Metric::NotificationsFailed, &labels).absolute(total);
            }
            for (reason, total) in [("queue_full", counts.queue_full), ("too_old", counts.too_old)] {
                let labels = [name.clone(), ("reason", reason.to_owned())];
                telemetry.counter(Metric::NotificationsGivenUp, &labels).absolute(total);
            }
            crate::set_gauge(telemetry, Metric::NotificationsWaiting, &[name], waiting as u64);
        }
    }
}

fn order_id(key: &str, entry: &Entry) -> String {
    format!("{}/{}/{}/{key}", Topic::Orders.as_str(), entry.origin, entry.version)
}

fn sentence(what: &str, old: &str, new: &str, by: &str) -> String {
    let or_none = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
    format!("{what}: {} instead of {}, ordered by {by}", or_none(new), or_none(old))
}

/// Whoever speaks to the admin API chooses some of these strings.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(FIELD_MAX)).unwrap_or_default().to_owned()
}

impl Endpoint {
    /// Whole between two statements.
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, number: u64, result: Result<(), (Failure, String)>) {
        // Without randomness the wait is the longest.
        let random = runtime::random_u64().unwrap_or(u64::MAX);
        let name = self.config.name.as_str();
        let mut outbox = self.outbox();
        let before = outbox.failures();
        outbox.ended(self.clock.now(), number, result.as_ref().copied().map_err(|(failure, _)| *failure), random);
        let after = outbox.failures();
        drop(outbox);
        match result {
            // Once for each time that it goes away, by its name: what stands in its URL may be a secret.
            Err((failure, why)) if before == 0 && after > 0 => {
                warn!(endpoint = name, reason = failure.as_str(), %why, "an endpoint does not take notices; tried again");
            }
            Ok(()) if before > 0 && after == 0 => {
                info!(endpoint = name, failures = before, "an endpoint takes notices again")
            }
            Err(_) | Ok(()) => {}
        }
    }
}

async fn run(worker: Worker, endpoint: Arc<Endpoint>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    endpoint.outbox().begin();
    while worker.is_current() {
        worker.beat();
        worker.failpoint_async("notify").await?;
        if stop.is_cancelled() {
            // What is not taken then is gone with the process.
            let last = tokio::time::timeout(LAST_WORDS, last_words(&worker, &endpoint));
            if worker.idle(last).await.is_err() || endpoint.outbox().waiting().0 > 0 {
                let left = endpoint.outbox().waiting().0;
                info!(endpoint = endpoint.config.name, left, "notices are left untold");
            }
            return Ok(());
        }
        let next = endpoint.outbox().next(endpoint.clock.now());
        let until = match next {
            Next::Send(attempt) => {
                let sending = post::post(&endpoint.config, &attempt.body);
                tokio::select! {
                    biased;
                    result = worker.idle(sending) => endpoint.ended(attempt.number, result),
                    () = stop.cancelled() => endpoint.outbox().begin(),
                }
                continue;
            }
            Next::Wait { until } => Some(until),
            Next::Nothing => None,
        };
        let wait = until.map(|until| until.since(endpoint.clock.now()));
        let elapsed = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        worker
            .idle(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = endpoint.wake.notified() => {}
                    () = elapsed => {}
                }
            })
            .await;
    }
    Ok(())
}

/// Each notice once, until one fails.
async fn last_words(worker: &Worker, endpoint: &Endpoint) {
    endpoint.outbox().hurry();
    while worker.is_current() {
        let next = endpoint.outbox().next(endpoint.clock.now());
        let Next::Send(attempt) = next else { return };
        let result = post::post(&endpoint.config, &attempt.body).await;
        let failed = result.is_err();
        endpoint.ended(attempt.number, result);
        if failed {
            return;
        }
    }
}
