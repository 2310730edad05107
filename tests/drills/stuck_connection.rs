//! Grafana Cloud, 16 March 2020: a node died without closing its TCP connections, and clients held on to them for twelve
//! minutes. Here packets vanish between network namespaces, as on the day.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{Admin, Cluster, Feed, Fleet, Keep, Lab, Layer, Sink, Space, eventually, one_at_a_time, within};

use crate::{CATCH_UP, Keys, SOON, form, long, no_worker_failed, nothing_is_lost, say, support, tuned, when};

/// The promise.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// The relay, the replayer, the feed and the sink stand in the root namespace, every aggregator in a space of its own.
struct Site {
    fleet: Fleet,
    sink: Sink,
    lab: Lab,
}

impl Site {
    /// `None` where there can be no namespaces; the reason is printed.
    fn new(name: &str, more: &'static str) -> Option<Site> {
        let lab = match Lab::new(4) {
            Ok(lab) => lab,
            Err(why) => {
                say(&format!("SKIPPED {name}: no network namespaces here: {why}"));
                return None;
            }
        };
        let sink = Sink::start_on(SocketAddr::new(lab.root(), 0), Keep::Points);
        let mut cluster = Cluster::new(1, 2, 1).store("carbon", &[sink.address()]);
        let mut spaces = lab.spaces().iter().cloned();
        let mut placed = Vec::new();
        for node in &mut cluster.nodes {
            let ip = match node.layer {
                Layer::Relay | Layer::Replayer => lab.root(),
                Layer::Partial | Layer::Final => {
                    let space = spaces.next()?;
                    let ip = space.ip;
                    placed.push((node.name.clone(), space));
                    ip
                }
            };
            for address in [&mut node.graphite, &mut node.link].into_iter().flatten() {
                address.set_ip(ip);
            }
            node.admin.set_ip(ip);
        }
        // Nobody but this machine reaches these addresses.
        let cluster = cluster.with("[auth]\nopen = true\n");
        let keys = Keys { more, replay: "rate = \"200000/s\"", ..Keys::default() };
        let mut fleet = Fleet::new(name, tuned(cluster, keys), support::program);
        for (node, space) in placed {
            fleet = fleet.in_space(&node, &space);
        }
        Some(Site { fleet: fleet.up(), sink, lab })
    }

    fn space_of(&self, node: &str) -> &Space {
        let index = ["partial-1", "partial-2", "final-1"].iter().position(|name| *name == node).expect("an aggregator");
        self.lab.spaces().get(index).expect("a space for each")
    }

    /// Lets all packets of `node` vanish but those of its admin API, which the drill asks.
    #[track_caller]
    fn vanish(&self, node: &str) {
        let admin = self.fleet.cluster.named(node).admin.port();
        self.space_of(node).vanish(&[admin]).expect("nft works where namespaces do");
    }

    #[track_caller]
    fn heal(&self, node: &str) {
        self.space_of(node).heal().expect("nft works where namespaces do");
    }
}

/// How long until `observer` shows `peer` as down.
#[track_caller]
fn noticed(observer: &Admin, peer: &str) -> Duration {
    let seen = within(SOON, &format!("{peer} to be shown down"), || {
        let peers = observer.status()?.peers;
        let state = peers.iter().find(|each| each.peer == peer).map(|each| each.state.clone());
        when(state.as_deref() == Some("down"), state)
    });
    match seen {
        Ok(((), took)) => took,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn drill_stuck_connection_is_noticed_in_five_seconds_and_loses_nothing() {
    let _turn = one_at_a_time();
    let Some(mut site) = Site::new("stuck-connection", "") else { return };
    let rate = form(10_000, 50_000);
    let feed = Feed::new(site.fleet.cluster.graphite(), rate).start();
    eventually(SOON, "points", || when(feed.lines() > rate, feed.lines()));
    let relay = site.fleet.api("relay-1");

    // One of two: its batches go another way.
    site.vanish("partial-1");
    let took = noticed(&relay, "partial-1");
    say(&format!("relay-1 noticed partial-1 after {took:?}"));
    assert!(took <= NOTICED_WITHIN, "noticed after {took:?}");
    // The one behind both.
    site.vanish("final-1");
    let took = noticed(&site.fleet.api("partial-2"), "final-1");
    say(&format!("partial-2 noticed final-1 after {took:?}"));
    assert!(took <= NOTICED_WITHIN, "noticed after {took:?}");
    std::thread::sleep(Duration::from_secs(form(3, 60)));
    let reached = |relay: &Admin| relay.ledger().map(|ledger| ledger.received);
    let before = reached(&relay).expect("the relay answers");
    eventually(SOON, "the relay to go on taking lines", || when(reached(&relay)? > before + rate, before));

    site.heal("final-1");
    site.heal("partial-1");
    for (observer, peer) in [("relay-1", "partial-1"), ("partial-2", "final-1"), ("partial-1", "final-1")] {
        let api = site.fleet.api(observer);
        eventually(CATCH_UP, &format!("{peer} to be up for {observer}"), || {
            let peers = api.status()?.peers;
            when(peers.iter().any(|each| each.peer == peer && each.state == "up"), peers)
        });
    }
    let sent = feed.finish();
    nothing_is_lost(&mut site.fleet, &site.sink, &sent);
    no_worker_failed(&site.fleet);
    site.fleet.end();
}

/// A client whose machine is gone must not hold a connection for ever: in CI by the time-out inside a line (1 s here), in
/// the long form also by keepalive between lines (60 + 3 x 20 s).
#[test]
fn drill_stuck_connection_of_a_client_is_reaped() {
    let _turn = one_at_a_time();
    let Some(site) = Site::new("half-open-client", "[receive]\nline_timeout = \"1s\"\n") else { return };
    let relay = site.fleet.api("relay-1");
    let to = site.fleet.cluster.graphite();
    let space = site.lab.spaces().last().expect("a space for clients");
    let closed = |reason: &str| relay.metric("spillway_connections_closed_total", &format!("reason=\"{reason}\""));
    let mut cases = vec![("half.a.line 1 17", "timeout_line", Duration::from_secs(5))];
    if long() {
        cases.push(("a.whole.line 1 1700000000\\n", "peer_gone", Duration::from_secs(150)));
    }
    for (text, reason, limit) in cases {
        let before = closed(reason).expect("metrics");
        let script = format!("exec 3<>/dev/tcp/{}/{}; printf '{text}' >&3; sleep 600", to.ip(), to.port());
        let mut client = Command::new("ip")
            .args(["netns", "exec", &space.name, "bash", "-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .expect("bash runs in a space");
        eventually(SOON, "the client's connection", || {
            let open = relay.metric("spillway_connections_open", "")?;
            when(open >= 1.0, open)
        });
        space.vanish(&[]).expect("nft works where namespaces do");
        let reaped = within(limit, &format!("the client to be reaped as {reason}"), || {
            let now = closed(reason)?;
            when(now > before, now)
        });
        client.kill().expect("the client runs");
        client.wait().expect("the client ends");
        space.heal().expect("nft works where namespaces do");
        match reaped {
            Ok(((), took)) => say(&format!("half-open client reaped as {reason} after {took:?}")),
            Err(error) => panic!("{error}"),
        }
        eventually(SOON, "no open connection", || {
            let open = relay.metric("spillway_connections_open", "")?;
            when(open < 1.0, open)
        });
    }
    // The relay serves on.
    let feed = Feed::new(to, 5_000).start();
    eventually(SOON, "lines", || when(feed.lines() > 1_000, feed.lines()));
    let sent = feed.finish();
    assert!(sent.doubtful.is_empty(), "{:?}", sent.doubtful);
    site.fleet.end();
}
