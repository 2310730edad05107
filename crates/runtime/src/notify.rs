//! What the service manager is told: sd_notify(3), as much of it as a node needs.
//!
//! `$NOTIFY_SOCKET` names a datagram socket, by its path or, after an `@`, by its abstract name; without it there is
//! nobody to tell. The socket does not block: a manager that does not read must not hold up a node.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// However long the manager waits, health is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// The manager ends a process that is silent for so long.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID`.
    ///
    /// # Errors
    /// When the socket is named and cannot be reached.
    pub fn from_environment() -> io::Result<Notifier> {
        let variable = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref());
        Notifier::to(std::env::var_os("NOTIFY_SOCKET").as_deref(), watchdog)
    }

    fn to(name: Option<&OsStr>, watchdog: Option<Duration>) -> io::Result<Notifier> {
        let Some(name) = name else { return Ok(Notifier::default()) };
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Notifier { socket: Some(socket), watchdog })
    }

    /// It serves; `status` is a line for a person.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It has begun to stop.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// What it is at.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// Says that the process is alive as often as the manager wants to hear it, while `is_healthy` says so.
    pub async fn keep_alive(&self, is_healthy: impl Fn() -> bool) -> Infallible {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut ticks = tokio::time::interval((watchdog / 4).clamp(Duration::from_millis(1), LOOK_EVERY));
        loop {
            ticks.tick().await;
            if is_healthy() {
                self.tell("WATCHDOG=1");
            }
        }
    }

    fn tell(&self, what: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(what.as_bytes()) {
            tracing::warn!(%error, what, "the service manager was not told");
        }
    }
}

/// `pid`: whom the manager means; a process that was started by that one is not meant.
fn watchdog(micros: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return None;
    }
    micros?.parse().ok().filter(|micros| *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let n = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    fn abstract_manager(name: &str) -> (UnixDatagram, String) {
        let name = format!("spillway-notify-{name}-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (manager, format!("@{name}"))
    }

    #[test]
    fn an_abstract_name_is_reached_and_told() {
        let (manager, name) = abstract_manager("told");
        let notifier = Notifier::to(Some(OsStr::new(&name)), None).unwrap();
        notifier.status("starting");
        notifier.ready("serving");
        notifier.stopping("SIGTERM");
        let all = [said(&manager), said(&manager), said(&manager)];
        assert_eq!(all, ["STATUS=starting", "READY=1\nSTATUS=serving", "STOPPING=1\nSTATUS=SIGTERM"]);
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        Notifier::to(None, Some(Duration::from_secs(1))).unwrap().ready("serving");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error() {
        assert!(Notifier::to(Some(OsStr::new("/nowhere/notify")), None).is_err());
        assert!(Notifier::to(Some(OsStr::new("")), None).is_err());
    }

    #[test]
    fn only_the_process_that_is_meant_has_a_watchdog() {
        let own = std::process::id().to_string();
        assert_eq!(watchdog(Some("10000000"), Some(&own)), Some(Duration::from_secs(10)));
        assert_eq!(watchdog(Some("10000000"), None), Some(Duration::from_secs(10)));
        for (micros, pid) in [(Some("10000000"), Some("1")), (Some("0"), None), (Some("x"), None), (None, None)] {
            assert_eq!(watchdog(micros, pid), None, "{micros:?} {pid:?}");
        }
    }

    #[tokio::test]
    async fn pings_come_while_it_is_healthy_and_stop_when_it_is_not() {
        let (manager, name) = abstract_manager("pings");
        let notifier = Notifier::to(Some(OsStr::new(&name)), Some(Duration::from_millis(8))).unwrap();
        let looks = std::cell::Cell::new(0);
        let five_then_ill = || {
            looks.set(looks.get() + 1);
            looks.get() <= 5
        };
        let enough = async {
            while looks.get() < 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            never = notifier.keep_alive(five_then_ill) => match never {},
            () = enough => {}
        }
        notifier.status("end");
        let all: Vec<String> = (0..6).map(|_| said(&manager)).collect();
        assert_eq!(all, ["WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STATUS=end"]);
    }
}
