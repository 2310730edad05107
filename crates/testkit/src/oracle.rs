//! What the final aggregates must be, computed the simplest way from the points that were accepted, and compared with
//! what a store holds in the end: the last value written to each (series, timestamp).

use std::collections::BTreeMap;

use crate::{Point, Seen};

/// A rule of the test's cluster: which output a series belongs to.
pub struct Expected {
    /// Length of a window in seconds.
    pub interval: u64,
    /// Output names without the function, such as `all`: the store has `all.sum`, `all.count`, ...
    pub output: fn(series: &str) -> Option<String>,
    pub functions: &'static [&'static str],
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Expected").field("functions", &self.functions).finish_non_exhaustive()
    }
}

/// One (output, window).
#[derive(Clone, Debug, PartialEq)]
struct Window {
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
    /// The earliest timestamp and every value it came with: which of them is the first is the product's choice.
    first: (u64, Vec<u64>),
    last: (u64, Vec<u64>),
}

/// The values of all windows.
#[derive(Debug)]
pub struct Oracle {
    expected: Expected,
    windows: BTreeMap<(String, u64), Window>,
    /// Points taken up.
    pub points: u64,
}

impl Oracle {
    /// Of no points yet.
    pub fn new(expected: Expected) -> Oracle {
        Oracle { expected, windows: BTreeMap::new(), points: 0 }
    }

    /// Takes up what was accepted.
    #[must_use]
    pub fn with(mut self, points: impl Iterator<Item = Point>) -> Oracle {
        for point in points {
            self.add(&point);
        }
        self
    }

    fn add(&mut self, point: &Point) {
        let Some(output) = (self.expected.output)(&point.series) else { return };
        let &Point { value, at, .. } = point;
        self.points += 1;
        let window = self.windows.entry((output, at - at % self.expected.interval)).or_insert_with(|| Window {
            count: 0,
            sum: 0,
            min: value,
            max: value,
            first: (at, Vec::new()),
            last: (at, Vec::new()),
        });
        window.count += 1;
        window.sum += value;
        window.min = window.min.min(value);
        window.max = window.max.max(value);
        if at < window.first.0 {
            window.first = (at, Vec::new());
        }
        if at > window.last.0 {
            window.last = (at, Vec::new());
        }
        for candidates in [&mut window.first, &mut window.last] {
            if candidates.0 == at {
                candidates.1.push(value);
            }
        }
    }

    /// Windows computed.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Whether the store holds exactly this: every value, and no window that has no points.
    ///
    /// # Errors
    /// How many values differ, and the first few.
    pub fn agrees(&self, store: &Seen) -> Result<(), String> {
        let mut differences = Vec::new();
        for ((output, start), window) in &self.windows {
            for function in self.expected.functions {
                let held = store.last(&format!("{output}.{function}"), *start);
                if !held.is_some_and(|held| window.allows(function, held)) {
                    differences.push(format!("{output}.{function} {start}: {held:?}, not {}", window.show(function)));
                }
            }
        }
        let outputs: std::collections::BTreeSet<&String> = self.windows.keys().map(|(output, _)| output).collect();
        for (name, at) in store.points.keys() {
            let Some((output, function)) = name.rsplit_once('.') else { continue };
            let ours = self.expected.functions.contains(&function) && outputs.contains(&output.to_owned());
            if ours && !self.windows.contains_key(&(output.to_owned(), *at)) {
                differences.push(format!("{name} {at}: a window without points"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        let held: f64 =
            self.windows.keys().filter_map(|(output, at)| store.last(&format!("{output}.count"), *at)).sum();
        let few: Vec<&str> = differences.iter().take(5).map(String::as_str).collect();
        Err(format!(
            "{} values of {} windows differ (points {}, counted by the store {held}):\n  {}",
            differences.len(),
            self.windows.len(),
            self.points,
            few.join("\n  ")
        ))
    }
}

impl Window {
    #[allow(clippy::cast_precision_loss, reason = "a test's values and sums stay below 2^53")]
    fn allows(&self, function: &str, held: f64) -> bool {
        let any = |candidates: &[u64]| candidates.iter().any(|value| *value as f64 == held);
        match function {
            "count" => held == self.count as f64,
            "sum" => held == self.sum as f64,
            "min" => held == self.min as f64,
            "max" => held == self.max as f64,
            "avg" => (held - self.sum as f64 / self.count as f64).abs() <= held.abs() * 1e-12,
            "first" => any(&self.first.1),
            "last" => any(&self.last.1),
            _ => panic!("the oracle does not know {function}"),
        }
    }

    fn show(&self, function: &str) -> String {
        let some = |(at, values): &(u64, Vec<u64>)| format!("one of {} values of {at}", values.len());
        match function {
            "count" => self.count.to_string(),
            "sum" => self.sum.to_string(),
            "min" => self.min.to_string(),
            "max" => self.max.to_string(),
            "avg" => format!("{}/{}", self.sum, self.count),
            "first" => some(&self.first),
            _ => some(&self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Expected, Oracle};
    use crate::{Point, Seen};

    fn oracle() -> Oracle {
        let functions = &["count", "sum", "min", "max", "avg", "first", "last"];
        let expected = Expected { interval: 10, output: |_| Some("all".to_owned()), functions };
        let point = |value, at| Point { series: "s".to_owned(), value, at };
        Oracle::new(expected).with([point(3, 11), point(9, 19), point(6, 14), point(5, 20)].into_iter())
    }

    fn store() -> Seen {
        let mut seen = Seen::default();
        let first =
            [("count", 3.0), ("sum", 18.0), ("min", 3.0), ("max", 9.0), ("avg", 6.0), ("first", 3.0), ("last", 9.0)];
        for (function, value) in first {
            seen.points.insert((format!("all.{function}"), 10), vec![-1.0, value]);
            let value = if function == "count" { 1.0 } else { 5.0 };
            seen.points.insert((format!("all.{function}"), 20), vec![value]);
        }
        seen
    }

    #[test]
    fn a_store_agrees_by_its_last_values() {
        assert_eq!(oracle().agrees(&store()), Ok(()));
    }

    #[test]
    fn a_wrong_a_missing_and_a_phantom_value_are_found() {
        let changes: [fn(&mut Seen); 4] = [
            |seen| seen.points.entry(("all.sum".to_owned(), 10)).or_default().push(17.0),
            |seen| drop(seen.points.remove(&("all.last".to_owned(), 20))),
            |seen| drop(seen.points.insert(("all.count".to_owned(), 30), vec![1.0])),
            |seen| seen.points.entry(("all.first".to_owned(), 10)).or_default().push(6.0),
        ];
        for change in changes {
            let mut seen = store();
            change(&mut seen);
            let error = oracle().agrees(&seen).expect_err("a difference");
            assert!(error.starts_with("1 values of 2 windows differ"), "{error}");
        }
    }
}
