//! How many wrong tokens one address may show in a while.
//!
//! Each address has an allowance of [`ALLOWED`], and gets one back every [`BACK_EVERY`]. The table is bounded: beyond
//! [`ADDRESSES_MAX`] the address goes that is nearest to its full allowance. Nothing here keeps a right token out: who
//! shares an address with somebody else's forgotten script (a gateway, a jump host) must get in when it burns.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Mono;

/// Wrong tokens in a row.
pub const ALLOWED: u32 = 10;
/// After so long one more.
pub const BACK_EVERY: Duration = Duration::from_secs(6);
/// 1,024 of them have less than 100 KiB.
pub const ADDRESSES_MAX: usize = 1_024;

/// The addresses that showed wrong tokens lately.
#[derive(Debug, Default)]
pub struct Throttle {
    /// When the address has its full allowance again.
    full_at: BTreeMap<IpAddr, Mono>,
}

impl Throttle {
    /// A wrong token from `from`. `Some`: it was one too many, and so long it takes until there may be another.
    pub fn strike(&mut self, now: Mono, from: IpAddr) -> Option<Duration> {
        let from = neighbourhood(from);
        let full_at = self.full_at.get(&from).copied().unwrap_or(now).max(now);
        let next = full_at + BACK_EVERY;
        let limit = now + BACK_EVERY * ALLOWED;
        if next > limit {
            // Not counted: who goes on and on is let off as soon as who waits.
            return Some(next.since(limit));
        }
        self.make_room(now, from);
        self.full_at.insert(from, next);
        None
    }

    /// How many addresses are kept in mind.
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether no address is kept in mind.
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }

    fn make_room(&mut self, now: Mono, from: IpAddr) {
        if self.full_at.len() < ADDRESSES_MAX || self.full_at.contains_key(&from) {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < ADDRESSES_MAX {
            return;
        }
        let least = self.full_at.iter().min_by_key(|(_, full_at)| **full_at).map(|(address, _)| *address);
        if let Some(address) = least {
            self.full_at.remove(&address);
        }
    }
}

/// A host of IPv6 has 2^64 addresses for itself: its network stands for it.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: &str = "10.0.0.1";

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(seconds * 1000)
    }

    /// The seconds to wait for each of these moments' strikes.
    #[track_caller]
    fn check(strikes: &[(u64, &str, Option<u64>)]) {
        let mut throttle = Throttle::default();
        for (seconds, from, wait) in strikes {
            let said = throttle.strike(at(*seconds), from.parse().unwrap());
            assert_eq!(said.map(|wait| wait.as_secs()), *wait, "{from} at {seconds}");
        }
    }

    fn ten(from: &'static str) -> Vec<(u64, &'static str, Option<u64>)> {
        vec![(100, from, None); 10]
    }

    #[test]
    fn the_eleventh_wrong_token_in_a_row_is_one_too_many() {
        check(
            &[ten(ANNA), vec![(100, ANNA, Some(6)), (103, ANNA, Some(3)), (106, ANNA, None), (106, ANNA, Some(6))]]
                .concat(),
        );
    }

    #[test]
    fn after_a_minute_the_allowance_is_whole_again() {
        check(&[ten(ANNA), ten(ANNA).into_iter().map(|(_, from, wait)| (160, from, wait)).collect()].concat());
    }

    #[test]
    fn one_address_does_not_pay_for_another() {
        check(&[ten(ANNA), vec![(100, "10.0.0.2", None), (100, "::ffff:10.0.0.1", Some(6))]].concat());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        check(&[ten("2001:db8::1"), vec![(100, "2001:db8::ffff", Some(6)), (100, "2001:db8:0:1::1", None)]].concat());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let mut throttle = Throttle::default();
        for (_, from, _) in ten(ANNA) {
            throttle.strike(at(100), from.parse().unwrap());
        }
        for number in 0..20_000u32 {
            throttle.strike(at(100), IpAddr::V4((0x0b00_0000 + number).into()));
            assert!(throttle.len() <= ADDRESSES_MAX);
        }
        assert!(throttle.strike(at(100), ANNA.parse().unwrap()).is_some(), "forgotten for the sake of strangers");
        // Those that are whole again make room at once.
        throttle.strike(at(1_000), "12.0.0.1".parse().unwrap());
        assert_eq!(throttle.len(), 1);
    }
}
