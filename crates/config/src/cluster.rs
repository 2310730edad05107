//! The checked tree: what a cluster file says, in types that cannot say anything else.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use engine::rate::RATE_MAX;
use engine::route::{RouteSpec, StoreSpec};
use engine::rule::RuleSpec;

use crate::auth::{self, Auth};
use crate::tls::Tls;

/// All of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    /// Of the final layer's key space, 1..=64; fixed for the life of the cluster.
    pub partitions: u16,
    pub nodes: Vec<Node>,
    pub stores: Vec<StoreSpec>,
    pub routes: Vec<RouteSpec>,
    pub rules: Vec<RuleSpec>,
    pub health: Health,
    pub send: Sending,
    pub spill: Spill,
    pub final_: Final,
    pub replay: Replay,
    pub receive: Receive,
    pub output: Output,
    pub supervise: Supervise,
    pub telemetry: Telemetry,
    pub auth: Auth,
    pub tls: Tls,
    /// Who is told what happened; empty: nobody.
    pub notify: Vec<crate::notify::Notify>,
}

impl Cluster {
    /// The nodes of one layer, in the order of the file.
    pub fn layer(&self, layer: Layer) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.layer == layer)
    }

    /// Whether the admin API is for those only who show a token or a certificate.
    pub fn is_guarded(&self) -> bool {
        auth::is_guarded(&self.auth, &self.tls)
    }

    /// Why no admin API may listen at `address`, which is another one than the file says; `None` if it may.
    pub fn exposure(&self, address: SocketAddr) -> Option<String> {
        auth::exposure(&self.auth, &self.tls, address).map(|(message, help)| format!("{message}: {help}"))
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    Relay,
    Partial,
    Final,
    Replayer,
}

impl Layer {
    /// All layers, upstream first.
    pub const ALL: [Layer; 4] = [Layer::Relay, Layer::Partial, Layer::Final, Layer::Replayer];

    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Relay => "relay",
            Layer::Partial => "partial",
            Layer::Final => "final",
            Layer::Replayer => "replayer",
        }
    }

    /// DESIGN 8.
    pub fn default_admin_port(self) -> u16 {
        match self {
            Layer::Relay => 8641,
            Layer::Partial => 8642,
            Layer::Final => 8643,
            Layer::Replayer => 8644,
        }
    }

    /// DESIGN 8; a replayer is dialled by nobody.
    pub fn default_link_port(self) -> Option<u16> {
        match self {
            Layer::Relay => Some(8651),
            Layer::Partial => Some(8652),
            Layer::Final => Some(8653),
            Layer::Replayer => None,
        }
    }
}

/// One `[[node]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub layer: Layer,
    /// Where Graphite lines come in; relays have it, others not.
    pub graphite: Option<SocketAddr>,
    /// Where links come in; all but replayers have it.
    pub link: Option<SocketAddr>,
    pub admin: SocketAddr,
    /// State and identity; a relative path starts at the working directory.
    pub data: PathBuf,
    pub threads: Threads,
}

/// How many data threads a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One per core; the caller knows how many there are.
    Auto,
    /// 1..=256
    Count(u16),
}

impl Threads {
    /// `cores`: of this machine.
    pub fn or_cores(self, cores: usize) -> usize {
        match self {
            Threads::Auto => cores.max(1),
            Threads::Count(count) => usize::from(count),
        }
    }
}

/// Points per second, 1 to [`RATE_MAX`]: paused is a mode, no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PointsPerSecond(NonZeroU64);

impl PointsPerSecond {
    /// `None` for what is no rate.
    pub const fn new(points: u64) -> Option<PointsPerSecond> {
        match NonZeroU64::new(points) {
            Some(points) if points.get() <= RATE_MAX => Some(PointsPerSecond(points)),
            Some(_) | None => None,
        }
    }

    /// At least 1.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

const REPLAY_RATE: PointsPerSecond = PointsPerSecond(NonZeroU64::new(50_000).expect("not zero"));
const REPLAY_FLOOR: PointsPerSecond = PointsPerSecond(NonZeroU64::new(1_000).expect("not zero"));

/// How much proof a sender wants before it trusts a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthMode {
    Strict,
    Lenient,
    Auto,
}

/// `[health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// At first start only.
    pub mode: HealthMode,
    pub proof: Duration,
    pub recover: Duration,
    /// Share of a pool that is always eligible, 1..=100.
    pub floor_percent: u8,
    /// Share of a pool that may be ejected as outliers, 0..=100.
    pub max_ejected_percent: u8,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            mode: HealthMode::Auto,
            proof: Duration::from_secs(5 * 60),
            recover: Duration::from_secs(10 * 60),
            floor_percent: 50,
            max_ejected_percent: 20,
        }
    }
}

/// `[send]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    pub linger: Duration,
    pub batch_bytes: usize,
    pub ack_timeout: Duration,
    pub retain_bytes: usize,
    pub journal: bool,
}

impl Default for Sending {
    fn default() -> Sending {
        Sending {
            linger: Duration::from_millis(100),
            batch_bytes: 256 << 10,
            ack_timeout: Duration::from_secs(3),
            retain_bytes: 512 << 20,
            journal: false,
        }
    }
}

/// When spilled batches are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpillSync {
    /// Not zero.
    Every(Duration),
    Always,
}

/// `[spill]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    pub quota_bytes: u64,
    pub sync: SpillSync,
}

impl Default for Spill {
    fn default() -> Spill {
        Spill { quota_bytes: 20 << 30, sync: SpillSync::Every(Duration::from_millis(50)) }
    }
}

/// `[final]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    pub horizon: Duration,
    pub flush: Duration,
    /// Bound of the state held in memory.
    pub memory_bytes: usize,
    /// Bound of the state on disk, per node.
    pub quota_bytes: u64,
}

impl Default for Final {
    fn default() -> Final {
        Final {
            horizon: Duration::from_secs(24 * 3600),
            flush: Duration::from_millis(500),
            memory_bytes: 1 << 30,
            quota_bytes: 50 << 30,
        }
    }
}

/// How a replayer begins when it finds a large backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStart {
    Floor,
    Paused,
    Rate,
}

/// `[replay]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub rate: PointsPerSecond,
    pub adaptive: bool,
    pub start: ReplayStart,
    pub floor: PointsPerSecond,
    /// A backlog of more points than this is large.
    pub large_points: u64,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay {
            rate: REPLAY_RATE,
            adaptive: true,
            start: ReplayStart::Floor,
            floor: REPLAY_FLOOR,
            large_points: 1_000_000,
        }
    }
}

/// `[receive]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    pub max_line_bytes: usize,
    pub max_name_bytes: usize,
    /// A line of two fields is taken with the time of its arrival.
    pub two_fields: bool,
    /// How long a connection may be silent between two lines; `None`: as long as it likes, for keepalive finds the
    /// dead ones and `max_connections` bounds the living.
    pub idle_timeout: Option<Duration>,
    /// How long a part of a line may be held before the connection is closed (slow-loris).
    pub line_timeout: Duration,
    pub max_connections: usize,
    /// Bound of input that is read but not parsed, all connections together.
    pub buffer_bytes: usize,
}

impl Default for Receive {
    fn default() -> Receive {
        Receive {
            max_line_bytes: 16 << 10,
            max_name_bytes: 2 << 10,
            two_fields: true,
            idle_timeout: None,
            line_timeout: Duration::from_secs(60),
            max_connections: 20_000,
            buffer_bytes: 64 << 20,
        }
    }
}

/// `[output]`: connections to plain stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub rotate: Duration,
    pub rotate_bytes: u64,
    pub linger_bound: Duration,
    pub receipt_timeout: Duration,
    pub notsent_lowat_bytes: u32,
}

impl Default for Output {
    fn default() -> Output {
        Output {
            rotate: Duration::from_secs(60),
            rotate_bytes: 64 << 20,
            linger_bound: Duration::from_secs(60),
            receipt_timeout: Duration::from_secs(10),
            notsent_lowat_bytes: 128 << 10,
        }
    }
}

/// `[supervise]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervise {
    /// So many restarts of one worker ...
    pub restarts: u32,
    /// ... in this time, and the process gives up.
    pub within: Duration,
    /// A worker without a heartbeat for this long is hung.
    pub watchdog: Duration,
}

impl Default for Supervise {
    fn default() -> Supervise {
        Supervise { restarts: 5, within: Duration::from_secs(30), watchdog: Duration::from_secs(2) }
    }
}

/// Where a node's own metrics go as Graphite lines. `S` names a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnMetrics<S = usize> {
    Off,
    /// Through the relays' own routes, like any other line.
    Route,
    /// Straight to one store (an index into [`Cluster::stores`]).
    Store(S),
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    pub interval: Duration,
    /// Put before each name as it stands, so it ends with a dot where one is wanted.
    pub prefix: String,
    pub graphite: OwnMetrics,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry { interval: Duration::from_secs(10), prefix: String::new(), graphite: OwnMetrics::Off }
    }
}
