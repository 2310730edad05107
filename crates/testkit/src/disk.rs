//! A small file system of its own, for tests of a full disk: a tmpfs, unmounted when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::run;

/// A mounted tmpfs.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts `mebibytes` of tmpfs on `path`, which is created.
    ///
    /// # Errors
    /// What `mount` said; only root may.
    pub fn mount(path: &Path, mebibytes: u64) -> Result<SmallDisk, String> {
        fs::create_dir_all(path).map_err(|error| format!("create {}: {error}", path.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "spillway-test"]).arg(path);
        run(mount)?;
        Ok(SmallDisk { path: path.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its size.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn resize(&self, mebibytes: u64) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={mebibytes}m")]).arg(&self.path);
        run(mount)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may hold files on it for a moment longer.
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.path);
        if let Err(error) = run(umount)
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}
