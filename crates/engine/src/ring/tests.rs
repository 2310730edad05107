//! The vectors of COMPAT 4.2: made by running carbon-c-relay 3.9 and Python carbon.

use super::StoreAddress;
use super::hashes::{carbon_position, fnv1a_32, fnv1a_64, fnv1a_position, jump};
use super::*;

fn address(host: &str, port: u16, instance: Option<&str>) -> StoreAddress {
    StoreAddress { host: host.into(), port, instance: instance.map(str::to_owned) }
}

/// Hosts 10.0.0.1 and on, all with port 2003.
fn hosts(count: usize) -> Vec<StoreAddress> {
    (1..=count).map(|number| address(&format!("10.0.0.{number}"), 2003, None)).collect()
}

fn with_instances(instances: [&str; 3]) -> Vec<StoreAddress> {
    hosts(3)
        .into_iter()
        .zip(instances)
        .map(|(host, name)| StoreAddress { instance: Some(name.into()), ..host })
        .collect()
}

/// C2 of the vectors: one host, three instances.
fn one_host() -> Vec<StoreAddress> {
    [(2004, "a"), (2104, "b"), (2204, "c")].map(|(port, name)| address("127.0.0.1", port, Some(name))).into()
}

const F2: [&str; 3] =
    ["ba603c36342304ed77953f84ac4d357b", "5dd63865534f84899c6e5594dba6749a", "866a18b81f2dc4649517a1df13e26f28"];

fn store(ring: RingKind, replicas: usize, addresses: Vec<StoreAddress>) -> StoreSpec {
    StoreSpec { name: "s".into(), addresses, ring, replicas }
}

fn picked(store: &StoreSpec, name: &str) -> Vec<usize> {
    let mut out = vec![99];
    Ring::build(store).pick(name.as_bytes(), &mut out);
    out
}

/// The choice for a key as it stands, whatever part of a name the ring would make its key of. Counted from 1.
fn picked_by_key(store: &StoreSpec, key: &str) -> Vec<usize> {
    let mut out = Vec::new();
    Ring::build(store).pick_by_key(key.as_bytes(), &mut out);
    out.into_iter().map(|index| index + 1).collect()
}

/// `columns`: C1 carbon, C2 instances, C3 two copies, F1 fnv, F2 instances, F3 two copies, J1 jump over 5, J2 instances,
/// J4 two copies; addresses counted from 1.
#[track_caller]
fn check(key: &str, columns: [&[usize]; 9]) {
    use RingKind::{CarbonCh, CarbonChCcr, Fnv1aCh, JumpFnv1aCh};
    let stores = [
        vec![store(CarbonCh, 1, hosts(3)), store(CarbonChCcr, 1, hosts(3))],
        vec![store(CarbonCh, 1, one_host()), store(CarbonChCcr, 1, one_host())],
        vec![store(CarbonCh, 2, hosts(3)), store(CarbonChCcr, 2, hosts(3))],
        vec![store(Fnv1aCh, 1, hosts(3))],
        vec![store(Fnv1aCh, 1, with_instances(F2))],
        vec![store(Fnv1aCh, 2, hosts(3))],
        vec![store(JumpFnv1aCh, 1, hosts(5))],
        vec![store(JumpFnv1aCh, 1, with_instances(["P0010", "P0002", "P0001"]))],
        vec![store(JumpFnv1aCh, 2, hosts(5))],
    ];
    for (column, (expected, stores)) in columns.iter().zip(&stores).enumerate() {
        for store in stores {
            assert_eq!(picked_by_key(store, key), *expected, "column {column}, {:?}, {key}", store.ring);
        }
    }
}

#[test]
fn every_vector_of_both_relays_is_met() {
    check("foo", [&[3], &[3], &[3, 1], &[1], &[1], &[1, 2], &[2], &[2], &[2, 4]]);
    check("a", [&[2], &[1], &[2, 3], &[3], &[3], &[3, 1], &[3], &[1], &[3, 4]]);
    check("servers.web01.cpu.user", [&[2], &[1], &[2, 1], &[2], &[1], &[2, 3], &[3], &[1], &[3, 4]]);
    check("servers.web02.cpu.user", [&[3], &[1], &[3, 2], &[1], &[3], &[1, 3], &[4], &[2], &[4, 3]]);
    check("collectd.db-01.load.shortterm", [&[3], &[3], &[3, 1], &[1], &[1], &[1, 2], &[5], &[1], &[5, 4]]);
    check("my.super.metric", [&[2], &[1], &[2, 1], &[3], &[3], &[3, 2], &[2], &[2], &[2, 5]]);
    check("statsd.timers.api.requests.p99", [&[3], &[1], &[3, 2], &[2], &[2], &[2, 3], &[5], &[2], &[5, 3]]);
    check("carbon.relays.host1.metricsReceived", [&[2], &[2], &[2, 1], &[1], &[2], &[1, 2], &[5], &[2], &[5, 2]]);
    check("hosts.worker1.cpu", [&[2], &[3], &[2, 3], &[3], &[1], &[3, 2], &[1], &[3], &[1, 2]]);
    check("disk.used;datacenter=dc1;rack=a1", [&[2], &[3], &[2, 3], &[2], &[3], &[2, 3], &[3], &[1], &[3, 4]]);
}

#[test]
fn tags_count_for_carbon_and_do_not_for_the_c_relay() {
    let name = "disk.used;datacenter=dc1;rack=a1";
    // The last line of the vectors is the C relay's live traffic.
    assert_eq!(picked(&store(RingKind::CarbonChCcr, 1, hosts(3)), name), [1]);
    assert_eq!(picked(&store(RingKind::Fnv1aCh, 1, hosts(3)), name), [1]);
    assert_eq!(picked(&store(RingKind::JumpFnv1aCh, 1, hosts(5)), name), [1]);
    let spread = |ring| {
        let store = store(ring, 1, hosts(3));
        let mut found: Vec<usize> = (0..100).flat_map(|number| picked(&store, &format!("m;host={number}"))).collect();
        found.sort_unstable();
        found.dedup();
        found.len()
    };
    assert_eq!(spread(RingKind::CarbonCh), 3);
    assert_eq!([RingKind::CarbonChCcr, RingKind::Fnv1aCh, RingKind::JumpFnv1aCh].map(spread), [1, 1, 1]);
}

#[test]
fn where_positions_meet_the_two_dialects_part() {
    for key in ["probe.12", "probe.24", "probe.167"] {
        assert_eq!(picked_by_key(&store(RingKind::CarbonChCcr, 2, hosts(3)), key), [1, 2], "{key}");
        assert_eq!(picked_by_key(&store(RingKind::CarbonCh, 2, hosts(3)), key), [1, 3], "{key}");
    }
    for (key, ccr, python) in [("probe.115", 11, 8), ("probe.130", 12, 5), ("probe.766", 12, 5)] {
        assert_eq!(picked_by_key(&store(RingKind::CarbonChCcr, 1, hosts(20)), key), [ccr], "{key}");
        assert_eq!(picked_by_key(&store(RingKind::CarbonCh, 1, hosts(20)), key), [python], "{key}");
    }
}

#[test]
fn the_order_of_addresses_matters_to_python_alone() {
    let moved = |ring| {
        let (forth, mut back) = (store(ring, 1, hosts(20)), store(ring, 1, hosts(20)));
        back.addresses.reverse();
        let (forth_ring, back_ring) = (Ring::build(&forth), Ring::build(&back));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        (0..3000)
            .filter(|number| {
                let key = format!("probe.{number}");
                forth_ring.pick_by_key(key.as_bytes(), &mut one);
                back_ring.pick_by_key(key.as_bytes(), &mut other);
                forth.addresses[one[0]] != back.addresses[other[0]]
            })
            .count()
    };
    assert_ne!(moved(RingKind::CarbonCh), 0);
    assert_eq!([RingKind::CarbonChCcr, RingKind::Fnv1aCh].map(moved), [0, 0]);
}

#[test]
fn the_hashes_are_the_published_ones() {
    for (key, position) in [
        ("('10.0.0.1', None):0", 46982),
        ("('10.0.0.1', None):99", 2076),
        ("('127.0.0.1', 'a'):0", 24043),
        ("foo", 44221),
        ("a.b.c.d", 54437),
        ("", 54301),
    ] {
        assert_eq!(carbon_position(key.as_bytes()), position, "{key}");
    }
    for (key, position) in [
        ("0-10.0.0.1:2003", 49703),
        ("99-10.0.0.1:2003", 14420),
        ("0-ba603c36342304ed77953f84ac4d357b", 12639),
        ("foo", 55076),
        ("hosts.worker1.cpu", 59573),
    ] {
        assert_eq!(fnv1a_position(key.as_bytes()), position, "{key}");
    }
    assert_eq!(fnv1a_32(b"0-10.0.0.1:2003"), 0xbd24_7f03);
    assert_eq!(fnv1a_32(b"0-ba603c36342304ed77953f84ac4d357b"), 0xaeec_9fb3);
    assert_eq!(fnv1a_32(b"foo"), 0xa9f3_7ed7);
    assert_eq!(fnv1a_32("é".as_bytes()), 0x1e9d_e8c1);
    for (key, hash, buckets) in [
        ("foo", 0xdcb2_7518_fed9_d577, [0, 1, 1, 1, 1, 90]),
        ("servers.web01.cpu.user", 0x819e_d6e8_9dfd_8235, [0, 0, 2, 2, 2, 53]),
    ] {
        assert_eq!(fnv1a_64(key.as_bytes()), hash, "{key}");
        assert_eq!([1, 2, 3, 5, 10, 100].map(|count| jump(hash, count)), buckets, "{key}");
    }
}

#[test]
fn jump_orders_instances_as_numbers_where_both_are_numbers() {
    let order = |instances: [Option<&str>; 4]| {
        let addresses: Vec<_> = instances.into_iter().map(|instance| address("h", 1, instance)).collect();
        Jump::new(&addresses).order().to_vec()
    };
    assert_eq!(order([Some("10"), Some("2"), Some("1"), Some("-1")]), [3, 2, 1, 0]);
    assert_eq!(order([Some("p10"), Some("p2"), None, Some("p1")]), [3, 0, 1, 2]);
    assert_eq!(order([None, None, None, None]), [0, 1, 2, 3]);
    assert_eq!(order([None, Some("b"), None, Some("a")]), [3, 1, 0, 2]);
    // No order fits this list; what counts is that it is put into one, and always the same.
    assert_eq!(order([Some("1a"), Some("9"), Some("10"), Some("9")]).len(), 4);
}

#[test]
fn replicas_are_different_addresses_and_as_many_as_asked() {
    for ring in [RingKind::CarbonCh, RingKind::CarbonChCcr, RingKind::Fnv1aCh, RingKind::JumpFnv1aCh] {
        for replicas in 1..=5 {
            let store = store(ring, replicas, hosts(5));
            for number in 0..200 {
                let mut found = picked(&store, &format!("probe.{number}"));
                assert_eq!(found.len(), replicas, "{ring:?}");
                found.sort_unstable();
                found.dedup();
                assert_eq!(found.len(), replicas, "{ring:?}");
            }
        }
    }
}

#[test]
fn carbon_puts_no_two_replicas_on_one_host_and_says_so() {
    let mut addresses = one_host();
    addresses.push(address("10.0.0.1", 2004, Some("a")));
    let store = store(RingKind::CarbonCh, 3, addresses);
    assert_eq!(Ring::build(&store).copies(), 2);
    for number in 0..100 {
        let found = picked(&store, &format!("probe.{number}"));
        assert_eq!(found.iter().filter(|index| **index == 3).count(), 1);
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn addresses_that_a_ring_cannot_tell_apart_are_found() {
    use RingKind::{CarbonCh, CarbonChCcr, Fnv1aCh, JumpFnv1aCh};
    let two_ports = || vec![address("h", 1, None), address("h", 2, None)];
    let two_instances = || vec![address("h", 1, Some("a")), address("h", 1, Some("b"))];
    let one_instance = || vec![address("h", 1, Some("a")), address("i", 2, Some("a"))];
    let same = || vec![address("h", 1, None), address("h", 1, None)];
    for (ring, wrong) in [
        (CarbonCh, [true, false, false, true]),
        (CarbonChCcr, [true, false, false, true]),
        (Fnv1aCh, [false, false, true, true]),
        (JumpFnv1aCh, [false, false, false, true]),
    ] {
        let found = [two_ports(), two_instances(), one_instance(), same()]
            .map(|list| super::check(&store(ring, 1, list)).is_err());
        assert_eq!(found, wrong, "{ring:?}");
    }
}

#[test]
fn replicas_have_to_fit_the_addresses() {
    for (replicas, count, fits) in [(0, 2, false), (1, 2, true), (2, 2, true), (3, 2, false), (1, 0, false)] {
        let store = store(RingKind::CarbonCh, replicas, hosts(count));
        assert_eq!(super::check(&store).is_ok(), fits, "{replicas} of {count}");
        assert!(picked(&store, "a").len() <= count);
    }
}
