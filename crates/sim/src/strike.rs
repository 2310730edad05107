//! What goes wrong goes wrong here: a planned [`Fault`] strikes the world.

use std::ops::ControlFlow;
use std::time::Duration;

use engine::batch::BatchId;
use engine::health::Hand;
use engine::replay::Change;
use engine::spill;
use engine::time::Mono;
use store::{Fault as DiskFault, FaultPlan, Store};

use crate::disk::Disk;
use crate::faults::{DiskTrouble, Fault, Forgets, KINDS, Order};
use crate::file::FileId;
use crate::lines::Kept;
use crate::rng::Rng;
use crate::setup::{LinkKind, NodeId, Role};
use crate::truth::Fate;
use crate::world::{Event, Process, World};

/// Seconds; more than any clock is wrong otherwise.
const AHEAD: i64 = 30;

impl World {
    /// Something goes wrong now.
    pub fn strike(&mut self, fault: Fault) {
        self.trace.note(self.now, 7, fault.kind() as u64);
        self.trace.say(self.now, || format!("{fault:?}"));
        if self.finds(&fault) {
            self.truth.visit(KINDS[fault.kind()]);
        }
        match fault {
            Fault::Kill { node, down_ms } => self.fell(node, down_ms, false, |_, _| {}),
            Fault::PowerCut { node, down_ms } => self.fell(node, down_ms, true, |disk, rng| disk.power_cut(rng)),
            Fault::DiskLost { node, down_ms } => {
                self.doubt_disk(node);
                self.fell(node, down_ms, true, |disk, _| *disk = Disk::default());
            }
            Fault::Snapshot { node } => {
                let host = &mut self.hosts[node];
                host.snapshot = Some(host.disk.copy());
            }
            Fault::RollBack { node, down_ms } => {
                if let Some(old) = self.hosts[node].snapshot.take() {
                    self.doubt_disk(node);
                    // Its clock has not gone back as well, and the same second does not come twice: otherwise nobody
                    // could tell its lives apart but by the nonce.
                    let host = &mut self.hosts[node];
                    host.roll_backs += 1;
                    host.skew = AHEAD + 2 * host.roll_backs;
                    self.fell(node, down_ms, true, |disk, _| *disk = old);
                }
            }
            Fault::Cut { from, to, both, ms } => {
                self.cut(from, to, ms);
                if both {
                    self.cut(to, from, ms);
                }
            }
            Fault::Isolate { node, ms } => self.isolate(node, ms),
            Fault::Reset { link } => {
                if let Some(conn) = self.dials[link].conn {
                    self.close(conn, 0, false);
                    self.close(conn, 1, false);
                }
            }
            Fault::HalfOpen { link, side } => {
                // A plain store's end is closed by its process only.
                let is_plain = self.setup.links[link].kind == LinkKind::Plain;
                if let Some(conn) = self.dials[link].conn.filter(|_| !is_plain) {
                    self.close(conn, side, false);
                }
            }
            Fault::Pause { node, ms } => self.hosts[node].paused_until = self.now + Duration::from_millis(ms),
            Fault::Panic { node, which } => self.panics(node, which),
            Fault::Skew { node, seconds } => {
                if self.hosts[node].process.is_some() {
                    self.hosts[node].skew = seconds;
                }
            }
            Fault::Disk { node, nth, writes, kind } => self.hosts[node].disk.store.set_faults(plan(nth, writes, kind)),
            Fault::Damage { node, pick } => self.damage(node, pick),
            Fault::Operator { node, what } => self.order(node, what),
            Fault::SlowReader { node, ms, each_ms } => {
                let until = self.now + Duration::from_millis(ms);
                self.hosts[node].slow = Some((until, Duration::from_millis(each_ms)));
            }
            Fault::Repeat { link, ms } => {
                self.dials[link].heard = Some(Vec::new());
                self.plan(self.now + Duration::from_millis(ms), Event::Fault(Fault::Reset { link }));
            }
            Fault::File { file, order } => self.roll_out(file, order),
            Fault::Peers { adds, drops, order } => self.change_peers(adds, drops, order),
            Fault::KillThenPower { node, down_ms, after_ms } => {
                self.fell(node, down_ms, false, |_, _| {});
                let again = Fault::PowerCut { node, down_ms };
                self.plan(self.now + Duration::from_millis(down_ms + after_ms), Event::Fault(again));
            }
            Fault::Forget { node, how } => self.forget(node, how),
            Fault::Clone { node, twins } => self.copy_disk(node, twins),
            Fault::Hang { node, which, ms } => self.hang(node, which, Duration::from_millis(ms)),
            Fault::Rot { node, what, pick, down_ms } => self.rot(node, what, pick, down_ms),
            Fault::Poison { node } => {
                let sender = self.hosts[node].disk.identity.map(|(sender, _)| sender);
                self.truth.poison_next.extend(sender);
            }
        }
    }

    /// Whether there is anything that this can strike now.
    fn finds(&self, fault: &Fault) -> bool {
        match fault {
            Fault::RollBack { node, .. } => self.hosts[*node].snapshot.is_some() && self.hosts[*node].process.is_some(),
            Fault::Reset { link } | Fault::HalfOpen { link, .. } | Fault::Repeat { link, .. } => {
                self.dials[*link].conn.is_some()
            }
            Fault::File { file, .. } => *file != self.file,
            Fault::Peers { adds, drops, .. } => self.peers_with(*adds, *drops) != self.peers,
            Fault::Kill { node, .. }
            | Fault::KillThenPower { node, .. }
            | Fault::SlowReader { node, .. }
            | Fault::Forget { node, .. }
            | Fault::Clone { node, .. }
            | Fault::Hang { node, .. }
            | Fault::Rot { node, .. }
            | Fault::Poison { node }
            | Fault::PowerCut { node, .. }
            | Fault::DiskLost { node, .. }
            | Fault::Snapshot { node }
            | Fault::Cut { from: node, .. }
            | Fault::Isolate { node, .. }
            | Fault::Pause { node, .. }
            | Fault::Panic { node, .. }
            | Fault::Skew { node, .. }
            | Fault::Disk { node, .. }
            | Fault::Damage { node, .. }
            | Fault::Operator { node, .. } => self.hosts[*node].process.is_some(),
        }
    }

    pub fn fell(&mut self, node: NodeId, down_ms: u64, silently: bool, disk: impl FnOnce(&mut Disk, &mut Rng)) {
        if self.hosts[node].process.is_none() {
            return;
        }
        self.kill(node, silently);
        let mut rng = self.rng.fork();
        disk(&mut self.hosts[node].disk, &mut rng);
        self.plan(self.now + Duration::from_millis(down_ms), Event::Start(node));
    }

    fn isolate(&mut self, node: NodeId, ms: u64) {
        for other in 0..self.hosts.len() {
            self.cut(node, other, ms);
            self.cut(other, node, ms);
        }
    }

    fn copy_disk(&mut self, node: NodeId, twins: Option<u64>) {
        let spare = self.setup.spare(|role| matches!(role, Role::Relay(_)));
        let Some(spare) = spare.filter(|spare| self.hosts[*spare].gone && self.hosts[node].process.is_some()) else {
            return;
        };
        if let Some(ms) = twins {
            self.kill(node, false);
            self.hosts[spare].skew = self.hosts[node].skew;
            self.isolate(node, ms);
            self.isolate(spare, ms);
        }
        self.truth.has_clones = true;
        self.truth.lines.is_copied(node);
        self.hosts[spare].disk = self.hosts[node].disk.copy();
        self.hosts[spare].gone = false;
        self.start(spare);
        self.start(node);
    }

    fn roll_out(&mut self, file: FileId, order: u64) {
        if file == self.file {
            return;
        }
        self.file = file;
        self.restart_all(order, |process| process.file().is_some());
    }

    /// The list of partial nodes as it would be. Two are always left.
    fn peers_with(&self, adds: bool, drops: Option<usize>) -> Vec<usize> {
        let mut peers = self.peers.clone();
        let spare = self.setup.spare(|role| matches!(role, Role::Partial(_))).filter(|_| adds);
        if let Some(Role::Partial(index)) = spare.map(|spare| self.setup.nodes[spare])
            && !peers.contains(&index)
        {
            peers.push(index);
        }
        if peers.len() > 2 {
            peers.retain(|peer| Some(*peer) != drops);
        }
        peers
    }

    fn change_peers(&mut self, adds: bool, drops: Option<usize>, order: u64) {
        let peers = self.peers_with(adds, drops);
        for node in 0..self.hosts.len() {
            self.hosts[node].peers.clone_from(&peers);
            let Role::Partial(index) = self.setup.nodes[node] else { continue };
            if peers.contains(&index) && self.hosts[node].gone {
                self.hosts[node].gone = false;
                self.start(node);
            } else if !peers.contains(&index) {
                // Before, while or after the others hear of it.
                let ms = Rng::new(order ^ 1).range(0, 20_000);
                self.plan(self.now + Duration::from_millis(ms), Event::TakenDown(node));
            }
        }
        if peers != self.peers {
            self.peers = peers;
            self.restart_all(order, |process| process.peers().is_some());
        }
    }

    /// One by one, in an order that `order` says.
    fn restart_all(&mut self, order: u64, who: impl Fn(&Process) -> bool) {
        let mut rng = Rng::new(order);
        for node in 0..self.hosts.len() {
            // A copy of a relay comes last: of two that start within a second only the nonce would differ.
            let after = if node < self.setup.regular { 0 } else { 20_000 };
            let at = self.now + Duration::from_millis(after + rng.range(0, 15_000));
            let down_ms = rng.range(300, 2_000);
            if self.hosts[node].process.as_ref().is_some_and(&who) {
                self.plan(at, Event::Fault(Fault::Kill { node, down_ms }));
            }
        }
    }

    /// An operator forgets a relay. Some nodes hear of it at once, others later, from their peers.
    fn forget(&mut self, node: NodeId, how: Forgets) {
        let Some((sender, _)) = self.hosts[node].disk.identity else { return };
        let back = match how {
            Forgets::AtWork => None,
            Forgets::ForEver => Some(None),
            Forgets::ComesBack { ms } | Forgets::Replaced { ms } => Some(Some(ms)),
        };
        if let Some(back) = back {
            self.kill(node, true);
            self.hosts[node].gone = true;
            if let Some(ms) = back {
                self.plan(self.now + Duration::from_millis(ms), Event::Return(node));
            }
        }
        if matches!(how, Forgets::Replaced { .. }) {
            self.hosts[node].disk = Disk::default();
            self.hosts[node].snapshot = None;
        }
        if matches!(how, Forgets::Replaced { .. } | Forgets::ForEver) {
            self.truth.lines.disk_died(node);
        }
        self.truth.forgotten.insert(sender);
        let mut rng = self.rng.fork();
        for other in 0..self.hosts.len() {
            let ms = if rng.percent(70) { rng.range(1, 300) } else { rng.range(300, 8_000) };
            self.plan(self.now + Duration::from_millis(ms), Event::Ordered(other, sender));
        }
    }

    /// What only the disk of a relay has may be gone.
    fn doubt_disk(&mut self, node: NodeId) {
        if let Some((sender, _)) = self.hosts[node].disk.identity {
            let spilled = self.truth.of_sender(sender, Fate::Spilled);
            self.truth.doubt(spilled);
        }
        self.truth.lines.disk_died(node);
    }

    fn damage(&mut self, node: NodeId, pick: usize) {
        let (from, to) = spill::all_records();
        let setup = &self.setup;
        let mut records: Vec<(Vec<u8>, Option<BatchId>, Option<Kept>)> = Vec::new();
        let copy = self.hosts[node].disk.store.copy().open();
        let read = copy.salvage(&from, &to, &mut |key, value| {
            let header = spill::decode(value).ok().map(|record| record.header);
            let id = header.as_ref().and_then(|header| match header.content {
                spill::Content::Batch(id) => Some(id),
                spill::Content::Block { .. } => None,
            });
            let kept = header.and_then(|header| Kept::of(&header, node, setup.store_of(header.destination)));
            records.push((key.to_vec(), id, kept));
            ControlFlow::Continue(())
        });
        drop(read);
        if records.is_empty() {
            return;
        }
        let (key, id, kept) = &records[pick % records.len()];
        self.truth.visit("record damaged");
        self.truth.doubt(*id);
        if let Some(kept) = kept {
            self.truth.lines.record_lost(*kept);
        }
        self.hosts[node].disk.store.set_faults(FaultPlan::new().damage(key));
    }

    fn cut(&mut self, from: NodeId, to: NodeId, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        let entry = self.cuts.entry((from, to)).or_insert(Mono::ZERO);
        *entry = (*entry).max(until);
    }

    fn panics(&mut self, node: NodeId, which: u64) {
        self.call(node, |process, cx| match process {
            Process::Relay(relay) if which.is_multiple_of(2) => relay.machine_panics(cx),
            Process::Relay(relay) => relay.spill.thread_dies(cx),
            Process::Partial(partial) if which.is_multiple_of(3) => partial.machine_panics(cx),
            Process::Partial(partial) => {
                partial.shard_panics(cx, usize::from(which & 4 != 0), which & 8 != 0);
            }
            Process::Final(node) => node.shard_panics(cx),
            Process::Replayer(replayer) => replayer.machine_panics(cx),
            Process::Store(_) => {}
        });
    }

    fn hang(&mut self, node: NodeId, which: u64, lasts: Duration) {
        self.call(node, |process, cx| match process {
            Process::Relay(relay) => relay.spill.hangs(lasts),
            Process::Partial(partial) => partial.shard_hangs(cx, usize::from(which & 1 != 0), lasts),
            Process::Final(node) => node.shard_hangs(cx, lasts),
            Process::Replayer(_) | Process::Store(_) => {}
        });
    }

    fn order(&mut self, node: NodeId, what: Order) {
        self.call(node, |process, cx| {
            let orders = match process {
                Process::Relay(relay) => &mut relay.orders,
                Process::Partial(partial) => &mut partial.orders,
                Process::Replayer(replayer) => {
                    if let Some(change) = change(what) {
                        replayer.change(cx, &change);
                        return;
                    }
                    &mut replayer.orders
                }
                Process::Final(_) | Process::Store(_) => return,
            };
            let count = orders.hands.len();
            match what {
                Order::Drain { peer } => orders.hands[peer % count] = Hand::Drained,
                Order::Undrain { peer } => orders.hands[peer % count] = Hand::Off,
                Order::Mode { strict: true } => orders.mode = engine::health::Mode::Strict,
                Order::Mode { strict: false } => orders.mode = engine::health::Mode::Lenient,
                Order::Auto => orders.mode = engine::health::Mode::Auto,
                Order::Rate { .. } | Order::PauseReplay | Order::ResumeReplay => {}
            }
        });
    }

    /// Nothing goes wrong any more; what is down starts, and operators take their orders back.
    pub fn heal(&mut self) {
        self.trace.say(self.now, || "healed".to_owned());
        self.cuts.clear();
        for node in 0..self.hosts.len() {
            self.hosts[node].paused_until = Mono::ZERO;
            self.hosts[node].slow = None;
            self.hosts[node].disk.store.set_faults(FaultPlan::new());
            // Who still runs with an older file is restarted.
            let process = self.hosts[node].process.as_ref();
            let is_behind = process.and_then(Process::file).is_some_and(|file| file != self.file)
                || process.and_then(Process::peers).is_some_and(|peers| peers != self.peers);
            if is_behind && node < self.setup.regular {
                self.kill(node, false);
            } else if is_behind {
                let last = Fault::Kill { node, down_ms: 500 };
                self.plan(self.now + Duration::from_secs(3), Event::Fault(last));
            }
            self.start(node);
            for what in [
                Order::Undrain { peer: 0 },
                Order::Undrain { peer: 1 },
                Order::Undrain { peer: 2 },
                Order::Undrain { peer: 3 },
                Order::Auto,
            ] {
                self.order(node, what);
            }
            self.order(node, Order::Rate { rate: 50_000 });
            self.order(node, Order::ResumeReplay);
        }
    }
}

fn change(what: Order) -> Option<Change> {
    Some(match what {
        Order::Rate { rate } => Change { rate: Some(rate), ..Change::default() },
        Order::PauseReplay => Change { paused: Some(true), ..Change::default() },
        Order::ResumeReplay => Change { paused: Some(false), ..Change::default() },
        Order::Drain { .. } | Order::Undrain { .. } | Order::Mode { .. } | Order::Auto => return None,
    })
}

fn plan(nth: u64, writes: u64, kind: DiskTrouble) -> FaultPlan {
    let of = |fault| (nth..nth + writes).fold(FaultPlan::new(), |plan, at| plan.fail_write(at, fault));
    match kind {
        DiskTrouble::Read => (nth..nth + writes).fold(FaultPlan::new(), FaultPlan::fail_read),
        DiskTrouble::Full => of(DiskFault::Full),
        DiskTrouble::Busy => of(DiskFault::Busy),
        DiskTrouble::Write { applied } => FaultPlan::new().fail_write(nth, DiskFault::Io { applied }),
        DiskTrouble::Sync { applied } => FaultPlan::new().fail_sync(nth, DiskFault::Io { applied }),
    }
}
