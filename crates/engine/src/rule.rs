//! Aggregation rules: which series feed which outputs, and how the outputs are called.
//!
//! [`RuleSet::compile`] checks all rules at once and reports every problem. [`RuleSet::outputs`] is the slow path, once
//! for each new series; its answer is cached by the caller. Outputs go to stores and are never fed back, so a rule that
//! would match an output is no loop; since nearly always the operator expected otherwise, it is a warning.

mod set;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::pattern::Selector;

pub use set::{RuleError, RuleSet, RuleWarning};
pub use template::FUNCTION_HOLE;

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

impl Function {
    /// Reads a function's name: `sum`, `count`, `min`, `max`, `avg`, `first`, `last`, `rate`, `stddev`, `distinct`, or
    /// a percentile. `p5`, `p50`, `p100` are per cent; three digits other than `p100` are tenths (`p999`), as is one
    /// digit behind a dot (`p99.9`).
    pub fn parse(text: &str) -> Option<Function> {
        let function = match text {
            "sum" => Function::Sum,
            "count" => Function::Count,
            "min" => Function::Min,
            "max" => Function::Max,
            "avg" => Function::Avg,
            "first" => Function::First,
            "last" => Function::Last,
            "rate" => Function::Rate,
            "stddev" => Function::Stddev,
            "distinct" => Function::Distinct,
            other => Function::Percentile(parse_permille(other.strip_prefix('p')?)?),
        };
        Some(function)
    }

    /// The name as it appears in an output's name: one that [`Function::parse`] reads back and without a dot (`p999`).
    pub fn as_str(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Function::Sum => "sum",
            Function::Count => "count",
            Function::Min => "min",
            Function::Max => "max",
            Function::Avg => "avg",
            Function::First => "first",
            Function::Last => "last",
            Function::Rate => "rate",
            Function::Stddev => "stddev",
            Function::Distinct => "distinct",
            Function::Percentile(permille) if permille % 10 == 0 => return Cow::Owned(format!("p{}", permille / 10)),
            Function::Percentile(permille) => return Cow::Owned(format!("p{permille:03}")),
        })
    }
}

fn parse_permille(digits: &str) -> Option<u16> {
    let (whole, tenth) = digits.split_once('.').map_or((digits, None), |(whole, tenth)| (whole, Some(tenth)));
    if whole.is_empty() || whole.len() > 3 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u16 = whole.parse().ok()?;
    let permille = match tenth {
        Some(tenth) if tenth.len() == 1 => number * 10 + tenth.parse::<u16>().ok()?,
        Some(_) => return None,
        None if whole.len() == 3 && number != 100 => number,
        None => number * 10,
    };
    (permille <= 1000).then_some(permille)
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

/// Which rule, whatever place it has in the cluster file: rules that write the same outputs at the same interval are one, so
/// that open windows go on over a change of the file.
pub type RuleId = u32;

impl RuleSpec {
    /// See [`RuleId`]. Equal on every machine, and for ever: it is on disks.
    pub fn id(&self) -> RuleId {
        let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
        hash.update(&self.interval.to_le_bytes());
        for part in std::iter::once(&self.output).chain(&self.group_by) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        u32::try_from(hash.digest() & u64::from(u32::MAX)).unwrap_or(0)
    }
}

/// What points are gathered under: a rule, and the output's name with [`FUNCTION_HOLE`] where the function's name goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputKey {
    pub rule: RuleId,
    pub name: Box<[u8]>,
}

/// The final partition that owns a key: the same on every node and in every version, whatever the rule is.
/// `partitions`: not zero (a zero is taken as one).
pub fn partition_of(key: &OutputKey, partitions: u16) -> u16 {
    let hash = xxhash_rust::xxh3::xxh3_64(&key.name);
    u16::try_from(hash % u64::from(partitions.max(1))).unwrap_or(0)
}
