//! `spillway spill`: what lies on the disks of the relays. Read, verified, and carried from one relay to another.

mod archive;
mod arguments;
mod export;
mod import;
mod records;
mod stat;
mod verify;

use admin_api::{SpillLane, SpillStatus, paths};
use anyhow::anyhow;
use config::{Cluster, Layer, Node};
use engine::time::UnixSeconds;

pub(crate) use arguments::SpillCommand;

use crate::client::{Answer, Fault, Request};
use crate::context::{Context, unknown};
use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// Runs one of its commands.
///
/// # Errors
/// When nobody can be asked, nothing can be printed, or the arguments are wrong.
pub(crate) fn run(
    cluster: &Cluster,
    command: SpillCommand,
    now: UnixSeconds,
    by: String,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let context = Context::new(cluster, now, by)?;
    match command {
        SpillCommand::Stat { node } => stat::run(&context, node.as_deref(), screen),
        SpillCommand::Ls { node, lane, limit } => {
            records::run(&context, node.as_deref(), lane.as_deref(), limit, screen)
        }
        SpillCommand::Verify { node } => verify::run(&context, node.as_deref(), screen),
        SpillCommand::Export { node, file, lane } => export::run(&context, &node, &file, lane.as_deref(), screen),
        SpillCommand::Import { node, file } => import::run(&context, &node, &file, screen),
    }
}

/// What the named relay, or each relay, says of its spill.
fn stats<'c>(context: &Context<'c>, node: Option<&str>) -> Result<Vec<Answer<'c, SpillStatus>>, Failure> {
    let nodes: Vec<&Node> = match node {
        Some(name) => vec![context.node(Layer::Relay, name)?],
        None => context.nodes(&[Layer::Relay]),
    };
    if nodes.is_empty() {
        return Err(Failure::usage(anyhow!("the cluster file has no relay, so there is no spill")));
    }
    Ok(context.client.all(nodes.into_iter().map(|node| (node, Request::get(paths::SPILL))).collect()))
}

/// The lanes that `wanted` (a destination, or a lane's number) means: all without it.
fn lanes<'s>(spill: &'s SpillStatus, wanted: Option<&str>) -> Vec<&'s SpillLane> {
    let is =
        |lane: &&SpillLane| wanted.is_none_or(|wanted| lane.destination == wanted || lane.lane.to_string() == wanted);
    spill.lanes.iter().filter(is).collect()
}

/// A lane that no relay which answered has is a slip.
fn check_lane(answers: &[Answer<'_, SpillStatus>], wanted: Option<&str>) -> Result<(), Failure> {
    let Some(name) = wanted else { return Ok(()) };
    let said = || answers.iter().filter_map(|answer| answer.result.as_ref().ok());
    if said().next().is_none() || said().any(|spill| !lanes(spill, wanted).is_empty()) {
        return Ok(());
    }
    let mut known: Vec<&str> = said().flat_map(|spill| &spill.lanes).map(|lane| lane.destination.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    Err(Failure::usage(anyhow!(unknown("lane", name, &known))))
}

/// The path of one page.
fn page(path: &str, lane: u16, from: u64, limit: u64) -> Request {
    Request::read(format!("{path}?lane={lane}&from={from}&limit={limit}"))
}

/// Goes through the pages of a lane. A page may be empty: a node reads for a slice of time only. But a node whose pages do
/// not get on must not keep a client for ever.
#[derive(Debug)]
struct Pages {
    from: u64,
    stood_still: u32,
}

impl Pages {
    /// So many pages without a step are a slow disk; more are a fault of the node.
    const STAND_STILL_MAX: u32 = 20;

    fn begin(from: u64) -> Pages {
        Pages { from, stood_still: 0 }
    }

    /// Whether there is a further page, given what the last one said.
    fn go_on(&mut self, node: &Node, next: Option<u64>) -> Result<bool, Fault> {
        let Some(next) = next else { return Ok(false) };
        self.stood_still = if next > self.from { 0 } else { self.stood_still + 1 };
        if next < self.from || self.stood_still > Pages::STAND_STILL_MAX {
            let (address, from) = (node.admin, self.from);
            return Err(Fault::Silent(format!("{address}: the page after ordinal {from} begins at {next}")));
        }
        self.from = next;
        Ok(true)
    }
}
