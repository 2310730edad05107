//! Wikimedia, 28 February 2024: a replication cursor pointed at what the source no longer had; the tool stopped, and people
//! worked out by hand what was safe to skip. Here parts of a spill are given up and others are destroyed under a running
//! replayer: what is gone is known exactly, counted as lost, and the replay goes on by itself.

use std::time::Duration;

use admin_api::{SpillDiscard, SpillLane, SpillStatus};
use testkit::{Feed, Fleet, Layer, Sent, eventually, one_at_a_time};

use crate::damage::{Harm, store_files};
use crate::{CATCH_UP, Dice, Keys, cluster, counted, form, say, spilled, up, when};

/// The lanes of points that wait for the aggregators.
fn lanes(status: &SpillStatus) -> Vec<&SpillLane> {
    status.lanes.iter().filter(|lane| lane.destination.starts_with("aggregate")).collect()
}

/// Points in gaps, which must be what the lanes count as dropped, as every lane's books must balance.
#[track_caller]
fn gone(status: &SpillStatus) -> u64 {
    let mut all = 0;
    for lane in lanes(status) {
        let dropped: u64 = lane.dropped.values().sum();
        let in_gaps: u64 = lane.gaps.iter().map(|gap| gap.points).sum();
        assert_eq!(in_gaps, dropped, "gaps and books of {lane:?}");
        assert_eq!(lane.spilled_points, lane.pending_points + lane.settled_points + dropped, "books of {lane:?}");
        all += dropped;
    }
    all
}

/// Lets points of about ten seconds go to disk while nothing takes them.
#[track_caller]
fn backlog(fleet: &mut Fleet, points: u64) -> Sent {
    fleet.kill("partial-1");
    let feed = Feed { late_every: 0, ..Feed::new(fleet.cluster.graphite(), points / 10) }.start();
    feed.set_limit(points);
    eventually(CATCH_UP, "the backlog to be sent", || when(feed.lines() == points, feed.lines()));
    let sent = feed.finish();
    eventually(CATCH_UP, "all of it in the spill", || {
        let pending = spilled(fleet, "relay-1")?;
        when(pending == points, pending)
    });
    sent
}

#[test]
fn drill_cursor_expired_gaps_are_exact_and_the_replay_goes_on() {
    let _turn = one_at_a_time();
    let mut dice = Dice::new("cursor_expired");
    let keys = Keys { replay: "rate = \"20000/s\"\nlarge = 100000000", ..Keys::default() };
    let (sink, cluster) = cluster(1, 1, 1, keys);
    let mut fleet = up("cursor-expired", cluster);
    let relay = fleet.api("relay-1");
    let sent = backlog(&mut fleet, form(200_000, 2_000_000));

    // Given up by an operator: refused without force, told beforehand, and then exactly that.
    let status = relay.spill().expect("the spill's status");
    let first = *lanes(&status).first().expect("a lane with points");
    let oldest = first.oldest.expect("an oldest point");
    let range = SpillDiscard { to: Some(oldest + 3), by: "drill".to_owned(), ..SpillDiscard::default() };
    let refused = relay.discard(&range).expect_err("a discard that would lose points");
    assert!(refused.contains("would_lose"), "{refused}");
    let told = relay.discard(&SpillDiscard { dry_run: true, ..range.clone() }).expect("a dry run");
    assert!(!told.done);
    assert_eq!(gone(&relay.spill().expect("a status")), 0, "a dry run does nothing");
    let lost = relay.discard(&SpillDiscard { force: true, ..range }).expect("a discard by force");
    assert!(lost.done && lost.points > 0 && lost.points < sent.lines, "{lost:?} of {}", sent.lines);
    assert_eq!((lost.batches, lost.points), (told.batches, told.points));
    assert_eq!(gone(&relay.spill().expect("a status")), lost.points);
    say(&format!("discarded {} points of {}, as told", lost.points, sent.lines));

    // Destroyed on disk, under the replayer, which loses its source for a moment.
    fleet.kill("relay-1");
    for file in store_files(&fleet.data("relay-1").join("spill")) {
        Harm::at_random(&mut dice, &[file]).inflict();
    }
    fleet.restart("relay-1");
    let after = eventually(CATCH_UP, "the spill to be open again", || {
        let status = relay.spill()?;
        if status.mode == "ok" { Ok(status) } else { Err(format!("{status:?}")) }
    });
    let missing = gone(&after);
    let kept: u64 = lanes(&after).iter().map(|lane| lane.pending_points).sum();
    assert_eq!(kept + missing, sent.lines, "what is there and what is gone is all there was");
    say(&format!("{} points gone in all, {kept} left", missing));

    // Nobody does anything more than bring the aggregator back.
    fleet.restart("partial-1");
    eventually(Duration::from_secs(form(120, 600)), "the backlog to be replayed", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == 0, pending)
    });
    fleet.settled(CATCH_UP);
    let missing = gone(&relay.spill().expect("a status"));
    eventually(CATCH_UP, "every point that is not in a gap", || {
        let total = counted(&sink);
        when(total + missing == sent.lines, (total, missing, sent.lines))
    });
    // A relay tells its replayers once a second what is left.
    eventually(CATCH_UP, "the replayer to have heard that nothing is left", || {
        let replayer = fleet.api("replayer-1").replay()?;
        when(replayer.sources.iter().all(|source| source.pending_points == 0), replayer)
    });
    assert_eq!(fleet.layer(Layer::Replayer).len(), 1);
    fleet.end();
}
