//! Assembling a replayer, and taking it down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::Controls;
use config::{Cluster, Layer, Node};
use engine::batch::{Incarnation, Versions};
use engine::health::{Kind, Probe};
use engine::pool;
use engine::replay::{Replay, Settings};
use link::Dialer;
use node::desk::{self, Desk, Linked, Operator, Roster, Watch};
use node::rules::RuleBook;
use node::{StartError, VerdictKeeper, io_error};
use runtime::identity::DataDir;
use runtime::{Clock, Supervisor, net};
use telemetry::Telemetry;
use tracing::warn;

use crate::borrow::Borrower;
use crate::controls::ReplayerControls;
use crate::send::Sender;
use crate::settings::SettingsFile;
use crate::shared::{Greeting, Parts, Shared};
use crate::watching::Watching;
use crate::{convert, keep, pacing, stores};

/// How long the last outcomes get to reach the relays.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long stores get to read what is on its way to them, and to say so. What has no receipt then is lent again by its relay,
/// so nothing is gained by waiting for a store that is away.
const STORES_WITHIN: Duration = Duration::from_secs(2);

/// A replayer that runs.
#[derive(Debug)]
pub struct Running {
    supervisor: Supervisor,
    keeper: Arc<VerdictKeeper>,
    shared: Arc<Shared>,
    #[cfg(test)]
    controls: Arc<ReplayerControls>,
    _data: DataDir,
}

impl Running {
    #[cfg(test)]
    pub(crate) fn controls(&self) -> &ReplayerControls {
        &self.controls
    }

    /// The supervisor: `failed()` resolves when the process must end.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Stops: what is borrowed is given back, and the relays are told what is known. Names of late workers come back.
    pub async fn stop(self, deadline: Duration) -> Vec<String> {
        let clock = self.shared.clock;
        let latest = clock.now() + deadline;
        let left = || latest.since(clock.now());
        self.keeper.draining();
        // `replayer.stores` goes on meanwhile, so that receipts are told; whoever is late here loses nothing.
        self.supervisor.stop_some("replayer.store.", left().min(STORES_WITHIN)).await;
        self.supervisor.stop_some("replayer.keeper", LAST_WORDS).await;
        self.shared.machine().give_back_all();
        self.shared.wake_all();
        let end = clock.now() + left().min(LAST_WORDS);
        let pending = || {
            let machine = self.shared.machine();
            let up = machine.sources_up();
            up.iter().enumerate().any(|(source, up)| *up && machine.has_done(source))
        };
        while pending() && clock.now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.supervisor.shutdown(left().max(Duration::from_millis(100))).await
    }
}

/// Starts the replayer `me` of `cluster` on the current tokio runtime.
///
/// # Errors
/// When a port is taken, the data directory is not usable, or the machine gives no thread.
pub fn start(cluster: &Cluster, me: &Node, clock: Clock) -> Result<Running, StartError> {
    let admin_listener = net::listen(me.admin, 128)?;
    let tls = node::Tls::open(cluster, me)?;
    let data = DataDir::open(&me.data)?;
    let book = RuleBook::open(data.path(), cluster, u64::from(clock.unix().0))?;
    let identity = data.identity(clock.unix())?;
    let incarnation = Incarnation { sender: identity.sender, epoch: identity.epoch, nonce: identity.nonce };
    let supervisor = Supervisor::new(&me.name, clock, node::restart_policy(&cluster.supervise))
        .map_err(io_error("the supervisor"))?;
    tls.watch(me, &supervisor);
    let (sources, source_addrs) = links(cluster, Layer::Relay);
    let takes_batches = if cluster.layer(Layer::Partial).next().is_some() { Layer::Partial } else { Layer::Final };
    let (receivers, receiver_addrs) = links(cluster, takes_batches);
    let (file, kept, note) = SettingsFile::open(data.path(), u64::from(clock.unix().0))
        .map_err(|error| io_error("the settings of the replay")(std::io::Error::other(error)))?;
    if let Some(note) = &note {
        warn!(node = %me.name, "{note}");
    }
    let plan = convert::plan(&cluster.replay, cluster.layer(Layer::Replayer).count());
    let senders = stores::start(cluster, &supervisor, clock)?;
    let names = Settings {
        sources: sources.clone(),
        receivers: receivers.clone(),
        stores: senders.iter().map(|(lane, _)| lane.clone()).collect(),
    };
    let control = convert::control(&kept, &cluster.replay);
    let shared = Arc::new(Shared::new(Parts {
        node: me.name.clone(),
        clock,
        greeting: greeting(cluster, incarnation, book),
        plan,
        machine: Replay::new(names, plan, control),
        senders,
        file,
        kept,
        note,
    }));
    shared.refresh_rate(|_| {});
    let desk = Desk::open(data.path(), Roster::of(cluster), &me.name, clock)?;
    node::notices::start(cluster, me, &supervisor, clock, &desk);
    let (all, follower): (Vec<String>, _) =
        (cluster.layer(Layer::Replayer).map(|node| node.name.clone()).collect(), Arc::clone(&shared));
    desk.follow(move |orders| {
        let forgotten = orders.forgotten().filter(|(name, _)| all.iter().any(|of| of == name)).count();
        follower.set_replayers(all.len() - forgotten);
    });
    // What a replayer sends is the relays': it has no batches of its own to prove a node with.
    let pool = (takes_batches, Kind::Free, Probe::Link);
    let observed = Arc::new(Watching(Arc::clone(&shared)));
    let watch = desk::watch(&desk, cluster, pool, receivers.clone(), clock, observed);
    let (borrowers, senders) = (borrowers(&shared, &sources), sender_links(&shared, receivers.len(), &watch));
    let keeper = Arc::new(VerdictKeeper::new(supervisor.clone(), clock, cluster.supervise.watchdog));
    let controls = Arc::new(ReplayerControls {
        shared: Arc::clone(&shared),
        supervisor: supervisor.clone(),
        telemetry: Telemetry::new(&me.name, "replayer"),
        keeper: Arc::clone(&keeper),
        started: clock.now(),
        horizon: cluster.final_.horizon,
        borrowers: borrowers.clone(),
        senders: senders.clone(),
        operator: Operator::new(Arc::clone(&desk), vec![Arc::clone(&watch)]),
        tls: tls.clone(),
    });
    let reporter = Arc::clone(&controls);
    #[cfg(test)]
    let for_tests = Arc::clone(&controls);
    node::report_own_metrics(cluster, me, (&supervisor, &tls), move |now| {
        reporter.refresh();
        reporter.telemetry.graphite_lines(now)
    });
    let borrowing = borrowers.into_iter().map(|link| Linked::new(&desk, link) as Arc<dyn Dialer>);
    dial((&supervisor, &tls.link_caller), "replayer.source", &sources, &source_addrs, borrowing);
    let sending = senders.into_iter().map(|link| Linked::new(&desk, link) as Arc<dyn Dialer>);
    dial((&supervisor, &tls.link_caller), "replayer.link", &receivers, &receiver_addrs, sending);
    start_workers(&supervisor, &shared);
    let watches = vec![watch];
    supervisor.spawn_task("replayer.health", move |worker| desk::run(worker, Arc::clone(&desk), watches.clone()));
    node::serve_admin((cluster, &tls), admin_listener, controls as Arc<dyn Controls>, (&supervisor, clock))?;
    keeper.serving();
    Ok(Running {
        supervisor,
        keeper,
        shared,
        #[cfg(test)]
        controls: for_tests,
        _data: data,
    })
}

fn links(cluster: &Cluster, layer: Layer) -> (Vec<String>, Vec<SocketAddr>) {
    cluster.layer(layer).filter_map(|node| node.link.map(|link| (node.name.clone(), link))).unzip()
}

fn greeting(cluster: &Cluster, incarnation: Incarnation, book: RuleBook) -> Greeting {
    let finals: Vec<String> = cluster.layer(Layer::Final).map(|node| node.name.clone()).collect();
    let versions = Versions { rules: book.in_force().version(), map: pool::map_version(cluster.partitions, &finals) };
    Greeting {
        cluster: cluster.name.clone(),
        incarnation,
        versions,
        partitions: cluster.partitions,
        book: Arc::new(book),
    }
}

fn borrowers(shared: &Arc<Shared>, names: &[String]) -> Vec<Arc<Borrower>> {
    let link = |(index, name): (usize, &String)| Arc::new(Borrower::new(Arc::clone(shared), index, name.clone()));
    names.iter().enumerate().map(link).collect()
}

fn sender_links(shared: &Arc<Shared>, receivers: usize, watch: &Arc<Watch>) -> Vec<Arc<Sender>> {
    let link = |receiver| Arc::new(Sender::new(Arc::clone(shared), receiver, Arc::clone(watch)));
    (0..receivers).map(link).collect()
}

fn dial(
    (supervisor, caller): (&Supervisor, &tls::Caller),
    prefix: &str,
    names: &[String],
    addrs: &[SocketAddr],
    links: impl Iterator<Item = Arc<dyn Dialer>>,
) {
    for ((name, addr), service) in names.iter().zip(addrs).zip(links) {
        let (peer, addr, caller) = (name.clone(), addr.to_string(), caller.clone());
        supervisor.spawn_task(format!("{prefix}.{name}"), move |worker| {
            link::dial(worker, (addr.clone(), peer.clone()), caller.clone(), Arc::clone(&service))
        });
    }
}

fn start_workers(supervisor: &Supervisor, shared: &Arc<Shared>) {
    let state = Arc::clone(shared);
    supervisor.spawn_task("replayer.pacer", move |worker| pacing::run(worker, Arc::clone(&state)));
    let state = Arc::clone(shared);
    supervisor.spawn_task("replayer.keeper", move |worker| keep::run(worker, Arc::clone(&state)));
    let state = Arc::clone(shared);
    supervisor.spawn_task("replayer.stores", move |worker| stores::run(worker, Arc::clone(&state)));
}
