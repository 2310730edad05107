//! A real process under test: started with its output in a file, watched, stopped, never left behind.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::wait::{eventually, within};
use crate::{Cluster, announced_only};

/// Longest time from start to ready: a debug binary on a machine that does something else as well.
const READY: Duration = Duration::from_secs(30);
/// Longest time from SIGTERM to the end: the drain's own deadlines, and slack.
const DRAIN: Duration = Duration::from_secs(30);

/// A running child. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and standard error going to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(name: &str, command: Command, log: &Path) -> Process {
        Process::start_reading(name, command, log, Stdio::null())
    }

    /// Starts `command` with `listener` handed over as systemd does it: as file descriptor 3, and said so.
    ///
    /// # Panics
    /// As [`Process::start`].
    #[track_caller]
    pub fn start_listening(name: &str, command: &Command, log: &Path, listener: &TcpListener) -> Process {
        // The shell moves it to its number, and has the process id that the program will have.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null");
        shell.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        match listener.try_clone() {
            Ok(copy) => Process::start_reading(name, shell, log, Stdio::from(OwnedFd::from(copy))),
            Err(error) => panic!("copy the listener of {name}: {error}"),
        }
    }

    #[track_caller]
    fn start_reading(name: &str, mut command: Command, log: &Path, input: Stdio) -> Process {
        let open = || File::options().create(true).append(true).open(log);
        let spawned = open().and_then(|out| {
            let err = out.try_clone()?;
            command.stdin(input).stdout(out).stderr(err).spawn()
        });
        match spawned {
            Ok(child) => Process { name: name.to_owned(), child, log: log.to_owned() },
            Err(error) => panic!("start {name} ({command:?}): {error}"),
        }
    }

    /// Starts `spillway up` on `cluster` in `dir` and waits until every node is ready.
    ///
    /// # Panics
    /// When it does not become ready in time; the message carries the log.
    #[track_caller]
    pub fn up(binary: &Path, cluster: &Cluster, dir: &Path) -> Process {
        let mut process = Process::up_unready(binary, cluster, dir, None);
        process.wait_ready(cluster);
        process
    }

    /// Starts `spillway up` on `cluster` in `dir`; with `open_files` under that `ulimit -n`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn up_unready(binary: &Path, cluster: &Cluster, dir: &Path, open_files: Option<u32>) -> Process {
        let config = dir.join("spillway.toml");
        if let Err(error) = fs::write(&config, cluster.toml()) {
            panic!("write {}: {error}", config.display());
        }
        Process::up_with_file(binary, &config, dir, open_files)
    }

    /// Starts `spillway up` on a file that stands already, with `dir` as its working directory.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn up_with_file(binary: &Path, config: &Path, dir: &Path, open_files: Option<u32>) -> Process {
        let mut command = match open_files {
            None => Command::new(binary),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\"")).arg(binary);
                shell
            }
        };
        command.arg("up").arg("--config").arg(config).current_dir(dir);
        Process::start("spillway up", command, &dir.join("spillway.log"))
    }

    /// Waits until every node of `cluster` answers its health with 200.
    ///
    /// # Panics
    /// When one does not, or the process ends.
    #[track_caller]
    pub fn wait_ready(&mut self, cluster: &Cluster) {
        for node in &cluster.nodes {
            let ready = within(READY, &format!("{} to be ready", node.name), || {
                if let Some(status) = self.ended() {
                    // Ends the wait: what is gone does not become ready.
                    return Ok(Err(format!("it ended with {status}")));
                }
                match node.api().health() {
                    Ok((_, true)) => Ok(Ok(())),
                    Ok((health, false)) => Err(format!("{health:?}")),
                    Err(error) => Err(error),
                }
            });
            match ready {
                Ok((Ok(()), _)) => {}
                Ok((Err(error), _)) | Err(error) => panic!("{}: {error}; its log:\n{}", self.name, self.log_text()),
            }
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system does not know the child.
    #[track_caller]
    pub fn ended(&mut self) -> Option<ExitStatus> {
        match self.child.try_wait() {
            Ok(status) => status,
            Err(error) => panic!("ask after {}: {error}", self.name),
        }
    }

    /// Everything it has written so far.
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map_or_else(|error| format!("<{error}>"), |bytes| String::from_utf8_lossy(&bytes).into())
    }

    /// Sends `signal`.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(Pid::from_child(&self.child), signal) {
            panic!("send {signal:?} to {}: {error}", self.name);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        eventually(limit, &what, || self.ended().ok_or_else(|| format!("it runs; its log:\n{}", self.log_text())))
    }

    /// SIGTERM, then its end, which must be exit code 0, and nothing in the log that was not announced.
    ///
    /// # Panics
    /// When one of these does not hold.
    #[track_caller]
    pub fn stop(mut self, announced: &[&str]) {
        self.signal(Signal::TERM);
        let status = self.wait_end(DRAIN);
        let log = self.log_text();
        assert!(status.success(), "{} ended with {status}; its log:\n{log}", self.name);
        announced_only(&self.name, &log, announced);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to kill and nobody to tell.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Raises this process's limit of open files to at least `wanted`, as far as the system lets it.
///
/// # Errors
/// Names the limit that stands in the way.
pub fn raise_open_files(wanted: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map_or(wanted, |maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(maximum) }).map_err(|error| {
        format!("raise open files from {:?} to {wanted} (hard limit {:?}): {error}", limit.current, limit.maximum)
    })
}
