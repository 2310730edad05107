//! Where the binaries under test are. Shared by the targets that start them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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
    spillway().with_file_name(name(layer))
}

fn name(layer: Layer) -> &'static str {
    match layer {
        Layer::Relay => "spillway-relay",
        Layer::Partial | Layer::Final => "spillway-aggregator",
        Layer::Replayer => "spillway-replayer",
    }
}

/// The `spillway` with failpoints, which what ships does not have: built into `target/failpoints`, once a process; the
/// second time cargo finds nothing to do.
#[allow(dead_code, reason = "for the targets that inject faults")]
pub(crate) fn spillway_with_failpoints() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = root.join("target/failpoints");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--bins", "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", "--cfg failpoints")
            .current_dir(root)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "cargo build --cfg failpoints: {status}");
        target.join("debug/spillway")
    };
    BUILT.get_or_init(build).clone()
}

/// The program of a layer, with failpoints.
#[allow(dead_code, reason = "for the targets that inject faults")]
pub(crate) fn program_with_failpoints(layer: Layer) -> PathBuf {
    spillway_with_failpoints().with_file_name(name(layer))
}
