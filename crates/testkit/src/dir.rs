//! A directory of a test's own: removed when the test passed, kept and named when it failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh directory under the system's temporary one.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Creates `spillway-<name>-<pid>-<n>`.
    ///
    /// # Panics
    /// When it cannot be created.
    #[track_caller]
    pub fn new(name: &str) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("spillway-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        if let Err(error) = fs::create_dir_all(&path) {
            panic!("create {}: {error}", path.display());
        }
        TempDir { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it and returns the file's path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path.join(name);
        if let Some(parent) = file.parent()
            && let Err(error) = fs::create_dir_all(parent)
        {
            panic!("create {}: {error}", parent.display());
        }
        if let Err(error) = fs::write(&file, text) {
            panic!("write {}: {error}", file.display());
        }
        file
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            report(&format!("kept for inspection: {}", self.path.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            report(&format!("remove {}: {error}", self.path.display()));
        }
    }
}

#[allow(clippy::print_stderr, reason = "a failing test's reader needs the path; there is no log here")]
fn report(text: &str) {
    eprintln!("{text}");
}
