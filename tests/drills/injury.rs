//! Workers that are hurt again and again until they are cured, and the operator's commands as a person gives them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::{Admin, Fleet};

use crate::support;

/// Less than the 5 s for which a worker that came back is still reported.
const EVERY: Duration = Duration::from_millis(900);

/// What is done to whom. Dropped, it stops; a node whose process is replaced has to be hurt anew by it.
pub(crate) struct Injury {
    victims: Arc<Victims>,
    hurting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Victims {
    /// By node: its API and the worker that panics.
    crashing: Mutex<BTreeMap<String, (Admin, String)>>,
    over: AtomicBool,
}

impl Victims {
    fn crashing(&self) -> MutexGuard<'_, BTreeMap<String, (Admin, String)>> {
        self.crashing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Injury {
    pub(crate) fn new() -> Injury {
        let victims = Arc::<Victims>::default();
        let of_thread = Arc::clone(&victims);
        let hurt = move || {
            let mut due = Instant::now();
            while !of_thread.over.load(Ordering::SeqCst) {
                if due <= Instant::now() {
                    due += EVERY;
                    for (api, worker) in of_thread.crashing().values() {
                        // One that is just being restarted is hurt next time.
                        let _down = api.fail(worker, "panic", 1).is_err();
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        Injury { victims, hurting: Some(std::thread::spawn(hurt)) }
    }

    /// From now on the worker panics about once a second.
    #[track_caller]
    pub(crate) fn crash(&self, fleet: &Fleet, node: &str, worker: &str) {
        fleet.api(node).fail(worker, "panic", 1).expect("the failpoint is armed");
        self.victims.crashing().insert(node.to_owned(), (fleet.api(node), worker.to_owned()));
    }

    /// The node's worker panics no more.
    pub(crate) fn cured(&self, node: &str) {
        self.victims.crashing().remove(node);
    }
}

impl Drop for Injury {
    fn drop(&mut self) {
        self.victims.over.store(true, Ordering::SeqCst);
        if let Some(hurting) = self.hurting.take() {
            assert!(hurting.join().is_ok() || std::thread::panicking(), "the one who hurts panicked");
        }
    }
}

/// From now on each piece of work of all shards of a partial node takes 250 ms more: for good, in this process.
#[track_caller]
pub(crate) fn slow_down(fleet: &Fleet, node: &str) {
    let workers = fleet.api(node).workers().expect("the list of workers");
    for worker in workers.iter().filter(|worker| worker.name.starts_with("partial.shard.")) {
        fleet.api(node).fail(&worker.name, "slow", u32::MAX).expect("the failpoint is armed");
    }
}

/// What a command of the operator did.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// Runs `spillway` as an operator does, on the fleet's cluster file.
#[track_caller]
pub(crate) fn operator(fleet: &Fleet, arguments: &[&str]) -> Said {
    let mut command = Command::new(support::spillway());
    command.args(arguments).arg("--config").arg(fleet.file());
    let began = Instant::now();
    let output = command.output().expect("spillway runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        code: output.status.code().expect("it ends by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
        began,
        ended: Instant::now(),
    }
}
