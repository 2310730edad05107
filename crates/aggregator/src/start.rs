//! Assembling an aggregator in its layer, and taking it down in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use admin::Controls;
use config::{Cluster, Layer, Node};
use engine::batch::{Incarnation, Versions};
use engine::health::{Kind, Probe};
use engine::partial_node;
use engine::pool;
use engine::ring::Ring;
use link::Dialer as _;
use node::desk::{self, Desk, Linked, Operator, Roster, Watch};
use node::rules::RuleBook;
use node::{StartError, VerdictKeeper, io_error};
use runtime::identity::DataDir;
use runtime::{Clock, Supervisor, net};
use telemetry::Telemetry;

use crate::accept::{self, Service};
use crate::controls::AggregatorControls;
use crate::finals::{self, CatchUp, FinalRole};
use crate::forgotten::Forgotten;
use crate::partial::{self, Downlink, PartialRole};
use crate::speaker::Voice;

const BACKLOG: u32 = 1024;
/// Raw batches that a partial role holds for all its senders.
const HOLD_BYTES: u64 = 512 << 20;
/// An unanswered flush goes again after three flush intervals.
const FLUSHES_UNANSWERED: u32 = 3;

/// Shards get this part of the time that is left to take up what has come in: one third.
const SHARE: u32 = 3;
/// How long stores get to read what was emitted. It waits in the log for one that is away, whatever the time given.
const STORES_WITHIN: Duration = Duration::from_secs(3);
/// The workers have this much in any case.
const END_WITHIN: Duration = Duration::from_millis(100);

/// An aggregator that runs.
#[derive(Debug)]
pub struct Running {
    service: Arc<Service>,
    supervisor: Supervisor,
    keeper: Arc<VerdictKeeper>,
    /// Of a partial role: the links to the final nodes.
    downlinks: Vec<Arc<Downlink>>,
    clock: Clock,
    _data: DataDir,
}

impl Running {
    /// The supervisor: `failed()` resolves when the process must end.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Stops in order: senders are told, what is held becomes durable, what was emitted is sent. What is not through at
    /// the deadline is still held by the relays; names of late workers come back.
    pub async fn stop(self, deadline: Duration) -> Vec<String> {
        let end = self.clock.now() + deadline;
        let left = || end.since(self.clock.now());
        self.keeper.draining();
        if let Some(role) = &self.service.partial {
            role.draining.store(true, Ordering::Relaxed);
            role.ring_all();
            // Without a final node nobody answers for it, however long one waits; relays hold all of it.
            let is_answered = || self.downlinks.iter().any(|link| link.standing().is_up());
            while role.machine().held().1 > 0 && is_answered() && !left().is_zero() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if let Some(role) = &self.service.finals {
            role.draining.store(true, Ordering::Relaxed);
            // Who is late with the store is no loss: what has no receipt is emitted again after the start.
            let late = self.supervisor.stop_some("final.shard.", left() / SHARE).await;
            self.supervisor.stop_some("final.store.", left().min(STORES_WITHIN)).await;
            let mut names = self.supervisor.shutdown(left().max(END_WITHIN)).await;
            names.extend(late);
            return names;
        }
        self.supervisor.shutdown(left().max(END_WITHIN)).await
    }
}

/// What both roles need to know of the cluster.
struct Common<'c> {
    cluster: &'c Cluster,
    me: &'c Node,
    clock: Clock,
    incarnation: Incarnation,
    book: Arc<RuleBook>,
    versions: Versions,
    finals: Vec<(String, SocketAddr)>,
    /// For each partition the index of its final node.
    owners: Vec<usize>,
    threads: usize,
    forgotten: Arc<Forgotten>,
}

/// Starts the aggregator `me` of `cluster`, in its layer, on the current tokio runtime.
///
/// # Errors
/// When a port is taken, the data directory is not usable, or the machine gives no thread.
pub fn start(cluster: &Cluster, me: &Node, clock: Clock, cores: usize) -> Result<Running, StartError> {
    let link = me.link.ok_or_else(|| StartError::Config(format!("node {}: an aggregator needs `link`", me.name)))?;
    let listener = Arc::new(net::listen(link, BACKLOG)?);
    let admin_listener = net::listen(me.admin, 128)?;
    let tls = node::Tls::open(cluster, me)?;
    let data = DataDir::open(&me.data)?;
    let identity = data.identity(clock.unix())?;
    let book = Arc::new(RuleBook::open(data.path(), cluster, u64::from(clock.unix().0))?);
    let common = common((cluster, me), clock, identity, book, me.threads.or_cores(cores));
    let supervisor = Supervisor::new(&me.name, clock, node::restart_policy(&cluster.supervise))
        .map_err(io_error("the supervisor"))?;
    tls.watch(me, &supervisor);
    let alone = cluster.layer(Layer::Partial).next().is_none();
    let finals = (me.layer == Layer::Final).then(|| start_final(&common, &supervisor, data.path())).transpose()?;
    let desk = Desk::open(data.path(), Roster::of(cluster), &me.name, clock)?;
    node::notices::start(cluster, me, &supervisor, clock, &desk);
    let partial =
        (me.layer == Layer::Partial || alone).then(|| start_partial(&common, &supervisor, &desk, &tls.link_caller));
    let (partial, (downlinks, watches)) = match partial {
        Some((role, downlinks, watch)) => (Some(role), (downlinks, vec![watch])),
        None => (None, (Vec::new(), Vec::new())),
    };
    let forgotten = Arc::clone(&common.forgotten);
    desk.follow(move |orders| forgotten.set(orders));
    start_health(&supervisor, me.layer, &desk, &watches);
    let keeper = Arc::new(VerdictKeeper::new(supervisor.clone(), clock, cluster.supervise.watchdog));
    let voice =
        Arc::new(Voice { keeper: Arc::clone(&keeper), clock, partial: partial.clone(), finals: finals.clone() });
    let service = Arc::new(Service {
        voice,
        senders: Arc::default(),
        forgotten: Arc::clone(&common.forgotten),
        node: me.name.clone(),
        cluster: cluster.name.clone(),
        versions: common.versions,
        book: Arc::clone(&common.book),
        partitions: cluster.partitions,
        partial,
        finals,
        clock,
        desk: Arc::clone(&desk),
        door: tls.link_door.clone(),
        closed: std::sync::Mutex::default(),
    });
    start_listener(&supervisor, &service, &listener, me.layer);
    let controls = AggregatorControls {
        service: Arc::clone(&service),
        layer: me.layer.as_str(),
        downlinks: downlinks.clone(),
        operator: Operator::new(desk, watches),
        tls: tls.clone(),
        supervisor: supervisor.clone(),
        telemetry: Telemetry::new(&me.name, me.layer.as_str()),
        clock,
        started: clock.now(),
    };
    let controls = Arc::new(controls);
    let reporter = Arc::clone(&controls);
    node::report_own_metrics(cluster, me, (&supervisor, &tls), move |now| {
        reporter.refresh();
        reporter.telemetry.graphite_lines(now)
    });
    node::serve_admin((cluster, &tls), admin_listener, controls as Arc<dyn Controls>, (&supervisor, clock))?;
    keeper.serving();
    Ok(Running { service, supervisor, keeper, downlinks, clock, _data: data })
}

fn common<'c>(
    (cluster, me): (&'c Cluster, &'c Node),
    clock: Clock,
    identity: runtime::identity::Identity,
    book: Arc<RuleBook>,
    threads: usize,
) -> Common<'c> {
    let finals: Vec<(String, SocketAddr)> =
        cluster.layer(Layer::Final).filter_map(|node| node.link.map(|link| (node.name.clone(), link))).collect();
    let names: Vec<String> = finals.iter().map(|(name, _)| name.clone()).collect();
    let owners = pool::assign(cluster.partitions, &names, &vec![true; names.len()]);
    Common {
        versions: Versions { rules: book.in_force().version(), map: pool::map_version(cluster.partitions, &names) },
        owners: owners.into_iter().map(|owner| owner.unwrap_or(0)).collect(),
        incarnation: Incarnation { sender: identity.sender, epoch: identity.epoch, nonce: identity.nonce },
        cluster,
        me,
        clock,
        book,
        finals,
        threads,
        forgotten: Arc::default(),
    }
}

/// The worker that lets time pass for orders and pools.
fn start_health(supervisor: &Supervisor, layer: Layer, desk: &Arc<Desk>, watches: &[Arc<Watch>]) {
    let (desk, watches) = (Arc::clone(desk), watches.to_vec());
    let name = format!("{}.health", layer.as_str());
    supervisor.spawn_task(name, move |worker| desk::run(worker, Arc::clone(&desk), watches.clone()));
}

fn start_partial(
    common: &Common<'_>,
    supervisor: &Supervisor,
    desk: &Arc<Desk>,
    caller: &tls::Caller,
) -> (Arc<PartialRole>, Vec<Arc<Downlink>>, Arc<Watch>) {
    let cluster = common.cluster;
    let role = Arc::new(PartialRole::new(partial::Setup {
        forgotten: Arc::clone(&common.forgotten),
        node: common.me.name.clone(),
        cluster: cluster.name.clone(),
        clock: common.clock,
        incarnation: common.incarnation,
        versions: common.versions,
        partitions: cluster.partitions,
        finals: common.finals.iter().map(|(name, _)| name.clone()).collect(),
        book: Arc::clone(&common.book),
        flush: cluster.final_.flush,
        settings: partial_node::Settings {
            versions: common.versions,
            former_rules: common.book.former().keys().copied().collect(),
            partitions: cluster.partitions,
            owners: common.owners.clone(),
            shards: common.threads,
            hold_bytes: HOLD_BYTES,
            flush_timeout: cluster.final_.flush * FLUSHES_UNANSWERED,
            first_flush: common.incarnation.nonce,
        },
    }));
    for shard in 0..common.threads {
        let role = Arc::clone(&role);
        supervisor
            .spawn_thread(format!("partial.shard.{shard}"), move |worker| partial::run_shard(&worker, &role, shard));
    }
    let names = common.finals.iter().map(|(name, _)| name.clone()).collect();
    let observed = Arc::new(partial::Watching(Arc::clone(&role)));
    let watch = desk::watch(desk, cluster, (Layer::Final, Kind::Fixed, Probe::Link), names, common.clock, observed);
    let start_link = |(owner, (name, addr)): (usize, &(String, SocketAddr))| {
        let downlink = Arc::new(Downlink::new(Arc::clone(&role), owner, Arc::clone(&watch)));
        let linked = Linked::new(desk, Arc::clone(&downlink) as Arc<dyn link::Dialer>);
        let (service, addr, peer, caller) = (linked, addr.to_string(), name.clone(), caller.clone());
        supervisor.spawn_task(format!("partial.link.{name}"), move |worker| {
            let service = Arc::clone(&service) as Arc<dyn link::Dialer>;
            link::dial(worker, (addr.clone(), peer.clone()), caller.clone(), service)
        });
        downlink
    };
    let downlinks = common.finals.iter().enumerate().map(start_link).collect();
    (role, downlinks, watch)
}

fn start_final(common: &Common<'_>, supervisor: &Supervisor, data: &Path) -> Result<Arc<FinalRole>, StartError> {
    let cluster = common.cluster;
    let me = common.finals.iter().position(|(name, _)| *name == common.me.name).unwrap_or(0);
    let mine: Vec<u16> = (0..cluster.partitions).filter(|p| common.owners.get(usize::from(*p)) == Some(&me)).collect();
    let names: Vec<&str> = common.finals.iter().map(|(name, _)| name.as_str()).collect();
    let layout = format!("{} partitions over {}", cluster.partitions, names.join(", "));
    let opener = finals::opener(data, cluster.final_.quota_bytes, &layout)?;
    let catch_up = CatchUp::open(data, cluster.replay.rate.get());
    let setup = finals::Setup {
        forgotten: Arc::clone(&common.forgotten),
        node: common.me.name.clone(),
        clock: common.clock,
        shards: common.threads.min(mine.len()).max(1),
        mine,
        book: Arc::clone(&common.book),
        rings: cluster.stores.iter().map(Ring::build).collect(),
        stores: node::start_stores("final", cluster, supervisor, common.clock)?,
        horizon: cluster.final_.horizon,
        memory_bytes: cluster.final_.memory_bytes as u64,
        quota_bytes: cluster.final_.quota_bytes,
    };
    let role = Arc::new(FinalRole::new(setup, opener, catch_up));
    let log = Arc::clone(&role);
    supervisor.spawn_thread("final.log", move |worker| finals::run_log(&worker, &log));
    for shard in 0..role.setup.shards {
        let role = Arc::clone(&role);
        supervisor.spawn_thread(format!("final.shard.{shard}"), move |worker| finals::run_shard(&worker, &role, shard));
    }
    Ok(role)
}

fn start_listener(
    supervisor: &Supervisor,
    service: &Arc<Service>,
    listener: &Arc<tokio::net::TcpListener>,
    layer: Layer,
) {
    let (name, group) =
        if layer == Layer::Final { ("final.listener", "final.peer") } else { ("partial.listener", "partial.peer") };
    let (service, listener, owner) = (Arc::clone(service), Arc::clone(listener), supervisor.clone());
    supervisor.spawn_task(name, move |worker| {
        accept::listen(worker, Arc::clone(&listener), Arc::clone(&service), owner.clone(), group)
    });
}
