//! A disk that fails, or takes no writes any more, under a process that has files open on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::run;

const SOURCE: &str = include_str!("bad_disk.c");

/// How calls that write fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// EIO: the device does not answer.
    Failing,
    /// EROFS: the file system was made read-only, by an operator or by the kernel after an error.
    ReadOnly,
}

/// What a process is started with, so that a part of its files can be made to fail; until then nothing does.
#[derive(Debug)]
pub struct BadDisk {
    library: PathBuf,
    below: String,
    says: PathBuf,
}

impl BadDisk {
    /// For files with `below` in their path. Its own files are in `dir`.
    ///
    /// # Errors
    /// Why there can be none here: it needs a C compiler.
    pub fn new(dir: &Path, below: &str) -> Result<BadDisk, String> {
        let (source, library) = (dir.join("bad_disk.c"), dir.join("bad_disk.so"));
        fs::write(&source, SOURCE).map_err(|error| format!("write {}: {error}", source.display()))?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&library).arg(&source).arg("-ldl");
        run(compile)?;
        Ok(BadDisk { library, below: below.to_owned(), says: dir.join("bad_disk.errno") })
    }

    /// What the process needs in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".to_owned(), path(&self.library)),
            ("SPILLWAY_BAD_DISK".to_owned(), self.below.clone()),
            ("SPILLWAY_BAD_DISK_ERROR".to_owned(), path(&self.says)),
        ]
    }

    /// From now on writes fail.
    ///
    /// # Errors
    /// When that cannot be said.
    pub fn breaks(&self, how: Broken) -> Result<(), String> {
        let number = match how {
            Broken::Failing => rustix::io::Errno::IO,
            Broken::ReadOnly => rustix::io::Errno::ROFS,
        };
        let new = self.says.with_extension("new");
        let said = fs::write(&new, number.raw_os_error().to_string()).and_then(|()| fs::rename(&new, &self.says));
        said.map_err(|error| format!("write {}: {error}", self.says.display()))
    }

    /// From now on they do not.
    ///
    /// # Errors
    /// When that cannot be said.
    pub fn heals(&self) -> Result<(), String> {
        fs::remove_file(&self.says).map_err(|error| format!("remove {}: {error}", self.says.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempDir;

    #[test]
    fn a_process_meets_the_failure_below_the_directory_and_only_until_it_heals() {
        let dir = TempDir::new("bad-disk");
        fs::create_dir(dir.path().join("bad")).expect("a new directory");
        let disk = BadDisk::new(dir.path(), "/bad/").expect("a C compiler");
        let write = |file: &str| {
            let mut dd = Command::new("dd");
            dd.arg("if=/dev/zero").arg(format!("of={}", dir.path().join(file).display())).args(["bs=1", "count=1"]);
            run({
                dd.envs(disk.environment());
                dd
            })
        };
        write("bad/file").expect("nothing is broken");
        disk.breaks(Broken::ReadOnly).expect("said");
        let error = write("bad/file").expect_err("broken");
        assert!(error.contains("Read-only file system"), "{error}");
        write("good").expect("another directory");
        disk.breaks(Broken::Failing).expect("said");
        let error = write("bad/file").expect_err("broken");
        assert!(error.contains("Input/output error"), "{error}");
        disk.heals().expect("said");
        write("bad/file").expect("healed");
    }
}
