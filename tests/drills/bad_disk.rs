//! A node's disk fails, or is made read-only, under its open files and under load: the mode is shown, live points go on,
//! and when the disk is well again the node is too, by itself and without a loss.

use std::time::Duration;

use admin_api::Verdict;
use testkit::{BadDisk, Broken, Feed, Fleet, eventually, one_at_a_time};

use crate::{
    CATCH_UP, Keys, SOON, cluster, form, no_worker_failed, nothing_is_lost, rate_of, say, spilled, support, when,
};

/// Each way in which a disk is bad, and the mode that says so.
const WAYS: [(Broken, &str); 2] = [(Broken::ReadOnly, "read_only"), (Broken::Failing, "error")];
const RATE: u64 = 10_000;

/// A fleet of one node a layer of which `node` can be given a bad disk; nothing, said, where there is no C compiler.
fn fleet(name: &str, cluster: testkit::Cluster, node: &str, below: &str) -> Option<(Fleet, BadDisk)> {
    let fleet = Fleet::new(name, cluster, support::program);
    match BadDisk::new(fleet.dir(), below) {
        Ok(disk) => Some((fleet.with_environment(node, disk.environment()).up(), disk)),
        Err(why) => {
            say(&format!("SKIPPED {name}: {why}"));
            None
        }
    }
}

/// The relay takes what the feed sends, at its rate.
#[track_caller]
fn live_goes_on(fleet: &Fleet) {
    let relay = fleet.api("relay-1");
    let rate = rate_of(Duration::from_secs(form(3, 20)), || relay.ledger().expect("the relay answers").received);
    say(&format!("{rate:.0} points/s meanwhile"));
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let least = RATE as f64 * 0.8;
    assert!(rate >= least, "{rate:.0} of {RATE} points/s were taken");
}

#[test]
fn drill_bad_disk_under_a_final_node_withholds_answers_and_heals() {
    let _turn = one_at_a_time();
    let (sink, cluster) = cluster(1, 1, 1, Keys { replay: "rate = \"500000/s\"", ..Keys::default() });
    let Some((mut fleet, disk)) = fleet("bad-disk-final", cluster, "final-1", "/data/final-1/") else { return };
    let api = fleet.api("final-1");
    let merged = || Ok::<u64, String>(api.ledger()?.routed);
    let feed = Feed::new(fleet.cluster.graphite(), RATE).start();
    for (how, mode) in WAYS {
        let before = merged().expect("books");
        eventually(SOON, "points at the final node", || when(merged()? > before, before));
        disk.breaks(how).expect("to break the disk");
        eventually(SOON, &format!("mode {mode}, in figures and in the verdict"), || {
            let status = api.status()?;
            let is_shown = status.figures.get(&format!("store_mode_{mode}")) == Some(&1);
            let is_said = matches!(&status.verdict, Verdict::Degraded { error, .. } if error.contains(mode));
            when(is_shown && is_said, (status.verdict, status.figures))
        });
        let before = merged().expect("books");
        live_goes_on(&fleet);
        let ledger = api.ledger().expect("books");
        say(&format!("{how:?}: {} points merged before, {} after", before, ledger.routed));
        disk.heals().expect("to heal the disk");
        eventually(CATCH_UP, "the node to be well", || {
            let status = api.status()?;
            let is_ok = status.figures.get("store_mode_ok") == Some(&1) && status.verdict == Verdict::Ready;
            when(is_ok, (status.verdict, status.figures))
        });
    }
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    no_worker_failed(&fleet);
    fleet.end();
}

#[test]
fn drill_bad_disk_under_a_spill_leaves_live_alone_and_heals() {
    let _turn = one_at_a_time();
    let (sink, cluster) = cluster(1, 1, 1, Keys { replay: "rate = \"500000/s\"", ..Keys::default() });
    let Some((mut fleet, disk)) = fleet("bad-disk-spill", cluster, "relay-1", "/data/relay-1/spill") else { return };
    let relay = fleet.api("relay-1");
    fleet.kill("partial-1");
    let feed = Feed::new(fleet.cluster.graphite(), RATE).start();
    for (how, mode) in WAYS {
        let before = spilled(&fleet, "relay-1").expect("books");
        eventually(SOON, "points in the spill", || when(spilled(&fleet, "relay-1")? > before, before));
        disk.breaks(how).expect("to break the disk");
        eventually(SOON, &format!("mode {mode}"), || {
            let status = relay.spill()?;
            if status.mode == mode { Ok(()) } else { Err(format!("{status:?}")) }
        });
        live_goes_on(&fleet);
        disk.heals().expect("to heal the disk");
        eventually(CATCH_UP, "the spill to be well", || {
            let status = relay.spill()?;
            if status.mode == "ok" { Ok(()) } else { Err(format!("{status:?}")) }
        });
    }
    fleet.restart("partial-1");
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    no_worker_failed(&fleet);
    fleet.end();
}
