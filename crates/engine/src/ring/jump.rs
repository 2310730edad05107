//! The ring without a ring: a jump hash over the list of addresses.

use super::StoreAddress;
use super::hashes::{fnv1a_64, jump, next_hash};
use std::cmp::Ordering;

/// The addresses in the order in which the hash counts them.
#[derive(Clone, Debug)]
pub(super) struct Jump {
    order: Vec<usize>,
}

impl Jump {
    pub(super) fn new(addresses: &[StoreAddress]) -> Jump {
        let mut order: Vec<usize> = Vec::with_capacity(addresses.len());
        for (index, address) in addresses.iter().enumerate() {
            // By insertion: numbers compare as numbers and all else as text, which is no total order for a mixed list
            // (9 < 10 < 1a < 9), and the library's sort may panic on such.
            let at = order.iter().position(|other| precedes(address, &addresses[*other])).unwrap_or(order.len());
            order.insert(at, index);
        }
        Jump { order }
    }

    /// Indexes of the addresses.
    #[cfg(test)]
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn pick(&self, key: &[u8], copies: usize, out: &mut Vec<usize>) {
        let mut left = self.order.clone();
        let mut hash = fnv1a_64(key);
        while out.len() < copies && !left.is_empty() {
            out.push(left.swap_remove(jump(hash, left.len())));
            hash = next_hash(hash);
        }
    }
}

/// Addresses with an instance come first, sorted by it; those without keep the order of the file.
fn precedes(one: &StoreAddress, other: &StoreAddress) -> bool {
    match (&one.instance, &other.instance) {
        (Some(one), Some(other)) => {
            let order = match (one.parse::<i64>(), other.parse::<i64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) | (Err(_), Err(_)) => one.cmp(other),
            };
            order == Ordering::Less
        }
        (Some(_), None) => true,
        (None, Some(_) | None) => false,
    }
}
