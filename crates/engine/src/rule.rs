//! Aggregation rules: which series feed which outputs.

use crate::pattern::Selector;

/// What is computed of the points of one output key and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    Sum,
    Count,
    Min,
    Max,
    Avg,
    First,
    Last,
    /// Sum divided by the interval in seconds.
    Rate,
    Stddev,
    /// Percentile in tenths of a percent: `p99` is 990, `p999` and `p99.9` are 999.
    Percentile(u16),
    /// Number of different input series seen.
    Distinct,
}

/// One `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    pub name: String,
    pub selector: Selector,
    /// Seconds, at least 1.
    pub interval: u32,
    /// How many seconds after its end a window is first emitted at the latest.
    pub grace: u32,
    pub functions: Vec<Function>,
    /// With `{function}`, `{capture}` or `{1}` as holes.
    pub output: String,
    /// Tags of the input whose values become tags of the output.
    pub group_by: Vec<String>,
    /// The matching series goes to the aggregation layers only.
    pub drop_raw: bool,
    /// Also emit `<output>.__complete`.
    pub completeness: bool,
    /// Indexes into the list of stores that get the outputs.
    pub to: Vec<usize>,
}
