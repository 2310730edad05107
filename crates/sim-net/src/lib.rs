//! The shells over a simulated network: the async code that ships, compiled with `--cfg sim_net`, under virtual time and
//! through faults that a seed draws. `README.md` says what is checked and what is not.
//!
//! Without that flag this crate is empty.
#![cfg(sim_net)]

mod run;
mod weather;

#[cfg(test)]
mod links;
#[cfg(test)]
mod stores;

pub use run::{Run, TICK, Trace, check_seeds, until_back};
pub use weather::{Down, Fault, Kind, Outage, Pair, Weather};
