//! Rings: which addresses of a store get a series, exactly as the tools that placed the existing data decide it.
//!
//! Four definitions (COMPAT 4.1; the vectors of COMPAT 4.2 are the tests):
//!
//! * `carbon_ch`: Python carbon's `consistent-hashing`. Positions are MD5, node keys leave the port out, and a taken
//!   position pushes the newcomer on by one, so **the order of the addresses matters**. Replicas never share a host
//!   (`DIVERSE_REPLICAS`, carbon's default), so there may be fewer of them than asked for: see [`Ring::copies`].
//! * `carbon_ch_ccr`: the same as carbon-c-relay builds it: no pushing, the order of addresses does not matter, of equal
//!   positions the first by host and instance wins.
//! * `fnv1a_ch`: carbon-c-relay's; the node key has the port, or is the instance alone. Python carbon places alike with
//!   one copy where every address has an instance of its own, and differently where one has none.
//! * `jump_fnv1a_ch`: carbon-c-relay's; addresses in their order, or sorted by instance.
//!
//! What is hashed of a series with tags: the **whole name** (in normal form) for `carbon_ch`, as Python does; the **path
//! before the first `;`** for the three others, as carbon-c-relay does with live traffic. The latter puts all series of
//! one path on one address, whatever their tags: data that is there already is found, but it balances badly.
//!
//! Bytes above 0x7f hash as the algorithms say. (carbon-c-relay on x86 sign-extends them, but by default never meets one,
//! as it first turns them into `_`.)

mod circle;
mod hashes;
mod jump;
mod spec;
#[cfg(test)]
mod tests;

use crate::pattern::path_of;
pub use spec::{RingKind, StoreAddress, StoreSpec};

use circle::Circle;
use jump::Jump;

/// How one store's addresses share the series.
#[derive(Clone, Debug)]
pub struct Ring {
    shape: Shape,
    hashed: Hashed,
    copies: usize,
}

#[derive(Clone, Debug)]
enum Shape {
    Circle(Circle),
    Jump(Jump),
}

/// The part of a name that decides.
#[derive(Clone, Copy, Debug)]
enum Hashed {
    WholeName,
    Path,
}

impl Ring {
    /// Builds the ring of `store`; [`check`] says whether it makes sense.
    pub fn build(store: &StoreSpec) -> Ring {
        let addresses = &store.addresses;
        let asked = store.replicas.clamp(1, addresses.len().max(1));
        match store.ring {
            RingKind::CarbonCh => {
                let circle = Circle::carbon_ch(addresses);
                let copies = asked.min(circle.groups());
                Ring { shape: Shape::Circle(circle), hashed: Hashed::WholeName, copies }
            }
            RingKind::CarbonChCcr => {
                Ring { shape: Shape::Circle(Circle::carbon_ch_ccr(addresses)), hashed: Hashed::Path, copies: asked }
            }
            RingKind::Fnv1aCh => {
                Ring { shape: Shape::Circle(Circle::fnv1a_ch(addresses)), hashed: Hashed::Path, copies: asked }
            }
            RingKind::JumpFnv1aCh => {
                Ring { shape: Shape::Jump(Jump::new(addresses)), hashed: Hashed::Path, copies: asked }
            }
        }
    }

    /// How many different addresses each series gets: the store's `replicas`, or for `carbon_ch` the number of different
    /// hosts if that is less.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// Puts into `out` (which is emptied first) the indexes of the addresses that get `name`, first choice first.
    pub fn pick(&self, name: &[u8], out: &mut Vec<usize>) {
        let key = match self.hashed {
            Hashed::WholeName => name,
            Hashed::Path => path_of(name),
        };
        self.pick_by_key(key, out);
    }

    fn pick_by_key(&self, key: &[u8], out: &mut Vec<usize>) {
        out.clear();
        match &self.shape {
            Shape::Circle(circle) => circle.pick(key, self.copies, out),
            Shape::Jump(jump) => jump.pick(key, self.copies, out),
        }
    }
}

/// Whether a ring can be built of `store` that uses each of its addresses.
///
/// # Errors
/// One sentence for each thing that is wrong with it.
pub fn check(store: &StoreSpec) -> Result<(), Vec<String>> {
    let addresses = &store.addresses;
    let mut problems = Vec::new();
    if addresses.is_empty() {
        problems.push(format!("store `{}` has no addresses", store.name));
    } else if !(1..=addresses.len()).contains(&store.replicas) {
        problems.push(format!(
            "store `{}` has {} addresses, so `replicas` is 1 to {}, not {}",
            store.name,
            addresses.len(),
            addresses.len(),
            store.replicas
        ));
    }
    for (index, address) in addresses.iter().enumerate() {
        let twin = addresses[..index].iter().find(|earlier| match store.ring {
            RingKind::CarbonCh | RingKind::CarbonChCcr => {
                earlier.host == address.host && earlier.instance == address.instance
            }
            RingKind::Fnv1aCh => match (&earlier.instance, &address.instance) {
                (Some(earlier), Some(instance)) => earlier == instance,
                (None, None) => earlier.host == address.host && earlier.port == address.port,
                (Some(_), None) | (None, Some(_)) => false,
            },
            RingKind::JumpFnv1aCh => *earlier == address,
        });
        if let Some(twin) = twin {
            problems.push(format!(
                "store `{}`: its ring cannot tell {}:{} from {}:{}; give each an instance of its own (`host:port=instance`)",
                store.name, address.host, address.port, twin.host, twin.port
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
