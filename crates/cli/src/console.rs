//! `spillway console`: the cluster as a web page for one operator on this machine, with the hand on replay, health modes and
//! drains.
//!
//! [`gate`] decides who may ask what, [`hub`] keeps what was seen and asks all nodes while somebody looks, [`state`] says it as
//! JSON, [`audit`] makes one log of all, [`order`] reads what the page orders, [`server`] is the HTTP around them; the page in
//! `page/` is part of the program. Whoever reaches the address acts with what this process may do, so it is an address of
//! this machine alone.

mod audit;
mod gate;
mod hub;
mod order;
mod server;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use config::Cluster;
use runtime::net::{ListenError, listen};
use runtime::signals::StopSignals;
use tokio::net::TcpListener;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::screen::Screen;
use hub::Hub;

#[cfg(test)]
pub(crate) use server::BODY_BYTES_MAX;

/// Browsers that wait to be let in.
const BACKLOG: u32 = 64;

/// `spillway console`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the page is served: an address of this machine alone, for whoever reaches it can give orders
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8640")]
    listen: SocketAddr,
    /// Allow --listen beyond this machine: the page asks nobody who he is, everybody who reaches the port can give orders.
    /// Better: ssh -L 8640:127.0.0.1:8640 HOST
    #[arg(long)]
    i_know_it_is_open: bool,
}

/// Serves the page until it is told to stop.
///
/// # Errors
/// When the address is open and that was not asked for, or is taken.
pub(crate) fn run(cluster: Cluster, options: Options, by: &str, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    check_address(&options)?;
    let client = Client::new()?;
    client.drive(serve(cluster, options.listen, by, screen))
}

fn check_address(options: &Options) -> Result<(), Failure> {
    let Options { listen, i_know_it_is_open } = options;
    if listen.ip().is_loopback() || *i_know_it_is_open {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "{listen} can be reached from other machines, and the console asks nobody who he is: whoever reaches it can \
         change replay, health modes and drains. Listen on 127.0.0.1 and come through ssh \
         (ssh -L 8640:127.0.0.1:8640 HOST), or say --i-know-it-is-open"
    )))
}

async fn serve(cluster: Cluster, address: SocketAddr, by: &str, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let listener = listen(address, BACKLOG).map_err(|error| match error {
        ListenError::Taken { .. } => Failure::unavailable(error),
        ListenError::Other { .. } => Failure::from(anyhow::Error::from(error)),
    })?;
    let mut signals = StopSignals::new().context("listen for signals")?;
    // The port is chosen by the system when none was given.
    let address = listener.local_addr().context("ask for the console's address")?;
    if screen.json {
        screen.json(&serde_json::json!({ "ok": true, "url": format!("http://{address}/") }))?;
    } else {
        screen.text(&format!("spillway console: http://{address}/ (Ctrl-C ends it)\n"))?;
    }
    if !address.ip().is_loopback() {
        screen.note(&format!(
            "spillway: everybody who reaches {address} sees the cluster and can change replay, health modes and drains, \
             as {by}; nothing is encrypted, and nobody is asked for a password\n"
        ))?;
    }
    tokio::select! {
        _ = signals.next() => Ok(Exit::Ok),
        ended = serve_on(listener, address, cluster, by) => {
            ended?;
            Ok(Exit::Ok)
        }
    }
}

/// Serves the page on `listener`, which listens on `address`, for ever.
///
/// # Errors
/// When the listener is of no more use.
pub(crate) async fn serve_on(
    listener: TcpListener,
    address: SocketAddr,
    cluster: Cluster,
    by: &str,
) -> anyhow::Result<()> {
    let hub = Arc::new(Hub::new(cluster, address, format!("{by} (console)")));
    tokio::select! {
        never = hub.collect() => match never {},
        ended = server::run(listener, &hub) => ended,
    }
}
