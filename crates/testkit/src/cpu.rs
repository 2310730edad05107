//! CPU time of a process and all its descendants, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;

/// Seconds spent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    pub user_seconds: f64,
    pub system_seconds: f64,
}

impl CpuTime {
    /// Both together.
    pub fn seconds(self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

impl Sub for CpuTime {
    type Output = CpuTime;
    fn sub(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
        }
    }
}

/// `utime + stime` of `root` and its living descendants, and of those they have waited for. Resolution: one tick, 10 ms.
pub fn tree_cpu(root: u32) -> CpuTime {
    let mut stats: BTreeMap<u32, Stat> = BTreeMap::new();
    if let Ok(entries) = fs::read_dir("/proc") {
        for entry in entries.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let text = fs::read_to_string(entry.path().join("stat")).ok();
            if let (Some(pid), Some(stat)) = (pid, text.as_deref().and_then(parse)) {
                stats.insert(pid, stat);
            }
        }
    }
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut sum = CpuTime::default();
    for (pid, stat) in &stats {
        if is_under(&stats, *pid, root) {
            sum.user_seconds += stat.user_ticks as f64 / ticks_per_second;
            sum.system_seconds += stat.system_ticks as f64 / ticks_per_second;
        }
    }
    sum
}

struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

fn is_under(stats: &BTreeMap<u32, Stat>, pid: u32, root: u32) -> bool {
    let mut at = pid;
    // A chain of parents is shorter than the table: the bound only guards against a loop from a torn reading.
    for _ in 0..=stats.len() {
        if at == root {
            return true;
        }
        match stats.get(&at) {
            Some(stat) if stat.parent != 0 => at = stat.parent,
            Some(_) | None => return false,
        }
    }
    false
}

/// proc(5): fields after the command's closing parenthesis are state, ppid, ... utime is field 14, stime 15, cutime 16,
/// cstime 17 of the whole line.
fn parse(text: &str) -> Option<Stat> {
    let (_, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        user_ticks: number(14)? + number(16)?,
        system_ticks: number(15)? + number(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{parse, tree_cpu};

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = parse("12 (a b) c) S 7 1 1 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0 5");
        assert_eq!(stat.map(|s| (s.parent, s.user_ticks, s.system_ticks)), Some((7, 103, 24)));
    }

    #[test]
    fn own_work_is_seen() {
        let before = tree_cpu(std::process::id());
        let mut sum = 0_u64;
        while (tree_cpu(std::process::id()) - before).seconds() < 0.03 {
            sum = sum.wrapping_add((0..100_000_u64).fold(0, |a, b| a ^ b.wrapping_mul(31)));
        }
        assert_ne!(sum, 1);
    }
}
