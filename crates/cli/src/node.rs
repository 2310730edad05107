//! `spillway node`: what an operator orders for one node of the cluster.

mod forget;
mod loss;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use config::Cluster;
use engine::time::UnixSeconds;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// `spillway node ...`
#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    #[command(subcommand)]
    command: NodeCommand,
    /// Who orders this, for the audit log of the nodes [default: user@host]
    #[arg(long, global = true, value_name = "WHO")]
    by: Option<String>,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// It will never return: nobody sends to it or waits for it any more, and nothing of it is taken. For good
    Forget(Forget),
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// A relay, a partial node or a replayer of the cluster file
    pub(crate) name: String,
    /// Of a relay that nobody remembers: its sender, as in the file `identity` of its data directory
    #[arg(long, value_name = "HEX", value_parser = sender)]
    pub(crate) sender: Option<u64>,
    /// Say what would be lost, and do nothing
    #[arg(long, conflicts_with = "force")]
    pub(crate) dry_run: bool,
    /// Lose it, also where nobody can say how much it is
    #[arg(long)]
    pub(crate) force: bool,
}

fn sender(text: &str) -> Result<u64, String> {
    let hex = text.len() == 16 && text.chars().all(|c| c.is_ascii_hexdigit());
    let sender = u64::from_str_radix(text, 16).ok().filter(|_| hex);
    sender.ok_or_else(|| "a sender is 16 hex digits, such as 9f3a00c41d2b7e56".to_owned())
}

/// Runs one of its commands.
///
/// # Errors
/// When nobody can be asked, nothing can be printed, or the arguments are wrong.
pub(crate) fn run(
    cluster: &Cluster,
    arguments: NodeArguments,
    now: UnixSeconds,
    by: String,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let by = arguments.by.unwrap_or(by);
    if by.trim().is_empty() {
        return Err(Failure::usage(anyhow!("--by is empty: say who orders this, for the audit log")));
    }
    let context = Context::new(cluster, now, by)?;
    match arguments.command {
        NodeCommand::Forget(asked) => forget::run(&context, &asked, screen),
    }
}
