//! From the books and workers into the metrics registry: done when somebody asks, never on the hot path.

use std::time::Duration;

use admin_api::{Ledger, PeerStatus, Verdict};
use runtime::Supervisor;
use telemetry::{Metric, Telemetry};

/// Sets a gauge.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; above 2^53 the last digits do not matter")]
pub fn set_gauge(telemetry: &Telemetry, metric: Metric, labels: &[(&'static str, String)], value: u64) {
    telemetry.gauge(metric, labels).set(value as f64);
}

/// Reasons that somebody has chosen: the cluster file's routes and rules, and an operator.
const WANTED: [&str; 4] = ["rule", "no_route", "no_rule", "discarded"];

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
    let everywhere = ledger.destinations.iter().map(|to| &to.dropped).chain([&ledger.dropped]);
    let lost = everywhere.flatten().filter(|(reason, _)| !WANTED.contains(&reason.as_str())).map(|(_, n)| n).sum();
    set(Metric::LostPoints, &[], lost);
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
        let oldest = Duration::from_millis(peer.oldest_unacked_ms).as_secs_f64();
        telemetry.gauge(Metric::LinkOldestUnacked, &labels).set(oldest);
    }
}

/// What the node says of itself: verdict, age, memory, build.
pub fn record_self(telemetry: &Telemetry, verdict: &Verdict, uptime: Duration) {
    for word in VERDICTS {
        let is = u64::from(word == verdict.as_str());
        set_gauge(telemetry, Metric::VerdictState, &[("verdict", word.to_owned())], is);
    }
    telemetry.gauge(Metric::Uptime, &[]).set(uptime.as_secs_f64());
    set_gauge(telemetry, Metric::BuildInfo, &[("version", env!("CARGO_PKG_VERSION").to_owned())], 1);
    // A kernel that does not say leaves the figure out: zero would be a lie.
    if let Ok(bytes) = runtime::resident_bytes() {
        set_gauge(telemetry, Metric::ResidentBytes, &[], bytes);
    }
}

const VERDICTS: [&str; 5] = ["starting", "ready", "overloaded", "degraded", "draining"];

#[cfg(test)]
mod tests {
    use admin_api::DestinationLedger;

    use super::*;

    #[test]
    fn lost_is_what_nobody_wanted_dropped_at_whatever_place() {
        let telemetry = Telemetry::new("final-1", "final");
        let lost = || telemetry.render_prometheus().lines().find_map(lost_in);
        fn lost_in(line: &str) -> Option<u64> {
            line.strip_prefix("spillway_lost_points_total{")?.rsplit(' ').next()?.parse().ok()
        }
        record_ledger(&telemetry, &Ledger::default());
        assert_eq!(lost(), Some(0), "there before anything is lost");
        let dropped = |pairs: &[(&str, u64)]| pairs.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect();
        let to = DestinationLedger { dropped: dropped(&[("spill_full", 3), ("discarded", 50)]), ..Default::default() };
        let of_node = dropped(&[("too_old", 4), ("no_route", 100), ("rule", 200), ("no_rule", 300)]);
        record_ledger(&telemetry, &Ledger { dropped: of_node, destinations: vec![to], ..Ledger::default() });
        assert_eq!(lost(), Some(7));
    }

    #[test]
    fn exactly_the_verdict_of_now_is_one() {
        let telemetry = Telemetry::new("relay-1", "relay");
        record_self(&telemetry, &Verdict::Overloaded { queue_bytes: 1, lag_ms: 2 }, Duration::from_secs(1));
        record_self(&telemetry, &Verdict::Ready, Duration::from_millis(2_500));
        let text = telemetry.render_prometheus();
        let ones: Vec<&str> =
            text.lines().filter(|l| l.starts_with("spillway_verdict{") && l.ends_with(" 1")).collect();
        assert_eq!(ones, ["spillway_verdict{node=\"relay-1\",layer=\"relay\",verdict=\"ready\"} 1"]);
        assert!(text.contains("spillway_uptime_seconds{node=\"relay-1\",layer=\"relay\"} 2.5\n"), "{text}");
        assert!(text.contains("spillway_resident_bytes{"), "{text}");
    }
}
