//! `[[node]]`: who there is, where each listens, and which layers a cluster cannot do without.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cluster::{Layer, Node, Threads};
use crate::document::{Document, Section};
use crate::setting::{Listen, Name, Setting as _, quote};
use crate::suggest::nearest;

/// The port of carbon, and of relays.
const GRAPHITE_PORT: u16 = 2003;

/// A node as far as it could be read.
#[derive(Debug)]
pub(crate) struct NodeDraft {
    pub(crate) path: String,
    pub(crate) name: Option<String>,
    pub(crate) layer: Option<Layer>,
    graphite: Option<SocketAddr>,
    link: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    data: PathBuf,
    threads: Threads,
}

impl NodeDraft {
    /// The node, if all that it needs was there.
    pub(crate) fn finished(self) -> Option<Node> {
        let layer = self.layer?;
        Some(Node {
            name: self.name?,
            layer,
            graphite: self.graphite,
            link: self.link,
            admin: self.admin?,
            data: self.data,
            threads: self.threads,
        })
    }

    /// The admin address with its key.
    pub(crate) fn admin(&self) -> Option<(String, SocketAddr)> {
        self.admin.map(|address| (format!("{}.admin", self.path), address))
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        [("graphite", self.graphite), ("link", self.link), ("admin", self.admin)]
            .into_iter()
            .filter_map(|(key, address)| address.map(|address| (key, address)))
    }

    fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| self.path.clone(), |name| format!("node {}", quote(name)))
    }
}

/// Reads one `[[node]]`.
pub(crate) fn read(document: &Document<'_>, mut section: Section<'_, '_>) -> NodeDraft {
    section.show_header("node");
    let name = section.required::<Name>("name", "each node is started and addressed by it").map(|name| name.0);
    let layer = section.required::<Layer>("layer", "what the node does");
    let graphite_port = Some(GRAPHITE_PORT).filter(|_| layer.is_none_or(|layer| layer == Layer::Relay));
    let link_port = match layer {
        Some(layer) => layer.default_link_port(),
        // Whether it belongs here cannot be said; so it is read and nothing is asked.
        None => Some(0),
    };
    let graphite = address(document, &mut section, "graphite", layer, graphite_port);
    let link = address(document, &mut section, "link", layer, link_port);
    let admin = address(document, &mut section, "admin", layer, Some(layer.map_or(0, Layer::default_admin_port)));
    let default_data = PathBuf::from(format!("data/{}", name.as_deref().unwrap_or("node")));
    let data = section.or("data", default_data);
    let threads = section.or("threads", Threads::Auto);
    let path = section.path().to_owned();
    section.finish();
    NodeDraft { path, name, layer, graphite, link, admin, data, threads }
}

/// Reads one address. `port`: the layer's default, or `None` if nodes of this layer do not listen there.
fn address(
    document: &Document<'_>,
    section: &mut Section<'_, '_>,
    key: &'static str,
    layer: Option<Layer>,
    port: Option<u16>,
) -> Option<SocketAddr> {
    let (Some(_), Some(port)) = (layer, port) else {
        let listen = section.optional::<Listen>(key);
        if let Some(layer) = layer
            && document.has(&section.key(key))
        {
            let message = format!("a {} node does not listen there", layer.as_str());
            document.error(&section.key(key), message, format!("remove `{key}`, or change `layer`"));
        }
        return listen.map(|listen| listen.with_port(port.unwrap_or(0)));
    };
    let what = match key {
        "graphite" => "where Graphite lines come in",
        "link" => "where links of other nodes come in",
        _ => "where the admin API answers",
    };
    let address = section.required::<Listen>(key, what)?.with_port(port);
    if key == "link" && address.ip().is_unspecified() {
        let help = "write the address by which other machines reach this node";
        document.warning(&section.key(key), format!("other nodes cannot dial {}", address.ip()), help);
    }
    Some(address)
}

/// What no node can see alone: names, addresses and directories that two nodes claim.
pub(crate) fn check_claims(document: &Document<'_>, nodes: &[NodeDraft]) {
    let mut names: BTreeMap<&str, &NodeDraft> = BTreeMap::new();
    let mut listeners: Vec<(SocketAddr, String, String)> = Vec::new();
    let mut places: Vec<(&NodeDraft, SocketAddr)> = Vec::new();
    for node in nodes {
        if let Some(name) = node.name.as_deref() {
            match names.get(name) {
                Some(first) => {
                    let (key, other) = (format!("{}.name", node.path), format!("{}.name", first.path));
                    document.clash(
                        &key,
                        format!("{} is taken", quote(name)),
                        "each node has its own name",
                        &other,
                        "by this node",
                    );
                }
                None => {
                    names.insert(name, node);
                }
            }
        }
        for (key, address) in node.addresses() {
            let path = format!("{}.{key}", node.path);
            match listeners.iter().find(|(taken, ..)| collide(*taken, address)) {
                Some((taken, other, label)) => {
                    let message = if *taken == address {
                        format!("{address} is taken")
                    } else {
                        format!("{address} collides with {taken}")
                    };
                    document.clash(&path, message, "each listener has its own address and port", other, label);
                }
                None => listeners.push((address, path, format!("`{key}` of {}", node.title()))),
            }
        }
        // Two machines may well use the same path, and only the address tells machines apart.
        let Some(admin) = node.admin else { continue };
        match places.iter().find(|(other, host)| other.data == node.data && host.ip() == admin.ip()) {
            Some((other, _)) => {
                let (key, first) = (format!("{}.data", node.path), format!("{}.data", other.path));
                let message = format!("{} is the directory of {} too", node.data.show(), other.title());
                document.clash(&key, message, "each node has its own directory", &first, "claimed here");
            }
            None => places.push((node, admin)),
        }
    }
}

/// Same port on the same address, or on all addresses of the machine.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Why a final node is needed.
#[derive(Debug)]
pub(crate) struct NeedsFinal {
    /// The key that needs it.
    pub(crate) key: String,
    pub(crate) what: String,
}

/// Layers that must be there. Says nothing if a node's layer could not be read: it may be the missing one.
pub(crate) fn check_layers(document: &Document<'_>, nodes: &[NodeDraft], needs_final: Option<NeedsFinal>) {
    if nodes.iter().any(|node| node.layer.is_none()) {
        return;
    }
    let has = |layer| nodes.iter().any(|node| node.layer == Some(layer));
    if nodes.is_empty() && document.has("node") {
        return;
    }
    if nodes.is_empty() {
        document.missing("node", "there is no `[[node]]`", "each node has a name, a layer and its addresses");
        return;
    }
    if !has(Layer::Relay) {
        document.missing("node", "there is no node of layer relay", "without one no line comes in; add a `[[node]]`");
    }
    if has(Layer::Final) {
        return;
    }
    if let Some(needs) = needs_final {
        let message = format!("{} needs a node of layer final, and there is none", needs.what);
        document.missing(&needs.key, message, "add a `[[node]]` with layer = \"final\"");
    }
    if let Some(partial) = nodes.iter().find(|node| node.layer == Some(Layer::Partial)) {
        let message = format!("{} combines points for the final layer, and there is none", partial.title());
        document.missing(&format!("{}.layer", partial.path), message, "add a `[[node]]` with layer = \"final\"");
    }
}

/// "did you mean" for a name, with the known ones if none is near.
pub(crate) fn known_names<'n>(word: &str, what: &str, names: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(word, names.clone()) {
        Some(near) => format!("did you mean {}?", quote(near)),
        None => {
            let list: Vec<String> = names.map(quote).collect();
            if list.is_empty() { format!("there are no {what}") } else { format!("known {what}: {}", list.join(", ")) }
        }
    }
}
