//! Hosted Graphite, 24 June 2019, from its first minute to its last: connection resets hit the process that accepts data,
//! the layer behind it is lost, live data has priority, what could not be delivered waits on disk, the replay has to be
//! slowed by hand, and in the end every graph must be as if nothing had happened.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use admin_api::ReplayChange;
use testkit::{Admin, Feed, Layer, eventually, growth, one_at_a_time, within};

use crate::{CATCH_UP, Keys, SOON, cluster, form, no_worker_failed, say, spilled, up, when};

/// A change of the replay's rate is in effect after so long.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(1);

/// Half a line, then a reset.
pub(crate) fn reset_inside_a_line(to: SocketAddr) {
    let mut client = TcpStream::connect(to).expect("the relay listens");
    client.write_all(b"noise.whole 1 1700000000\nnoise.ha").expect("the relay reads");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a linger option");
}

/// Half a line, then the end.
fn end_inside_a_line(to: SocketAddr) {
    let mut client = TcpStream::connect(to).expect("the relay listens");
    client.write_all(b"noise.ha").expect("the relay reads");
    client.shutdown(Shutdown::Both).expect("a shutdown");
}

fn done(replayer: &Admin) -> Result<u64, String> {
    Ok(replayer.replay()?.sources.iter().map(|source| source.done_points).sum())
}

#[track_caller]
fn change(replayer: &Admin, change: ReplayChange) {
    replayer.change_replay(&ReplayChange { by: "drill".to_owned(), ..change }).expect("the replayer takes the change");
}

/// Points per second that are replayed, over two seconds.
#[track_caller]
fn measured(replayer: &Admin) -> f64 {
    growth(Duration::from_secs(2), || done(replayer)).expect("an answer")
}

#[test]
fn drill_recv_reset_ends_with_every_graph_right() {
    let _turn = one_at_a_time();
    let keys = Keys {
        replay: "rate = \"50000/s\"\nstart = \"floor\"\nfloor = \"1000/s\"\nlarge = 20000",
        more: "[[route]]\nglob = \"noise.**\"\nto = [\"drop\"]\n",
        ..Keys::default()
    };
    let (sink, cluster) = cluster(1, 2, 2, keys);
    let mut fleet = up("recv-reset", cluster);
    let (relay, replayer) = (fleet.api("relay-1"), fleet.api("replayer-1"));
    let rate = form(10_000, 50_000);
    let to = fleet.cluster.graphite();
    let feed = Feed::new(to, rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));

    // The network flaps: every reset ends its own connection, and is counted.
    let flaps: u32 = form(200, 5_000);
    for _ in 0..flaps {
        reset_inside_a_line(to);
        end_inside_a_line(to);
    }
    for reason in ["reset", "eof_in_line"] {
        eventually(SOON, &format!("{flaps} x {reason}"), || {
            let label = format!("reason=\"{reason}\"");
            let count = relay.metric("spillway_connections_closed_total", &label)?;
            when(count == f64::from(flaps), count)
        });
    }
    no_worker_failed(&fleet);

    // The layer behind is lost; live points go to disk, and the relay goes on.
    let partials = fleet.layer(Layer::Partial);
    for node in &partials {
        fleet.kill(node);
    }
    let enough = form(60_000, 3_000_000);
    eventually(Duration::from_secs(form(30, 300)), "a backlog", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending >= enough, pending)
    });
    // A replayer that finds a large backlog begins carefully and says so.
    fleet.kill("replayer-1");
    fleet.restart("replayer-1");
    for node in &partials {
        fleet.restart(node);
    }
    eventually(SOON, "a cautious replayer", || {
        let status = replayer.replay()?;
        when(status.settings.cautious && status.ceiling_now <= 1_000 && status.backlog_points > 0, status)
    });
    let slow = measured(&replayer);
    assert!(slow <= 2_000.0, "{slow:.0} points/s at a floor of 1,000");

    // One command each: faster, pause, on again.
    change(&replayer, ReplayChange { rate: Some(8_000), ..ReplayChange::default() });
    let faster = within(SOON, "the new rate", || {
        let rate = replayer.replay()?.ceiling_now;
        when(rate > 1_000, rate)
    });
    let took = faster.expect("a new ceiling").1;
    assert!(took <= EFFECTIVE_WITHIN, "the new rate was in effect after {took:?}");
    let now = measured(&replayer);
    say(&format!("floor 1,000/s: {slow:.0}/s measured; ceiling 8,000/s: {now:.0}/s measured"));
    assert!(now > slow && now <= 12_000.0, "{now:.0} points/s under a ceiling of 8,000");
    change(&replayer, ReplayChange { paused: Some(true), ..ReplayChange::default() });
    std::thread::sleep(EFFECTIVE_WITHIN);
    let paused = measured(&replayer);
    assert!(paused < 500.0, "{paused:.0} points/s while paused");
    change(&replayer, ReplayChange { paused: Some(false), rate: Some(200_000), ..ReplayChange::default() });

    let sent = feed.finish();
    eventually(CATCH_UP, "an empty spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == 0, pending)
    });
    // `noise.*` is dropped by a route: on purpose, and counted as such.
    let noise = relay.ledger().expect("books").dropped;
    assert_eq!(noise.values().sum::<u64>(), u64::from(flaps), "{noise:?}");
    let books = fleet.settled(CATCH_UP);
    for ledger in &books {
        let lost: u64 = ledger.destinations.iter().flat_map(|to| to.dropped.values()).sum();
        assert_eq!(lost, 0, "{ledger:?}");
    }
    crate::equals_the_oracle(&mut fleet, &sink, &sent);
    no_worker_failed(&fleet);
    fleet.end();
}
