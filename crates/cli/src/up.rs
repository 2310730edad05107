//! `spillway up`: runs nodes of the cluster file in this process. Here everything before the start; what assembles and
//! runs the nodes is given by the binary.

use anyhow::anyhow;
use config::Loaded;

use crate::context::unknown;
use crate::exit::{Exit, Failure};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpOptions {
    /// Names of nodes, all of them in the file; never empty.
    pub nodes: Vec<String>,
    /// Logs are JSON.
    pub json: bool,
}

/// Assembles the nodes and runs them until they stop. A port that is taken is [`Failure::unavailable`], with the port
/// and what may hold it in the message.
pub type UpFn = fn(Loaded, UpOptions) -> Result<Exit, Failure>;

/// Chooses the nodes and runs them.
///
/// # Errors
/// When a chosen node is not in the file, or as `up` says.
pub(crate) fn run(loaded: Loaded, chosen: &[String], json: bool, up: UpFn) -> Result<Exit, Failure> {
    let nodes = choose(&loaded, chosen)?;
    up(loaded, UpOptions { nodes, json })
}

fn choose(loaded: &Loaded, chosen: &[String]) -> Result<Vec<String>, Failure> {
    let names: Vec<&str> = loaded.cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    let unknown: Vec<String> = chosen
        .iter()
        .filter(|name| !names.contains(&name.as_str()))
        .map(|name| unknown("node", name, &names))
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::usage(anyhow!(unknown.join("\n"))));
    }
    // In the order of the file, each once.
    let wanted = |name: &&str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    Ok(names.into_iter().filter(wanted).map(str::to_owned).collect())
}
