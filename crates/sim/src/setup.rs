//! The cluster that is simulated: its names, its links, its rules. The same in every run, but for what a seed draws.

use std::sync::Arc;
use std::time::Duration;

use engine::pattern::Selector;
use engine::pool;
use engine::ring::{Ring, RingKind, StoreAddress, StoreSpec};
use engine::route::{RouteSpec, RouteTable, Target};
use engine::rule::RuleSet;

use crate::file::{self, File};
use crate::rng::Rng;

/// Which node; an index into [`Setup::nodes`].
pub type NodeId = usize;
/// Which link; an index into [`Setup::links`].
pub type LinkId = usize;

/// What a node is, and which of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Relay(usize),
    Partial(usize),
    Final(usize),
    Replayer,
    Store(usize),
}

/// Who dials whom; the number is the index that the dialling machine knows the other end by.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub dialer: NodeId,
    pub acceptor: NodeId,
    pub index: usize,
    pub kind: LinkKind,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Relay to partial node.
    Up,
    /// Partial node to final node.
    Down,
    /// Replayer to relay.
    Borrow,
    /// Replayer to partial node.
    Send,
    /// To a plain store; in runs with raw lines relays and the replayer have such links, too.
    Plain,
}

/// One cluster.
#[derive(Debug)]
pub struct Setup {
    pub nodes: Vec<Role>,
    /// So many are there from the beginning; behind them stand spare ones, which a fault puts up.
    pub regular: usize,
    pub names: Vec<String>,
    pub links: Vec<Link>,
    /// What the cluster file says, one after the other.
    pub files: Vec<File>,
    /// The outputs of all of them.
    /// So many are between regular nodes; those of spare ones stand behind them.
    pub regular_links: usize,
    pub rules: Arc<RuleSet>,
    pub partitions: u16,
    /// For each partition the index of its final node.
    pub owners: Vec<usize>,
    pub peers: Vec<String>,
    pub finals: Vec<String>,
    pub relays: Vec<String>,
    pub stores: usize,
    pub rings: Vec<Ring>,
    /// Names of the series that clients send.
    pub series: Vec<String>,
    pub tunables: Tunables,
    /// `None`: no raw lines in this run.
    pub raw: Option<Raw>,
}

/// Raw lines from clients to plain stores.
#[derive(Clone, Debug)]
pub struct Raw {
    /// For generators of their own.
    pub seed: u64,
    pub retain_bytes: u64,
    /// For each store what the spill calls it.
    pub names: Vec<String>,
    /// For each relay, a spare one included, and series of its clients the stores that its route and ring name.
    pub to: Vec<Vec<Vec<usize>>>,
}

/// Nodes that are not there from the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spares {
    pub relay: bool,
    pub partial: bool,
}

/// Numbers that a seed draws: small ones make rare paths common.
#[derive(Clone, Debug)]
pub struct Tunables {
    pub retain_bytes: u64,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub journal: bool,
    pub spill_sync: Duration,
    pub spill_quota: u64,
    pub final_sync_ms: (u64, u64),
    pub checkpoint_every: Duration,
    pub evicts: bool,
    pub replay_rate: u64,
    pub delay_ms: (u64, u64),
    pub input_every_ms: u64,
    pub late_seconds: u64,
    pub health_proof: Duration,
}

impl Tunables {
    fn draw(rng: &mut Rng) -> Tunables {
        Tunables {
            retain_bytes: rng.pick(&[2 << 10, 16 << 10, 1 << 20]),
            batch_bytes: rng.pick(&[256, 4 << 10]),
            linger: Duration::from_millis(rng.pick(&[250, 500])),
            journal: rng.percent(25),
            spill_sync: Duration::from_millis(rng.pick(&[0, 50, 400])),
            spill_quota: 64 << 20,
            final_sync_ms: rng.pick(&[(1, 20), (20, 300), (1, 1500)]),
            checkpoint_every: Duration::from_secs(rng.pick(&[2, 7, 30])),
            evicts: rng.percent(50),
            replay_rate: rng.pick(&[100, 1_000, 50_000]),
            delay_ms: rng.pick(&[(1, 5), (1, 80), (1, 800)]),
            input_every_ms: rng.pick(&[150, 300, 600]),
            late_seconds: rng.pick(&[0, 20, 120]),
            health_proof: Duration::from_secs(rng.pick(&[3, 20])),
        }
    }
}

/// Series that each relay's clients send as they are.
const RAW_SERIES: usize = 6;

/// The name of one.
pub fn raw_name(relay: usize, series: usize) -> String {
    format!("raw.r{relay}.s{series}")
}

impl Raw {
    /// One store with an address each, or stores of one address; through the route table of the product.
    fn draw(mut rng: Rng, stores: usize) -> Raw {
        let address = |n: usize| StoreAddress { host: format!("carbon-{}", n + 1), port: 2003, instance: None };
        let spec = |name: String, addresses: Vec<StoreAddress>, replicas| {
            let ring = RingKind::CarbonCh;
            StoreSpec { name, addresses, ring, replicas }
        };
        let is_ring = rng.percent(50);
        let (specs, names): (Vec<StoreSpec>, Vec<String>) = if is_ring {
            let all: Vec<StoreAddress> = (0..stores).map(address).collect();
            let names = (0..stores).map(|n| format!("ring/carbon-{}:2003", n + 1)).collect();
            (vec![spec("ring".to_owned(), all, rng.index(stores) + 1)], names)
        } else {
            let one = |n: usize| spec(format!("carbon-{}", n + 1), vec![address(n)], 1);
            let names = (1..=stores).map(|n| format!("carbon-{n}/carbon-{n}:2003")).collect();
            ((0..stores).map(one).collect(), names)
        };
        let selector = Selector::Glob("raw.**".to_owned());
        let route = RouteSpec { selector, to: (0..specs.len()).map(Target::Store).collect(), stop: true };
        let routes = RouteTable::compile(&[route], &specs).unwrap_or_else(|errors| panic!("our own route: {errors:?}"));
        let to = |relay, series| {
            let decision = routes.decide(raw_name(relay, series).as_bytes());
            decision.addresses.iter().map(|(store, address)| if is_ring { *address } else { *store }).collect()
        };
        Raw {
            retain_bytes: rng.pick(&[1 << 10, 4 << 10, 1 << 20]),
            names,
            to: (0..=RELAYS).map(|relay| (0..RAW_SERIES).map(|series| to(relay, series)).collect()).collect(),
            seed: rng.number(),
        }
    }
}

const RELAYS: usize = 2;
const PARTIALS: usize = 3;
const FINALS: usize = 2;

impl Setup {
    /// The cluster of one seed.
    ///
    /// # Panics
    /// When our own rules do not compile.
    pub fn new(rng: &mut Rng, spares: Spares, raw: Option<Rng>) -> Setup {
        let stores = rng.pick(&[1, 2]);
        let mut nodes = Vec::new();
        nodes.extend((0..RELAYS).map(Role::Relay));
        nodes.extend((0..PARTIALS).map(Role::Partial));
        nodes.extend((0..FINALS).map(Role::Final));
        nodes.push(Role::Replayer);
        nodes.extend((0..stores).map(Role::Store));
        let regular = nodes.len();
        let regular_links = links(&nodes, raw.is_some()).len();
        nodes.extend(spares.relay.then_some(Role::Relay(RELAYS)));
        nodes.extend(spares.partial.then_some(Role::Partial(PARTIALS)));
        let names: Vec<String> = nodes.iter().map(|role| name(*role)).collect();
        let of = |wanted: fn(&Role) -> bool| -> Vec<String> {
            nodes.iter().zip(&names).filter(|(role, _)| wanted(role)).map(|(_, name)| name.clone()).collect()
        };
        let peers = of(|role| matches!(role, Role::Partial(_)));
        let finals = of(|role| matches!(role, Role::Final(_)));
        let relays = of(|role| matches!(role, Role::Relay(_)));
        let partitions = rng.pick(&[1, 3, 4]);
        let owners = pool::assign(partitions, &finals, &vec![true; finals.len()]);
        let owners = owners.into_iter().flatten().collect();
        let series: Vec<String> =
            (0..4).flat_map(|app| (0..3).map(move |host| format!("app.a{app}.h{host}.req"))).collect();
        let (files, rules) = file::all(&series, stores, partitions, &finals);
        Setup {
            rings: (0..stores).map(|_| ring()).collect(),
            tunables: Tunables::draw(rng),
            links: with_spares(&nodes, regular, raw.is_some()),
            regular_links,
            regular,
            raw: raw.map(|rng| Raw::draw(rng, stores)),
            nodes,
            names,
            files,
            rules,
            partitions,
            owners,
            peers,
            finals,
            relays,
            stores,
            series,
        }
    }

    /// The store that a spill's destination is of.
    pub fn store_of(&self, destination: &str) -> Option<usize> {
        self.raw.as_ref()?.names.iter().position(|name| name == destination)
    }

    /// The spare node of this kind.
    pub fn spare(&self, wanted: impl Fn(&Role) -> bool) -> Option<NodeId> {
        (self.regular..self.nodes.len()).find(|node| wanted(&self.nodes[*node]))
    }

    /// The partial nodes that are there from the beginning.
    pub fn first_peers(&self) -> Vec<usize> {
        (0..PARTIALS).collect()
    }

    /// The links that a node dials.
    pub fn dialed_by(&self, node: NodeId) -> impl Iterator<Item = LinkId> {
        (0..self.links.len()).filter(move |link| self.links[*link].dialer == node)
    }

    /// The link of this kind that this node dials to its `index`-th peer.
    pub fn link_to(&self, node: NodeId, kind: LinkKind, index: usize) -> Option<LinkId> {
        self.links.iter().position(|link| (link.dialer, link.kind, link.index) == (node, kind, index))
    }
}

fn name(role: Role) -> String {
    match role {
        Role::Relay(n) => format!("relay-{}", n + 1),
        Role::Partial(n) => format!("partial-{}", n + 1),
        Role::Final(n) => format!("final-{}", n + 1),
        Role::Replayer => "replayer-1".to_owned(),
        Role::Store(n) => format!("carbon-{}", n + 1),
    }
}

fn links(nodes: &[Role], raw: bool) -> Vec<Link> {
    let mut links = Vec::new();
    for (dialer, from) in nodes.iter().enumerate() {
        for (acceptor, to) in nodes.iter().enumerate() {
            let found = match (from, to) {
                (Role::Relay(_), Role::Partial(n)) => Some((LinkKind::Up, n)),
                (Role::Partial(_), Role::Final(n)) => Some((LinkKind::Down, n)),
                (Role::Replayer, Role::Relay(n)) => Some((LinkKind::Borrow, n)),
                (Role::Replayer, Role::Partial(n)) => Some((LinkKind::Send, n)),
                (Role::Final(_), Role::Store(n)) => Some((LinkKind::Plain, n)),
                (Role::Relay(_) | Role::Replayer, Role::Store(n)) if raw => Some((LinkKind::Plain, n)),
                _ => None,
            };
            if let Some((kind, index)) = found {
                links.push(Link { dialer, acceptor, index: *index, kind });
            }
        }
    }
    links
}

/// Those of spare nodes last, so that the others have the numbers that they have without.
fn with_spares(nodes: &[Role], regular: usize, raw: bool) -> Vec<Link> {
    let is_regular = |link: &Link| link.dialer < regular && link.acceptor < regular;
    let (mut all, spare): (Vec<Link>, Vec<Link>) = links(nodes, raw).into_iter().partition(is_regular);
    all.extend(spare);
    all
}

fn ring() -> Ring {
    Ring::build(&StoreSpec {
        name: "carbon".to_owned(),
        addresses: vec![StoreAddress { host: "carbon".to_owned(), port: 2003, instance: None }],
        ring: RingKind::CarbonCh,
        replicas: 1,
    })
}
