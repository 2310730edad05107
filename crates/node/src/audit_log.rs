//! Who changed what: a line a change in `<name>-audit.jsonl`; at [`FILE_BYTES`] it takes the place of `<name>-audit.1.jsonl`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use admin_api::AuditEntry;
use runtime::ReplaceError;

const FILE_BYTES: u64 = 1 << 20;
/// Entries in memory, and shown.
const ENTRIES_MAX: usize = 1_000;

/// The log of one kind of changes, in one data directory.
#[derive(Debug)]
pub struct AuditLog {
    dir: PathBuf,
    name: &'static str,
    recent: VecDeque<AuditEntry>,
}

impl AuditLog {
    /// Reads what can be read of `<name>-audit.jsonl` in `dir`: a line cut short by a crash is passed over.
    pub fn open(dir: &Path, name: &'static str) -> AuditLog {
        let mut log = AuditLog { dir: dir.to_owned(), name, recent: VecDeque::new() };
        for path in [log.path(".1"), log.path("")] {
            let Ok(bytes) = fs::read(path) else { continue };
            for line in bytes.split(|byte| *byte == b'\n') {
                if let Ok(entry) = serde_json::from_slice(line) {
                    log.recent.push_front(entry);
                }
            }
        }
        log.recent.truncate(ENTRIES_MAX);
        log
    }

    /// Adds a change, synced when it returns. In memory it is kept in any case.
    ///
    /// # Errors
    /// What could not be done with which file.
    pub fn note(&mut self, entry: AuditEntry) -> Result<(), ReplaceError> {
        let path = self.path("");
        let failed = |action| {
            let path = path.clone();
            move |source| ReplaceError { action, path, source }
        };
        let line = serde_json::to_string(&entry).map_err(io::Error::other).map_err(failed("write"))?;
        self.recent.push_front(entry);
        self.recent.truncate(ENTRIES_MAX);
        if fs::metadata(&path).is_ok_and(|found| found.len() >= FILE_BYTES) {
            fs::rename(&path, self.path(".1")).map_err(failed("put aside"))?;
        }
        let mut file = File::options().create(true).append(true).open(&path).map_err(failed("open"))?;
        file.write_all(format!("{line}\n").as_bytes()).map_err(failed("write"))?;
        file.sync_data().map_err(failed("sync"))
    }

    /// Latest first, at most a thousand.
    pub fn entries(&self) -> Vec<AuditEntry> {
        self.recent.iter().cloned().collect()
    }

    fn path(&self, which: &str) -> PathBuf {
        self.dir.join(format!("{}-audit{which}.jsonl", self.name))
    }
}
