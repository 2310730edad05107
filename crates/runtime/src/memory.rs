//! What the kernel says of this process's memory.

use std::io;

/// Bytes of this process that are in memory: `VmRSS` of proc(5).
///
/// # Errors
/// When `/proc` is not there, or says something else.
pub fn resident_bytes() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    parsed(&status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no VmRSS in kB"))
}

fn parsed(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_in_bytes_and_this_process_has_one() {
        assert_eq!(parsed("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2_097_152));
        assert_eq!(parsed("Name:\tx\n"), None);
        assert!(resident_bytes().is_ok_and(|bytes| bytes > 0));
    }
}
