//! The partial role: batches in, partials out, nothing kept.

mod downlink;
mod inbound;
mod role;
mod shard;
mod watching;

pub(crate) use downlink::Downlink;
pub(crate) use inbound::Inbound;
pub(crate) use role::{PartialRole, Setup, lock};
pub(crate) use shard::run as run_shard;
pub(crate) use watching::Watching;
