//! What a file system says of itself, and small files that are replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What could not be done, as a verb, and with which file.
#[derive(Debug, Error)]
#[error("{action} {path}: {source}")]
pub struct ReplaceError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// Bytes free for ordinary users on the file system of `path`, or of the nearest folder above it that exists.
///
/// # Errors
/// When the file system does not answer.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let seen = rustix::fs::statvfs(existing)?;
    Ok(seen.f_bavail.saturating_mul(seen.f_frsize))
}

/// Replaces the file `path`, or makes it: durable when this returns. After a crash at any instant it is the old one or
/// the new one, whole; what a crash left of a new one (`<path>.new`) is nobody's and is written over. One writer at a
/// time; blocks for the time of two fsyncs.
///
/// # Errors
/// Says at which step. The file is the old one, except when only the last sync, of the directory, failed: then it may be
/// either, until it is replaced again.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), ReplaceError> {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new).map_err(failed("create", &new))?;
    file.write_all(content).map_err(failed("write", &new))?;
    file.sync_all().map_err(failed("sync", &new))?;
    fs::rename(&new, path).map_err(failed("replace", path))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync", parent))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReplaceError {
    let path = path.to_owned();
    move |source| ReplaceError { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, removed with the test.
    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("spillway-replace-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_nothing_lies_beside_it() {
        let directory = directory("replaced");
        let path = directory.join("settings.json");
        for content in ["a longer first content", "short", ""] {
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_crash_left_half_written_is_passed_over_and_written_over() {
        let directory = directory("crash");
        let path = directory.join("settings.json");
        let left = directory.join("settings.json.new");
        // Before the first file was there, and with an old one there.
        fs::write(&left, "half of what was to be writ").unwrap();
        assert!(!path.exists(), "what was left is not taken for the file");
        replace_file(&path, b"one").unwrap();
        fs::write(&left, "half of what was to be written, and longer than what comes").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace_file(&path, b"two").unwrap();
        assert_eq!((fs::read(&path).unwrap(), left.exists()), (b"two".to_vec(), false));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_named_and_stays() {
        let directory = directory("stays");
        let path = directory.join("settings.json");
        replace_file(&path, b"old").unwrap();
        // Nothing can be created under the name of the new one.
        fs::create_dir(directory.join("settings.json.new")).unwrap();
        let error = replace_file(&path, b"new").unwrap_err();
        assert!(
            error.to_string().starts_with("create /") && error.to_string().contains("settings.json.new"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let error = replace_file(&directory.join("none/settings.json"), b"new").unwrap_err();
        assert_eq!((error.action, error.source.kind()), ("create", io::ErrorKind::NotFound));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_the_one_above_it() {
        let here = std::env::temp_dir();
        assert!(free_bytes(&here).is_ok_and(|free| free > 0));
        assert!(free_bytes(&here.join("not/there")).is_ok_and(|free| free > 0));
    }
}
