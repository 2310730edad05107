//! What the relay says over its admin API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use admin::{Controls, Refusal, SpillAnswer, SpillRequest};
use admin_api::{AuditEntry, BadLine, Failpoint, Health, Ledger, NodeKnown, PeerStatus, Status, Verdict, WorkerStatus};
use engine::recv::CloseReason;
use link::Dialer as _;
use node::VerdictKeeper;
use node::desk::Operator;
use runtime::Supervisor;
use runtime::queue::Probe;
use telemetry::{Metric, Telemetry};

use crate::books;
use crate::shared::locked;
use crate::shared::{Shared, get};
use crate::uplink::Uplink;

type SpillReceiver = tokio::sync::oneshot::Receiver<Result<SpillAnswer, Refusal>>;

#[derive(Debug)]
pub(crate) struct RelayControls {
    pub(crate) shared: Arc<Shared>,
    pub(crate) supervisor: Supervisor,
    pub(crate) uplinks: Vec<Arc<Uplink>>,
    pub(crate) queue: Probe,
    pub(crate) telemetry: Telemetry,
    pub(crate) keeper: Arc<VerdictKeeper>,
    pub(crate) operator: Operator,
    pub(crate) tls: node::Tls,
}

impl RelayControls {
    fn verdict(&self) -> Verdict {
        let verdict = self.keeper.verdict(self.queue.queued_bytes(), self.queue.oldest_age());
        match self.shared.trouble() {
            Some(error) if !matches!(verdict, Verdict::Starting | Verdict::Draining) => {
                Verdict::Degraded { worker: "relay.identity".into(), restarts: 0, error }
            }
            Some(_) | None => verdict,
        }
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let now = self.shared.clock.now();
        let views = self.shared.machine().peers();
        let links = views.into_iter().zip(&self.shared.peers).zip(&self.uplinks).map(|((view, name), uplink)| {
            let state = match (view.up, view.draining) {
                (true, false) => "up",
                (true, true) => "draining",
                (false, _) => "down",
            };
            PeerStatus {
                peer: name.clone(),
                state: state.into(),
                in_flight_points: view.in_flight_points,
                in_flight_bytes: view.in_flight_bytes,
                oldest_unacked_ms: view.oldest.map_or(0, |at| node::millis(now.since(at))),
                verdict: uplink.standing().verdict().map(node::for_api),
                last_error: uplink.standing().last_error().filter(|_| !view.up),
            }
        });
        let stores =
            self.shared.stores.iter().flat_map(|store| {
                store.senders.iter().map(move |sender| node::store_peer(&store.name, &sender.status()))
            });
        links.chain(stores).collect()
    }

    fn figures(&self) -> BTreeMap<String, u64> {
        let (held_bytes, held) = self.shared.machine().held();
        let latency = self.shared.machine().latency().clone();
        let counters = &self.shared.counters;
        [
            ("connections", get(&counters.open)),
            ("batches_held", held as u64),
            ("batches_held_bytes", held_bytes),
            ("batches_resent", self.shared.machine().resent()),
            ("batches_durable", latency.count()),
            ("durable_p50_ms", latency.within_ms(50)),
            ("durable_p99_ms", latency.within_ms(99)),
            ("spill_able", u64::from(self.shared.spill.able())),
            ("queue_bytes", self.queue.queued_bytes()),
            ("backpressure_ms", get(&counters.backpressure_nanos) / 1_000_000),
            ("reading_clients", u64::from(self.shared.accepting.load(Ordering::Relaxed))),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .chain(self.tls.figures(self.shared.clock.unix()))
        .collect()
    }

    /// Brings the registry up to date; the hot path only counts in plain atomics.
    pub(crate) fn refresh(&self) {
        let counters = &self.shared.counters;
        let telemetry = &self.telemetry;
        let set = |metric, labels: &[(&'static str, String)], value| telemetry.counter(metric, labels).absolute(value);
        let ledger = self.ledger();
        node::record_ledger(telemetry, &ledger);
        node::record_self(telemetry, &self.verdict(), self.shared.clock.now().since(self.shared.started));
        node::record_workers(telemetry, &self.supervisor);
        self.operator.record(telemetry);
        self.tls.record(telemetry);
        set(Metric::ReceivedBytes, &[], get(&counters.received_bytes));
        set(Metric::ConnectionsOpened, &[], get(&counters.opened));
        for (index, reason) in CloseReason::ALL.iter().enumerate() {
            set(Metric::ConnectionsClosed, &[("reason", reason.as_str().into())], get(&counters.closed[index]));
        }
        for (reason, n) in locked(&counters.accept_pauses).iter() {
            set(Metric::AcceptPauses, &[("reason", (*reason).to_owned())], *n);
        }
        set(Metric::Backpressure, &[], get(&counters.backpressure_nanos) / 1_000_000_000);
        node::set_gauge(telemetry, Metric::ConnectionsOpen, &[], get(&counters.open));
        node::set_gauge(telemetry, Metric::QueueBytes, &[("queue", "relay.lines".into())], self.queue.queued_bytes());
        node::record_peers(telemetry, &self.peers());
        self.shared.spill.record(telemetry);
        let latency = self.shared.machine().latency().clone();
        for percent in [50, 99] {
            let within = Duration::from_millis(latency.within_ms(percent)).as_secs_f64();
            telemetry.gauge(Metric::Durable, &[("percentile", percent.to_string())]).set(within);
        }
        for (reason, n) in locked(&counters.links_closed).iter() {
            set(Metric::LinksClosed, &[("reason", (*reason).to_owned())], *n);
        }
    }
}

impl Controls for RelayControls {
    fn health(&self) -> Health {
        Health::new(&self.shared.node, "relay", self.verdict())
    }

    fn status(&self) -> Status {
        Status {
            node: self.shared.node.clone(),
            layer: "relay".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.shared.clock.now().since(self.shared.started).as_secs(),
            verdict: self.verdict(),
            workers: self.workers(),
            peers: self.peers(),
            figures: self.figures(),
            ledger: self.ledger(),
        }
    }

    fn ledger(&self) -> Ledger {
        books::ledger(&self.shared)
    }

    fn known(&self, name: &str) -> NodeKnown {
        let me = &self.shared.node;
        let linked =
            self.shared.peers.iter().zip(&self.uplinks).any(|(peer, link)| peer == name && link.standing().is_up());
        let own = self.uplinks.first().filter(|_| name == me);
        let sender = own.map(|link| format!("{:016x}", link.greeting.incarnation.sender));
        NodeKnown { node: me.clone(), about: name.to_owned(), linked, sender }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        admin::worker_statuses(&self.supervisor)
    }

    fn badlines(&self) -> Vec<BadLine> {
        self.shared.bad.list()
    }

    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn metrics(&self) -> String {
        self.refresh();
        self.telemetry.render_prometheus()
    }

    fn spill(&self, request: SpillRequest) -> SpillReceiver {
        self.shared.spill.request(request)
    }

    fn orders(&self) -> Option<&dyn admin::Orders> {
        Some(&self.operator)
    }

    fn audit(&self) -> Vec<AuditEntry> {
        self.shared.spill.audit()
    }

    fn failpoint(&self, failpoint: Failpoint) -> Result<(), String> {
        admin::arm_failpoint(&self.supervisor, &failpoint)
    }
}
