//! What the replayer's workers share. It outlives each of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admin_api::AuditEntry;
use engine::batch::{Incarnation, Versions};
use engine::pace::Controller;
use engine::replay::{Change, Plan, Replay, To};
use engine::wire::{Hello, PROTOCOL, Role};
use node::rules::RuleBook;
use output::StoreSender;
use runtime::Clock;
use runtime::pacer::{Pace, Pacer};
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::convert;
use crate::settings::{Kept, SettingsFile};

/// Who the replayer says it is.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) cluster: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) versions: Versions,
    pub(crate) partitions: u16,
    pub(crate) book: Arc<RuleBook>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) clock: Clock,
    pub(crate) greeting: Greeting,
    pub(crate) plan: Plan,
    pub(crate) pacer: Pacer,
    /// The pacing worker may find a turn.
    pub(crate) turns: Notify,
    /// One a relay, one a receiver.
    pub(crate) source_wakes: Vec<Notify>,
    pub(crate) receiver_wakes: Vec<Notify>,
    pub(crate) store_wake: Notify,
    /// In the order of the machine's stores.
    pub(crate) senders: Vec<(String, StoreSender)>,
    /// Locked before the machine where both are.
    controller: Mutex<Controller>,
    machine: Mutex<Replay>,
    /// How often the machine was put right: links of an earlier count begin anew.
    recovered: AtomicU64,
    kept: Mutex<KeptSettings>,
}

/// The settings as they are on disk. Its lock makes changes follow one another.
#[derive(Debug)]
struct KeptSettings {
    file: SettingsFile,
    kept: Kept,
    note: Option<String>,
}

/// What a node is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) node: String,
    pub(crate) clock: Clock,
    pub(crate) greeting: Greeting,
    pub(crate) plan: Plan,
    pub(crate) machine: Replay,
    pub(crate) senders: Vec<(String, StoreSender)>,
    pub(crate) file: SettingsFile,
    pub(crate) kept: Kept,
    pub(crate) note: Option<String>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Shared {
        let bounds = parts.machine.control().bounds(&parts.plan);
        let names = parts.machine.settings();
        Shared {
            source_wakes: names.sources.iter().map(|_| Notify::new()).collect(),
            receiver_wakes: names.receivers.iter().map(|_| Notify::new()).collect(),
            store_wake: Notify::new(),
            turns: Notify::new(),
            pacer: Pacer::new(Pace::Paused),
            controller: Mutex::new(Controller::new(bounds, bounds.ceiling)),
            machine: Mutex::new(parts.machine),
            recovered: AtomicU64::new(0),
            kept: Mutex::new(KeptSettings { file: parts.file, kept: parts.kept, note: parts.note }),
            node: parts.node,
            clock: parts.clock,
            greeting: parts.greeting,
            plan: parts.plan,
            senders: parts.senders,
        }
    }

    /// The machine; put right first if a worker died inside it.
    pub(crate) fn machine(&self) -> MutexGuard<'_, Replay> {
        self.machine.lock().unwrap_or_else(|poisoned| {
            self.machine.clear_poison();
            let mut machine = poisoned.into_inner();
            error!(node = %self.node, "a worker died inside the replay machine: what is borrowed is forgotten, and lent again");
            machine.recover();
            self.recovered.fetch_add(1, Ordering::Relaxed);
            machine
        })
    }

    pub(crate) fn recovered(&self) -> u64 {
        self.recovered.load(Ordering::Relaxed)
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            role: Role::Replayer,
            cluster: self.greeting.cluster.clone(),
            node: self.node.clone(),
            incarnation: self.greeting.incarnation,
            versions: self.greeting.versions,
            partitions: self.greeting.partitions,
        }
    }

    /// Works the rate out anew, after `change` (a step of time, or nothing) has been told the controller.
    pub(crate) fn refresh_rate(&self, change: impl FnOnce(&mut Controller)) {
        let mut controller = locked(&self.controller);
        let mut machine = self.machine();
        controller.set(machine.control().bounds(machine.plan()));
        change(&mut controller);
        let rate = controller.rate();
        machine.set_rate(rate);
        drop(machine);
        if self.pacer.pace() != Pace::per_second(rate) {
            self.pacer.set(Pace::per_second(rate));
        }
        drop(controller);
        self.wake_all();
    }

    /// Replayers that an operator has forgotten leave their share to the others.
    pub(crate) fn set_replayers(&self, replayers: usize) {
        if self.machine().set_replayers(replayers.max(1) as u64) {
            self.refresh_rate(|_| {});
        }
    }

    pub(crate) fn controller(&self) -> Controller {
        locked(&self.controller).clone()
    }

    pub(crate) fn wake_all(&self) {
        self.turns.notify_one();
        self.store_wake.notify_one();
        self.source_wakes.iter().chain(&self.receiver_wakes).for_each(Notify::notify_one);
    }

    /// Records were settled or places became free: relays are to be told, turns may be taken.
    pub(crate) fn wake_for_settled(&self) {
        let machine = self.machine();
        let told = self.source_wakes.iter().enumerate().filter(|(source, _)| machine.has_done(*source));
        told.for_each(|(_, wake)| wake.notify_one());
        drop(machine);
        self.turns.notify_one();
    }

    pub(crate) fn wake(&self, to: To) {
        match to {
            To::Receiver(receiver) => self.receiver_wakes[receiver].notify_one(),
            To::Store(_) => self.store_wake.notify_one(),
        }
    }

    /// What is kept of the settings, and what is to be said of them.
    pub(crate) fn kept(&self) -> (Kept, Option<String>) {
        let kept = locked(&self.kept);
        (kept.kept.clone(), kept.note.clone())
    }

    pub(crate) fn audit(&self) -> Vec<AuditEntry> {
        locked(&self.kept).file.audit()
    }

    /// An operator's change: on disk, in force, and in the audit log when it returns. What is other than before comes back.
    ///
    /// # Errors
    /// A sentence; nothing has changed then. The flag says whether the request was wrong (else the disk was).
    pub(crate) fn change(&self, change: &Change, by: &str) -> Result<Vec<AuditEntry>, (bool, String)> {
        let mut kept = locked(&self.kept);
        let (control, changed) = {
            let machine = self.machine();
            let (control, changed) =
                machine.control().apply(change, &machine.known_sources()).map_err(|why| (true, why))?;
            if control == *machine.control() {
                return Ok(Vec::new());
            }
            (control, changed)
        };
        let at = u64::from(self.clock.unix().0);
        let mut next = kept.kept.clone();
        convert::put(&control, &mut next);
        if !changed.is_empty() {
            next.settings.version += 1;
            next.settings.changed_at = at;
            next.settings.changed_by = by.to_owned();
        }
        kept.file.save(&next).map_err(|error| (false, format!("{error}; nothing was changed")))?;
        kept.kept = next;
        let mut machine = self.machine();
        // The machine may have become cautious, or run empty, while the disk was written: the change is for what is now.
        let now = machine.control().apply(change, &machine.known_sources());
        machine.set_control(now.map_or(control, |(control, _)| control));
        drop(machine);
        self.refresh_rate(|_| {});
        let entry = |changed: engine::replay::Changed| AuditEntry {
            at,
            by: by.to_owned(),
            what: changed.what,
            old: changed.old,
            new: changed.new,
        };
        let changed: Vec<AuditEntry> = changed.into_iter().map(entry).collect();
        for entry in &changed {
            if let Err(error) = kept.file.note(entry.clone()) {
                warn!(node = %self.node, %error, "the audit log of the replay is not on disk");
            }
        }
        Ok(changed)
    }

    /// The machine's own change: it became cautious, or it ran empty.
    pub(crate) fn keep(&self) {
        let mut kept = locked(&self.kept);
        let mut next = kept.kept.clone();
        // As it is now: an operator may have spoken since.
        convert::put(self.machine().control(), &mut next);
        if next == kept.kept {
            return;
        }
        // Not being able to keep it costs a cautious start at most.
        if let Err(error) = kept.file.save(&next) {
            warn!(node = %self.node, %error, "settings of the replay are not kept");
        }
        kept.kept = next;
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
