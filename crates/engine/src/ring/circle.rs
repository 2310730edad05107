//! Rings with positions on a circle: every address stands at a hundred of them.

use super::StoreAddress;
use super::hashes::{carbon_position, fnv1a_position};
use std::collections::HashSet;

/// Fixed in the sources of carbon and carbon-c-relay.
const POINTS_PER_ADDRESS: usize = 100;

/// The circle, sorted by position, and who may not be picked together.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    points: Vec<CirclePoint>,
    /// For every address, the index of its group: one pick takes at most one address of a group.
    group_of: Vec<usize>,
    key_position: fn(&[u8]) -> u16,
}

#[derive(Clone, Copy, Debug)]
struct CirclePoint {
    /// Python's pushing may reach beyond 65535.
    position: u32,
    address: usize,
}

impl Circle {
    pub(super) fn carbon_ch(addresses: &[StoreAddress]) -> Circle {
        let mut taken = HashSet::new();
        let mut points = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            for number in 0..POINTS_PER_ADDRESS {
                let mut position = u32::from(carbon_position(carbon_key(address, number).as_bytes()));
                while !taken.insert(position) {
                    position += 1;
                }
                points.push(CirclePoint { position, address: index });
            }
        }
        points.sort_by_key(|point| point.position);
        let first_of_host = |address: &StoreAddress| addresses.iter().position(|other| other.host == address.host);
        let group_of =
            addresses.iter().enumerate().map(|(index, address)| first_of_host(address).unwrap_or(index)).collect();
        Circle { points, group_of, key_position: carbon_position }
    }

    pub(super) fn carbon_ch_ccr(addresses: &[StoreAddress]) -> Circle {
        let rank = |address: usize| {
            let StoreAddress { host, port: _, instance } = &addresses[address];
            (host.as_str(), instance.is_none(), instance.as_deref())
        };
        let position = |address: &StoreAddress, number| carbon_position(carbon_key(address, number).as_bytes());
        Circle::collapsed(addresses, position, rank, carbon_position)
    }

    pub(super) fn fnv1a_ch(addresses: &[StoreAddress]) -> Circle {
        let rank = |address: usize| (addresses[address].host.as_str(), addresses[address].port);
        let position = |StoreAddress { host, port, instance }: &StoreAddress, number: usize| {
            let key = match instance {
                Some(instance) => format!("{number}-{instance}"),
                None => format!("{number}-{host}:{port}"),
            };
            fnv1a_position(key.as_bytes())
        };
        Circle::collapsed(addresses, position, rank, fnv1a_position)
    }

    /// carbon-c-relay's way with equal positions: the first address by `rank` has the position for itself.
    fn collapsed<R: Ord>(
        addresses: &[StoreAddress],
        position: impl Fn(&StoreAddress, usize) -> u16,
        rank: impl Fn(usize) -> R,
        key_position: fn(&[u8]) -> u16,
    ) -> Circle {
        let mut points = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            for number in 0..POINTS_PER_ADDRESS {
                points.push(CirclePoint { position: u32::from(position(address, number)), address: index });
            }
        }
        points.sort_by(|a, b| a.position.cmp(&b.position).then_with(|| rank(a.address).cmp(&rank(b.address))));
        points.dedup_by_key(|point| point.position);
        Circle { points, group_of: (0..addresses.len()).collect(), key_position }
    }

    /// How many addresses can be picked together.
    pub(super) fn groups(&self) -> usize {
        self.group_of.iter().enumerate().filter(|(index, group)| index == *group).count()
    }

    /// Walks on from the position of `key` and takes the first `copies` addresses of different groups.
    pub(super) fn pick(&self, key: &[u8], copies: usize, out: &mut Vec<usize>) {
        let position = u32::from((self.key_position)(key));
        let start = self.points.partition_point(|point| point.position < position);
        let (before, after) = self.points.split_at(start);
        for point in after.iter().chain(before) {
            if out.len() == copies {
                return;
            }
            let group = self.group_of[point.address];
            if !out.iter().any(|taken| self.group_of[*taken] == group) {
                out.push(point.address);
            }
        }
    }
}

/// The text of a Python tuple, which carbon hashes.
fn carbon_key(address: &StoreAddress, number: usize) -> String {
    match &address.instance {
        Some(instance) => format!("('{}', '{instance}'):{number}", address.host),
        None => format!("('{}', None):{number}", address.host),
    }
}
