//! The pure half of a relay's spill: what a record looks like, which lane it is in, what the books say, who has a lease.

mod why;

pub use why::Why;
