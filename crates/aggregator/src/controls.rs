//! What an aggregator says over its admin API.

use std::collections::BTreeMap;
use std::sync::Arc;

use admin::{Controls, Refusal};
use admin_api::{
    AuditEntry, BadLine, DestinationLedger, Failpoint, Health, Ledger, NodeKnown, PeerStatus, ReplayChange,
    ReplayStatus, Status, Verdict, WorkerStatus,
};
use engine::time::Mono;
use link::Dialer as _;
use node::desk::Operator;
use runtime::{Clock, Supervisor};
use telemetry::{Metric, Telemetry};

use crate::accept::Service;
use crate::finals::{FinalRole, Mode};
use crate::partial::{Downlink, PartialRole};
use crate::partial_lock as lock;

#[derive(Debug)]
pub(crate) struct AggregatorControls {
    pub(crate) service: Arc<Service>,
    pub(crate) layer: &'static str,
    pub(crate) downlinks: Vec<Arc<Downlink>>,
    pub(crate) supervisor: Supervisor,
    pub(crate) telemetry: Telemetry,
    pub(crate) operator: Operator,
    pub(crate) tls: node::Tls,
    pub(crate) clock: Clock,
    pub(crate) started: Mono,
}

impl AggregatorControls {
    fn verdict(&self) -> Verdict {
        node::for_api(self.service.voice.verdict())
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let links = self.downlinks.iter().map(|downlink| PeerStatus {
            peer: downlink.peer().to_owned(),
            state: if downlink.standing().is_up() { "up" } else { "down" }.into(),
            in_flight_points: 0,
            in_flight_bytes: 0,
            oldest_unacked_ms: 0,
            verdict: downlink.standing().verdict().map(node::for_api),
            last_error: downlink.standing().last_error().filter(|_| !downlink.standing().is_up()),
        });
        let stores =
            self.service.finals.iter().flat_map(|role| &role.setup.stores).flat_map(|store| {
                store.senders.iter().map(move |sender| node::store_peer(&store.name, &sender.status()))
            });
        links.chain(stores).collect()
    }

    fn figures(&self) -> BTreeMap<String, u64> {
        let mut figures = BTreeMap::new();
        let mut set = |name: &str, value: u64| {
            figures.insert(name.to_owned(), value);
        };
        if let Some(role) = &self.service.partial {
            let machine = role.machine();
            let (bytes, batches) = machine.held();
            set("batches_held", batches as u64);
            set("batches_held_bytes", bytes);
            set("batches_rebuilt", machine.rebuilt());
            set("duplicate_batches", machine.books().duplicates);
        }
        if let Some(role) = &self.service.finals {
            let states: Vec<_> = role.states.iter().map(lock).collect();
            set("windows", states.iter().map(|state| state.windows).sum());
            set("windows_bytes", states.iter().map(|state| state.bytes).sum());
            set("emitted_lines", states.iter().map(|state| state.emitted_lines).sum());
            set("corrections", states.iter().map(|state| state.corrections).sum());
            set("windows_sealed_early", states.iter().map(|state| state.sealed_early).sum());
            set("duplicate_groups", states.iter().flat_map(|s| s.books.values()).map(|books| books.duplicates).sum());
            set("flushes_put_off", states.iter().map(|state| state.put_off).sum());
            set("dead_letters_unkept", states.iter().map(|state| state.dead_letters_unkept).sum());
            set("windows_waiting", states.iter().flat_map(|state| &state.waiting).map(|w| w.blocks).sum());
            drop(states);
            set("store_bytes", role.used_bytes());
            set("included_lost", u64::from(role.included_lost.load(std::sync::atomic::Ordering::Relaxed)));
            for mode in Mode::ALL {
                set(&format!("store_mode_{}", mode.as_str()), u64::from(role.mode().0 == mode));
            }
            set("inputs_queued", role.queued() as u64);
            set("inputs_refused", role.overflow.load(std::sync::atomic::Ordering::Relaxed));
        }
        figures.extend(self.tls.figures(self.clock.unix()));
        figures
    }

    /// Brings the registry up to date.
    pub(crate) fn refresh(&self) {
        let telemetry = &self.telemetry;
        node::record_ledger(telemetry, &self.ledger());
        node::record_self(telemetry, &self.verdict(), self.clock.now().since(self.started));
        node::record_workers(telemetry, &self.supervisor);
        self.operator.record(telemetry);
        self.tls.record(telemetry);
        node::record_peers(telemetry, &self.peers());
        let figures = self.figures();
        let figure = |name: &str| figures.get(name).copied().unwrap_or(0);
        let duplicates = figure("duplicate_batches") + figure("duplicate_groups");
        telemetry.counter(Metric::DuplicateBatches, &[]).absolute(duplicates);
        if let Some(role) = &self.service.finals {
            node::set_gauge(telemetry, Metric::StoreQuotaBytes, &[], role.setup.quota_bytes);
            node::set_gauge(telemetry, Metric::WindowsOpen, &[], figure("windows"));
            telemetry.counter(Metric::EmittedPoints, &[]).absolute(figure("emitted_lines"));
            telemetry.counter(Metric::Corrections, &[]).absolute(figure("corrections"));
            telemetry.counter(Metric::FlushesPutOff, &[]).absolute(figure("flushes_put_off"));
            telemetry.counter(Metric::WindowsSealedEarly, &[]).absolute(figure("windows_sealed_early"));
            node::set_gauge(telemetry, Metric::WindowsWaiting, &[], figure("windows_waiting"));
            node::set_gauge(telemetry, Metric::IncludedLost, &[], figure("included_lost"));
            node::set_gauge(telemetry, Metric::StoreBytes, &[], figure("store_bytes"));
            for mode in Mode::ALL {
                let is = figure(&format!("store_mode_{}", mode.as_str()));
                node::set_gauge(telemetry, Metric::StoreMode, &[("mode", mode.as_str().to_owned())], is);
            }
        }
        for (reason, n) in lock(&self.service.closed).iter() {
            telemetry.counter(Metric::LinksClosed, &[("reason", (*reason).to_owned())]).absolute(*n);
        }
    }
}

/// The books of a partial role: batches in, answered for by the final layer.
fn partial_ledger(role: &PartialRole) -> Ledger {
    let machine = role.machine();
    let books = machine.books();
    let to_final = DestinationLedger {
        destination: "final".into(),
        owed: books.received,
        delivered: books.delivered,
        in_flight: books.in_flight,
        dropped: books.dropped.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        ..DestinationLedger::default()
    };
    Ledger {
        received: books.received,
        accepted: books.received,
        routed: books.received,
        destinations: vec![to_final],
        ..Ledger::default()
    }
}

/// The books of a final role: points in partials, merged or too old; lines to stores.
fn final_ledger(role: &FinalRole) -> Ledger {
    let mut ledger = Ledger::default();
    let (mut too_old, mut corrupt) = (0, 0);
    for state in &role.states {
        let state = lock(state);
        for books in state.books.values() {
            ledger.received += books.received;
            ledger.in_hand += books.pending;
            ledger.routed += books.merged;
            too_old += books.too_old;
            corrupt += books.corrupt;
        }
    }
    ledger.accepted = ledger.received - ledger.in_hand;
    let reasons = [("too_old", too_old), ("corrupt", corrupt)].into_iter().filter(|(_, points)| *points > 0);
    ledger.dropped.extend(reasons.map(|(why, points)| (why.to_owned(), points)));
    for store in &role.setup.stores {
        let books = DestinationLedger { destination: store.name.clone(), ..DestinationLedger::default() };
        let books = store.senders.iter().fold(books, |books, sender| node::add_store_books(books, &sender.books()));
        ledger.destinations.push(books);
    }
    ledger
}

impl Controls for AggregatorControls {
    fn health(&self) -> Health {
        Health::new(&self.service.node, self.layer, self.verdict())
    }

    fn status(&self) -> Status {
        Status {
            node: self.service.node.clone(),
            layer: self.layer.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.clock.now().since(self.started).as_secs(),
            verdict: self.verdict(),
            workers: self.workers(),
            peers: self.peers(),
            figures: self.figures(),
            ledger: self.ledger(),
        }
    }

    fn ledger(&self) -> Ledger {
        let ledger = match (&self.service.finals, &self.service.partial) {
            (Some(role), _) => final_ledger(role),
            (None, Some(role)) => partial_ledger(role),
            (None, None) => Ledger::default(),
        };
        node::close_books(Ledger { node: self.service.node.clone(), layer: self.layer.into(), ..ledger })
    }

    fn known(&self, name: &str) -> NodeKnown {
        let sender = self.service.forgotten.sender_of(name);
        let dialled = self.downlinks.iter().any(|link| link.peer() == name && link.standing().is_up());
        NodeKnown {
            node: self.service.node.clone(),
            about: name.to_owned(),
            linked: dialled || sender.is_some_and(|sender| self.service.senders.is_present(sender)),
            sender: sender.map(|sender| format!("{sender:016x}")),
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        admin::worker_statuses(&self.supervisor)
    }

    fn badlines(&self) -> Vec<BadLine> {
        Vec::new()
    }

    fn replay(&self) -> Result<ReplayStatus, Refusal> {
        match &self.service.finals {
            Some(role) => {
                let mut status = role.replay_status();
                status.notes.extend(role.notes());
                Ok(status)
            }
            None => Err(Refusal::not_here("a partial node replays nothing; ask a replayer, or a final node")),
        }
    }

    fn change_replay(&self, change: ReplayChange) -> Result<ReplayStatus, Refusal> {
        match &self.service.finals {
            Some(role) => {
                let (status, changed) = role.change_replay(&change)?;
                self.operator.announce("catch_up.", &changed);
                Ok(status)
            }
            None => self.replay(),
        }
    }

    fn orders(&self) -> Option<&dyn admin::Orders> {
        Some(&self.operator)
    }

    fn audit(&self) -> Vec<AuditEntry> {
        self.service.finals.as_ref().map(|role| role.catch_up.audit()).unwrap_or_default()
    }

    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn metrics(&self) -> String {
        self.refresh();
        self.telemetry.render_prometheus()
    }

    fn failpoint(&self, failpoint: Failpoint) -> Result<(), String> {
        admin::arm_failpoint(&self.supervisor, &failpoint)
    }
}
