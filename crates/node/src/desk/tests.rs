use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use admin::{NodeOrder, Orders as _, Refusal};
use admin_api::{ModeChange, NodeChange};
use bytes::BytesMut;
use engine::health::{Kind, Outcome, Pool, Probe};
use engine::time::Mono;
use engine::verdict::Verdict;
use engine::wire::{self, Frame, Word};
use link::{Ended, Handler, Outgoing};
use tokio::sync::Notify;

use super::*;

const CLUSTER: &str = r#"
[cluster]
name = "c"
partitions = 4
[[node]]
name = "relay-1"
layer = "relay"
graphite = "127.0.0.1:1"
link = "127.0.0.1:10"
admin = "127.0.0.1:2"
data = "/nowhere/1"
[[node]]
name = "partial-1"
layer = "partial"
link = "127.0.0.1:3"
admin = "127.0.0.1:4"
data = "/nowhere/2"
[[node]]
name = "partial-2"
layer = "partial"
link = "127.0.0.1:5"
admin = "127.0.0.1:6"
data = "/nowhere/3"
[[node]]
name = "final-1"
layer = "final"
link = "127.0.0.1:7"
admin = "127.0.0.1:8"
data = "/nowhere/4"
[[store]]
name = "s"
addresses = ["127.0.0.1:9"]
[[rule]]
name = "r"
glob = "a.*"
interval = "10s"
functions = ["sum"]
output = "x"
"#;

fn cluster() -> Cluster {
    config::load("test.toml", CLUSTER).unwrap().cluster
}

/// A data directory that is gone at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("spillway-desk-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn desk(&self, node: &str) -> Arc<Desk> {
        Desk::open(&self.0, Roster::of(&cluster()), node, Clock::new()).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn drain(node: &str) -> Order {
    Order::Drain { node: node.into() }
}

#[derive(Default)]
struct Seen(Mutex<Vec<Vec<bool>>>);

impl Observed for Seen {
    fn look(&self, _now: Mono, _pool: &mut Pool) {}

    fn decided(&self, _now: Mono, outcome: &Outcome) {
        self.0.lock().unwrap().push(outcome.eligible());
    }
}

/// A relay's desk and its pool of two partial nodes with links.
fn operator(desk: &Arc<Desk>) -> (Operator, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let names = vec!["partial-1".to_owned(), "partial-2".to_owned()];
    let kind = (Layer::Partial, Kind::Free, Probe::Link);
    let pool = watch(desk, &cluster(), kind, names, Clock::new(), Arc::clone(&seen) as _);
    pool.tell(|now, pool| {
        (0..2).for_each(|node| pool.link_up(now, node));
        (0..2).for_each(|node| pool.verdict(now, node, Verdict::Ready));
    });
    (Operator::new(Arc::clone(desk), vec![pool]), seen)
}

fn lenient(layer: Option<&str>, until: Option<u64>, dry_run: bool) -> ModeChange {
    ModeChange { layer: layer.map(str::to_owned), mode: "lenient".into(), until, dry_run, by: "anna".into() }
}

#[test]
fn orders_survive_a_restart_and_are_in_the_audit_log_once() {
    let dir = Dir::new("restart");
    let desk = dir.desk("relay-1");
    assert_eq!(desk.order(&[drain("partial-1")], "anna").unwrap().len(), 1);
    assert_eq!(desk.order(&[drain("partial-1")], "anna").unwrap(), []);
    let (before, audit) = (desk.control(), desk.audit());
    drop(desk);
    let desk = dir.desk("relay-1");
    assert_eq!((desk.control(), desk.digest(), desk.audit()), (before.clone(), before.digest(), audit.clone()));
    let AuditEntry { by, what, old, new, .. } = &audit[0];
    assert_eq!([by.as_str(), what, old, new], ["anna on relay-1", "drain/partial-1", "", "drained"]);
}

#[test]
fn a_damaged_file_is_put_aside_and_a_newer_one_is_left_alone() {
    let dir = Dir::new("damaged");
    dir.desk("relay-1").order(&[drain("partial-1")], "anna").unwrap();
    let path = dir.0.join("control");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("drained", "drainer")).unwrap();
    assert_eq!(dir.desk("relay-1").digest(), 0);
    let aside = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(aside.into_iter().any(|name| name.to_string_lossy().starts_with("control.corrupt-")));
    fs::write(&path, text.replace("control 1", "control 2")).unwrap();
    let refused = Desk::open(&dir.0, Roster::of(&cluster()), "relay-1", Clock::new()).unwrap_err();
    assert!(refused.to_string().contains("run the version that wrote them"), "{refused}");
    assert!(path.exists());
}

#[test]
fn what_cannot_be_kept_is_not_ordered() {
    let dir = Dir::new("unwritable");
    let desk = dir.desk("relay-1");
    fs::create_dir(dir.0.join("control.new")).unwrap();
    assert!(desk.order(&[drain("partial-1")], "anna").is_err());
    assert_eq!((desk.digest(), desk.audit()), (0, Vec::new()));
    fs::remove_dir(dir.0.join("control.new")).unwrap();
}

#[test]
fn a_dry_run_changes_nothing_and_shows_what_the_order_then_does() {
    let dir = Dir::new("dry");
    let desk = dir.desk("relay-1");
    let (operator, seen) = operator(&desk);
    let ask = |dry_run| NodeChange { dry_run, by: "anna".into(), ..NodeChange::default() };
    let dry = operator.change_node("partial-2", NodeOrder::Drain, ask(true)).unwrap();
    assert_eq!((desk.digest(), dry.changes.len(), &dry.lose), (0, 1, &vec!["partial-2".to_owned()]));
    assert_eq!(seen.0.lock().unwrap().last(), Some(&vec![true, true]));
    let done = operator.change_node("partial-2", NodeOrder::Drain, ask(false)).unwrap();
    assert_eq!((&dry.pools, &dry.lose, &dry.gain), (&done.pools, &done.lose, &done.gain));
    assert_eq!(seen.0.lock().unwrap().last(), Some(&vec![true, false]));
    let telemetry = telemetry::Telemetry::new("relay-1", "relay");
    operator.record(&telemetry);
    let text = telemetry.render_prometheus();
    let is_out = |line: &str| line.starts_with("spillway_pool_eligible{") && line.contains("peer=\"partial-2\"");
    assert_eq!(text.lines().find(|line| is_out(line)).map(|line| line.ends_with(" 0")), Some(true), "{text}");
    assert_eq!(operator.modes().drained, ["partial-2"]);
    let again = operator.change_node("partial-2", NodeOrder::Drain, ask(false)).unwrap();
    assert_eq!((again.changes, again.lose), (vec![], vec![]));
    let undone = operator.change_node("partial-2", NodeOrder::Undrain, ask(false)).unwrap();
    assert_eq!((undone.gain, operator.modes().drained), (vec!["partial-2".to_owned()], vec![]));
}

#[test]
fn a_mode_is_for_one_layer_or_all_and_for_a_time() {
    let dir = Dir::new("mode");
    let desk = dir.desk("relay-1");
    let (operator, _seen) = operator(&desk);
    let soon = u64::from(Clock::new().unix().0) + 1_000;
    assert_eq!(operator.change_mode(lenient(None, Some(soon), false)).unwrap().changes.len(), 2);
    assert_eq!(operator.change_mode(lenient(Some("all"), Some(soon), false)).unwrap().changes, []);
    let modes = operator.modes();
    let shown: Vec<_> = modes.layers.iter().map(|of| (of.layer.as_str(), of.mode.as_str(), of.until)).collect();
    assert_eq!(shown, [("partial", "lenient", Some(soon)), ("final", "lenient", Some(soon))]);
    assert_eq!(modes.layers[0].then.as_deref(), Some("auto"));
    assert_eq!(operator.pools()[0].mode, "lenient");
}

#[test]
fn what_cannot_be_right_is_refused_with_what_would_be() {
    let dir = Dir::new("refused");
    let desk = dir.desk("relay-1");
    let (operator, _seen) = operator(&desk);
    let check = |refused: Refusal, expected: &str| {
        let said = format!("{refused:?}");
        assert!(said.contains(expected), "{said}");
    };
    check(operator.change_mode(lenient(Some("relay"), None, false)).unwrap_err(), "there are partial, final");
    check(operator.change_mode(lenient(None, Some(5), false)).unwrap_err(), "the mode would end at 5");
    let wrong = ModeChange { mode: "loose".into(), ..lenient(None, None, false) };
    check(operator.change_mode(wrong).unwrap_err(), "there are strict, lenient and auto");
    let node = |name: &str, what| operator.change_node(name, what, NodeChange::default()).unwrap_err();
    check(node("partial-9", NodeOrder::Drain), "there are relay-1, partial-1");
    check(node("relay-1", NodeOrder::Drain), "clients");
    check(node("final-1", NodeOrder::Forget), "are on it alone");
    assert_eq!(desk.digest(), 0);
}

/// A service without frames of its own.
#[derive(Default)]
struct Silent(Notify);

impl Handler for Silent {
    fn frame(&self, _frame: Frame) -> Result<(), Ended> {
        Err(Ended::Unexpected("frame of another"))
    }

    fn next(&self, _out: &mut Outgoing) {}

    fn wake(&self) -> &Notify {
        &self.0
    }
}

/// Lets two ends of a link speak until both are silent; says how many frames were written.
fn talk(a: &Accepted<'_>, b: &Accepted<'_>) -> usize {
    let mut frames = 0;
    for _ in 0..20 {
        let mut spoke = false;
        for (from, to) in [(a, b), (b, a)] {
            let mut out = Outgoing::default();
            from.next(&mut out);
            let mut bytes = BytesMut::from(out.concat().as_slice());
            while let Some(raw) = wire::next_raw(&mut bytes).unwrap() {
                to.frame(wire::decode(raw).unwrap()).unwrap();
                frames += 1;
                spoke = true;
            }
        }
        if !spoke {
            return frames;
        }
    }
    panic!("two nodes do not stop talking of their orders");
}

#[test]
fn nodes_that_were_away_agree_after_one_exchange_and_are_silent_then() {
    let (dir_a, dir_b) = (Dir::new("a"), Dir::new("b"));
    let (a, b) = (dir_a.desk("relay-1"), dir_b.desk("partial-1"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let follower = Arc::clone(&heard);
    b.follow(move |control| follower.lock().unwrap().push(control.entries().count()));
    let (service_a, service_b) = (Silent::default(), Silent::default());
    let (end_a, end_b) = (Accepted::new(&a, &service_a), Accepted::new(&b, &service_b));
    assert_eq!(talk(&end_a, &end_b), 0, "nothing was ever ordered");
    a.order(&[drain("partial-1")], "anna").unwrap();
    b.order(&[drain("partial-2")], "bert").unwrap();
    let frames = talk(&end_a, &end_b);
    assert!((2..=6).contains(&frames), "{frames}");
    assert_eq!((a.control(), a.digest()), (b.control(), b.digest()));
    assert_eq!((talk(&end_a, &end_b), heard.lock().unwrap().as_slice()), (0, [0, 1, 2].as_slice()));
    assert_eq!(b.audit().iter().filter(|entry| entry.what == "drain/partial-1").count(), 1);
    a.order(&[Order::Undrain { node: "partial-2".into() }], "anna").unwrap();
    talk(&end_a, &end_b);
    assert_eq!(a.control(), b.control());
    drop((end_a, end_b));
    // A new link of two that agree costs two digests.
    let (end_a, end_b) = (Accepted::new(&a, &service_a), Accepted::new(&b, &service_b));
    assert_eq!(talk(&end_a, &end_b), 2);
    assert_eq!(dir_b.desk("partial-1").control(), a.control(), "it is on disk there, too");
}

#[test]
fn orders_of_a_newer_version_are_left_to_those_who_read_them() {
    let dir = Dir::new("newer");
    let desk = dir.desk("relay-1");
    let service = Silent::default();
    let end = Accepted::new(&desk, &service);
    end.frame(Frame::Control(Word::All("spillway control 7\nwhat\n".into()))).unwrap();
    assert_eq!(desk.digest(), 0);
    assert!(end.frame(Frame::Control(Word::All("what\n".into()))).is_err());
    assert!(matches!(end.frame(Frame::Drain), Err(Ended::Unexpected("frame of another"))));
}
