//! Every node is killed at random, again and again, under load. With `journal = true` nothing may be missing afterwards,
//! provided that clients rest for a batch's linger before a relay dies; without it, what is missing is bounded by what the
//! relay had not handed over.

use std::time::Duration;

use testkit::{Behaviour, Cluster, Feed, Feeding, Fleet, Keep, Layer, Sink, eventually, one_at_a_time};

use crate::{CATCH_UP, Dice, Keys, SOON, cluster, counted, dropped, form, nothing_is_lost, say, up, when};

/// Four times the linger of all drills: by then a batch is sealed and journalled, which is what the promise is about.
const SEALED: Duration = Duration::from_millis(200);

fn milliseconds(dice: &mut Dice, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + dice.below(to - from))
}

/// Lets the relay be in possession of everything that was written, sealed and journalled.
#[track_caller]
fn rest(fleet: &Fleet, feed: &Feeding) {
    feed.pause();
    let relay = fleet.api("relay-1");
    eventually(SOON, "every line to be parsed", || {
        let ledger = relay.ledger()?;
        when(ledger.in_hand == 0, ledger)
    });
    std::thread::sleep(SEALED);
}

/// Kills nodes of these layers: each in turn first, so that a short storm hits all of them, then at random.
#[track_caller]
fn storm(drill: &str, layers: &[Layer], kills: usize, send: &'static str) {
    let mut dice = Dice::new(drill);
    let keys = Keys { send, replay: "rate = \"500000/s\"\nlarge = 100000000", ..Keys::default() };
    let (sink, cluster) = cluster(1, 2, 2, keys);
    let mut fleet = up(drill, cluster);
    let rate = form(10_000, 20_000);
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));
    let victims: Vec<String> = layers.iter().flat_map(|layer| fleet.layer(*layer)).collect();
    for number in 0..kills {
        let victim = victims.get(number).unwrap_or_else(|| dice.pick(&victims)).clone();
        let is_relay = fleet.layer(Layer::Relay).contains(&victim);
        if is_relay {
            rest(&fleet, &feed);
        }
        fleet.kill(&victim);
        std::thread::sleep(milliseconds(&mut dice, 100, form(1_500, 2_500)));
        fleet.restart(&victim);
        if is_relay {
            feed.resume();
        }
        std::thread::sleep(milliseconds(&mut dice, 100, 1_500));
        fleet.all_run();
        if number % 20 == 19 {
            say(&format!("{} of {kills} kills, {} lines sent", number + 1, feed.lines()));
        }
    }
    let sent = feed.finish();
    nothing_is_lost(&mut fleet, &sink, &sent);
    say(&format!("{kills} kills, {} points: lost 0", sent.lines));
    fleet.end();
}

#[test]
fn drill_kill_storm_with_a_journal_loses_nothing() {
    let _turn = one_at_a_time();
    let layers = [Layer::Relay, Layer::Partial, Layer::Final, Layer::Replayer];
    storm("kill_storm", &layers, form(12, 200), "journal = true");
}

#[test]
fn drill_kill_storm_of_the_aggregators_loses_nothing() {
    let _turn = one_at_a_time();
    storm("kill_storm_of_the_aggregators", &[Layer::Final, Layer::Partial], form(8, 50), "");
}

#[test]
fn drill_kill_storm_without_a_journal_loses_at_most_what_the_relay_held() {
    let _turn = one_at_a_time();
    let (sink, cluster) =
        cluster(1, 2, 1, Keys { replay: "rate = \"500000/s\"\nlarge = 100000000", ..Keys::default() });
    let mut fleet = up("kill-relay", cluster);
    let rate = form(10_000, 20_000);
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    let relay = fleet.api("relay-1");
    let mut exposed = 0;
    let mut before_life = 0;
    for _ in 0..form(2, 20) {
        let start = feed.lines();
        eventually(SOON, "points", || when(feed.lines() > start + 2 * rate, feed.lines()));
        let books = relay.ledger().expect("books");
        let safe: u64 = books.destinations.iter().map(|to| to.delivered + to.spill_pending).sum();
        fleet.kill("relay-1");
        // Everything this relay has been sent in this life, less what it was known to be rid of.
        exposed += feed.lines() - before_life - safe;
        before_life = feed.lines();
        fleet.restart("relay-1");
    }
    let sent = feed.finish();
    fleet.settled(CATCH_UP);
    let least = sent.lines - exposed;
    let total = eventually(CATCH_UP, "all but what the relay held", || {
        let total = counted(&sink);
        if total >= least { Ok(total) } else { Err(format!("{total} of at least {least}")) }
    });
    assert!(total <= sent.lines, "{total} counted of {} sent", sent.lines);
    say(&format!("{} sent, {} lost, at most {exposed} were exposed", sent.lines, sent.lines - total));
    fleet.end();
}

/// Lines for a store as they are. A kill at rest loses nothing; one under load only what was read in the moment before.
#[test]
fn drill_kill_storm_with_a_journal_brings_every_raw_line_to_the_store() {
    let _turn = one_at_a_time();
    let (rate, kills) = (form(10_000, 20_000), form(6, 60));
    let limit = rate * 600;
    let sink = Sink::start(Keep::Numbers { prefix: "load".to_owned(), limit });
    let cluster = Cluster::new(1, 0, 1).store("carbon", &[sink.address()]).route_all(&["carbon"]).with(
        "[send]\nlinger = \"50ms\"\nack_timeout = \"1s\"\njournal = true\n\
         [replay]\nrate = \"500000/s\"\nlarge = 100000000\n\
         [output]\nrotate = \"2s\"\nlinger_bound = \"3s\"\nreceipt_timeout = \"1s\"\n",
    );
    let mut dice = Dice::new("kill_storm of raw lines");
    let mut fleet = up("kill-raw", cluster);
    let feed = Feed::new(fleet.cluster.graphite(), rate).start();
    // From the first line that a kill may cost to the last one that was written before the relay came back.
    let mut exposed = Vec::new();
    for number in 0..kills {
        let start = feed.lines();
        eventually(SOON, "points", || when(feed.lines() > start + rate, feed.lines()));
        // Every third time the store is away for longer than the time-out when it happens.
        if number % 3 == 2 {
            sink.behave(Behaviour::Refuse);
            std::thread::sleep(milliseconds(&mut dice, 500, 3_000));
        }
        let is_at_rest = number % 2 == 0;
        if is_at_rest {
            rest(&fleet, &feed);
        }
        let before = feed.lines();
        fleet.kill("relay-1");
        std::thread::sleep(milliseconds(&mut dice, 100, 1_000));
        let after = feed.lines();
        fleet.restart("relay-1");
        sink.behave(Behaviour::Read);
        if is_at_rest {
            feed.resume();
        } else {
            exposed.push(before.saturating_sub(rate)..after);
        }
        fleet.all_run();
    }
    let sent = feed.finish();
    assert!(sent.lines <= limit, "{} lines: the sink was made for fewer", sent.lines);
    for ledger in fleet.settled(CATCH_UP) {
        assert_eq!(dropped(&ledger), 0, "{} dropped points: {ledger:?}", ledger.node);
    }
    let lost: Vec<u64> = sink.look(|seen| {
        assert!(seen.strange.is_empty(), "torn lines: {:?}", seen.strange);
        (0..sent.lines).zip(&seen.numbers).filter(|(_, count)| **count == 0).map(|(number, _)| number).collect()
    });
    let unexposed: Vec<&u64> =
        lost.iter().filter(|number| !exposed.iter().any(|range| range.contains(number))).collect();
    assert!(unexposed.is_empty(), "{} lost that were journalled, such as {:?}", unexposed.len(), unexposed.first());
    let twice = sink.look(testkit::Seen::duplicated);
    say(&format!(
        "{kills} kills, {} lines: {} lost, all within a second of a kill under load; {twice} came twice",
        sent.lines,
        lost.len()
    ));
    fleet.end();
}
