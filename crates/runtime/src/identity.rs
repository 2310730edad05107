//! Who a node is to its peers, over all its lives.
//!
//! A batch is `(sender, epoch, seq)`, and a final node merges each once. So an epoch must never be used twice: it is
//! `max(persisted + 1, unix seconds, known + 1)`, and on disk before the first batch exists. The clock's term heals a data
//! directory that was restored from a backup; what the cluster knows of the sender ([`DataDir::identity_above`]) heals one
//! whose clock has gone back as well. The nonce tells two running nodes with one (cloned) identity apart.
//!
//! File `identity`, text, replaced as a whole:
//!
//! ```text
//! spillway identity 1
//! sender 0123456789abcdef
//! epoch 1764000000
//! ```
//!
//! File `lock` is locked (flock) for as long as the [`DataDir`] lives.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::batch::next_epoch;
use engine::time::UnixSeconds;
use thiserror::Error;

use crate::disk::{ReplaceError, replace_file};
use crate::random_u64;

/// Who this node is, in this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, made at the first start in the data directory.
    pub sender: u64,
    /// Greater in each life.
    pub epoch: u32,
    /// Random in each life.
    pub nonce: u64,
}

/// Why the node has no identity. Each says what to do.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("another process (pid {holder}) uses data directory {dir}; stop it, or give this node its own `data_dir`")]
    InUse { dir: PathBuf, holder: String },
    #[error(
        "{path} is not an identity file ({reason}); if this node's batches are settled, delete the file and the node \
         starts as a new sender; otherwise restore the file"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "no epoch is left above the one that {path} holds or the cluster knows (`node forget` takes them all); delete \
         the file and the node starts as a new sender"
    )]
    Exhausted { path: PathBuf },
    #[error("{action} {path}; the node needs a data directory that it can write to")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("get randomness from the kernel")]
    Randomness(#[source] io::Error),
}

/// A data directory that no other process uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn open(path: impl Into<PathBuf>) -> Result<DataDir, IdentityError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&lock_path).unwrap_or_default();
                let holder = if holder.is_empty() { "unknown".to_owned() } else { holder };
                return Err(IdentityError::InUse { dir: path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        // The pid is only for the message above; the lock is the kernel's.
        lock.set_len(0).map_err(failed("write", &lock_path))?;
        write!(lock, "{}", std::process::id()).map_err(failed("write", &lock_path))?;
        Ok(DataDir { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This life's identity, safely on disk when it returns. Call once in a life.
    ///
    /// # Errors
    /// When the file is damaged (nothing is changed then), or cannot be written.
    pub fn identity(&self, now: UnixSeconds) -> Result<Identity, IdentityError> {
        self.identity_above(now, |_| 0)
    }

    /// The same, above what others know of this sender. `known`: asks them; it is given the sender and gives the highest
    /// epoch that they have seen or retired, zero if none. Not called for a new sender, of whom nobody can know.
    ///
    /// # Errors
    /// As [`DataDir::identity`].
    pub fn identity_above(&self, now: UnixSeconds, known: impl FnOnce(u64) -> u32) -> Result<Identity, IdentityError> {
        let path = self.path.join("identity");
        let (sender, epoch) = match self.persisted(&path)? {
            None => (random_u64().map_err(IdentityError::Randomness)?, now.0),
            Some((sender, epoch)) => match next_epoch(epoch, known(sender), now) {
                Some(next) => (sender, next),
                None => return Err(IdentityError::Exhausted { path }),
            },
        };
        let nonce = random_u64().map_err(IdentityError::Randomness)?;
        Self::persist(&path, sender, epoch)?;
        Ok(Identity { sender, epoch, nonce })
    }

    /// Sender and epoch of the life before; `None` before the first.
    fn persisted(&self, path: &Path) -> Result<Option<(u64, u32)>, IdentityError> {
        match fs::read_to_string(path) {
            Ok(text) => match parse(&text) {
                Ok(read) => Ok(Some(read)),
                Err(reason) => Err(IdentityError::Damaged { path: path.to_owned(), reason }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(IdentityError::Damaged { path: path.to_owned(), reason: "not text".to_owned() })
            }
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    /// On disk when it returns.
    fn persist(path: &Path, sender: u64, epoch: u32) -> Result<(), IdentityError> {
        let text = format!("spillway identity 1\nsender {sender:016x}\nepoch {epoch}\n");
        replace_file(path, text.as_bytes()).map_err(|ReplaceError { action, path, source }| IdentityError::Io {
            action,
            path,
            source,
        })
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

fn parse(text: &str) -> Result<(u64, u32), String> {
    let mut lines = text.lines();
    if lines.next() != Some("spillway identity 1") {
        return Err("it does not begin with `spillway identity 1`".to_owned());
    }
    let sender = lines.next().and_then(|line| line.strip_prefix("sender "));
    let sender = sender.and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or("no sender")?;
    let epoch = lines.next().and_then(|line| line.strip_prefix("epoch "));
    let epoch = epoch.and_then(|number| number.parse().ok()).ok_or("no epoch")?;
    Ok((sender, epoch))
}

#[cfg(test)]
mod tests;
