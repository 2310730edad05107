//! Every decision Spillway takes, as plain functions over bytes and machines over batches.
//!
//! Nothing in this crate reads a clock, a socket, a file or OS randomness, and nothing here logs: time and seeds come
//! in as arguments, effects go out as values. So the same code runs in the binaries and under a simulator.
//!
//! Inside the crate the order is: `mutants time pattern tags line series ring sketch rate` < `partial rule deltas
//! window route batch verdict wire ivset` < `fold watermarks pool restart backoff recv pace throttle spill health
//! control notify` < the machines `relay`, `partial_node`, `store_link`, `final_node`, `replay`. A module uses what
//! stands left of it, never right.

#[macro_use]
mod mutants;

#[doc(hidden)]
pub use mutants::*;

pub mod backoff;
pub mod batch;
pub mod control;
pub mod deltas;
pub mod final_node;
pub mod fold;
pub mod health;
pub mod ivset;
pub mod line;
pub mod notify;
pub mod pace;
pub mod partial;
pub mod partial_node;
pub mod pattern;
pub mod pool;
pub mod rate;
pub mod recv;
pub mod relay;
pub mod replay;
pub mod restart;
pub mod ring;
pub mod route;
pub mod rule;
pub mod series;
pub mod sketch;
pub mod spill;
pub mod store_link;
pub mod tags;
pub mod throttle;
pub mod time;
pub mod verdict;
pub mod watermarks;
pub mod window;
pub mod wire;
