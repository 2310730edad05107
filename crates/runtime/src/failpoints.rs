//! Faults on demand: a panic, an error, a hang or slowness in any named worker.
//!
//! Present only in a build with `RUSTFLAGS="--cfg failpoints"` (and in this crate's own tests); elsewhere
//! [`set`] refuses and [`crate::Worker::failpoint`] is an empty function.

/// Whether this build can inject faults.
pub const ENABLED: bool = cfg!(any(test, failpoints));

/// What a worker does when it next passes a failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Panics.
    Panic,
    /// Returns an error.
    Error,
    /// Thread: sleeps until it is fenced (60 s at most), then goes on as a zombie. Task: never resolves.
    Hang,
    /// Takes 250 ms longer and goes on: armed many times, a node with work for more than four passes a second falls behind.
    Slow,
}

impl Action {
    /// The action of that name: `panic`, `error`, `hang` or `slow`.
    pub fn parse(name: &str) -> Option<Action> {
        match name {
            "panic" => Some(Action::Panic),
            "error" => Some(Action::Error),
            "hang" => Some(Action::Hang),
            "slow" => Some(Action::Slow),
            _ => None,
        }
    }
}

/// Makes the worker do `action` the next `times` times it passes a failpoint; 0 disarms it.
///
/// `worker`: the worker's name, or `node/worker` where several nodes of one process have a worker of that name.
///
/// # Errors
/// When this build has no failpoints.
pub fn set(worker: &str, action: Action, times: u32) -> Result<(), String> {
    #[cfg(any(test, failpoints))]
    {
        armed::set(worker, action, times);
        Ok(())
    }
    #[cfg(not(any(test, failpoints)))]
    {
        Err(format!("cannot make {worker} {action:?} {times} times: build with RUSTFLAGS=\"--cfg failpoints\""))
    }
}

#[cfg(any(test, failpoints))]
pub(crate) mod armed {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::Action;

    static ARMED: Mutex<BTreeMap<String, (Action, u32)>> = Mutex::new(BTreeMap::new());
    // So that a failpoint that nobody armed costs one load.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    fn table() -> MutexGuard<'static, BTreeMap<String, (Action, u32)>> {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(worker: &str, action: Action, times: u32) {
        let mut table = table();
        if times == 0 {
            table.remove(worker);
        } else {
            table.insert(worker.to_owned(), (action, times));
        }
        COUNT.store(table.len(), Ordering::Release);
    }

    /// Takes one charge, armed under the worker's name or under `node/worker`.
    pub(crate) fn take(node: &str, worker: &str) -> Option<Action> {
        if COUNT.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut table = table();
        let key = [worker.to_owned(), format!("{node}/{worker}")].into_iter().find(|key| table.contains_key(key))?;
        let (action, times) = table.remove(&key)?;
        if times > 1 {
            table.insert(key, (action, times - 1));
        }
        COUNT.store(table.len(), Ordering::Release);
        Some(action)
    }
}
