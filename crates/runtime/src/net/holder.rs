//! Which process listens on a port, as far as /proc shows it to this user.
//!
//! `/proc/net/tcp` gives the inode of the listening socket (columns as in Linux's Documentation/networking/proc_net_tcp),
//! `/proc/<pid>/fd` gives who has it open. A hint for a message: every failure on the way means "not known".

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// `name (pid 123)` of the process that listens on the port of `addr`.
pub(super) fn of(addr: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, addr.port()))?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        has_open(&process.path().join("fd"), &wanted).then(|| described(pid, &process.path()))
    })
}

/// The inode of the socket in state LISTEN (0A) on the port.
pub(super) fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let (_, port_hex) = local.rsplit_once(':')?;
        if state != "0A" || u16::from_str_radix(port_hex, 16).ok()? != port {
            return None;
        }
        fields.nth(5)?.parse().ok()
    })
}

fn has_open(fds: &Path, wanted: &str) -> bool {
    fs::read_dir(fds).is_ok_and(|fds| {
        fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted))
    })
}

fn described(pid: u32, process: &Path) -> String {
    match fs::read_to_string(process.join("comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim_end()),
        Err(_) => format!("pid {pid}"),
    }
}
