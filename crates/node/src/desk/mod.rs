//! A node's share in what operators have ordered: kept on disk, exchanged with every peer, applied to its pools.
//!
//! [`Desk`] owns the orders (`engine::control`), [`Watch`] a pool (`engine::health`), [`Linked`] and [`Accepted`] take
//! orders off a link before its service sees the frame, [`Operator`] answers the admin API, and [`run`] is the worker
//! `<layer>.health` that lets time pass for all of them. ARCHITECTURE.md, "Health, pools, orders", has the whole.

mod exchange;
mod files;
mod operator;
#[cfg(test)]
mod tests;
mod watch;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use admin_api::AuditEntry;
use config::{Cluster, HealthMode, Layer};
use engine::control::{Change, Control, DecodeError, Order, Stamp};
use engine::health::{Mode, Orders};
use runtime::{Clock, Worker, WorkerError};
use tracing::{error, info, warn};

use crate::notices::Notices;
pub use exchange::{Accepted, Linked};
pub use files::DeskError;
use files::Files;
pub use operator::Operator;
pub use watch::{Observed, Watch, watch};

/// How often pools look at the time.
const EVERY: Duration = Duration::from_millis(100);
/// Pool ticks between two looks at the orders' own time.
const DESK_EVERY: u32 = 10;

/// What the cluster file says of nodes and modes.
#[derive(Clone, Debug)]
pub struct Roster {
    /// As long as nothing is ordered.
    mode: Mode,
    /// Layers that somebody chooses from.
    layers: Vec<Layer>,
    nodes: Vec<(String, Layer)>,
}

impl Default for Roster {
    /// Of no nodes.
    fn default() -> Roster {
        Roster { mode: Mode::Auto, layers: Vec::new(), nodes: Vec::new() }
    }
}

impl Roster {
    /// Of a cluster.
    pub fn of(cluster: &Cluster) -> Roster {
        let chosen_from = [Layer::Partial, Layer::Final].into_iter();
        Roster {
            mode: mode_of(cluster.health.mode),
            layers: chosen_from.filter(|layer| cluster.layer(*layer).next().is_some()).collect(),
            nodes: cluster.nodes.iter().map(|node| (node.name.clone(), node.layer)).collect(),
        }
    }
}

/// A node's orders.
pub struct Desk {
    node: String,
    clock: Clock,
    roster: Roster,
    kept: Mutex<Kept>,
    digest: AtomicU64,
    followers: Mutex<Vec<Follower>>,
    notices: OnceLock<Arc<Notices>>,
}

/// Hears of the orders.
type Follower = Box<dyn Fn(&Control) + Send + Sync>;

#[derive(Debug)]
struct Kept {
    control: Control,
    files: Files,
    /// Heard of on a link, and not on disk yet because that could not be written.
    is_unsaved: bool,
    /// Modes that reverted up to this second are in the audit log.
    reverted: u64,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("node", &self.node).field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl Desk {
    /// Reads the orders in `dir`.
    ///
    /// # Errors
    /// When they are of a newer version, or cannot be read for another reason than damage.
    pub fn open(dir: &Path, roster: Roster, node: &str, clock: Clock) -> Result<Arc<Desk>, DeskError> {
        let now = u64::from(clock.unix().0);
        let (files, control, note) = Files::open(dir, now)?;
        if let Some(note) = note {
            error!(node, "{note}");
        }
        Ok(Arc::new(Desk {
            node: node.to_owned(),
            clock,
            roster,
            digest: AtomicU64::new(control.digest()),
            kept: Mutex::new(Kept { control, files, is_unsaved: false, reverted: now }),
            followers: Mutex::default(),
            notices: OnceLock::new(),
        }))
    }

    /// What happens from now on is told to endpoints outside, too. Only the first ones count.
    pub(crate) fn announce(&self, notices: Arc<Notices>) {
        self.notices.get_or_init(|| notices);
    }

    /// Where news goes; nothing before the node has begun to announce.
    pub fn notices(&self) -> Option<&Arc<Notices>> {
        self.notices.get()
    }

    /// Tells `follower` all that is ordered: now, and whenever it changes. It must not call the desk.
    pub fn follow(&self, follower: impl Fn(&Control) + Send + Sync + 'static) {
        let kept = self.kept();
        follower(&kept.control);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(follower));
    }

    /// All that is ordered.
    pub fn control(&self) -> Control {
        self.kept().control.clone()
    }

    /// A number for all that is ordered; 0: nothing ever was.
    pub fn digest(&self) -> u64 {
        self.digest.load(Ordering::Relaxed)
    }

    /// The orders for a pool.
    pub fn orders(&self, control: &Control, layer: Layer, names: &[String]) -> Orders {
        let mode = control.mode(layer.as_str(), self.roster.mode, self.now()).mode;
        Orders { mode, hands: names.iter().map(|name| control.hand(name)).collect() }
    }

    /// Takes orders; they are on disk when it returns. What was in force already is not among the changes.
    ///
    /// # Errors
    /// When they cannot be kept; nothing has changed then.
    pub fn order(&self, orders: &[Order], by: &str) -> Result<Vec<Change>, DeskError> {
        let mut kept = self.kept();
        let (control, changes) = self.with_orders(&kept.control, orders, by);
        if !changes.is_empty() {
            kept.files.save(&control)?;
            self.install(&mut kept, control, &changes);
            kept.is_unsaved = false;
            if let Some(notices) = self.notices() {
                changes.iter().for_each(|change| notices.ordered(change));
            }
        }
        Ok(changes)
    }

    /// What would be, with these orders.
    fn with_orders(&self, control: &Control, orders: &[Order], by: &str) -> (Control, Vec<Change>) {
        let stamp = Stamp { now_ms: self.clock.unix_millis(), origin: &self.node, by };
        let mut next = control.clone();
        let changes = orders.iter().filter_map(|order| next.order(order, stamp)).collect();
        (next, changes)
    }

    /// Takes up what a peer knows; says whether the peer lacks something.
    ///
    /// # Errors
    /// When the text is not for this version.
    pub fn merge(&self, text: &str) -> Result<bool, DecodeError> {
        let mut theirs = Control::decode(text)?;
        let mut kept = self.kept();
        let mut control = kept.control.clone();
        let changes = control.merge(&theirs);
        if !changes.is_empty() {
            self.leave_to_others(&kept.control, &changes);
            self.install(&mut kept, control, &changes);
            kept.is_unsaved = true;
            self.save_what_is_not(&mut kept);
        }
        Ok(!theirs.merge(&kept.control).is_empty())
    }

    /// The same order, given to another node as well, has won: that one announces it.
    fn leave_to_others(&self, before: &Control, changes: &[Change]) {
        let Some(notices) = self.notices() else { return };
        for Change { key, entry, .. } in changes {
            if let Some(mine) = before.entry(key).filter(|mine| mine.value == entry.value) {
                notices.superseded(key, mine);
            }
        }
    }

    fn install(&self, kept: &mut Kept, control: Control, changes: &[Change]) {
        self.digest.store(control.digest(), Ordering::Relaxed);
        kept.control = control;
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.iter().for_each(|follower| follower(&kept.control));
        drop(followers);
        for change in changes {
            let Change { key, old, entry } = change;
            // The CLI tells every node at once: the same order of another node is no news for anybody.
            if *old == entry.value {
                continue;
            }
            info!(node = %self.node, order = %key, old = %old, new = %entry.value, by = %entry.by, on = %entry.origin, "ordered");
            self.note(kept, audit_entry(change));
        }
    }

    fn note(&self, kept: &mut Kept, entry: AuditEntry) {
        if let Err(error) = kept.files.note(entry) {
            warn!(node = %self.node, %error, "an order is in force, and not in the audit log on disk");
        }
    }

    fn save_what_is_not(&self, kept: &mut Kept) {
        if kept.is_unsaved {
            match kept.files.save(&kept.control) {
                Ok(()) => kept.is_unsaved = false,
                Err(error) => warn!(node = %self.node, %error, "orders are in force, and not on disk: tried again"),
            }
        }
    }

    /// Once a second: what has reverted is said, what could not be saved is tried again.
    fn tick(&self) {
        let mut kept = self.kept();
        self.save_what_is_not(&mut kept);
        let now = self.now();
        let since = std::mem::replace(&mut kept.reverted, now);
        for (layer, old, new) in kept.control.reverted(since, now) {
            info!(node = %self.node, layer, old, new, "the mode has reverted");
            let entry = AuditEntry { at: now, by: "its own end".into(), what: format!("mode/{layer}"), old, new };
            self.note(&mut kept, entry);
        }
    }

    /// Every change that this node has heard of, latest first.
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.kept().files.audit()
    }

    fn now(&self) -> u64 {
        u64::from(self.clock.unix().0)
    }

    /// Whole between two statements: what is changed is changed in one.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One change in the words of the API.
fn audit_entry(change: &Change) -> AuditEntry {
    let Change { key, old, entry } = change;
    AuditEntry {
        at: entry.when,
        by: format!("{} on {}", entry.by, entry.origin),
        what: key.clone(),
        old: old.clone(),
        new: entry.value.clone(),
    }
}

/// The cluster file's word.
fn mode_of(mode: HealthMode) -> Mode {
    match mode {
        HealthMode::Strict => Mode::Strict,
        HealthMode::Lenient => Mode::Lenient,
        HealthMode::Auto => Mode::Auto,
    }
}

/// Runs one life of the worker `<layer>.health`: time passes for the orders and the pools.
///
/// # Errors
/// Only what a failpoint injects.
pub async fn run(worker: Worker, desk: Arc<Desk>, watches: Vec<Arc<Watch>>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    let mut turn = 0u32;
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("tick").await?;
        if turn.is_multiple_of(DESK_EVERY) {
            desk.tick();
        }
        turn = turn.wrapping_add(1);
        watches.iter().for_each(|watch| watch.tick());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    Ok(())
}
