//! The replayer: it borrows spilled records of relays, sends them on at the operator's rate or below, and tells the relays
//! what became of them. What is decided is `engine::replay` and `engine::pace`; here are its links, its clock and its
//! settings.
//!
//! Workers: `replayer.source.<relay>` and `replayer.link.<node>` hold a link each, `replayer.pacer` pays for one record after
//! another, `replayer.stores` feeds the senders `replayer.store.<store>.<n>`, `replayer.keeper` looks at the clock. All state
//! is outside of them, in [`shared::Shared`]: a worker that dies loses nothing, and the whole node may be lost at any time.

mod borrow;
mod controls;
mod convert;
mod keep;
mod pacing;
mod send;
mod settings;
mod shared;
mod start;
mod stores;
#[cfg(test)]
mod tests;
mod watching;

pub use start::{Running, start};
