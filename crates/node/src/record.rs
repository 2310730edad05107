//! From the books and workers into the metrics registry: done when somebody asks, never on the hot path.

use admin_api::{Ledger, PeerStatus};
use runtime::Supervisor;
use telemetry::{Metric, Telemetry};

/// Sets a gauge.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; above 2^53 the last digits do not matter")]
pub fn set_gauge(telemetry: &Telemetry, metric: Metric, labels: &[(&'static str, String)], value: u64) {
    telemetry.gauge(metric, labels).set(value as f64);
}

/// Everything the ledger says.
pub fn record_ledger(telemetry: &Telemetry, ledger: &Ledger) {
    let set = |metric, labels: &[(&'static str, String)], value| telemetry.counter(metric, labels).absolute(value);
    set(Metric::ReceivedPoints, &[], ledger.received);
    set(Metric::AcceptedPoints, &[], ledger.accepted);
    set(Metric::RoutedPoints, &[], ledger.routed);
    for (reason, n) in &ledger.rejected {
        set(Metric::RejectedPoints, &[("reason", reason.clone())], *n);
    }
    for (reason, n) in &ledger.dropped {
        set(Metric::DroppedPoints, &[("reason", reason.clone())], *n);
    }
    for to in &ledger.destinations {
        let labels = [("destination", to.destination.clone())];
        set(Metric::OwedPoints, &labels, to.owed);
        set(Metric::SentPoints, &labels, to.delivered + to.delivered_unconfirmed);
        set(Metric::DeliveredPoints, &labels, to.delivered);
        set_gauge(telemetry, Metric::UnconfirmedPoints, &labels, to.delivered_unconfirmed);
        set_gauge(telemetry, Metric::InFlightPoints, &labels, to.in_flight);
        set_gauge(telemetry, Metric::SpillPendingPoints, &labels, to.spill_pending);
        for (reason, n) in &to.dropped {
            let labels = [("destination", to.destination.clone()), ("reason", reason.clone())];
            set(Metric::DestinationDroppedPoints, &labels, *n);
        }
    }
    let missing = ledger.unaccounted.unsigned_abs()
        + ledger.destinations.iter().map(|to| to.unaccounted.unsigned_abs()).sum::<u64>();
    set_gauge(telemetry, Metric::UnaccountedPoints, &[], missing);
}

/// Every worker's restarts, hangs and heartbeat.
pub fn record_workers(telemetry: &Telemetry, supervisor: &Supervisor) {
    for worker in supervisor.workers() {
        let labels = [("worker", worker.name.clone())];
        telemetry.counter(Metric::WorkerRestarts, &labels).absolute(worker.restarts);
        telemetry.counter(Metric::WorkerHangs, &labels).absolute(worker.hangs);
        telemetry.gauge(Metric::WorkerHeartbeatAge, &labels).set(worker.heartbeat_age.as_secs_f64());
    }
    let panics = supervisor.connections().iter().map(|group| group.panics).sum();
    telemetry.counter(Metric::ConnectionPanics, &[]).absolute(panics);
}

/// How the links and stores do.
pub fn record_peers(telemetry: &Telemetry, peers: &[PeerStatus]) {
    for peer in peers {
        let labels = [("peer", peer.peer.clone())];
        set_gauge(telemetry, Metric::LinkUp, &labels, u64::from(peer.state == "up"));
        set_gauge(telemetry, Metric::LinkInFlightBytes, &labels, peer.in_flight_bytes);
    }
}
