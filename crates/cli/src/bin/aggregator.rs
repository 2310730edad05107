//! The `spillway-aggregator` binary: one node of the cluster file, named by `--node`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::assembly::one_node("spillway-aggregator", &[config::Layer::Partial, config::Layer::Final])
}
