//! `spillway console`: the cluster as a web page for one operator on this machine, with the hand on replay, health modes and
//! drains.
//!
//! [`gate`] decides who may ask what, [`hub`] keeps what was seen and asks all nodes while somebody looks, [`state`] says it as
//! JSON, [`audit`] makes one log of all, [`order`] reads what the page orders, [`server`] is the HTTP around them; the page in
//! `page/` is part of the program. Whoever reaches the address acts with what this process may do, so it is an address of
//! this machine alone; and when that is more than any user of this machine may, the address has a key.

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
use config::{Cluster, TlsMode};
use runtime::net::{ListenError, listen};
use runtime::signals::StopSignals;
use tokio::net::TcpListener;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::pass;
use crate::screen::Screen;
use gate::{Gate, Key};
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
    /// Allow --listen beyond this machine: nothing is encrypted, and without tokens everybody who reaches the port can give
    /// orders.
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
    // Without token and certificate nodes give this process no more than anybody who reaches it could have himself.
    let needs_key = pass::shows_token() || cluster.tls.admin == TlsMode::Mutual;
    let key = needs_key.then(Key::new).transpose().context("make the console's key")?;
    client.drive(serve(cluster, options.listen, key, by, screen))
}

fn check_address(options: &Options) -> Result<(), Failure> {
    let Options { listen, i_know_it_is_open } = options;
    if listen.ip().is_loopback() || *i_know_it_is_open {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "{listen} can be reached from other machines, and the console encrypts nothing and, without tokens, asks nobody who \
         he is: whoever reaches it can change replay, health modes and drains. Listen on 127.0.0.1 and come through ssh \
         (ssh -L 8640:127.0.0.1:8640 HOST), or say --i-know-it-is-open"
    )))
}

async fn serve(
    cluster: Cluster,
    address: SocketAddr,
    key: Option<Key>,
    by: &str,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let listener = listen(address, BACKLOG).map_err(|error| match error {
        ListenError::Taken { .. } => Failure::unavailable(error),
        ListenError::Other { .. } => Failure::from(anyhow::Error::from(error)),
    })?;
    let mut signals = StopSignals::new().context("listen for signals")?;
    // The port is chosen by the system when none was given.
    let address = listener.local_addr().context("ask for the console's address")?;
    // What stands behind # a browser keeps for itself: it is in no request and in no log.
    let behind = key.as_ref().map_or(String::new(), |key| format!("#key={}", key.expose()));
    let url = format!("http://{address}/{behind}");
    if screen.json {
        screen.json(&serde_json::json!({ "ok": true, "url": url }))?;
    } else {
        screen.text(&format!("spillway console: {url} (Ctrl-C ends it)\n"))?;
    }
    if !address.ip().is_loopback() {
        let who =
            if key.is_some() { "who has the key, or reads it on the network," } else { "everybody who reaches it" };
        screen.note(&format!(
            "spillway: {address} is open: {who} sees the cluster and can change replay, health modes and drains, as {by}; \
             nothing is encrypted\n"
        ))?;
    }
    tokio::select! {
        _ = signals.next() => Ok(Exit::Ok),
        ended = serve_on(listener, Gate { listen: address, key }, cluster, by) => {
            ended?;
            Ok(Exit::Ok)
        }
    }
}

/// Serves the page on `listener`, for ever, to whom `gate` lets in.
///
/// # Errors
/// When the listener is of no more use.
async fn serve_on(listener: TcpListener, gate: Gate, cluster: Cluster, by: &str) -> anyhow::Result<()> {
    let hub = Arc::new(Hub::new(cluster, gate, format!("{by} (console)")));
    tokio::select! {
        never = hub.collect() => match never {},
        ended = server::run(listener, &hub) => ended,
    }
}

/// As [`run`] serves it without tokens.
#[cfg(test)]
pub(crate) async fn serve_openly(listener: TcpListener, cluster: Cluster, by: &str) -> anyhow::Result<()> {
    let listen = listener.local_addr()?;
    serve_on(listener, Gate { listen, key: None }, cluster, by).await
}
