//! `<data>/control`, replaced as a whole: after a crash at any instant it is the old one or the new one. And the log of its
//! changes, see [`crate::AuditLog`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use admin_api::AuditEntry;
use engine::control::{Control, DecodeError};
use runtime::ReplaceError;
use thiserror::Error;

use crate::AuditLog;

/// Why orders could not be kept or read.
#[derive(Debug, Error)]
pub enum DeskError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Newer { path: PathBuf, source: DecodeError },
}

impl From<ReplaceError> for DeskError {
    fn from(ReplaceError { action, path, source }: ReplaceError) -> DeskError {
        DeskError::Io { action, path, source }
    }
}

/// The files of one data directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    log: AuditLog,
}

impl Files {
    /// Reads what is there. The sentence says what was damaged, if something was.
    ///
    /// # Errors
    /// When the orders are of a newer version (they are left alone), or a damaged file cannot be put aside.
    pub(super) fn open(dir: &Path, now: u64) -> Result<(Files, Control, Option<String>), DeskError> {
        let files = Files { dir: dir.to_owned(), log: AuditLog::open(dir, "control") };
        let path = files.path("control");
        let why = match fs::read_to_string(&path).map(|text| Control::decode(&text)) {
            Ok(Ok(control)) => return Ok((files, control, None)),
            Ok(Err(source @ DecodeError::Newer { .. })) => return Err(DeskError::Newer { path, source }),
            Ok(Err(error @ DecodeError::Damaged { .. })) => error.to_string(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((files, Control::default(), None)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let aside = files.path(&format!("control.corrupt-{now}"));
        fs::rename(&path, &aside).map_err(failed("put aside", &path))?;
        let note = format!(
            "{} could not be read ({why}); it was put aside as {}, and peers send the orders that they know",
            path.display(),
            aside.display()
        );
        Ok((files, Control::default(), Some(note)))
    }

    /// On disk when it returns.
    pub(super) fn save(&self, control: &Control) -> Result<(), DeskError> {
        runtime::replace_file(&self.path("control"), control.encode().as_bytes()).map_err(DeskError::from)
    }

    /// Adds a line to the audit log. In memory it is kept in any case.
    pub(super) fn note(&mut self, entry: AuditEntry) -> Result<(), DeskError> {
        self.log.note(entry).map_err(DeskError::from)
    }

    /// Latest first.
    pub(super) fn audit(&self) -> Vec<AuditEntry> {
        self.log.entries()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeskError {
    let path = path.to_owned();
    move |source| DeskError::Io { action, path, source }
}
