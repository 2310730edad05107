//! Assembling a relay, and taking it down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::Controls;
use config::{Cluster, Layer, Node, SpillSync};
use engine::batch::{Incarnation, Versions};
use engine::control::Forgotten;
use engine::health::{Kind, Probe};
use engine::line::LinePolicy;
use engine::pool;
use engine::relay::{Relay, Settings};
use engine::route::RouteTable;
use engine::wire::{FORGOTTEN, Hello, PROTOCOL, Role};
use node::desk::{self, Desk, Linked, Operator, Roster, Watch};
use node::rules::RuleBook;
use node::{StartError, Store, VerdictKeeper, io_error, listed};
use runtime::identity::DataDir;
use runtime::net;
use runtime::queue::{Receiver, Sender, byte_queue};
use runtime::{Clock, Supervisor, Worker};
use telemetry::{Metric, Telemetry};
use tls::{Caller, Door};
use tracing::info;

use crate::controls::RelayControls;
use crate::decide::Decider;
use crate::ingest::{self, Limits};
use crate::keeper;
use crate::lanes::Lanes;
use crate::router::{self, Input, Slot};
use crate::shared::{Parts, Shared};
use crate::spill;
use crate::uplink::{Greeting, Uplink};
use crate::watching::Watching;

/// A canary waits for two flushes and a sync like any batch; sooner than this it is not late, however short the
/// operator's time-out is.
const CANARY_WITHIN: Duration = Duration::from_secs(3);
/// Connections that wait to be accepted: a fleet that comes back at once must not be turned away.
const BACKLOG: u32 = 4096;

/// A relay that runs.
#[derive(Debug)]
pub struct Running {
    pub(crate) shared: Arc<Shared>,
    pub(crate) supervisor: Supervisor,
    pub(crate) slots: Vec<Arc<Slot>>,
    pub(crate) queue: Receiver<Input>,
    graphite: SocketAddr,
    /// Dropped when the relay stops: then clients that come are refused, and go elsewhere, instead of waiting unheard.
    pub(crate) listener: Arc<tokio::net::TcpListener>,
    pub(crate) keeper: Arc<VerdictKeeper>,
    _data: DataDir,
}

impl Running {
    /// Where lines come in (with the real port where 0 was asked for).
    pub fn graphite(&self) -> SocketAddr {
        self.graphite
    }

    /// The supervisor: `failed()` resolves when the process must end.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }
}

/// Starts the relay `node` of `cluster` on the current tokio runtime.
///
/// # Errors
/// When a port is taken, the data directory is not usable, or the machine gives no thread.
pub fn start(cluster: &Cluster, me: &Node, clock: Clock, cores: usize) -> Result<Running, StartError> {
    let graphite =
        me.graphite.ok_or_else(|| StartError::Config(format!("node {}: a relay needs `graphite`", me.name)))?;
    let listener = Arc::new(net::listen(graphite, BACKLOG)?);
    let admin_listener = net::listen(me.admin, 128)?;
    let link_listener = me.link.map(|link| net::listen(link, 128)).transpose()?;
    let graphite = listener.local_addr().map_err(io_error("the listener"))?;
    let data = DataDir::open(&me.data)?;
    let tls = node::Tls::open(cluster, me)?;
    let mut known = Known::default();
    let identity = data.identity_above(clock.unix(), |sender| {
        known = known_of(sender, cluster, me, (&tls.link_caller, clock));
        known.epoch
    })?;
    let incarnation = Incarnation { sender: identity.sender, epoch: identity.epoch, nonce: identity.nonce };
    let supervisor = Supervisor::new(&me.name, clock, node::restart_policy(&cluster.supervise))
        .map_err(io_error("the supervisor"))?;
    tls.watch(me, &supervisor);
    let (peer_names, peer_addrs) = peers(cluster);
    let stores = node::start_stores("relay", cluster, &supervisor, clock)?;
    let book = Arc::new(RuleBook::open(data.path(), cluster, u64::from(clock.unix().0))?);
    let (shared, greeting) = share((cluster, me), clock, incarnation, stores, &peer_names, &book)?;
    let shared = Arc::new(shared);
    if known.is_forgotten {
        shared.doubt.forgotten();
    }
    let (queue, lines) = byte_queue::<Input>("relay.lines", cluster.receive.buffer_bytes as u64);
    let slots = start_routers(&supervisor, &shared, &lines, me.threads.or_cores(cores));
    let desk = Desk::open(data.path(), Roster::of(cluster), &me.name, clock)?;
    node::notices::start(cluster, me, &supervisor, clock, &desk);
    desk.notices().into_iter().for_each(|notices| shared.spill.announce(notices));
    follow(&desk, &shared, &me.name, incarnation.sender);
    let watch = start_watch(cluster, &supervisor, &shared, &desk);
    let uplinks = start_uplinks(&supervisor, &shared, &greeting, (&peer_addrs, &tls.link_caller), (&desk, &watch));
    start_keeper(&supervisor, &shared);
    start_spill(cluster, me, &supervisor, &shared, incarnation)?;
    let keeper = Arc::new(VerdictKeeper::new(supervisor.clone(), clock, cluster.supervise.watchdog));
    let controls = Arc::new(RelayControls {
        keeper: Arc::clone(&keeper),
        shared: Arc::clone(&shared),
        supervisor: supervisor.clone(),
        uplinks,
        queue: lines.probe(),
        telemetry: Telemetry::new(&me.name, "relay"),
        operator: Operator::new(Arc::clone(&desk), vec![watch]),
        tls: tls.clone(),
    });
    node::set_gauge(&controls.telemetry, Metric::SpillQuotaBytes, &[], cluster.spill.quota_bytes);
    let reporter = Arc::clone(&controls);
    node::report_own_metrics(cluster, me, (&supervisor, &tls), move |now| {
        reporter.refresh();
        reporter.telemetry.graphite_lines(now)
    });
    start_listener(cluster, &supervisor, &shared, (&listener, &tls.graphite_door), &queue);
    if let Some(listener) = link_listener {
        let lender = spill::Lender::new(&shared, &greeting, &keeper, lines.probe(), (desk, tls.link_door.clone()));
        start_lender(&supervisor, lender, Arc::new(listener));
    }
    node::serve_admin((cluster, &tls), admin_listener, controls as Arc<dyn Controls>, (&supervisor, clock))?;
    keeper.serving();
    Ok(Running { keeper, shared, supervisor, slots, queue: lines, graphite, listener, _data: data })
}

/// A relay that hears that it is forgotten takes no points any more.
fn follow(desk: &Desk, shared: &Arc<Shared>, name: &str, sender: u64) {
    let (shared, name) = (Arc::clone(shared), name.to_owned());
    desk.follow(move |orders| {
        // Of another sender: the name was a former machine's.
        let is_me = |(node, what): (&str, Forgotten)| node == name && what.sender.is_none_or(|of| of == sender);
        if orders.forgotten().any(is_me) {
            shared.doubt.forgotten();
        }
    });
}

/// How long a start may wait for peers that are away.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What the aggregators know of this sender.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The highest; zero if there is none.
    epoch: u32,
    is_forgotten: bool,
}

/// Nothing, if nobody answers. Blocks for at most [`ASK_WITHIN`].
fn known_of(sender: u64, cluster: &Cluster, me: &Node, (caller, clock): (&Caller, Clock)) -> Known {
    let layers = [Layer::Final, Layer::Partial];
    let nodes = layers.into_iter().flat_map(|layer| cluster.layer(layer));
    let peers: Vec<(String, SocketAddr)> = nodes.filter_map(|node| Some((node.name.clone(), node.link?))).collect();
    let hello = Hello {
        protocol: PROTOCOL,
        role: Role::Visitor,
        cluster: cluster.name.clone(),
        node: me.name.clone(),
        incarnation: Incarnation { sender, epoch: 0, nonce: 0 },
        versions: Versions::default(),
        partitions: cluster.partitions,
    };
    let answers = link::visit(&peers, caller, &hello, ASK_WITHIN, clock);
    let is_forgotten = answers.iter().any(|answer| answer.retired == FORGOTTEN);
    // No epoch is above the floor of who is forgotten: it gets one like any other, and nobody takes anything of it.
    let of_use = answers.iter().filter(|answer| answer.retired != FORGOTTEN);
    let epoch = of_use.map(|answer| answer.known_epoch.max(answer.retired)).max().unwrap_or(0);
    info!(node = %me.name, asked = peers.len(), answered = answers.len(), epoch, is_forgotten, "asked for this node's epochs");
    Known { epoch, is_forgotten }
}

/// The layer that takes batches: the partial one, or the final one where there is no partial.
fn takes_batches(cluster: &Cluster) -> Layer {
    if cluster.layer(Layer::Partial).next().is_some() { Layer::Partial } else { Layer::Final }
}

/// Its nodes.
fn peers(cluster: &Cluster) -> (Vec<String>, Vec<SocketAddr>) {
    cluster.layer(takes_batches(cluster)).filter_map(|node| node.link.map(|link| (node.name.clone(), link))).unzip()
}

fn share(
    (cluster, me): (&Cluster, &Node),
    clock: Clock,
    incarnation: Incarnation,
    stores: Vec<Store>,
    peers: &[String],
    book: &Arc<RuleBook>,
) -> Result<(Shared, Greeting), StartError> {
    let routes = RouteTable::compile(&cluster.routes, &cluster.stores).map_err(|errors| listed(&errors))?;
    let rules = book.in_force();
    let finals: Vec<String> = cluster.layer(Layer::Final).map(|node| node.name.clone()).collect();
    let versions = Versions { rules: rules.version(), map: pool::map_version(cluster.partitions, &finals) };
    let settings = Settings {
        incarnation,
        versions,
        partitions: cluster.partitions,
        peers: peers.to_vec(),
        ack_timeout: cluster.send.ack_timeout,
        retain_bytes: cluster.send.retain_bytes as u64,
        journal: cluster.send.journal,
    };
    let machine = Relay::new(settings, clock.now());
    let addresses: Vec<usize> = stores.iter().map(|store| store.senders.len()).collect();
    let greeting = Greeting {
        cluster: cluster.name.clone(),
        incarnation,
        versions,
        partitions: cluster.partitions,
        book: Arc::clone(book),
    };
    let parts = Parts {
        node: me.name.clone(),
        clock,
        policy: LinePolicy {
            max_line_bytes: cluster.receive.max_line_bytes,
            max_name_bytes: cluster.receive.max_name_bytes,
            two_fields: cluster.receive.two_fields,
        },
        batch_bytes: cluster.send.batch_bytes,
        linger: cluster.send.linger,
        lanes: Lanes::new(&addresses, cluster.partitions),
        decider: Decider::new(routes, rules, cluster.partitions),
        stores,
        journal: cluster.send.journal,
        peers: peers.to_vec(),
        machine,
        spill: Arc::new(spill::Handle::new(clock.unix())),
    };
    Ok((Shared::new(parts), greeting))
}

fn start_routers(supervisor: &Supervisor, shared: &Arc<Shared>, lines: &Receiver<Input>, n: usize) -> Vec<Arc<Slot>> {
    let start_one = |index: usize| {
        let slot = Arc::new(Slot::default());
        let (shared, lines, owned) = (Arc::clone(shared), lines.clone(), Arc::clone(&slot));
        supervisor.spawn_thread(format!("relay.router.{index}"), move |worker: Worker| {
            router::run(&worker, &shared, &owned, &lines)
        });
        slot
    };
    (0..n.max(1)).map(start_one).collect()
}

fn start_uplinks(
    supervisor: &Supervisor,
    shared: &Arc<Shared>,
    greeting: &Greeting,
    (addrs, caller): (&[SocketAddr], &Caller),
    (desk, watch): (&Arc<Desk>, &Arc<Watch>),
) -> Vec<Arc<Uplink>> {
    let start_one = |(peer, addr): (usize, &SocketAddr)| {
        let uplink = Arc::new(Uplink::new(Arc::clone(shared), peer, greeting.clone(), Arc::clone(watch)));
        let linked = Linked::new(desk, Arc::clone(&uplink) as Arc<dyn link::Dialer>);
        let (service, addr, name, caller) = (linked, addr.to_string(), shared.peers[peer].clone(), caller.clone());
        supervisor.spawn_task(format!("relay.link.{name}"), move |worker| {
            let service = Arc::clone(&service) as Arc<dyn link::Dialer>;
            link::dial(worker, (addr.clone(), name.clone()), caller.clone(), service)
        });
        uplink
    };
    addrs.iter().enumerate().map(start_one).collect()
}

/// Watches the nodes that take batches, as the worker `relay.health`.
fn start_watch(cluster: &Cluster, supervisor: &Supervisor, shared: &Arc<Shared>, desk: &Arc<Desk>) -> Arc<Watch> {
    let probe = Probe::Canary { timeout: cluster.send.ack_timeout.max(CANARY_WITHIN) };
    let pool = (takes_batches(cluster), Kind::Free, probe);
    let observed = Arc::new(Watching::new(Arc::clone(shared)));
    let watch = desk::watch(desk, cluster, pool, shared.peers.clone(), shared.clock, observed);
    let (desk, watches) = (Arc::clone(desk), vec![Arc::clone(&watch)]);
    supervisor.spawn_task("relay.health", move |worker| desk::run(worker, Arc::clone(&desk), watches.clone()));
    watch
}

fn start_keeper(supervisor: &Supervisor, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    supervisor.spawn_task("relay.keeper", move |worker| keeper::run(worker, Arc::clone(&shared)));
}

fn start_spill(
    cluster: &Cluster,
    me: &Node,
    supervisor: &Supervisor,
    shared: &Arc<Shared>,
    incarnation: Incarnation,
) -> Result<(), StartError> {
    let finals: Vec<String> = cluster.layer(Layer::Final).map(|node| node.name.clone()).collect();
    let settings = spill::Settings {
        node: me.name.clone(),
        sender: incarnation.sender,
        epoch: incarnation.epoch,
        path: me.data.join("spill"),
        quota_bytes: cluster.spill.quota_bytes,
        sync_every: match cluster.spill.sync {
            SpillSync::Every(every) => Some(every),
            SpillSync::Always => None,
        },
        journal: cluster.send.journal,
    };
    let live = Arc::new(spill::LivePath::new(Arc::clone(shared), incarnation.epoch, cluster.partitions, &finals));
    let disk = spill::rocksdb(cluster.spill.quota_bytes);
    spill::start(supervisor, settings, Arc::clone(&shared.spill), live, disk, shared.clock)
}

/// Lends the spill to replayers.
fn start_lender(supervisor: &Supervisor, lender: spill::Lender, listener: Arc<tokio::net::TcpListener>) {
    let (lender, owner) = (Arc::new(lender), supervisor.clone());
    supervisor.spawn_task("relay.link", move |worker| {
        let lender = Arc::clone(&lender);
        let serve = move |stream| {
            let lender = Arc::clone(&lender);
            async move { lender.serve(stream).await }
        };
        link::listen(worker, Arc::clone(&listener), owner.clone(), "relay.replayer", serve)
    });
}

fn start_listener(
    cluster: &Cluster,
    supervisor: &Supervisor,
    shared: &Arc<Shared>,
    (listener, door): (&Arc<tokio::net::TcpListener>, &Door),
    queue: &Sender<Input>,
) {
    let limits = Limits {
        max_connections: cluster.receive.max_connections,
        idle_timeout: cluster.receive.idle_timeout,
        line_timeout: cluster.receive.line_timeout,
    };
    let (shared, listener, queue, door) = (Arc::clone(shared), Arc::downgrade(listener), queue.clone(), door.clone());
    let owner = supervisor.clone();
    supervisor.spawn_task("relay.listener", move |worker| {
        let (listener, shared, queue, owner) = (listener.upgrade(), Arc::clone(&shared), queue.clone(), owner.clone());
        let bounds = (door.clone(), limits);
        async move {
            match listener {
                Some(listener) => ingest::listen(worker, listener, shared, queue, owner, bounds).await,
                None => Ok(()), // the relay stops
            }
        }
    });
}
