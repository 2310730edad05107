//! A node's own metrics as Graphite lines.
//!
//! Twice: in full under `spillway.<layer>.<node>.`, and under the leaf names of carbon and carbon-c-relay below
//! `carbon.relays.<node>.` or `carbon.aggregator.<node>.` (COMPAT, "Self-metric names").

use std::collections::BTreeMap;

use engine::time::UnixSeconds;

use crate::metric::Metric;
use crate::registry::{Key, Snapshot, Value};

pub(crate) fn lines(node: &str, layer: &str, snapshot: &Snapshot, now: UnixSeconds) -> Vec<u8> {
    let (node, layer) = (element(node), element(layer));
    let mut out = Vec::with_capacity(snapshot.len() * 96);
    for (key, value) in snapshot {
        let name = key.metric.name().trim_start_matches("spillway_");
        let labels: String = key.labels.iter().map(|(_, of_label)| format!(".{}", element(of_label))).collect();
        put(&mut out, &format!("spillway.{layer}.{node}.{name}{labels}"), &value.to_string(), now);
    }
    let (old, leaves) = match layer.as_str() {
        "relay" => (format!("carbon.relays.{node}"), RELAY_LEAVES),
        "partial" | "final" => (format!("carbon.aggregator.{node}"), AGGREGATOR_LEAVES),
        _ => return out,
    };
    for (leaf, value) in old_names(leaves, snapshot) {
        put(&mut out, &format!("{old}.{leaf}"), &value.to_string(), now);
    }
    out
}

fn put(out: &mut Vec<u8>, path: &str, value: &str, now: UnixSeconds) {
    out.extend_from_slice(format!("{path} {value} {}\n", now.0).as_bytes());
}

/// One element of a path: what could be taken for a separator, a tag or a glob becomes `_`.
fn element(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    if name.is_empty() { "_".to_owned() } else { name.chars().map(plain).collect() }
}

/// The old leaf that each metric counts into at a relay, besides its destination's.
const RELAY_LEAVES: &[(Metric, &str)] = &[
    (Metric::ReceivedPoints, "metricsReceived"),
    (Metric::RejectedPoints, "metricsDiscarded"),
    (Metric::DroppedPoints, "metricsBlackholed"),
    (Metric::DestinationDroppedPoints, "metricsDropped"),
    (Metric::SentPoints, "metricsSent"),
    (Metric::InFlightPoints, "metricsQueued"),
    (Metric::SpillPendingPoints, "metricsQueued"),
    (Metric::ConnectionsOpen, "connections"),
];

/// The same at an aggregator: carbon-aggregator's names.
const AGGREGATOR_LEAVES: &[(Metric, &str)] = &[
    (Metric::ReceivedPoints, "datapointsReceived"),
    (Metric::DestinationDroppedPoints, "metricsDropped"),
    (Metric::SentPoints, "metricsSent"),
    (Metric::InFlightPoints, "metricsQueued"),
    (Metric::SpillPendingPoints, "metricsQueued"),
    (Metric::EmittedPoints, "aggregateDatapointsSent"),
    (Metric::WindowsOpen, "allocatedBuffers"),
];

/// Below `destinations.<destination>.`, in both.
const DESTINATION_LEAVES: &[(Metric, &str)] = &[
    (Metric::SentPoints, "sent"),
    (Metric::DestinationDroppedPoints, "dropped"),
    (Metric::InFlightPoints, "queued"),
    (Metric::SpillPendingPoints, "queued"),
];

fn leaf(leaves: &[(Metric, &'static str)], metric: Metric) -> Option<&'static str> {
    leaves.iter().find(|(counted, _)| *counted == metric).map(|(_, leaf)| *leaf)
}

fn destination_leaf(key: &Key) -> Option<String> {
    let word = leaf(DESTINATION_LEAVES, key.metric)?;
    let (_, destination) = key.labels.iter().find(|(label, _)| *label == "destination")?;
    Some(format!("destinations.{}.{word}", element(destination)))
}

/// Sums over labels, sorted by leaf.
fn old_names(leaves: &[(Metric, &'static str)], snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (key, value) in snapshot {
        // Exact up to 2^53 points, and Graphite keeps a double anyway.
        #[allow(clippy::cast_precision_loss, reason = "Graphite keeps a double anyway")]
        let value = match value {
            Value::Counter(count) => *count as f64,
            Value::Gauge(value) => *value,
        };
        for leaf in leaf(leaves, key.metric).map(str::to_owned).into_iter().chain(destination_leaf(key)) {
            *sums.entry(leaf).or_insert(0.0) += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use engine::time::UnixSeconds;

    use crate::{Metric, Telemetry};

    #[track_caller]
    fn check(telemetry: &Telemetry, expected: &[&str]) {
        let lines = String::from_utf8(telemetry.graphite_lines(UnixSeconds(1_700_000_000))).unwrap();
        let expected: String = expected.iter().map(|line| format!("{line} 1700000000\n")).collect();
        assert_eq!(lines, expected);
    }

    fn to(destination: &str) -> (&'static str, String) {
        ("destination", destination.to_owned())
    }

    #[test]
    fn relay_speaks_under_its_own_and_under_carbons_names() {
        let telemetry = Telemetry::new("relay.a b", "relay");
        telemetry.counter(Metric::ReceivedPoints, &[]).increment(10);
        telemetry.counter(Metric::RejectedPoints, &[("reason", "nan".to_owned())]).increment(1);
        telemetry.counter(Metric::RejectedPoints, &[("reason", "utf8".to_owned())]).increment(2);
        telemetry.counter(Metric::SentPoints, &[to("carbon")]).increment(5);
        telemetry.counter(Metric::SentPoints, &[to("10.0.0.1:2003")]).increment(2);
        telemetry.gauge(Metric::InFlightPoints, &[to("carbon")]).set(3.0);
        telemetry.gauge(Metric::SpillPendingPoints, &[to("carbon")]).set(4.0);
        check(
            &telemetry,
            &[
                "spillway.relay.relay_a_b.received_points_total 10",
                "spillway.relay.relay_a_b.rejected_points_total.nan 1",
                "spillway.relay.relay_a_b.rejected_points_total.utf8 2",
                "spillway.relay.relay_a_b.destination_sent_points_total.10_0_0_1_2003 2",
                "spillway.relay.relay_a_b.destination_sent_points_total.carbon 5",
                "spillway.relay.relay_a_b.destination_in_flight_points.carbon 3",
                "spillway.relay.relay_a_b.destination_spill_pending_points.carbon 4",
                "carbon.relays.relay_a_b.destinations.10_0_0_1_2003.sent 2",
                "carbon.relays.relay_a_b.destinations.carbon.queued 7",
                "carbon.relays.relay_a_b.destinations.carbon.sent 5",
                "carbon.relays.relay_a_b.metricsDiscarded 3",
                "carbon.relays.relay_a_b.metricsQueued 7",
                "carbon.relays.relay_a_b.metricsReceived 10",
                "carbon.relays.relay_a_b.metricsSent 7",
            ],
        );
    }

    #[test]
    fn aggregator_has_carbon_aggregators_names_and_replayer_has_none() {
        let telemetry = Telemetry::new("final-1", "final");
        telemetry.counter(Metric::EmittedPoints, &[]).increment(6);
        check(
            &telemetry,
            &["spillway.final.final-1.emitted_points_total 6", "carbon.aggregator.final-1.aggregateDatapointsSent 6"],
        );
        let telemetry = Telemetry::new("replayer-1", "replayer");
        telemetry.counter(Metric::ReceivedPoints, &[]).increment(6);
        check(&telemetry, &["spillway.replayer.replayer-1.received_points_total 6"]);
    }
}
