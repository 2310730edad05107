//! The metrics of one node.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::time::UnixSeconds;
use metrics::atomics::AtomicU64;
use metrics::{Counter, Gauge};

use crate::metric::{Kind, Metric};
use crate::{graphite, prometheus};

/// A metric with its label values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) metric: Metric,
    pub(crate) labels: Vec<(&'static str, String)>,
}

/// What a metric is worth now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Counter(u64),
    Gauge(f64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Counter(count) => write!(f, "{count}"),
            Value::Gauge(value) => write!(f, "{value}"),
        }
    }
}

/// Metrics as read at one moment, in the order of [`Metric`] and then of the labels.
pub(crate) type Snapshot = Vec<(Key, Value)>;

/// The metrics of one node. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: String,
    layer: String,
    // A sorted map: the output's order is the map's. Locked to make a handle and to read, never to count.
    cells: Mutex<BTreeMap<Key, Arc<AtomicU64>>>,
}

impl Telemetry {
    /// The metrics of `node`, a node of `layer` (`relay`, `partial`, `final` or `replayer`).
    pub fn new(node: &str, layer: &str) -> Telemetry {
        Telemetry(Arc::new(Inner { node: node.to_owned(), layer: layer.to_owned(), cells: Mutex::default() }))
    }

    /// A handle on a counter; one made twice with the same labels counts into the same counter. Keep it: making it
    /// takes a lock, counting does not.
    ///
    /// # Panics
    /// BUG: on a gauge, or on labels that are not the metric's.
    pub fn counter(&self, metric: Metric, labels: &[(&'static str, String)]) -> Counter {
        assert!(metric.kind() == Kind::Counter, "BUG: {} is no counter", metric.name());
        Counter::from_arc(self.cell(metric, labels))
    }

    /// A handle on a gauge; as [`Telemetry::counter`].
    ///
    /// # Panics
    /// BUG: on a counter, or on labels that are not the metric's.
    pub fn gauge(&self, metric: Metric, labels: &[(&'static str, String)]) -> Gauge {
        assert!(metric.kind() == Kind::Gauge, "BUG: {} is no gauge", metric.name());
        Gauge::from_arc(self.cell(metric, labels))
    }

    /// Everything in Prometheus' text format 0.0.4, with the labels `node` and `layer` on each sample.
    pub fn render_prometheus(&self) -> String {
        prometheus::render(&self.0.node, &self.0.layer, &self.snapshot())
    }

    /// Everything as Graphite lines of time `now`: `spillway.<layer>.<node>.…`, and under carbon's old names, so that
    /// old dashboards live on. Counters are totals since the start, as carbon-c-relay sends them.
    pub fn graphite_lines(&self, now: UnixSeconds) -> Vec<u8> {
        graphite::lines(&self.0.node, &self.0.layer, &self.snapshot(), now)
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<AtomicU64>>> {
        self.0.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, metric: Metric, labels: &[(&'static str, String)]) -> Arc<AtomicU64> {
        let names = labels.iter().map(|(name, _)| *name);
        assert!(names.eq(metric.labels().iter().copied()), "BUG: {} takes {:?}", metric.name(), metric.labels());
        let key = Key { metric, labels: labels.to_vec() };
        Arc::clone(self.cells().entry(key).or_default())
    }

    fn snapshot(&self) -> Snapshot {
        let value = |metric: Metric, bits: u64| match metric.kind() {
            Kind::Counter => Value::Counter(bits),
            Kind::Gauge => Value::Gauge(f64::from_bits(bits)),
        };
        let cells = self.cells();
        cells.iter().map(|(key, cell)| (key.clone(), value(key.metric, cell.load(Ordering::Relaxed)))).collect()
    }
}
