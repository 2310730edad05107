//! `spillway node`: an operator's hand on one node.

mod forget;
mod loss;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use config::Cluster;
use engine::time::UnixSeconds;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::order::{self, Asking};
use crate::screen::Screen;

/// `spillway node ...`
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    command: NodeCommand,
    /// Who changes this, for the audit log of the nodes [default: user@host]
    #[arg(long, global = true, value_name = "WHO")]
    by: Option<String>,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Take a node out of its pool: nothing new is sent to it; what it holds goes on
    Drain(One),
    /// Let a drained node have traffic again
    Undrain(One),
    /// It will never return: nobody sends to it or waits for it any more, and nothing of it is taken. For good
    Forget(Forget),
}

#[derive(Debug, Args)]
struct Forget {
    /// A relay, a partial node or a replayer of the cluster file
    name: String,
    /// Of a relay that nobody remembers: its sender, as in the file `identity` of its data directory
    #[arg(long, value_name = "HEX", value_parser = sender)]
    sender: Option<u64>,
    /// Say what would be lost, and do nothing
    #[arg(long, conflicts_with = "force")]
    dry_run: bool,
    /// Lose it, also where nobody can say how much it is
    #[arg(long)]
    force: bool,
}

fn sender(text: &str) -> Result<u64, String> {
    let hex = text.len() == 16 && text.chars().all(|c| c.is_ascii_hexdigit());
    let sender = u64::from_str_radix(text, 16).ok().filter(|_| hex);
    sender.ok_or_else(|| "a sender is 16 hex digits, such as 9f3a00c41d2b7e56".to_owned())
}

#[derive(Debug, Args)]
struct One {
    /// A node of layer partial or final
    name: String,
    /// Change nothing, and show which nodes would gain or lose traffic
    #[arg(long)]
    dry_run: bool,
}

/// Runs one of its commands.
///
/// # Errors
/// When nobody can be asked, nothing can be printed, or the arguments are wrong.
pub(crate) fn run(
    cluster: &Cluster,
    node: Node,
    now: UnixSeconds,
    by: String,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let context = Context::new(cluster, now, order::who(node.by, by)?)?;
    match node.command {
        NodeCommand::Drain(one) => change(&context, Asking::drain, &one, screen),
        NodeCommand::Undrain(one) => change(&context, Asking::undrain, &one, screen),
        NodeCommand::Forget(asked) => forget::run(&context, &asked, screen),
    }
}

/// Makes the order out of the node's name, whether it is a dry run, and who asks.
type Make = fn(&str, bool, &str) -> anyhow::Result<Asking>;

fn change(context: &Context<'_>, make: Make, one: &One, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    order::check_node(context.cluster, &one.name).map_err(|wrong| Failure::usage(anyhow!(wrong)))?;
    order::send(context, &make(&one.name, one.dry_run, &context.by)?, screen)
}
