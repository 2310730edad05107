//! A cluster as it runs in production: a process a node, each from its own binary, that can be killed, stopped, wiped and
//! started again one by one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use admin_api::Ledger;
use rustix::process::Signal;

use crate::{Admin, Cluster, Layer, Node, Process, Resident, Space, TempDir, eventually, resident};

/// From start to an answer: a debug binary on a machine that does something else as well.
const ANSWERS: Duration = Duration::from_secs(30);
/// From SIGTERM to the end.
const ENDS: Duration = Duration::from_secs(60);

/// A cluster of processes.
#[derive(Debug)]
pub struct Fleet {
    pub cluster: Cluster,
    binary: fn(Layer) -> PathBuf,
    running: BTreeMap<String, Process>,
    /// Nodes that run in a network namespace.
    spaces: BTreeMap<String, Space>,
    /// Cluster files of nodes that see other addresses than the rest.
    files: BTreeMap<String, PathBuf>,
    /// What nodes have in their environment besides.
    environments: BTreeMap<String, Vec<(String, String)>>,
    dir: TempDir,
}

impl Fleet {
    /// Nothing runs yet. `binary`: where the program of a layer is.
    ///
    /// # Panics
    /// When the cluster file cannot be written.
    #[track_caller]
    pub fn new(name: &str, cluster: Cluster, binary: fn(Layer) -> PathBuf) -> Fleet {
        let dir = TempDir::new(name);
        dir.write("cluster.toml", &cluster.toml());
        Fleet {
            cluster,
            binary,
            running: BTreeMap::new(),
            spaces: BTreeMap::new(),
            files: BTreeMap::new(),
            environments: BTreeMap::new(),
            dir,
        }
    }

    /// Lets `node` run in `space`.
    #[must_use]
    pub fn in_space(mut self, node: &str, space: &Space) -> Fleet {
        self.spaces.insert(node.to_owned(), space.clone());
        self
    }

    /// Lets `node` have these in its environment.
    #[must_use]
    pub fn with_environment(mut self, node: &str, variables: Vec<(String, String)>) -> Fleet {
        self.environments.insert(node.to_owned(), variables);
        self
    }

    /// Lets `node` see `cluster` instead: other addresses, for a proxy in between.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[track_caller]
    #[must_use]
    pub fn sees(mut self, node: &str, cluster: &Cluster) -> Fleet {
        let file = self.dir.write(&format!("cluster-of-{node}.toml"), &cluster.toml());
        self.files.insert(node.to_owned(), file);
        self
    }

    /// Starts every node and waits until each answers and every relay's links are up.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    #[must_use]
    pub fn up(mut self) -> Fleet {
        for name in self.names() {
            self.start(&name);
        }
        for name in self.names() {
            self.answers(&name);
        }
        for relay in self.cluster.layer(Layer::Relay) {
            let api = relay.api();
            eventually(ANSWERS, &format!("the links of {}", relay.name), || {
                let peers = api.status()?.peers;
                let down = peers.iter().any(|peer| peer.state != "up" && !peer.peer.contains('/'));
                if down { Err(format!("{peers:?}")) } else { Ok(()) }
            });
        }
        self
    }

    /// All nodes, in the order of the cluster file.
    pub fn names(&self) -> Vec<String> {
        self.cluster.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Names of one layer.
    pub fn layer(&self, layer: Layer) -> Vec<String> {
        self.cluster.layer(layer).into_iter().map(|node| node.name.clone()).collect()
    }

    /// The directory in which all of it lives.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The node's data directory.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// A node's admin API.
    pub fn api(&self, name: &str) -> Admin {
        self.node(name).api()
    }

    fn node(&self, name: &str) -> &Node {
        self.cluster.named(name)
    }

    /// Starts a node that does not run.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(&mut self, name: &str) {
        assert!(!self.running.contains_key(name), "{name} runs already");
        let binary = (self.binary)(self.node(name).layer);
        let mut command = match self.spaces.get(name) {
            Some(space) => space.command(&binary),
            None => Command::new(&binary),
        };
        let file = self.files.get(name).cloned().unwrap_or_else(|| self.dir.path().join("cluster.toml"));
        command.arg("--config").arg(file).args(["--node", name]).current_dir(self.dir.path());
        command.envs(self.environments.get(name).cloned().unwrap_or_default());
        let process = Process::start(name, command, &self.log(name));
        self.running.insert(name.to_owned(), process);
    }

    /// Waits until the node answers its admin API.
    ///
    /// # Panics
    /// When it does not, or has ended.
    #[track_caller]
    pub fn answers(&mut self, name: &str) {
        let api = self.api(name);
        let log = self.log(name);
        let Some(process) = self.running.get_mut(name) else { panic!("{name} does not run") };
        let ended = eventually(ANSWERS, &format!("{name} to answer"), || match process.ended() {
            Some(status) => Ok(Some(status)),
            None => api.health().map(|_| None),
        });
        if let Some(status) = ended {
            panic!("{name} ended with {status}; its log ends:\n{}", tail(&log));
        }
    }

    /// `kill -9`, and its end.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self, name: &str) {
        let Some(mut process) = self.running.remove(name) else { panic!("{name} does not run") };
        if let Some(status) = process.ended() {
            panic!("{name} had ended with {status} before it was killed; its log ends:\n{}", tail(&self.log(name)));
        }
        process.signal(Signal::KILL);
        process.wait_end(ENDS);
    }

    /// SIGSTOP: it keeps its sockets, and says nothing.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn freeze(&self, name: &str) {
        self.process(name).signal(Signal::STOP);
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn thaw(&self, name: &str) {
        self.process(name).signal(Signal::CONT);
    }

    /// SIGTERM, and its end with exit code 0; how long it took.
    ///
    /// # Panics
    /// When it does not run, or ends otherwise.
    #[track_caller]
    pub fn stop(&mut self, name: &str) -> Duration {
        let Some(mut process) = self.running.remove(name) else { panic!("{name} does not run") };
        let start = Instant::now();
        process.signal(Signal::TERM);
        let status = process.wait_end(ENDS);
        assert!(status.success(), "{name} ended with {status}; its log ends:\n{}", tail(&self.log(name)));
        start.elapsed()
    }

    /// Everything that the node has written, in all its lives.
    pub fn log_text(&self, name: &str) -> String {
        std::fs::read(self.log(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The cluster file that all nodes have which were given no other.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    /// Starts it again and waits for its answer.
    ///
    /// # Panics
    /// As [`Fleet::start`], [`Fleet::answers`].
    #[track_caller]
    pub fn restart(&mut self, name: &str) {
        self.start(name);
        self.answers(name);
    }

    /// Removes what a node that does not run has on disk.
    ///
    /// # Panics
    /// When it runs, or the directory cannot be removed.
    #[track_caller]
    pub fn wipe(&self, name: &str) {
        assert!(!self.running.contains_key(name), "{name} runs");
        if let Err(error) = std::fs::remove_dir_all(self.data(name)) {
            panic!("remove {}: {error}", self.data(name).display());
        }
    }

    /// Whether it was started and neither killed nor stopped since.
    pub fn runs(&self, name: &str) -> bool {
        self.running.contains_key(name)
    }

    /// Its memory; `None` when it does not run.
    pub fn resident(&self, name: &str) -> Option<Resident> {
        self.running.get(name).and_then(|process| resident(process.id()))
    }

    /// The process of a node that runs.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn process(&self, name: &str) -> &Process {
        match self.running.get(name) {
            Some(process) => process,
            None => panic!("{name} does not run"),
        }
    }

    /// Every node's books, once all balance and nothing is on its way or spilled any more.
    ///
    /// # Panics
    /// As [`Cluster::settled`]; also when a process has ended by itself.
    #[track_caller]
    pub fn settled(&mut self, limit: Duration) -> Vec<Ledger> {
        self.all_run();
        self.cluster.settled(limit)
    }

    /// Asserts that no process has ended by itself.
    ///
    /// # Panics
    /// When one has.
    #[track_caller]
    pub fn all_run(&mut self) {
        for (name, process) in &mut self.running {
            if let Some(status) = process.ended() {
                let log = self.dir.path().join(format!("{name}.log"));
                panic!("{name} has ended with {status}; its log ends:\n{}", tail(&log));
            }
        }
    }

    /// Stops every node in order, relays first; each must end with 0.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn end(mut self) {
        self.stop_all();
    }

    /// As [`Fleet::end`], but what the nodes have on disk stays for a look.
    ///
    /// # Panics
    /// When a node does not end with 0.
    #[track_caller]
    pub fn stop_all(&mut self) {
        for name in self.names() {
            if self.runs(&name) {
                self.stop(&name);
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }
}

/// The last lines of a log, for the message of a failure.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
