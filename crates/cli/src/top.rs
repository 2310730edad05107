//! `spillway top`: the cluster on one screen, drawn anew every second, with the operator's hand on replay, modes and drains.
//!
//! [`crate::watch`] turns answers of nodes into rates, [`dialogue`] turns keys into orders, [`view`] draws; none of them waits
//! for anything. The loop here asks all nodes once a second, and a node that does not answer delays neither keys nor drawing.

mod dialogue;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use anyhow::anyhow;
use config::Cluster;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// Draws until the operator has seen enough.
///
/// # Errors
/// When there is no terminal to draw on.
pub(crate) fn run(cluster: &Cluster, by: String, screen: &Screen<'_>) -> Result<Exit, Failure> {
    if screen.json || !screen.out_is_terminal {
        return Err(Failure::usage(anyhow!(
            "top draws on a terminal: for programs and files there is `spillway status --json`"
        )));
    }
    let client = Client::new()?;
    terminal::run(cluster, &client, by, screen.out_colour)?;
    Ok(Exit::Ok)
}
