//! `spillway replay`: what waits in the spills of the relays and in the catch-up of the final nodes, and the operator's
//! hand on it. The nodes hold all state; here it is asked for, put together, and changed.

mod arguments;
mod audit;
mod change;
mod cursor;
mod discard;
mod picture;
mod source;
mod status;

use config::Cluster;
use engine::time::UnixSeconds;

pub(crate) use arguments::Replay;
use arguments::ReplayCommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::order;
use crate::screen::Screen;

/// The runbook that messages point to.
pub(crate) const RUNBOOK: &str = "ops/replay.md";

/// Runs one of its commands.
///
/// # Errors
/// When nobody can be asked, nothing can be printed, or the arguments are wrong.
pub(crate) fn run(
    cluster: &Cluster,
    replay: Replay,
    now: UnixSeconds,
    by: String,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let mut context = Context::new(cluster, now, order::who(replay.by, by)?)?;
    match replay.command {
        ReplayCommand::Status(watch) => status::run(&mut context, watch, screen),
        ReplayCommand::Rate { rate, source } => change::rate(&context, rate, source, screen),
        ReplayCommand::Pause { source } => change::paused(&context, true, source, screen),
        ReplayCommand::Resume { source } => change::paused(&context, false, source, screen),
        ReplayCommand::Canary { percent, not_alone } => change::canary(&context, &percent, &not_alone, screen),
        ReplayCommand::Adaptive { state, not_alone } => change::adaptive(&context, state, &not_alone, screen),
        ReplayCommand::Range(range) => change::range(&context, &range, screen),
        ReplayCommand::Match { glob, all, not_alone } => {
            change::matching(&context, glob.filter(|_| !all), &not_alone, screen)
        }
        ReplayCommand::Cursor { command } => cursor::run(&context, command, screen),
        ReplayCommand::Gaps => cursor::gaps(&context, screen),
        ReplayCommand::Discard(discard) => discard::run(&context, &discard, screen),
        ReplayCommand::Audit { node, limit } => audit::run(&context, node.as_deref(), limit, screen),
    }
}
