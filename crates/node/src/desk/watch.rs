//! A pool in a running node: `engine::health` behind a mutex, and the machine that must hear who is eligible.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use admin_api::{HealthEvent, PoolNode, PoolStatus};
use config::{Cluster, Layer};
use engine::control::Control;
use engine::health::{Evidence, Kind, Outcome, Pool, Probe, Settings, Standing};
use engine::notify::Topic;
use engine::time::Mono;
use runtime::Clock;
use tracing::{info, warn};

use super::{Desk, mode_of};
use crate::notices::News;

/// Events kept to be shown.
const EVENTS_MAX: usize = 100;

/// What a pool observes, and who is told what it decides.
///
/// Called with the pool locked: nothing in here may call the [`Watch`].
pub trait Observed: Send + Sync {
    /// Ten times a second: hands the pool what has come in.
    fn look(&self, now: Mono, pool: &mut Pool);
    /// A node's standing has changed.
    fn decided(&self, now: Mono, outcome: &Outcome);
}

/// A pool, and who observes it.
pub struct Watch {
    desk: Arc<Desk>,
    layer: Layer,
    kind: Kind,
    clock: Clock,
    observed: Arc<dyn Observed>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    /// What the observed was told last; `None`: nothing yet.
    told: Option<Vec<&'static str>>,
    events: VecDeque<HealthEvent>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("layer", &self.layer).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A pool with the cluster file's settings and the orders of the desk.
pub fn watch(
    desk: &Arc<Desk>,
    cluster: &Cluster,
    (layer, kind, probe): (Layer, Kind, Probe),
    names: Vec<String>,
    clock: Clock,
    observed: Arc<dyn Observed>,
) -> Arc<Watch> {
    let health = &cluster.health;
    let settings = Settings {
        kind,
        probe,
        mode: mode_of(health.mode),
        proof: health.proof,
        recover: health.recover,
        floor_percent: health.floor_percent,
        max_ejected_percent: health.max_ejected_percent,
    };
    let pool = Pool::new(settings, names, clock.now());
    let state = Mutex::new(State { pool, told: None, events: VecDeque::new() });
    let watch = Watch { desk: Arc::clone(desk), layer, kind, clock, observed, state };
    watch.refresh();
    Arc::new(watch)
}

impl Watch {
    /// Tells the pool something, and at once the observed what follows from it.
    pub fn tell(&self, news: impl FnOnce(Mono, &mut Pool)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        news(now, &mut state.pool);
        self.follow(now, &mut state);
    }

    fn follow(&self, now: Mono, state: &mut State) {
        let outcome = state.pool.outcome();
        let standings: Vec<&'static str> = outcome.nodes.iter().map(Standing::as_str).collect();
        if state.told.as_ref() != Some(&standings) {
            self.observed.decided(now, outcome);
            state.told = Some(standings);
        }
        for event in state.pool.take_events() {
            let names = state.pool.names();
            let text = event.say(|node| names.get(node).map_or("a node", String::as_str));
            let (node, layer) = (&self.desk.node, self.layer.as_str());
            if event.is_warning() {
                warn!(%node, layer, "{text}");
            } else {
                info!(%node, layer, "{text}");
            }
            if let (Some((old, new)), Some(notices)) = (event.is_news(), self.desk.notices()) {
                notices.say(News { topic: Topic::Health, what: &format!("pool/{layer}"), old, new, text: &text });
            }
            let at = u64::from(self.clock.unix().0);
            state.events.push_front(HealthEvent { at, layer: layer.to_owned(), text });
            state.events.truncate(EVENTS_MAX);
        }
    }

    /// Time passes.
    pub(super) fn tick(&self) {
        let control = self.desk.control();
        self.tell(|now, pool| {
            self.observed.look(now, pool);
            pool.set_orders(now, &self.desk.orders(&control, self.layer, pool.names()));
        });
    }

    /// The orders have changed.
    pub(super) fn refresh(&self) {
        let control = self.desk.control();
        self.tell(|now, pool| pool.set_orders(now, &self.desk.orders(&control, self.layer, pool.names())));
    }

    /// As it is, or as it would be with other orders.
    pub(super) fn status(&self, with: Option<&Control>) -> PoolStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, pool) = (self.clock.now(), &state.pool);
        match with {
            None => self.show(now, pool, pool.outcome()),
            Some(control) => {
                let orders = self.desk.orders(control, self.layer, pool.names());
                self.show(now, pool, &pool.preview(now, &orders))
            }
        }
    }

    fn show(&self, now: Mono, pool: &Pool, outcome: &Outcome) -> PoolStatus {
        let nodes = pool.names().iter().zip(&outcome.nodes).zip(pool.evidence(now));
        PoolStatus {
            layer: self.layer.as_str().to_owned(),
            shared: self.kind == Kind::Free,
            mode: outcome.stance.mode().as_str().to_owned(),
            stance: outcome.stance.as_str().to_owned(),
            floor: outcome.floor,
            size: outcome.size,
            strict: outcome.strict,
            nodes: nodes
                .map(|((name, standing), seen)| {
                    let Evidence { verdict, clean, latency, queue_delay, .. } = seen;
                    PoolNode {
                        node: name.clone(),
                        eligible: standing.is_in(),
                        standing: standing.as_str().to_owned(),
                        why: standing.explain(),
                        verdict: verdict.map(crate::for_api),
                        clean_seconds: clean.map(|clean| clean.as_secs()),
                        ack_ms: latency.map(crate::millis),
                        queue_ms: queue_delay.map(crate::millis),
                        canaries_acked: seen.canaries_acked,
                        canaries_failed: seen.canaries_failed,
                        ejections: seen.ejections,
                    }
                })
                .collect(),
        }
    }

    pub(super) fn events(&self) -> Vec<HealthEvent> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).events.iter().cloned().collect()
    }
}
