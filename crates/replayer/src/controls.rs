//! What the replayer says over its admin API, and the operator's hand on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use admin::{Controls, Refusal};
use admin_api::{
    AuditEntry, BadLine, DestinationLedger, Failpoint, Health, Ledger, NodeKnown, PeerStatus, ReplayChange,
    ReplaySource, ReplayStatus, Status, Verdict, WorkerStatus,
};
use engine::pace::{Controller, Held};
use engine::replay::{Books, LaneView, Replay};
use engine::time::Mono;
use link::Dialer as _;
use node::VerdictKeeper;
use node::desk::Operator;
use runtime::Supervisor;
use telemetry::{Metric, Telemetry};

use crate::borrow::Borrower;
use crate::convert;
use crate::send::Sender;
use crate::shared::Shared;

/// All that `limited_by` may say.
const LIMITS: [&str; 6] = ["operator", "receiver", "network", "paused", "cautious", "idle"];

#[derive(Debug)]
pub(crate) struct ReplayerControls {
    pub(crate) shared: Arc<Shared>,
    pub(crate) supervisor: Supervisor,
    pub(crate) telemetry: Telemetry,
    pub(crate) keeper: Arc<VerdictKeeper>,
    pub(crate) started: Mono,
    pub(crate) horizon: Duration,
    pub(crate) borrowers: Vec<Arc<Borrower>>,
    pub(crate) senders: Vec<Arc<Sender>>,
    pub(crate) operator: Operator,
    pub(crate) tls: node::Tls,
}

impl ReplayerControls {
    fn verdict(&self) -> Verdict {
        self.keeper.verdict(0, Duration::ZERO)
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let (up, receivers, names) = {
            let machine = self.shared.machine();
            (machine.sources_up(), machine.receivers(), machine.settings().clone())
        };
        let peer = |name: &String, state: &str| PeerStatus {
            peer: name.clone(),
            state: state.into(),
            in_flight_points: 0,
            in_flight_bytes: 0,
            oldest_unacked_ms: 0,
            verdict: None,
            last_error: None,
        };
        let sources = names.sources.iter().zip(&up).zip(&self.borrowers).map(|((name, up), link)| PeerStatus {
            verdict: link.standing().verdict().map(node::for_api),
            last_error: link.standing().last_error().filter(|_| !up),
            ..peer(name, if *up { "up" } else { "down" })
        });
        let receivers = names.receivers.iter().zip(&receivers).zip(&self.senders).map(|((name, view), link)| {
            let state = match (view.up, view.draining) {
                (true, false) => "up",
                (true, true) => "draining",
                (false, _) => "down",
            };
            PeerStatus {
                in_flight_bytes: view.in_flight_bytes,
                verdict: link.standing().verdict().map(node::for_api),
                last_error: link.standing().last_error().filter(|_| !view.up),
                ..peer(name, state)
            }
        });
        let stores = self.shared.senders.iter().map(|(lane, sender)| {
            let store = lane.split('/').next().unwrap_or(lane);
            node::store_peer(store, &sender.status())
        });
        sources.chain(receivers).chain(stores).collect()
    }

    fn limited_by(controller: &Controller, machine: &Replay, now: Mono) -> &'static str {
        let control = machine.control();
        if machine.is_empty() {
            "idle"
        } else if control.is_paused() {
            "paused"
        } else if control.is_cautious() {
            "cautious"
        } else {
            match controller.held() {
                Held::Paused => "paused",
                Held::Receiver => "receiver",
                // Well below what it may be: it waits for windows, links or the spill.
                Held::Operator if machine.rate_now(now).saturating_mul(10) < controller.rate().saturating_mul(8) => {
                    "network"
                }
                Held::Operator => "operator",
            }
        }
    }

    fn notes(&self, machine: &Replay, status: &ReplayStatus, kept: Option<String>) -> Vec<String> {
        let mut notes: Vec<String> = kept.into_iter().collect();
        let plan = &self.shared.plan;
        if machine.control().is_cautious() {
            let at = match plan.start {
                engine::replay::Start::Floor => {
                    format!("at the floor rate of {}/s; set a rate or resume to end that", plan.floor)
                }
                engine::replay::Start::Paused | engine::replay::Start::Rate => {
                    "paused; resume it, with the rate that you want".to_owned()
                }
            };
            notes.push(format!(
                "more than {} points waited at the start, so the replay came up {at}",
                plan.large_points
            ));
        }
        let replayers = machine.plan().replayers;
        if replayers > 1 {
            notes.push(format!("one of {replayers} replayers: each takes its equal share of the rate"));
        }
        if status.horizon_used_percent >= 80 {
            notes.push(format!(
                "the oldest point is {} % of the horizon old: beyond 100 % points are refused as too old",
                status.horizon_used_percent
            ));
        }
        for source in status.sources.iter().filter(|source| source.pending_points > 0) {
            if let Some(error) = &source.last_error {
                notes.push(format!("{}/{}: {error}", source.source, source.destination));
            }
        }
        notes
    }

    fn replay_status(&self) -> ReplayStatus {
        let now = self.shared.clock.now();
        let unix = u64::from(self.shared.clock.unix().0);
        let (kept, note) = self.shared.kept();
        // Before the machine: that is the order of their locks.
        let controller = self.shared.controller();
        let machine = self.shared.machine();
        let (points, bytes) = machine.backlog_size();
        let rate = machine.rate_now(now);
        let limited_by = Self::limited_by(&controller, &machine, now);
        let oldest = machine.oldest().map(|at| u64::from(at.0));
        let age = oldest.map_or(0, |at| unix.saturating_sub(at));
        let names = &machine.settings().sources;
        let source = |view| source_status(&names[..], view);
        let mut settings = kept;
        convert::put(machine.control(), &mut settings);
        settings.settings.paused = machine.control().is_paused();
        let mut status = ReplayStatus {
            node: self.shared.node.clone(),
            layer: "replayer".into(),
            settings: settings.settings,
            rate_now: rate,
            ceiling_now: controller.rate(),
            limited_by: limited_by.into(),
            backlog_points: points,
            backlog_bytes: bytes,
            eta_seconds: (rate > 0 && points > 0).then(|| points.div_ceil(rate)),
            oldest,
            horizon_seconds: self.horizon.as_secs(),
            horizon_used_percent: age.saturating_mul(100) / self.horizon.as_secs().max(1),
            sources: machine.lanes(now, limited_by).into_iter().map(source).collect(),
            notes: Vec::new(),
        };
        status.notes = self.notes(&machine, &status, note);
        status
    }

    /// Brings the registry up to date.
    pub(crate) fn refresh(&self) {
        let telemetry = &self.telemetry;
        node::record_ledger(telemetry, &self.ledger());
        node::record_self(telemetry, &self.verdict(), self.shared.clock.now().since(self.started));
        node::record_workers(telemetry, &self.supervisor);
        self.operator.record(telemetry);
        self.tls.record(telemetry);
        node::record_peers(telemetry, &self.peers());
        let status = self.replay_status();
        node::set_gauge(telemetry, Metric::ReplayRate, &[], status.rate_now);
        node::set_gauge(telemetry, Metric::ReplayCeiling, &[], status.ceiling_now);
        let used = u32::try_from(status.horizon_used_percent).map_or(f64::INFINITY, f64::from) / 100.0;
        telemetry.gauge(Metric::ReplayHorizonUsed, &[]).set(used);
        let mut backlog = BTreeMap::<String, u64>::new();
        for source in &status.sources {
            *backlog.entry(source.source.clone()).or_default() += source.pending_points;
        }
        for (source, points) in backlog {
            node::set_gauge(telemetry, Metric::ReplayBacklog, &[("source", source)], points);
        }
        for by in LIMITS {
            let is = u64::from(status.limited_by == by);
            node::set_gauge(telemetry, Metric::ReplayLimited, &[("by", by.to_owned())], is);
        }
        let (_, books) = self.shared.machine().books();
        node::set_gauge(telemetry, Metric::ReplayLeased, &[], books.in_flight);
        let settled = |outcome: &str, points| {
            telemetry.counter(Metric::ReplaySettled, &[("outcome", outcome.to_owned())]).absolute(points);
        };
        settled("delivered", books.delivered);
        settled("released", books.returned);
        books.refused.iter().for_each(|(reason, points)| settled(reason, *points));
    }
}

fn source_status(names: &[String], view: LaneView) -> ReplaySource {
    let waits = view.backlog.points > 0;
    ReplaySource {
        source: names.get(view.source).cloned().unwrap_or_default(),
        destination: view.backlog.destination,
        connected: view.connected,
        pending_points: view.backlog.points,
        pending_batches: view.backlog.batches,
        pending_bytes: view.backlog.bytes,
        leased_points: view.books.in_flight,
        done_points: view.books.delivered,
        refused: view.books.refused.iter().map(|(reason, points)| ((*reason).to_owned(), *points)).collect(),
        head: view.backlog.head,
        tail: view.backlog.tail,
        oldest: waits.then(|| u64::from(view.backlog.oldest.0)),
        newest: waits.then(|| u64::from(view.backlog.newest.0)),
        rate_now: view.rate_now,
        paused: view.paused,
        rate: view.rate,
        limited_by: view.limited_by.into(),
        last_error: view.last_error,
    }
}

/// `received` is what was borrowed. What was refused for good is in the relay's dead letters, and `dropped` here as there.
fn destination(name: String, books: &Books) -> DestinationLedger {
    DestinationLedger {
        destination: name,
        owed: books.leased,
        delivered: books.delivered,
        in_flight: books.in_flight,
        returned: books.returned,
        dropped: books.refused.iter().map(|(reason, points)| ((*reason).to_owned(), *points)).collect(),
        ..DestinationLedger::default()
    }
}

impl Controls for ReplayerControls {
    fn health(&self) -> Health {
        Health::new(&self.shared.node, "replayer", self.verdict())
    }

    fn status(&self) -> Status {
        let (bytes, records) = self.shared.machine().here();
        let status = self.replay_status();
        let figures = [
            ("records_held", records as u64),
            ("records_held_bytes", bytes),
            ("replay_rate", status.rate_now),
            ("replay_ceiling", status.ceiling_now),
            ("replay_backlog_points", status.backlog_points),
        ];
        Status {
            node: self.shared.node.clone(),
            layer: "replayer".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.shared.clock.now().since(self.started).as_secs(),
            verdict: self.verdict(),
            workers: self.workers(),
            peers: self.peers(),
            figures: figures
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .chain(self.tls.figures(self.shared.clock.unix()))
                .collect(),
            ledger: self.ledger(),
        }
    }

    fn ledger(&self) -> Ledger {
        let (by, all) = self.shared.machine().books();
        node::close_books(Ledger {
            node: self.shared.node.clone(),
            layer: "replayer".into(),
            received: all.leased,
            accepted: all.leased,
            routed: all.leased,
            destinations: by.into_iter().map(|(name, books)| destination(name, &books)).collect(),
            ..Ledger::default()
        })
    }

    fn known(&self, name: &str) -> NodeKnown {
        let settings = self.shared.machine().settings().clone();
        let sources = settings.sources.iter().zip(self.borrowers.iter().map(|link| link.standing().is_up()));
        let receivers = settings.receivers.iter().zip(self.senders.iter().map(|link| link.standing().is_up()));
        let linked = sources.chain(receivers).any(|(peer, is_up)| peer == name && is_up);
        NodeKnown { node: self.shared.node.clone(), about: name.to_owned(), linked, sender: None }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        admin::worker_statuses(&self.supervisor)
    }

    fn badlines(&self) -> Vec<BadLine> {
        Vec::new()
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

    fn replay(&self) -> Result<ReplayStatus, Refusal> {
        Ok(self.replay_status())
    }

    fn change_replay(&self, change: ReplayChange) -> Result<ReplayStatus, Refusal> {
        let changed = self
            .shared
            .change(&convert::change(&change), &change.by)
            .map_err(|(wrong, why)| if wrong { Refusal::invalid(why) } else { Refusal::unavailable(why) })?;
        self.operator.announce("replay.", &changed);
        Ok(self.replay_status())
    }

    fn orders(&self) -> Option<&dyn admin::Orders> {
        Some(&self.operator)
    }

    fn audit(&self) -> Vec<AuditEntry> {
        self.shared.audit()
    }
}
