//! Ten times the load that downstream can take, and downstream away: memory stays within its budget and 30 %, whatever the
//! time, and everything arrives in the end.

use std::time::Duration;

use testkit::{Cluster, Fault, Feed, Fleet, Keep, Layer, Proxy, Sink, eventually, one_at_a_time};

use crate::{Keys, SOON, form, no_worker_failed, nothing_is_lost, rate_of, say, spilled, support, tuned, when};

/// `send.retain`, `receive.buffer`, and what a spill may use for itself.
const RETAIN_MIB: u64 = 32;
const BUFFER_MIB: u64 = 16;
/// What a replayer may have in memory, and so on its way (`engine::replay`).
const REPLAY_MIB: u64 = 64;
/// `final.memory`.
const FINAL_MIB: u64 = 64;
/// One piece of at most 64 KiB (some 1,900 points) every 300 ms: 6,000 points/s.
const SLOW: Duration = Duration::from_millis(300);

#[test]
fn drill_memory_is_bounded_at_ten_times_the_load_and_with_downstream_away() {
    let _turn = one_at_a_time();
    let rate = 60_000;
    let sink = Sink::start(Keep::Points);
    let keys = Keys {
        send: "retain = \"32MiB\"",
        replay: "rate = \"1000000/s\"\nlarge = 1000000000",
        last: "memory = \"64MiB\"",
        more: "[receive]\nbuffer = \"16MiB\"",
        ..Keys::default()
    };
    let real = tuned(Cluster::new(1, 1, 1).store("carbon", &[sink.address()]), keys);
    let proxy = Proxy::to(real.first(Layer::Partial).link.expect("it takes links"));
    let mut seen = real.clone();
    for node in seen.nodes.iter_mut().filter(|node| node.layer == Layer::Partial) {
        node.link = Some(proxy.address());
    }
    let fleet = Fleet::new("memory", real, support::program).sees("relay-1", &seen).sees("replayer-1", &seen);
    let mut fleet = fleet.up();
    let peak = |fleet: &Fleet, node: &str| fleet.resident(node).expect("it runs").peak >> 20;
    let idle: Vec<(String, u64)> = fleet.names().into_iter().map(|name| (name.clone(), peak(&fleet, &name))).collect();
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));

    proxy.faults(Fault::Delay(SLOW), Fault::None);
    std::thread::sleep(Duration::from_secs(form(12, 60)));
    say(&format!("at ten times the load: relay-1 {} MiB at its highest", peak(&fleet, "relay-1")));
    proxy.refuse(true);
    proxy.reset_all();
    let taken = rate_of(Duration::from_secs(form(30, 600)), || feed.lines());
    say(&format!(
        "downstream away: {taken:.0} of {rate} points/s taken, {:?} in the spill",
        spilled(&fleet, "relay-1")
    ));
    assert!(taken >= rate as f64 * 0.8, "{taken:.0} of {rate} points/s taken while downstream was away");
    proxy.refuse(false);
    proxy.faults(Fault::None, Fault::None);
    let sent = feed.finish();
    eventually(Duration::from_secs(form(120, 1_800)), "the spill to be replayed", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == 0, pending)
    });
    nothing_is_lost(&mut fleet, &sink, &sent);
    let mut over = Vec::new();
    for (name, idle) in idle {
        let budget = match fleet.cluster.named(&name).layer {
            Layer::Relay => RETAIN_MIB + BUFFER_MIB,
            // It holds what relays and replayers have on their way.
            Layer::Partial => RETAIN_MIB + REPLAY_MIB,
            Layer::Final => FINAL_MIB,
            Layer::Replayer => REPLAY_MIB,
        };
        let (peak, allowed) = (peak(&fleet, &name), idle + budget * 13 / 10);
        say(&format!("{name}: {idle} MiB idle, {peak} MiB at its highest, {allowed} allowed"));
        if peak > allowed {
            over.push(name);
        }
    }
    assert_eq!(over, Vec::<String>::new(), "nodes that use more than they may");
    no_worker_failed(&fleet);
    fleet.end();
}
