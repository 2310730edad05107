//! Memory of a process, from `/proc`.

/// Resident memory now and at its highest since the process's start, bytes. `None` when the process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    pub now: u64,
    pub peak: u64,
}

/// Reads `VmRSS` and `VmHWM` of `/proc/<pid>/status`.
pub fn resident(pid: u32) -> Option<Resident> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<Resident> {
    let kib = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Resident { now: kib("VmRSS:")? << 10, peak: kib("VmHWM:")? << 10 })
}

#[cfg(test)]
mod tests {
    use super::{Resident, parse, resident};

    #[test]
    fn kibibytes_become_bytes() {
        let text = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(text), Some(Resident { now: 1 << 20, peak: 2 << 20 }));
    }

    #[test]
    fn one_can_look_at_oneself() {
        assert!(resident(std::process::id()).is_some_and(|memory| memory.peak >= memory.now && memory.now > 0));
    }
}
