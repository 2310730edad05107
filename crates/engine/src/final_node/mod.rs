//! A final node: it owns the truth of its partitions.
pub mod included;
