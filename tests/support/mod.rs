//! Where the binaries under test are. Shared by the targets that start them.

use std::path::PathBuf;

use testkit::Layer;

/// The `spillway` of this build; or the one named by `SPILLWAY_BIN`, to try the tests on an installed one.
pub(crate) fn spillway() -> PathBuf {
    match (std::env::var_os("SPILLWAY_BIN"), option_env!("CARGO_BIN_EXE_spillway")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => {
            panic!("no spillway binary: the root package has no [[bin]] of that name and SPILLWAY_BIN is not set")
        }
    }
}

/// The program of a layer, beside `spillway`.
#[allow(dead_code, reason = "for the targets that start a process a node")]
pub(crate) fn program(layer: Layer) -> PathBuf {
    spillway().with_file_name(match layer {
        Layer::Relay => "spillway-relay",
        Layer::Partial | Layer::Final => "spillway-aggregator",
        Layer::Replayer => "spillway-replayer",
    })
}
