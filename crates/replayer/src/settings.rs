//! The operator's settings on disk, and the log of who changed what.
//!
//! `replay.json` is replaced as a whole: after a crash at any instant it is the old one or the new one. The log of changes
//! is a [`node::AuditLog`]. A file that cannot be read is put aside under another name, never deleted, and the cluster file's settings are in force.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use admin_api::{AuditEntry, ReplaySettings};
use node::AuditLog;
use runtime::{ReplaceError, replace_file};
use serde::{Deserialize, Serialize};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) settings: ReplaySettings,
    /// An operator has spoken since the backlog was last empty.
    #[serde(default)]
    pub(crate) acknowledged: bool,
}

/// The two files of one data directory.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    dir: PathBuf,
    log: AuditLog,
}

impl SettingsFile {
    /// Reads what is there. The sentence says what was damaged, if something was.
    ///
    /// # Errors
    /// When a damaged file cannot be put aside.
    pub(crate) fn open(dir: &Path, now: u64) -> Result<(SettingsFile, Kept, Option<String>), ReplaceError> {
        let file = SettingsFile { dir: dir.to_owned(), log: AuditLog::open(dir, "replay") };
        let path = file.path("replay.json");
        let (kept, why) = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(kept) => return Ok((file, kept, None)),
                Err(error) => (Kept::default(), error.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((file, Kept::default(), None)),
            Err(error) => (Kept::default(), error.to_string()),
        };
        let aside = file.path(&format!("replay.json.damaged-{now}"));
        fs::rename(&path, &aside).map_err(failed("put aside", &path))?;
        let note = format!(
            "{} could not be read ({why}); it was put aside as {}, and the cluster file's settings are in force",
            path.display(),
            aside.display()
        );
        Ok((file, kept, Some(note)))
    }

    /// On disk when it returns.
    pub(crate) fn save(&self, kept: &Kept) -> Result<(), ReplaceError> {
        let path = self.path("replay.json");
        let text = serde_json::to_vec_pretty(kept).map_err(io::Error::other).map_err(failed("write", &path))?;
        replace_file(&path, &text)
    }

    /// Adds a line to the audit log. In memory it is kept in any case.
    pub(crate) fn note(&mut self, entry: AuditEntry) -> Result<(), ReplaceError> {
        self.log.note(entry)
    }

    /// Latest first.
    pub(crate) fn audit(&self) -> Vec<AuditEntry> {
        self.log.entries()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReplaceError {
    let path = path.to_owned();
    move |source| ReplaceError { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("spillway-replay-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn entry(n: u64) -> AuditEntry {
        AuditEntry { at: n, by: "t".into(), what: "rate".into(), old: "1".into(), new: "x".repeat(2_000) }
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart_and_a_damaged_file_is_put_aside() {
        let dir = dir("save");
        let (file, kept, note) = SettingsFile::open(&dir, 1).unwrap();
        assert_eq!((kept, note), (Kept::default(), None));
        let mut kept = Kept { acknowledged: true, ..Kept::default() };
        kept.settings.rate = 7;
        file.save(&kept).unwrap();
        let (file, found, note) = SettingsFile::open(&dir, 1).unwrap();
        assert_eq!((found, note), (kept, None));
        fs::write(dir.join("replay.json"), b"{").unwrap();
        let (_, found, note) = SettingsFile::open(&dir, 5).unwrap();
        assert_eq!(found, Kept::default());
        assert!(note.is_some_and(|note| note.contains("replay.json.damaged-5")));
        assert!(dir.join("replay.json.damaged-5").exists());
        drop(file);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_audit_log_is_bounded_and_a_line_cut_short_is_passed_over() {
        let dir = dir("audit");
        let (mut file, ..) = SettingsFile::open(&dir, 1).unwrap();
        for n in 0..1_500 {
            file.note(entry(n)).unwrap();
        }
        assert_eq!((file.audit().len(), file.audit()[0].at), (1_000, 1_499));
        let size = |name: &str| fs::metadata(dir.join(name)).unwrap().len();
        assert!(size("replay-audit.jsonl") + size("replay-audit.1.jsonl") <= (2 << 20) + 10_000);
        let path = dir.join("replay-audit.jsonl");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
        let (file, ..) = SettingsFile::open(&dir, 1).unwrap();
        assert_eq!(file.audit()[0].at, 1_498);
        fs::remove_dir_all(dir).unwrap();
    }
}
