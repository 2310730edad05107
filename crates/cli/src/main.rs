//! The `spillway` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(runtime::Clock::new().unix(), cli::up::not_assembled)
}
