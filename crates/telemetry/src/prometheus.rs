//! Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::Write;

use crate::metric::Kind;
use crate::registry::Snapshot;

/// `snapshot` is sorted by metric, so the samples of a metric stand together below its HELP and TYPE.
pub(crate) fn render(node: &str, layer: &str, snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(snapshot.len() * 96);
    let mut described = None;
    for (key, value) in snapshot {
        let name = key.metric.name();
        if described != Some(key.metric) {
            described = Some(key.metric);
            let kind = match key.metric.kind() {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            put(&mut text, format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", key.metric.help()));
        }
        put(&mut text, format_args!("{name}{{node=\"{}\",layer=\"{}\"", escaped(node), escaped(layer)));
        for (label, of_label) in &key.labels {
            put(&mut text, format_args!(",{label}=\"{}\"", escaped(of_label)));
        }
        put(&mut text, format_args!("}} {value}\n"));
    }
    text
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A `String` takes everything; `fmt::Error` could only come from a `Display` of ours, and none returns it.
    if text.write_fmt(arguments).is_err() {
        text.push_str("# BUG: a value could not be written\n");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use crate::{Kind, Metric, Telemetry};

    #[test]
    fn samples_stand_below_their_description_in_a_fixed_order() {
        let telemetry = Telemetry::new("relay-1", "relay");
        telemetry.counter(Metric::RejectedPoints, &[("reason", "nan".to_owned())]).increment(2);
        telemetry.counter(Metric::ReceivedPoints, &[]).increment(41);
        telemetry.counter(Metric::ReceivedPoints, &[]).increment(1);
        telemetry.counter(Metric::RejectedPoints, &[("reason", "a \"b\"\\\nc".to_owned())]).increment(1);
        telemetry.gauge(Metric::QueueOldest, &[("queue", "lines".to_owned())]).set(0.25);
        let expected = concat!(
            "# HELP spillway_received_points_total Lines (relay) or points (aggregator) taken in\n",
            "# TYPE spillway_received_points_total counter\n",
            "spillway_received_points_total{node=\"relay-1\",layer=\"relay\"} 42\n",
            "# HELP spillway_rejected_points_total Lines that are no points\n",
            "# TYPE spillway_rejected_points_total counter\n",
            "spillway_rejected_points_total{node=\"relay-1\",layer=\"relay\",reason=\"a \\\"b\\\"\\\\\\nc\"} 1\n",
            "spillway_rejected_points_total{node=\"relay-1\",layer=\"relay\",reason=\"nan\"} 2\n",
            "# HELP spillway_queue_oldest_seconds Age of the oldest item in a queue\n",
            "# TYPE spillway_queue_oldest_seconds gauge\n",
            "spillway_queue_oldest_seconds{node=\"relay-1\",layer=\"relay\",queue=\"lines\"} 0.25\n",
        );
        assert_eq!(telemetry.render_prometheus(), expected);
    }

    #[test]
    fn names_obey_the_rules_that_promtool_checks() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind() == Kind::Counter, "{name}");
            assert!(!metric.help().is_empty() && !metric.help().contains(['\n', '\\']), "{name}");
            for reserved in ["_count", "_sum", "_bucket", "_milliseconds", "_ms"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
        }
        let mut names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }

    #[test]
    fn nodes_of_one_process_do_not_share_numbers() {
        let (one, two) = (Telemetry::new("a", "relay"), Telemetry::new("b", "relay"));
        one.counter(Metric::ReceivedPoints, &[]).increment(3);
        two.counter(Metric::ReceivedPoints, &[]).increment(4);
        assert!(one.render_prometheus().contains("{node=\"a\",layer=\"relay\"} 3\n"));
        assert!(two.render_prometheus().contains("{node=\"b\",layer=\"relay\"} 4\n"));
    }
}
