//! An aggregator that becomes slow, then dies, under load: a peer that was tried loses a third of its points uncounted
//! (PEERS.md). Three times; each time the node comes back.

use std::time::Duration;

use testkit::{Cluster, Fault, Feed, Fleet, Keep, Layer, Proxy, Sink, eventually, one_at_a_time};

use crate::{CATCH_UP, Keys, SOON, form, no_worker_failed, nothing_is_lost, say, support, tuned, when};

/// What every piece of at most 64 KiB waits for in the proxy before the slow node.
const SLOW: Duration = Duration::from_millis(400);

#[test]
fn drill_slow_then_dead_aggregator_loses_nothing() {
    let _turn = one_at_a_time();
    let rate = form(10_000, 50_000);
    let hold = Duration::from_secs(form(3, 15));
    let sink = Sink::start(Keep::Points);
    let real = tuned(Cluster::new(1, 2, 1).store("carbon", &[sink.address()]), Keys::default());
    // The relay sees partial-1 through a proxy.
    let proxy = Proxy::to(real.first(Layer::Partial).link.expect("it takes links"));
    let mut seen = real.clone();
    for node in &mut seen.nodes {
        if node.name == "partial-1" {
            node.link = Some(proxy.address());
        }
    }
    let mut fleet = Fleet::new("slow-then-dead", real, support::program).sees("relay-1", &seen).up();
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));
    for round in 1..=3 {
        proxy.faults(Fault::Delay(SLOW), Fault::Delay(SLOW));
        std::thread::sleep(hold);
        fleet.kill("partial-1");
        proxy.faults(Fault::None, Fault::None);
        proxy.reset_all();
        std::thread::sleep(hold);
        fleet.restart("partial-1");
        let relay = fleet.api("relay-1");
        eventually(CATCH_UP, "the link to be up again", || {
            let peers = relay.status()?.peers;
            when(peers.iter().any(|peer| peer.peer == "partial-1" && peer.state == "up"), peers)
        });
        say(&format!("round {round}: {} lines sent", feed.lines()));
    }
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    no_worker_failed(&fleet);
    fleet.end();
}
