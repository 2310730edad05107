//! The final role: it owns the truth of its partitions.

mod emit;
mod inbound;
mod log;
mod recover;
mod role;
mod shard;

pub(crate) use inbound::Inbound;
pub(crate) use log::run as run_log;
pub(crate) use role::{FinalRole, Opener, Setup};
pub(crate) use shard::run as run_shard;
