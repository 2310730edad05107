//! `<data>/control`, replaced as a whole: after a crash at any instant it is the old one or the new one. And
//! `control-audit.jsonl`, a line a change; at [`AUDIT_BYTES`] it takes the place of `control-audit.1.jsonl`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use admin_api::AuditEntry;
use engine::control::{Control, DecodeError};
use runtime::ReplaceError;
use thiserror::Error;

const AUDIT_BYTES: u64 = 1 << 20;
/// Entries in memory, and shown.
const AUDIT_MAX: usize = 1_000;

/// Why orders could not be kept or read.
#[derive(Debug, Error)]
pub enum DeskError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Newer { path: PathBuf, source: DecodeError },
}

/// The files of one data directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    recent: VecDeque<AuditEntry>,
}

impl Files {
    /// Reads what is there. The sentence says what was damaged, if something was.
    ///
    /// # Errors
    /// When the orders are of a newer version (they are left alone), or a damaged file cannot be put aside.
    pub(super) fn open(dir: &Path, now: u64) -> Result<(Files, Control, Option<String>), DeskError> {
        let mut files = Files { dir: dir.to_owned(), recent: VecDeque::new() };
        files.recent = files.read_audit();
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
        runtime::replace_file(&self.path("control"), control.encode().as_bytes())
            .map_err(|ReplaceError { action, path, source }| DeskError::Io { action, path, source })
    }

    /// Adds a line to the audit log. In memory it is kept in any case.
    pub(super) fn note(&mut self, entry: AuditEntry) -> Result<(), DeskError> {
        let path = self.path("control-audit.jsonl");
        let line = serde_json::to_string(&entry).map_err(io::Error::other).map_err(failed("write", &path))?;
        self.recent.push_front(entry);
        self.recent.truncate(AUDIT_MAX);
        if fs::metadata(&path).is_ok_and(|found| found.len() >= AUDIT_BYTES) {
            let old = self.path("control-audit.1.jsonl");
            fs::rename(&path, &old).map_err(failed("put aside", &path))?;
        }
        let mut file = File::options().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        file.write_all(format!("{line}\n").as_bytes()).map_err(failed("write", &path))?;
        file.sync_data().map_err(failed("sync", &path))
    }

    /// Latest first.
    pub(super) fn audit(&self) -> Vec<AuditEntry> {
        self.recent.iter().cloned().collect()
    }

    /// What can be read of the log: a line cut short by a crash is passed over.
    fn read_audit(&self) -> VecDeque<AuditEntry> {
        let mut recent = VecDeque::new();
        for name in ["control-audit.1.jsonl", "control-audit.jsonl"] {
            let Ok(bytes) = fs::read(self.path(name)) else { continue };
            for line in bytes.split(|byte| *byte == b'\n') {
                if let Ok(entry) = serde_json::from_slice(line) {
                    recent.push_front(entry);
                }
            }
        }
        recent.truncate(AUDIT_MAX);
        recent
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeskError {
    let path = path.to_owned();
    move |source| DeskError::Io { action, path, source }
}
