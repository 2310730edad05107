//! `spillway node`: an operator's hand on one node.

mod forget;
mod loss;

use admin_api::NodeChange;
use anyhow::anyhow;
use clap::{Args, Subcommand};
use config::{Cluster, Layer};
use engine::time::UnixSeconds;

use crate::client::Request;
use crate::context::{Context, unknown};
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
        NodeCommand::Drain(one) => change(&context, "drain", &one, screen),
        NodeCommand::Undrain(one) => change(&context, "undrain", &one, screen),
        NodeCommand::Forget(asked) => forget::run(&context, &asked, screen),
    }
}

fn change(context: &Context<'_>, what: &str, one: &One, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let nodes = context.nodes(&[Layer::Partial, Layer::Final]);
    if !nodes.iter().any(|node| node.name == one.name) {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::usage(anyhow!(unknown("partial or final node", &one.name, &names))));
    }
    let body = NodeChange { dry_run: one.dry_run, by: context.by.clone(), ..NodeChange::default() };
    // Names have letters, digits, - _ . only.
    let request = Request::post(&format!("/v1/nodes/{}/{what}", one.name), &body)?.quick();
    let drained = (what == "drain").then(|| one.name.clone());
    let title = format!("{what} {}", one.name);
    order::send(context, &Asking { title, request, dry_run: one.dry_run, drained }, screen)
}
