//! `[[store]]`: plain Graphite destinations.

use std::collections::BTreeMap;

use engine::route::{RingKind, StoreAddress, StoreSpec};

use crate::document::{Document, Item, Section};
use crate::setting::{Name, quote, store_address};

/// Words that a route or `[telemetry]` uses for something else.
const RESERVED: [&str; 4] = ["aggregate", "drop", "off", "route"];
const ADDRESS: &str = "host and port, such as \"127.0.0.1:2103\" or \"db1:2103=a\" (`=a`: an instance, for rings)";

/// A store as far as it could be read. One that has problems keeps its place, so that indexes stay right.
#[derive(Debug)]
pub(crate) struct StoreDraft {
    pub(crate) path: String,
    pub(crate) name: Option<String>,
    addresses: Vec<StoreAddress>,
    ring: RingKind,
    replicas: usize,
}

impl StoreDraft {
    /// The store; complete if there was no problem.
    pub(crate) fn finished(self) -> StoreSpec {
        StoreSpec {
            name: self.name.unwrap_or_default(),
            addresses: self.addresses,
            ring: self.ring,
            replicas: self.replicas,
        }
    }
}

/// Reads one `[[store]]`.
pub(crate) fn read(document: &Document<'_>, mut section: Section<'_, '_>) -> StoreDraft {
    section.show_header("store");
    let name = section.required::<Name>("name", "routes and rules name it").map(|name| name.0);
    if let Some(name) = name.as_deref()
        && RESERVED.contains(&name)
    {
        let message = format!("{} has a meaning of its own in `to`", quote(name));
        document.error(&section.key("name"), message, "give the store another name");
    }
    let addresses = addresses(document, &mut section);
    let ring = section.or("ring", RingKind::CarbonCh);
    let replicas = section.or("replicas", 1u64);
    let available = addresses.len().max(1);
    let replicas = match usize::try_from(replicas) {
        Ok(replicas) if (1..=available).contains(&replicas) => replicas,
        Ok(_) | Err(_) => {
            let message = format!("{replicas} replicas of {available} addresses");
            document.error(
                &section.key("replicas"),
                message,
                format!("from 1 to the number of addresses, {available}"),
            );
            1
        }
    };
    let path = section.path().to_owned();
    section.finish();
    StoreDraft { path, name, addresses, ring, replicas }
}

fn addresses(document: &Document<'_>, section: &mut Section<'_, '_>) -> Vec<StoreAddress> {
    let mut addresses: Vec<StoreAddress> = Vec::new();
    for Item { path, text } in section.required_strings("addresses", "where the store listens", ADDRESS) {
        match store_address(&text) {
            None => document.error(&path, format!("{} is no address", quote(&text)), ADDRESS),
            Some(address) if addresses.contains(&address) => {
                document.error(&path, format!("{} stands here twice", quote(&text)), "each address once");
            }
            Some(address) => addresses.push(address),
        }
    }
    addresses
}

/// Two stores of one name.
pub(crate) fn check_names(document: &Document<'_>, stores: &[StoreDraft]) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for store in stores {
        let Some(name) = store.name.as_deref() else { continue };
        match names.get(name) {
            Some(first) => {
                let (key, other) = (format!("{}.name", store.path), format!("{first}.name"));
                document.clash(
                    &key,
                    format!("{} is taken", quote(name)),
                    "each store has its own name",
                    &other,
                    "by this store",
                );
            }
            None => {
                names.insert(name, &store.path);
            }
        }
    }
}
