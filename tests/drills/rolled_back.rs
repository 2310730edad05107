//! A relay's data directory is put back to an older copy, as a restored backup or a snapshot of a virtual machine does: the
//! spill in it has been replayed already, and the sender's epochs in it have been used since. Nothing may count twice, and
//! nothing new may be taken for a repetition (FAULTS C2-C4).

use testkit::{Feed, eventually, one_at_a_time};

use crate::damage::copy;
use crate::{CATCH_UP, Keys, SOON, cluster, form, nothing_is_lost, say, spilled, up, when};

#[test]
fn drill_rolled_back_data_of_a_relay_counts_nothing_twice_and_loses_nothing_new() {
    let _turn = one_at_a_time();
    let keys = Keys { send: "journal = true", replay: "rate = \"500000/s\"\nlarge = 100000000", ..Keys::default() };
    let (sink, cluster) = cluster(1, 1, 1, keys);
    let mut fleet = up("rolled-back", cluster);
    let rate = form(10_000, 50_000);
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));
    fleet.kill("partial-1");
    let enough = 3 * rate;
    eventually(CATCH_UP, "a backlog", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending >= enough, pending)
    });
    let relay = fleet.api("relay-1");
    feed.pause();
    eventually(CATCH_UP, "everything in the spill", || {
        let ledger = relay.ledger()?;
        when(ledger.in_hand == 0 && ledger.destinations.iter().all(|to| to.in_flight == 0), ledger)
    });
    fleet.kill("relay-1");
    let old = fleet.dir().join("old");
    copy(&fleet.data("relay-1"), &old);

    // Time goes on: the backlog is replayed, and more comes.
    fleet.restart("relay-1");
    fleet.restart("partial-1");
    feed.resume();
    eventually(CATCH_UP, "the backlog to be replayed", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == 0, pending)
    });
    feed.pause();
    fleet.settled(CATCH_UP);

    for _ in 0..2 {
        fleet.kill("relay-1");
        copy(&old, &fleet.data("relay-1"));
        fleet.restart("relay-1");
        let back = spilled(&fleet, "relay-1").expect("books");
        let before = feed.lines();
        feed.resume();
        eventually(SOON, "points", || when(feed.lines() > before + rate, feed.lines()));
        feed.pause();
        fleet.settled(CATCH_UP);
        say(&format!("{back} points of the old copy were offered once more"));
    }
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    fleet.end();
}
