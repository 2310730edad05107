//! The aggregator's shell, run in one of two layers.
//!
//! ```text
//!  partial:  link tasks --byte_queue--> partial.shard.K (fold) --flush--> partial.link.<final>
//!                 ^--- Durable, when every partition that a batch feeds says so ---'
//!  final:    link tasks --crossbeam--> final.shard.K (decide, merge, emit) --crossbeam--> final.log (append, sync)
//!                                           '--> final.store.<store>.<n>
//! ```
//!
//! The partial role keeps nothing that matters; its machine is `engine::partial_node`. The final role's truth is in the
//! log behind the `store` trait; a shard that dies is rebuilt from there. A final node of a cluster without a partial
//! layer hosts the partial role, too, on the same port.

mod accept;
mod controls;
mod finals;
mod forgotten;
mod partial;
mod ping;
mod senders;
mod speaker;
mod start;

use partial::lock as partial_lock;

pub use start::{Running, start};
