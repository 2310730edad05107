//! Grafana Cloud, 19 July 2019: nodes went one after another, the rest could not carry the load, retries grew it tenfold and
//! the proxies in front ran out of memory. Here every aggregator of both layers is killed, one by one, under load; the
//! relay spills within its memory; then they come back, and nobody does anything.

use std::time::Duration;

use testkit::{Feed, Fleet, Layer, eventually, one_at_a_time};

use crate::{
    CATCH_UP, Keys, SOON, aggregators, cluster, form, no_worker_failed, nothing_is_lost, rate_of, say, spilled, up,
    when,
};

/// `send.retain` plus `receive.buffer` of this drill, and 30 % (the issue), and what a relay is without any load.
const RETAIN_MIB: u64 = 32;
const BUFFER_MIB: u64 = 16;
/// A relay that does nothing: program, threads, RocksDB's own caches (measured at the drill's start, and at most this).
const IDLE_MIB: u64 = 96;

/// What the relay may use at most, bytes.
fn allowed(idle: u64) -> u64 {
    idle + ((RETAIN_MIB + BUFFER_MIB) << 20) * 13 / 10
}

#[track_caller]
fn peak(fleet: &Fleet, node: &str) -> u64 {
    fleet.resident(node).expect("it runs").peak
}

#[test]
fn drill_cascade_of_all_aggregators_is_outlived_within_bounded_memory() {
    let _turn = one_at_a_time();
    let keys = Keys {
        send: "retain = \"32MiB\"",
        replay: "rate = \"500000/s\"\nlarge = 100000000",
        more: "[receive]\nbuffer = \"16MiB\"",
        ..Keys::default()
    };
    let (sink, cluster) = cluster(1, 3, 2, keys);
    let mut fleet = up("cascade", cluster);
    let idle = peak(&fleet, "relay-1");
    assert!(idle <= IDLE_MIB << 20, "an idle relay uses {} MiB", idle >> 20);
    let rate = form(30_000, 150_000);
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));

    let order = aggregators(&fleet);
    for node in &order {
        fleet.kill(node);
        std::thread::sleep(Duration::from_secs(form(1, 10)));
    }
    // All are gone: what cannot be delivered is on disk, and lines are still taken at the full rate.
    eventually(SOON, "points in the spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending > 0, pending)
    });
    let taken = rate_of(Duration::from_secs(form(4, 60)), || feed.lines());
    assert!(taken >= rate as f64 * 0.8, "the relay took {taken:.0} of {rate} points/s while all aggregators were away");
    for node in order.iter().rev() {
        fleet.restart(node);
        std::thread::sleep(Duration::from_secs(form(1, 5)));
    }
    // More load than before while it recovers, as when clients catch up.
    feed.set_rate(rate * 3 / 2);
    std::thread::sleep(Duration::from_secs(form(3, 30)));
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    let memory = peak(&fleet, "relay-1");
    say(&format!(
        "relay-1: {} MiB idle, {} MiB at its highest, {} allowed",
        idle >> 20,
        memory >> 20,
        allowed(idle) >> 20
    ));
    assert!(memory <= allowed(idle), "{} MiB, {} allowed", memory >> 20, allowed(idle) >> 20);
    no_worker_failed(&fleet);
    let relay = fleet.api("relay-1");
    eventually(CATCH_UP, "all links", || {
        let peers = relay.status()?.peers;
        when(peers.iter().all(|peer| peer.state == "up"), peers)
    });
    assert_eq!(fleet.layer(Layer::Partial).len(), 3);
    fleet.end();
}
