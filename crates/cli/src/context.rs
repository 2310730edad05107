//! What a command that asks nodes works with: the cluster, a client, the time, and who asks.

use std::time::Duration;

use anyhow::anyhow;
use config::{Cluster, Layer, Node, nearest};
use engine::time::{Mono, UnixSeconds};
use runtime::Clock;

use crate::client::Client;
use crate::exit::Failure;

#[derive(Debug)]
pub(crate) struct Context<'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) client: Client,
    pub(crate) now: UnixSeconds,
    /// For the audit log of the nodes.
    pub(crate) by: String,
    clock: Clock,
    /// Where `clock` and the time of day stood at the start.
    start: (Mono, UnixSeconds),
}

impl<'c> Context<'c> {
    /// # Errors
    /// When this machine cannot ask anybody.
    pub(crate) fn new(cluster: &'c Cluster, now: UnixSeconds, by: String) -> Result<Context<'c>, Failure> {
        let clock = Clock::new();
        Ok(Context { cluster, client: Client::new()?, now, by, start: (clock.now(), now), clock })
    }

    /// The nodes of these layers, in the order of the file.
    pub(crate) fn nodes(&self, layers: &[Layer]) -> Vec<&'c Node> {
        self.cluster.nodes.iter().filter(|node| layers.contains(&node.layer)).collect()
    }

    /// The node of that name and layer.
    ///
    /// # Errors
    /// When there is none; the known ones are listed.
    pub(crate) fn node(&self, layer: Layer, name: &str) -> Result<&'c Node, Failure> {
        self.named(&[layer], layer.as_str(), name)
    }

    /// The node of that name, of any of these layers.
    ///
    /// # Errors
    /// When there is none; the known ones are listed.
    pub(crate) fn any_node(&self, layers: &[Layer], name: &str) -> Result<&'c Node, Failure> {
        self.named(layers, "node", name)
    }

    fn named(&self, layers: &[Layer], kind: &str, name: &str) -> Result<&'c Node, Failure> {
        let nodes = self.nodes(layers);
        let found = nodes.iter().find(|node| node.name == name);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            Failure::usage(anyhow!(unknown(kind, name, &names)))
        })
    }

    /// How long ago `at` was; zero if it lies ahead.
    pub(crate) fn age(&self, at: u64) -> u64 {
        u64::from(self.now.0).saturating_sub(at)
    }

    /// Lets time pass, for the next look.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.client.wait(time);
        let (mono, unix) = self.start;
        let passed = u32::try_from(self.clock.now().since(mono).as_secs()).unwrap_or(u32::MAX);
        self.now = UnixSeconds(unix.0.saturating_add(passed));
    }
}

/// A name that is not known, and those that are.
pub(crate) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!("there is no {kind} \"{name}\": there is none at all");
    }
    let list = known.join(", ");
    match nearest(name, known.iter().copied()) {
        Some(near) if near != name => {
            format!("there is no {kind} \"{name}\": did you mean \"{near}\"? Known {kind}s are {list}")
        }
        Some(_) | None => format!("there is no {kind} \"{name}\": known {kind}s are {list}"),
    }
}
