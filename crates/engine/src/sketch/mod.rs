//! Mergeable summaries: what a set of points looks like when only sums, quantiles or a count of series is asked.
//!
//! Every summary here is a function of the *multiset* of points folded into it, never of the order in which points or
//! parts arrived: [`DdSketch`] and [`Hll`] exactly, [`DoubleDouble`] as long as the values of one window span less than
//! about 106 bits (beyond that the last printed digit may differ). All of them use only IEEE additions,
//! multiplications and square roots, so two nodes on different machines agree to the bit.
//!
//! Layouts are drawn in the module that owns them; [`codec`] has the words they share.

pub mod codec;
mod ddsketch;
mod hll;
mod sum;
#[cfg(test)]
mod tests;

pub use codec::DecodeError;
pub use ddsketch::DdSketch;
pub use hll::Hll;
pub use sum::DoubleDouble;
