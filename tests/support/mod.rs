//! Where the binaries under test are. Shared by the targets that start them.

use std::path::PathBuf;

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
