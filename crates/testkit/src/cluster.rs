//! A cluster file as a test wants it: names and free ports by themselves, routes and rules as TOML text.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use admin_api::Ledger;

use crate::{Admin, eventually, reserve};

/// The layer of a node, as the cluster file spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Relay,
    Partial,
    Final,
    Replayer,
}

impl Layer {
    fn word(self) -> &'static str {
        match self {
            Layer::Relay => "relay",
            Layer::Partial => "partial",
            Layer::Final => "final",
            Layer::Replayer => "replayer",
        }
    }
}

/// One `[[node]]`.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub layer: Layer,
    /// Relays only.
    pub graphite: Option<SocketAddr>,
    /// All but replayers.
    pub link: Option<SocketAddr>,
    pub admin: SocketAddr,
}

impl Node {
    /// The questions one can ask it.
    pub fn api(&self) -> Admin {
        Admin::new(self.admin)
    }
}

/// One `[[store]]`.
#[derive(Clone, Debug)]
pub struct Store {
    pub name: String,
    /// `host:port`, or `host:port=instance`.
    pub addresses: Vec<String>,
    pub ring: &'static str,
}

/// A cluster file in the making.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub stores: Vec<Store>,
    /// Any further TOML: `[[route]]`, `[[rule]]`, `[send]` and so on, in this order of writing.
    pub rest: String,
}

impl Cluster {
    /// `relays` relays, `partials` partial nodes, `finals` final nodes and one replayer on loopback, no store, no route.
    ///
    /// # Panics
    /// When loopback sockets do not work.
    #[track_caller]
    pub fn new(relays: usize, partials: usize, finals: usize) -> Cluster {
        Cluster::of(relays, partials, finals, 1)
    }

    /// The same with so many replayers.
    ///
    /// # Panics
    /// As [`Cluster::new`].
    #[track_caller]
    pub fn of(relays: usize, partials: usize, finals: usize, replayers: usize) -> Cluster {
        let layers =
            [(Layer::Relay, relays), (Layer::Partial, partials), (Layer::Final, finals), (Layer::Replayer, replayers)];
        let count: usize = layers.iter().map(|(_, count)| count).sum();
        let mut free = reserve(3 * count).into_iter();
        let mut nodes = Vec::with_capacity(count);
        for (layer, count) in layers {
            for number in 1..=count {
                let (Some(graphite), Some(link), Some(admin)) = (free.next(), free.next(), free.next()) else {
                    panic!("BUG: three ports a node were reserved");
                };
                nodes.push(Node {
                    name: format!("{}-{number}", layer.word()),
                    layer,
                    graphite: (layer == Layer::Relay).then_some(graphite),
                    link: (layer != Layer::Replayer).then_some(link),
                    admin,
                });
            }
        }
        Cluster { nodes, stores: Vec::new(), rest: String::new() }
    }

    /// Adds a store with the ring `carbon_ch`. Several addresses get instances `a`, `b`, ... (up to 26): the ring hashes
    /// hosts and instances, not ports, and all addresses of a test are on one host.
    #[must_use]
    pub fn store(mut self, name: &str, addresses: &[SocketAddr]) -> Cluster {
        let addresses = match addresses {
            [only] => vec![only.to_string()],
            many => many.iter().zip('a'..='z').map(|(address, letter)| format!("{address}={letter}")).collect(),
        };
        self.stores.push(Store { name: name.to_owned(), addresses, ring: "carbon_ch" });
        self
    }

    /// Adds a route that takes every line to `to`.
    #[must_use]
    pub fn route_all(self, to: &[&str]) -> Cluster {
        self.with(&format!("[[route]]\nglob = \"**\"\nto = {to:?}\n"))
    }

    /// Adds TOML text as it stands.
    #[must_use]
    pub fn with(mut self, toml: &str) -> Cluster {
        self.rest.push('\n');
        self.rest.push_str(toml);
        self
    }

    /// The nodes of one layer, in order.
    pub fn layer(&self, layer: Layer) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.layer == layer).collect()
    }

    /// The first node of `layer`.
    ///
    /// # Panics
    /// When the cluster has none.
    #[track_caller]
    pub fn first(&self, layer: Layer) -> &Node {
        match self.layer(layer).first() {
            Some(node) => node,
            None => panic!("the test's cluster has no {} node", layer.word()),
        }
    }

    /// Where the first relay takes Graphite lines.
    ///
    /// # Panics
    /// When the cluster has no relay.
    #[track_caller]
    pub fn graphite(&self) -> SocketAddr {
        match self.first(Layer::Relay).graphite {
            Some(address) => address,
            None => panic!("BUG: a relay without a Graphite address"),
        }
    }

    /// The node of that name.
    ///
    /// # Panics
    /// When the cluster has none.
    #[track_caller]
    pub fn named(&self, name: &str) -> &Node {
        match self.nodes.iter().find(|node| node.name == name) {
            Some(node) => node,
            None => panic!("the test's cluster has no node {name}"),
        }
    }

    /// Waits until every node's books balance and nothing is on its way any more, and returns them in the order of the
    /// nodes. Points without a receipt from a plain store may remain: a receipt takes until the connection's rotation.
    ///
    /// # Panics
    /// When that is not so within `limit`; the message has the books that do not settle.
    #[track_caller]
    pub fn settled(&self, limit: Duration) -> Vec<Ledger> {
        eventually(limit, "the books to settle", || self.nodes.iter().map(|node| settled(&node.api())).collect())
    }

    /// The file's text.
    pub fn toml(&self) -> String {
        let mut text = String::from("[cluster]\nname = \"test\"\npartitions = 16\n");
        for node in &self.nodes {
            let Node { name, layer, graphite, link, admin } = node;
            push(&mut text, format_args!("\n[[node]]\nname = \"{name}\"\nlayer = \"{}\"\n", layer.word()));
            for (key, address) in [("graphite", *graphite), ("link", *link), ("admin", Some(*admin))] {
                if let Some(address) = address {
                    push(&mut text, format_args!("{key} = \"{address}\"\n"));
                }
            }
            push(&mut text, format_args!("data = \"data/{name}\"\n"));
        }
        for Store { name, addresses, ring } in &self.stores {
            push(
                &mut text,
                format_args!("\n[[store]]\nname = \"{name}\"\naddresses = {addresses:?}\nring = \"{ring}\"\n"),
            );
        }
        text.push_str(&self.rest);
        text
    }
}

fn settled(api: &Admin) -> Result<Ledger, String> {
    let ledger = api.ledger()?;
    let moving = |to: &admin_api::DestinationLedger| to.in_flight != 0 || to.spill_pending != 0 || to.unaccounted != 0;
    if ledger.balanced && ledger.unaccounted == 0 && ledger.in_hand == 0 && !ledger.destinations.iter().any(moving) {
        Ok(ledger)
    } else {
        Err(format!("{ledger:?}"))
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    if text.write_fmt(more).is_err() {
        panic!("BUG: writing to a String cannot fail");
    }
}
