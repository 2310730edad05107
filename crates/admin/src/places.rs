//! How many connections one address has, so that a single one cannot take all places and lock out who has a token.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// As many entries as there are connections at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// Of one connection; given back when it ends.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// A place for `address`, unless it has `most` already.
    pub(crate) fn take(&self, address: IpAddr, most: usize) -> Option<Place> {
        let mut taken = self.taken();
        let count = taken.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), address })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_and_an_ended_connection_gives_its_place_back() {
        let places = Places::default();
        let [anna, ben] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let held: Vec<Place> = (0..3).filter_map(|_| places.take(anna, 2)).collect();
        assert_eq!(held.len(), 2);
        assert!(places.take(ben, 2).is_some(), "another one has his own");
        assert!(places.take(anna, 2).is_none());
        drop(held);
        assert!(places.take(anna, 2).is_some());
        assert!(places.taken().is_empty(), "nobody is kept in mind");
    }
}
