//! The final role: it owns the truth of its partitions.

mod catch_up;
mod disk;
mod inbound;
mod keep;
mod log;
mod mode;
mod open;
mod replay;
mod role;
mod shard;
mod targets;
#[cfg(test)]
mod tests;

pub(crate) use catch_up::CatchUp;
pub(crate) use inbound::Inbound;
pub(crate) use log::run as run_log;
pub(crate) use mode::Mode;
pub(crate) use open::opener;
pub(crate) use role::{FinalRole, Setup};
pub(crate) use shard::run as run_shard;

use engine::final_node::Finding;
use final_log::{journal, recover};

/// What was found damaged, and what it means.
fn sentence(partition: u16, finding: Finding) -> String {
    let what = match finding {
        Finding::Checkpoint => {
            "one copy of the checkpoint is damaged; the other one served and nothing is lost".to_owned()
        }
        Finding::IncludedLost => "the included set is lost: batches that were merged before and come again, from a \
             spill or a slow relay, are counted a second time; discard spills of that time if exact values matter"
            .to_owned(),
        Finding::Records { records, points } => format!("{records} log records with {points} points are lost"),
        Finding::Blocks { points } => format!("windows with {points} points are lost, with their index"),
        Finding::Block { id, points } => {
            format!("the window of rule {} at {} with {points} points is lost", id.rule, id.window.0)
        }
        Finding::Before { points } => format!("{points} points of the lost checkpoint are in no window any more"),
    };
    format!("partition {partition}: {what}")
}
