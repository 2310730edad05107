//! Hosted Graphite, 24 June 2019, with the operator's hands of today: resets crash workers, the layer behind is overloaded, what
//! cannot be delivered is spilled, and the operator does what took hours on the day: one command for the health checks of all
//! layers, the replay paused, the worst node taken out, restarted, let in again, and the replay let go at a rate of his choice.
//!
//! Every command is the real `spillway`, and its effect is measured on every node: by a thread a node that asks its admin API
//! every 10 ms, from the moment the command is *started* (so that starting a process and asking eight nodes count, too).
//! `spillway status` is asked twenty times, in text and in JSON, and compared with what was injected.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use testkit::{Admin, Feeding, Fleet, Layer, eventually, one_at_a_time};

use crate::injury::{Injury, Said, operator, slow_down};
use crate::recv_reset::reset_inside_a_line;
use crate::{
    CATCH_UP, Keys, SOON, cluster, feeds, form, nothing_of_all_is_lost, say, spilled, up_with_failpoints, when,
};

/// An order is in effect after so long, as seen from every node.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looks at `status` in the whole drill.
const SAMPLES: usize = 20;

/// What was done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Injected {
    Nothing,
    Slow,
    Crashing,
}

impl Injected {
    /// The word that `status` must have for it.
    fn word(self) -> &'static str {
        match self {
            Injected::Nothing => "ready",
            Injected::Slow => "overloaded",
            Injected::Crashing => "degraded",
        }
    }
}

/// Whether an order is in effect as one node has it.
type Seen<'a> = dyn Fn(&Admin) -> Result<(), String> + Sync + 'a;

struct Day {
    fleet: Fleet,
    feeds: Vec<Feeding>,
    began: Instant,
    injured: BTreeMap<String, Injected>,
    samples: usize,
    /// The longest that an order took.
    slowest: Duration,
}

impl Day {
    fn say(&self, what: &str) {
        say(&format!("{:>6.1} s  {what}", self.began.elapsed().as_secs_f64()));
    }

    /// The cluster is in calm weather: every node proven, and the checks strict by themselves.
    #[track_caller]
    fn begin(fleet: Fleet, rate: u64) -> Day {
        let feeds = feeds(&fleet, rate);
        for relay in fleet.layer(Layer::Relay) {
            eventually(SOON * 2, "proof of every partial node", || {
                let pools = fleet.api(&relay).health()?.0.pools;
                let proven = |pool: &admin_api::PoolStatus| pool.nodes.iter().all(|node| node.standing == "proven");
                when(!pools.is_empty() && pools.iter().all(proven), pools)
            });
        }
        let injured = fleet.names().into_iter().map(|name| (name, Injected::Nothing)).collect();
        Day { fleet, feeds, began: Instant::now(), injured, samples: 0, slowest: Duration::ZERO }
    }

    /// Notes what was injected, and says how long it took until the node says so itself.
    #[track_caller]
    fn shows(&mut self, node: &str, what: Injected) {
        let since = Instant::now();
        self.injured.insert(node.to_owned(), what);
        let api = self.fleet.api(node);
        eventually(SOON, &format!("{node} to be {}", what.word()), || {
            let said = api.health()?.0.verdict;
            when(said.as_str() == what.word(), said.as_str())
        });
        self.say(&format!("{node} is {} ({} ms after it was asked for)", what.word(), since.elapsed().as_millis()));
    }

    /// Asks `status` so many times: each answer must be what was injected, for every node of the cluster.
    #[track_caller]
    fn samples(&mut self, count: usize) {
        let expected: BTreeMap<String, &str> =
            self.injured.iter().map(|(node, what)| (node.clone(), what.word())).collect();
        for _ in 0..count {
            self.samples += 1;
            for (form, arguments) in [("text", vec!["status"]), ("JSON", vec!["--json", "status"])] {
                let said = operator(&self.fleet, &arguments);
                assert_eq!(said.code, 0, "status: {said:?}");
                let seen = if form == "text" { of_text(&said.out) } else { of_json(&said.out) };
                let seen: BTreeMap<String, &str> =
                    seen.iter().map(|(node, word)| (node.clone(), word.as_str())).collect();
                assert_eq!(seen, expected, "sample {} of {SAMPLES}, as {form}:\n{}", self.samples, said.out);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let sick = expected.iter().filter(|(_, word)| **word != "ready").map(|(node, word)| format!("{node} {word}"));
        let sick: Vec<String> = sick.collect();
        let sick = if sick.is_empty() { "all ready".to_owned() } else { sick.join(", ") };
        self.say(&format!("status, {} of {SAMPLES} right: {sick}", self.samples));
    }

    /// Gives an order, and watches each of `nodes` until it is in effect there.
    #[track_caller]
    fn orders(&mut self, arguments: &[&str], nodes: &[String], seen: &Seen<'_>) {
        let apis: Vec<(&String, Admin)> = nodes.iter().map(|node| (node, self.fleet.api(node))).collect();
        for (node, api) in &apis {
            assert!(seen(api).is_err(), "{arguments:?} is in effect on {node} before it was given");
        }
        let fleet = &self.fleet;
        let (said, effects) = std::thread::scope(|scope| {
            let watch = |(node, api): &(&String, Admin)| {
                let (node, api) = ((*node).clone(), *api);
                scope.spawn(move || (node, takes_effect(&api, seen)))
            };
            let watching: Vec<_> = apis.iter().map(watch).collect();
            let said = operator(fleet, arguments);
            let effects: Vec<_> = watching.into_iter().map(|each| each.join().expect("no panic")).collect();
            (said, effects)
        });
        let command = arguments.join(" ");
        let Said { code, out, err, began, ended } = said;
        assert_eq!(code, 0, "{command}: {out}{err}");
        let mut took: Vec<(Duration, String)> = effects
            .into_iter()
            .map(|(node, at)| match at {
                Ok(at) => (at.saturating_duration_since(began), node),
                Err(why) => panic!("{command} is not in effect on {node}: {why}"),
            })
            .collect();
        took.sort();
        let (slowest, node) = took.last().expect("a node");
        self.slowest = self.slowest.max(*slowest);
        self.say(&format!(
            "$ spillway {command}   in effect on all {} nodes {} ms after its start (the last: {node}); it ended after {} ms",
            took.len(),
            slowest.as_millis(),
            (ended - began).as_millis()
        ));
        assert!(*slowest <= EFFECTIVE_WITHIN, "{command} was in effect after {took:?}");
    }

    /// `rollout check` says yes, for this reason; then SIGTERM and a new start.
    #[track_caller]
    fn restarts(&mut self, node: &str, because: &str) {
        let said = operator(&self.fleet, &["rollout", "check", node]);
        assert!(said.code == 0 && said.out.contains(because), "rollout check {node}: {said:?}");
        self.say(&format!("$ spillway rollout check {node}   safe: {}", said.out.lines().nth(1).unwrap_or("").trim()));
        let stopped = self.fleet.stop(node);
        self.fleet.restart(node);
        self.injured.insert(node.to_owned(), Injected::Nothing);
        self.say(&format!("{node} restarted: {} ms to stop", stopped.as_millis()));
        self.linked(node);
    }

    /// Everybody who dials the node has a link again.
    #[track_caller]
    fn linked(&self, node: &str) {
        for name in self.fleet.names() {
            let api = self.fleet.api(&name);
            eventually(SOON, &format!("the link from {name} to {node}"), || {
                let peers = api.status()?.peers;
                when(peers.iter().all(|peer| peer.peer != node || peer.state == "up"), peers)
            });
        }
    }

    /// Nodes that replay: replayers, and final nodes for the windows that a store missed.
    fn replaying(&self) -> Vec<String> {
        [self.fleet.layer(Layer::Replayer), self.fleet.layer(Layer::Final)].concat()
    }

    fn spilled(&self) -> Result<u64, String> {
        self.fleet.layer(Layer::Relay).iter().map(|relay| spilled(&self.fleet, relay)).sum()
    }

    /// The node with the longest queue, as `status` tells it.
    #[track_caller]
    fn worst(&self) -> String {
        let said = operator(&self.fleet, &["--json", "status"]);
        let status: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
        let lag = |node: &serde_json::Value| node["status"]["verdict"]["lag_ms"].as_u64();
        let nodes = status["nodes"].as_array().expect("nodes");
        let worst = nodes.iter().filter_map(|node| Some((lag(node)?, node["node"].as_str()?))).max();
        let (lag, node) = worst.expect("an overloaded node");
        self.say(&format!("$ spillway status   the worst is {node}: {lag} ms behind"));
        node.to_owned()
    }
}

/// When the order was in effect on one node.
fn takes_effect(api: &Admin, seen: &Seen<'_>) -> Result<Instant, String> {
    let start = Instant::now();
    loop {
        match seen(api) {
            Ok(()) => return Ok(Instant::now()),
            Err(why) if start.elapsed() > SOON => return Err(why),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Nodes and verdicts in the first table of `spillway status`.
fn of_text(out: &str) -> Vec<(String, String)> {
    let rows = out.lines().skip_while(|line| !line.starts_with("NODE")).skip(1).take_while(|line| !line.is_empty());
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    rows.filter_map(row).collect()
}

/// The same of `spillway --json status`.
fn of_json(out: &str) -> Vec<(String, String)> {
    let status: serde_json::Value = serde_json::from_str(out).expect("JSON");
    let nodes = status["nodes"].as_array().expect("nodes");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
    nodes.iter().map(|node| (text(&node["node"]), text(&node["status"]["verdict"]["state"]))).collect()
}

/// The mode is in force for all layers, and in every pool of the node.
fn in_mode(api: &Admin, wanted: &str) -> Result<(), String> {
    let layers = api.modes()?.layers;
    when(layers.iter().all(|layer| layer.mode == wanted), layers)?;
    let pools = api.health()?.0.pools;
    when(pools.iter().all(|pool| pool.mode == wanted), pools)
}

/// The node knows of the order, and whoever sends to `node` has it in or out.
fn stands(api: &Admin, node: &str, order: &str, is_in: bool) -> Result<(), String> {
    let key = format!("drain/{node}");
    let known = api.orders()?;
    when(known.iter().find(|entry| entry.what == key).is_some_and(|latest| latest.new == order), known)?;
    let pools = api.health()?.0.pools;
    let nodes = || pools.iter().flat_map(|pool| &pool.nodes).filter(|seen| seen.node == node);
    when(nodes().all(|seen| seen.eligible == is_in), &pools)
}

#[test]
fn drill_june_24_with_the_commands_of_today() {
    let _turn = one_at_a_time();
    let keys = Keys {
        replay: "rate = \"1000/s\"\nlarge = 100000000",
        more: "[health]\nproof = \"4s\"\nrecover = \"4s\"\n[supervise]\nrestarts = 1000\n\
               [[route]]\nglob = \"noise.**\"\nto = [\"drop\"]\n",
        ..Keys::default()
    };
    let (sink, cluster) = cluster(2, 3, 1, keys);
    let mut day = Day::begin(up_with_failpoints("june-24", cluster), form(4_000, 20_000));
    let all = day.fleet.names();
    day.say("calm weather: every node is proven, health checks are strict by themselves");

    // 13:18. Each burst of resets crashes the process that takes data in; then nodes behind crash, and are overloaded.
    let injury = Injury::new();
    injury.crash(&day.fleet, "relay-2", "relay.listener");
    let to = day.fleet.cluster.named("relay-2").graphite.expect("a relay");
    (0..form(100, 5_000)).for_each(|_| reset_inside_a_line(to));
    day.shows("relay-2", Injected::Crashing);
    injury.crash(&day.fleet, "partial-1", "partial.link.final-1");
    day.shows("partial-1", Injected::Crashing);
    slow_down(&day.fleet, "partial-3");
    day.shows("partial-3", Injected::Slow);
    slow_down(&day.fleet, "partial-2");
    day.shows("partial-2", Injected::Slow);
    day.samples(5);
    eventually(SOON * 2, "points in the spills", || {
        let pending = day.spilled()?;
        when(pending > form(5_000, 100_000), pending)
    });
    day.say("what cannot be delivered is spilled");

    // 13:35. The checks take capacity away: lenient, for all layers at once. The replay is the last thing that is needed now.
    day.orders(&["health", "mode", "lenient", "--all"], &all, &|api| in_mode(api, "lenient"));
    let replaying = day.replaying();
    day.orders(&["replay", "pause"], &replaying, &|api| {
        let settings = api.replay()?.settings;
        when(settings.paused, settings)
    });
    day.samples(5);

    // One node with high queues holds the layer back: it is taken out, mended, and let in again.
    let worst = day.worst();
    day.orders(&["node", "drain", &worst], &all, &|api| stands(api, &worst, "drained", false));
    day.samples(3);
    day.restarts(&worst, "nobody sends to it");
    day.orders(&["node", "undrain", &worst], &all, &|api| stands(api, &worst, "active", true));
    day.shows(&worst, Injected::Nothing);
    day.samples(3);

    // The fix is delivered to the sick, whoever else is sick; with them the load on the other one falls.
    for node in ["partial-1", "relay-2"] {
        injury.cured(node);
        day.restarts(node, "a restart can only help");
    }
    let other = if worst == "partial-2" { "partial-3" } else { "partial-2" };
    for worker in day.fleet.api(other).workers().expect("workers") {
        day.fleet.api(other).fail(&worker.name, "slow", 0).expect("the failpoint is disarmed");
    }
    for node in &all {
        day.shows(node, Injected::Nothing);
    }
    day.samples(4);
    assert_eq!(day.samples, SAMPLES);

    // 14:10. The replay is let go, at a rate that is set before anything runs.
    let before = day.spilled().expect("answers");
    day.orders(&["replay", "rate", "100k/s"], &replaying, &|api| {
        let settings = api.replay()?.settings;
        when(settings.rate == 100_000, settings)
    });
    day.orders(&["replay", "resume"], &replaying, &|api| {
        let replay = api.replay()?;
        when(!replay.settings.paused && replay.limited_by != "paused", replay)
    });
    day.orders(&["health", "mode", "auto", "--all"], &all, &|api| {
        let layers = api.modes()?.layers;
        when(layers.iter().all(|layer| layer.mode == "auto"), layers)
    });
    eventually(CATCH_UP, "empty spills", || {
        let pending = day.spilled()?;
        when(pending == 0, pending)
    });
    day.say(&format!("{before} points and what came since are replayed"));
    let Day { mut fleet, feeds, slowest, .. } = day;
    let sent: Vec<_> = feeds.into_iter().map(Feeding::finish).collect();
    nothing_of_all_is_lost(&mut fleet, &sink, &sent);
    say(&format!("status right in {SAMPLES} of {SAMPLES} samples; the slowest order took {} ms", slowest.as_millis()));
    fleet.end();
}
