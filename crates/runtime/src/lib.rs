//! What touches the machine: tasks and threads, clocks, queues, sockets, signals, identity.
//!
//! The only crate that starts a task or a thread, reads a clock, or makes a queue. Everything that runs has a name, an
//! owner and a restart rule ([`Supervisor`]); every queue is bounded in bytes ([`queue`]); every socket finds a dead
//! peer ([`net`]). Decisions stay in `engine`; this crate carries them out.

// This crate is the place that the lint sends everyone else to.
#![allow(clippy::disallowed_methods, reason = "the one crate that may start tasks and threads and read clocks")]

mod clock;
mod connection_set;
mod disk;
pub mod failpoints;
pub mod identity;
mod memory;
pub mod net;
pub mod notify;
pub mod pacer;
pub mod queue;
mod random;
pub mod signals;
#[cfg(sim_net)]
pub mod simulated;
mod supervisor;

pub use clock::Clock;
pub use connection_set::ConnectionSet;
pub use disk::{ReplaceError, free_bytes, replace_file};
pub use memory::resident_bytes;
pub use random::random_u64;
pub use supervisor::{ConnectionCount, Escalation, Supervisor, Worker, WorkerError, WorkerPhase, WorkerState};
pub use tokio_util::sync::CancellationToken;
