//! What a file system says of itself.

use std::io;
use std::path::Path;

/// Bytes free for ordinary users on the file system of `path`, or of the nearest folder above it that exists.
///
/// # Errors
/// When the file system does not answer.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let seen = rustix::fs::statvfs(existing)?;
    Ok(seen.f_bavail.saturating_mul(seen.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_the_one_above_it() {
        let here = std::env::temp_dir();
        assert!(free_bytes(&here).is_ok_and(|free| free > 0));
        assert!(free_bytes(&here.join("not/there")).is_ok_and(|free| free > 0));
    }
}
