//! The disk of a spill is full, really full, under load: live points do not notice, the mode is shown, what cannot be kept
//! is counted, and when the backlog is replayed the disk frees itself.

use std::time::Duration;

use testkit::{Cluster, Feed, Fleet, Keep, Latencies, Probe, Sink, SmallDisk, eventually, one_at_a_time};

use crate::{
    CATCH_UP, Keys, SOON, counted, dropped, form, no_worker_failed, rate_of, say, spilled, support, tuned, when,
};

/// Size of the disk. The store holds 32 MiB as ballast and is full when less than 64 MiB are free; the rest is for records.
const DISK_MIB: u64 = 144;

const ROUTES: &str = "[[store]]\nname = \"probes\"\naddresses = [\"PROBES\"]\n\n\
    [[store]]\nname = \"live\"\naddresses = [\"LIVE\"]\n\n\
    [[route]]\nglob = \"probe.*\"\nto = [\"probes\"]\n\n[[route]]\nglob = \"load.**\"\nto = [\"live\"]\n";

/// Lines per second at `sink`, and what markers took, over `time`.
fn watch(sink: &Sink, probe: &Probe, time: Duration) -> (f64, Latencies) {
    let mark = probe.mark();
    let rate = rate_of(time, || sink.lines());
    let until = probe.mark();
    // What was written in the last moment may still be on its way.
    std::thread::sleep(Duration::from_millis(500));
    (rate, probe.between(mark, until))
}

#[test]
fn drill_disk_full_leaves_live_points_alone_and_frees_itself() {
    let _turn = one_at_a_time();
    let (live, probes) = (Sink::start(Keep::Count), Probe::sink());
    let sink = Sink::start(Keep::Points);
    let keys = Keys { send: "retain = \"8MiB\"", replay: "rate = \"500000/s\"\nlarge = 100000000", ..Keys::default() };
    let routes = ROUTES.replace("PROBES", &probes.address().to_string()).replace("LIVE", &live.address().to_string());
    let cluster = tuned(Cluster::new(1, 1, 1).store("carbon", &[sink.address()]), keys).with(&routes);
    let fleet = Fleet::new("disk-full", cluster, support::program);
    let disk = match SmallDisk::mount(&fleet.data("relay-1"), DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return say(&format!("SKIPPED disk_full: no mounts here: {why}")),
    };
    let mut fleet = fleet.up();
    let relay = fleet.api("relay-1");
    let rate = 20_000;
    // Long names: the disk is to be full soon.
    let feed = Feed { digits: 200, ..Feed::new(fleet.cluster.graphite(), rate) }.start();
    let probe = Probe::start(probes, fleet.cluster.graphite(), Duration::from_millis(50));
    eventually(SOON, "points", || when(live.lines() > 2 * rate, live.lines()));
    let (rate_before, before) = watch(&live, &probe, Duration::from_secs(form(4, 20)));

    // Aggregates have nowhere to go but to the disk.
    fleet.kill("partial-1");
    let status = eventually(CATCH_UP, "the full disk to be shown", || {
        let status = relay.spill()?;
        if status.mode == "disk_full" { Ok(status) } else { Err(format!("{status:?}")) }
    });
    assert!(!status.detail.is_empty(), "a mode says what would be right: {status:?}");
    let kept = spilled(&fleet, "relay-1").expect("books");
    assert!(kept > 0, "{status:?}");
    say(&format!("full with {kept} points in {} MiB", status.bytes >> 20));
    let (rate_full, full) = watch(&live, &probe, Duration::from_secs(form(12, 60)));
    say(&format!("before: {rate_before:.0} points/s, {before:?}\nfull:   {rate_full:.0} points/s, {full:?}"));
    assert!(rate_full >= rate_before * 0.95, "live throughput fell from {rate_before:.0} to {rate_full:.0}");
    let limit = (before.p99 * 2).max(Duration::from_millis(500));
    assert!(full.missing == 0 && full.p99 <= limit, "live latency: {full:?}, before {before:?}");
    let books = relay.ledger().expect("books");
    assert!(books.balanced, "{books:?}");
    let lost = dropped(&books);
    assert!(lost > 0, "memory is bounded: something had to go: {books:?}");

    // The aggregator comes back: the spill empties, and the mode goes with it.
    fleet.restart("partial-1");
    eventually(CATCH_UP, "the spill to be empty and the mode to be ok", || {
        let (pending, mode) = (spilled(&fleet, "relay-1")?, relay.spill()?.mode);
        when(pending == 0 && mode == "ok", (pending, mode))
    });
    let sent = feed.finish();
    // While its sink is there: a marker without one stays pending.
    let books = fleet.settled(CATCH_UP);
    drop(probe);
    let books = books.iter().find(|ledger| ledger.layer == "relay").expect("the relay's books");
    let lost = dropped(books);
    for to in &books.destinations {
        let other: Vec<_> =
            to.dropped.iter().filter(|(why, count)| !why.starts_with("spill_full") && **count > 0).collect();
        assert!(other.is_empty(), "only what was over the bound: {other:?}");
    }
    // What the killed node had handed on and not answered for may be in the aggregates all the same.
    let unanswered: u64 = books.destinations.iter().filter_map(|to| to.dropped.get("spill_full_unanswered")).sum();
    let may_be = sent.lines - lost..=sent.lines - lost + unanswered;
    let total = eventually(CATCH_UP, "every point but those that are counted as dropped", || {
        let (total, included) = (counted(&sink), fleet.api("final-1").ledger()?.accepted);
        if total == included && may_be.contains(&total) {
            Ok(total)
        } else {
            Err(format!("{total}, {included} of {may_be:?}"))
        }
    });
    assert_eq!(sent.doubtful, []);
    say(&format!(
        "{} points, {lost} dropped as spill_full ({unanswered} of them unanswered), {total} in the aggregates",
        sent.lines
    ));
    no_worker_failed(&fleet);
    fleet.stop_all();
    // First the mount, then the directory that it stands in.
    drop(disk);
}
