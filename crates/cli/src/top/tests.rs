use std::collections::BTreeMap;
use std::time::Duration;

use admin_api::{
    DestinationLedger, Health, LayerMode, Ledger, ModeStatus, PoolNode, PoolStatus, ReplaySettings, ReplayStatus,
    SpillLane, SpillStatus, Status, Verdict,
};
use config::{Cluster, Layer};
use engine::health::Mode;
use engine::time::Mono;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::dialogue::{Dialogue, Key, Step};
use super::view;
use crate::order::Line;
use crate::tests::parsed;
use crate::watch::{Flow, HISTORY, Look, Model, NodeView, Order, Traffic};

fn cluster() -> Cluster {
    let nodes = [("final-1", "final"), ("relay-1", "relay"), ("replayer-1", "replayer")];
    parsed(nodes.map(|(name, layer)| (name.to_owned(), layer)))
}

fn at(seconds: u64) -> Mono {
    Mono::ZERO + Duration::from_secs(seconds)
}

fn status(verdict: Verdict, received: u64, delivered: u64) -> Status {
    let to = DestinationLedger { owed: received, delivered, ..DestinationLedger::default() };
    Status {
        node: String::new(),
        layer: String::new(),
        version: String::new(),
        uptime_seconds: 1,
        verdict,
        workers: Vec::new(),
        peers: Vec::new(),
        figures: BTreeMap::new(),
        ledger: Ledger { received, destinations: vec![to], ..Ledger::default() },
    }
}

fn look(received: u64, delivered: u64) -> Look {
    only(Ok(status(Verdict::Ready, received, delivered)))
}

fn only(status: Result<Status, String>) -> Look {
    Look { status, health: None, orders: None, spill: None, replay: None }
}

/// What relay-1 says of the pool that it sends to: partial-1 is proven, partial-2 as given.
fn pool(eligible: bool, standing: &str, why: &str) -> Look {
    let member = |node: &str, eligible, standing: &str, why: &str| PoolNode {
        node: node.to_owned(),
        eligible,
        standing: standing.to_owned(),
        why: why.to_owned(),
        ..PoolNode::default()
    };
    let pool = PoolStatus {
        layer: "partial".into(),
        shared: true,
        mode: "auto".into(),
        stance: "lenient".into(),
        floor: 1,
        size: 2,
        strict: 1,
        nodes: vec![member("partial-1", true, "proven", ""), member("partial-2", eligible, standing, why)],
    };
    let health = Health { pools: vec![pool], ..Health::new("relay-1", "relay", Verdict::Ready) };
    let mode = |layer: &str| LayerMode {
        layer: layer.to_owned(),
        mode: "auto".into(),
        until: None,
        then: None,
        ordered_at: None,
        ordered_by: None,
    };
    let drained = if why.contains("drained") { vec!["partial-2".to_owned()] } else { Vec::new() };
    let layers = vec![mode("partial"), mode("final")];
    let orders = ModeStatus { node: "relay-1".into(), layers, drained, digest: String::new() };
    Look { health: Some(health), orders: Some(orders), ..look(0, 0) }
}

fn pooled() -> Model {
    let nodes = [("relay-1", "relay"), ("partial-1", "partial"), ("partial-2", "partial"), ("final-1", "final")];
    Model::new(&parsed(nodes.map(|(name, layer)| (name.to_owned(), layer))))
}

fn replay(rate: u64, paused: bool, backlog_points: u64) -> Look {
    let settings = ReplaySettings { rate, paused, ..ReplaySettings::default() };
    let status = ReplayStatus { settings, backlog_points, limited_by: "operator".into(), ..ReplayStatus::default() };
    Look { replay: Some(status), ..look(0, 0) }
}

fn flow_of(model: &Model, name: &str) -> Option<Flow> {
    model.nodes.iter().find(|node| node.name == name).and_then(NodeView::flow)
}

#[track_caller]
fn screen(model: &Model, dialogue: &Dialogue) -> String {
    let mut terminal = Terminal::new(TestBackend::new(200, 30)).expect("a terminal");
    terminal.draw(|frame| view::draw(frame, model, dialogue, false)).expect("drawn");
    terminal.backend().to_string()
}

/// Presses keys one after the other; what the last one led to.
fn press(mut dialogue: Dialogue, keys: &[Key], model: &mut Model) -> (Dialogue, Step) {
    let mut step = Step::Stay;
    for key in keys {
        assert_eq!(step, Step::Stay, "only the last key does something");
        (dialogue, step) = dialogue.press(*key, model);
    }
    (dialogue, step)
}

fn typed(text: &str) -> Vec<Key> {
    text.chars().map(Key::Char).chain([Key::Enter]).collect()
}

#[test]
fn nodes_stand_in_the_order_of_a_points_way() {
    let layers: Vec<Layer> = Model::new(&cluster()).nodes.iter().map(|node| node.layer).collect();
    assert_eq!(layers, [Layer::Relay, Layer::Final, Layer::Replayer]);
}

#[test]
fn counters_become_rates_by_the_time_that_really_passed() {
    let mut model = Model::new(&cluster());
    model.see(at(1), "relay-1", look(1_000, 900));
    assert_eq!(flow_of(&model, "relay-1"), None, "one look is no rate");
    model.see(at(3), "relay-1", look(5_000, 1_900));
    assert_eq!(
        flow_of(&model, "relay-1"),
        Some(Flow { taken_in: 2_000, handed_on: 500, to_stores: 500, ..Flow::default() })
    );
}

#[test]
fn a_node_that_started_anew_or_was_silent_has_no_rate_for_that_second() {
    let mut model = Model::new(&cluster());
    model.see(at(1), "relay-1", look(1_000, 1_000));
    model.see(at(2), "relay-1", look(10, 10));
    assert_eq!(flow_of(&model, "relay-1"), None, "the counters went back");
    model.see(at(3), "relay-1", look(30, 30));
    assert_eq!(flow_of(&model, "relay-1").map(|flow| flow.taken_in), Some(20));
    model.see(at(4), "relay-1", only(Err("connection refused".into())));
    model.see(at(5), "relay-1", look(50, 50));
    assert_eq!(flow_of(&model, "relay-1"), None, "nothing is known of the time before");
}

#[test]
fn history_is_a_minute() {
    let mut model = Model::new(&cluster());
    for second in 0..100 {
        model.see(at(second), "relay-1", look(second * 10, 0));
    }
    assert_eq!(model.nodes[0].history.len(), HISTORY);
}

#[test]
fn the_screen_says_what_is_wrong_and_where() {
    let mut model = Model::new(&cluster());
    let lane = SpillLane { pending_points: 7_000, held_points: 2_000, ..SpillLane::default() };
    let spill = SpillStatus {
        mode: "disk_full".into(),
        detail: "make room".into(),
        lanes: vec![lane],
        ..SpillStatus::default()
    };
    model.see(at(1), "relay-1", Look { spill: Some(spill.clone()), ..look(1_000, 0) });
    model.see(at(2), "relay-1", Look { spill: Some(spill), ..look(3_000, 0) });
    let sick = Verdict::Degraded { worker: "final.shard.0".into(), restarts: 4, error: "panic: index".into() };
    model.see(at(2), "final-1", only(Ok(status(sick, 0, 0))));
    model.see(at(2), "replayer-1", only(Err("connection refused".into())));
    let shown = screen(&model, &Dialogue::Looking);
    for part in [
        "spillway test: 1 of 3 nodes ready",
        "spill disk_full: make room",
        "worker final.shard.0, 4 restarts: panic: index",
        "no answer",
        "connection refused",
        "5000",
        "r replay rate",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    let relay = shown.lines().find(|line| line.contains("relay-1  ")).unwrap_or_default();
    assert!(relay.contains("2000") && relay.contains('█'), "{relay}");
}

#[test]
fn a_small_terminal_is_no_reason_to_fall_over() {
    let mut model = Model::new(&cluster());
    model.see(at(1), "replayer-1", replay(50_000, false, 10));
    let (dialogue, _) = press(Dialogue::Looking, &[Key::Char('p')], &mut model);
    for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| view::draw(frame, &model, &dialogue, true)).expect("drawn");
        let shown = terminal.backend().to_string();
        assert!(width < 80 || (shown.contains("q quit") && shown.contains("d drain node")), "{shown}");
    }
}

#[test]
fn a_rate_goes_out_only_after_its_effect_was_shown_and_confirmed() {
    let mut model = Model::new(&cluster());
    model.see(at(1), "replayer-1", replay(50_000, false, 1_000_000));
    let keys: Vec<Key> = [Key::Char('r')].into_iter().chain(typed("100k/s")).collect();
    let (dialogue, step) = press(Dialogue::Looking, &keys, &mut model);
    assert_eq!(step, Step::Stay);
    let Dialogue::Confirming { order, preview } = &dialogue else { panic!("{dialogue:?}") };
    assert_eq!(*order, Order::Rate(100_000));
    assert!(preview[0].text.contains("replayer-1") && preview[0].text.contains("take 10s at best"), "{preview:?}");
    assert!(screen(&model, &dialogue).contains("spillway replay rate 100000/s"), "{}", screen(&model, &dialogue));
    let (left, step) = press(dialogue.clone(), &[Key::Char('n')], &mut model);
    assert_eq!((left, step), (Dialogue::Looking, Step::Stay));
    let (sent, step) = press(dialogue, &[Key::Char('y')], &mut model);
    assert_eq!(step, Step::Send(Order::Rate(100_000)));
    let (sent, step) = press(sent, &[Key::Char('y')], &mut model);
    assert_eq!(step, Step::Stay, "it is sent once");
    let done = vec![Line::plain("done")];
    assert_eq!(sent.told(done.clone()), Dialogue::Told { lines: done });
}

#[test]
fn a_rate_that_is_none_is_refused_with_the_reason_and_can_be_mended() {
    let mut model = Model::new(&cluster());
    for text in ["0", "-5", "many", "1e99"] {
        let keys: Vec<Key> = [Key::Char('r')].into_iter().chain(typed(text)).collect();
        let (dialogue, step) = press(Dialogue::Looking, &keys, &mut model);
        assert_eq!(step, Step::Stay);
        assert!(matches!(&dialogue, Dialogue::Typing { wrong: Some(_), .. }), "{text}: {dialogue:?}");
        let (dialogue, _) = press(dialogue, &[Key::Backspace], &mut model);
        let left = text.chars().take(text.len() - 1).collect();
        assert_eq!(dialogue, Dialogue::Typing { text: left, wrong: None });
    }
}

#[test]
fn p_pauses_what_runs_and_resumes_what_is_paused() {
    for (paused, order) in [(false, Order::Pause), (true, Order::Resume)] {
        let mut model = Model::new(&cluster());
        model.see(at(1), "replayer-1", replay(50_000, paused, 10));
        let (_, step) = press(Dialogue::Looking, &[Key::Char('p'), Key::Enter], &mut model);
        assert_eq!(step, Step::Send(order));
    }
}

#[test]
fn a_mode_is_chosen_by_two_letters_and_goes_out_after_the_nodes_said_what_it_would_do() {
    let mode = |layer: Option<&str>, mode, lasts| Order::Mode { layer: layer.map(str::to_owned), mode, lasts };
    let cases = [
        ("mal", mode(None, Mode::Lenient, None), "health mode lenient --all"),
        ("mps", mode(Some("partial"), Mode::Strict, None), "health mode strict --layer partial"),
        ("mfa", mode(Some("final"), Mode::Auto, None), "health mode auto --layer final"),
        ("ma30l", mode(None, Mode::Lenient, Some(1_800)), "health mode lenient --all --for 30m"),
        ("ma0l", mode(None, Mode::Lenient, None), "health mode lenient --all"),
        ("mxpx60s", mode(Some("partial"), Mode::Strict, Some(3_600)), "health mode strict --layer partial --for 1h"),
    ];
    for (letters, order, command) in cases {
        let mut model = pooled();
        model.see(at(1), "relay-1", pool(true, "proven", ""));
        let keys: Vec<Key> = letters.chars().map(Key::Char).collect();
        let (dialogue, step) = press(Dialogue::Looking, &keys, &mut model);
        assert_eq!((step, order.command()), (Step::Foresee(order.clone()), format!("spillway {command}")), "{letters}");
        let preview =
            vec![Line::bad("final-1 does not answer"), Line::plain("from relay-1: partial-2 would gain traffic")];
        let another = Order::Drain("partial-2".into());
        assert_eq!(dialogue.clone().foreseen(&another, preview.clone()), dialogue, "the answer to another question");
        let dialogue = dialogue.foreseen(&order, preview);
        let shown = screen(&model, &dialogue);
        for part in [command, "partial-2 would gain traffic", "final-1 does not answer", "y does it"] {
            assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
        }
        let (_, step) = press(dialogue.clone(), &[Key::Escape], &mut model);
        assert_eq!(step, Step::Stay);
        let (_, step) = press(dialogue, &[Key::Char('y')], &mut model);
        assert_eq!(step, Step::Send(order));
    }
}

#[test]
fn every_step_of_a_mode_can_be_left() {
    for letters in ["m", "ma", "mp", "ma30", "mal"] {
        let mut model = pooled();
        model.see(at(1), "relay-1", pool(true, "proven", ""));
        let keys: Vec<Key> = letters.chars().map(Key::Char).collect();
        let (dialogue, _) = press(Dialogue::Looking, &keys, &mut model);
        assert!(!matches!(dialogue, Dialogue::Looking), "{letters}");
        let (left, step) = press(dialogue, &[Key::Escape], &mut model);
        assert_eq!((left, step), (Dialogue::Looking, Step::Stay), "{letters}");
    }
    let (told, _) = press(Dialogue::Looking, &[Key::Char('m')], &mut pooled());
    assert!(screen(&pooled(), &told).contains("no node says which modes there are"), "{told:?}");
}

#[test]
fn d_drains_the_selected_node_and_lets_a_drained_one_in_again() {
    let mut model = pooled();
    model.see(at(1), "relay-1", pool(false, "drained", "an operator drained it"));
    let cases = [
        (0, None),
        (1, Some(Order::Drain("partial-1".into()))),
        (2, Some(Order::Undrain("partial-2".into()))),
        (3, Some(Order::Drain("final-1".into()))),
    ];
    for (selected, order) in cases {
        model.selected = selected;
        let (dialogue, step) = press(Dialogue::Looking, &[Key::Char('d')], &mut model);
        match order {
            Some(order) => assert_eq!(step, Step::Foresee(order)),
            None => assert!(screen(&model, &dialogue).contains("only partial and final nodes"), "{dialogue:?}"),
        }
    }
}

#[test]
fn who_gets_no_traffic_stands_there_with_the_reason_and_the_modes_above() {
    let mut model = pooled();
    let of = |model: &Model, at: usize| model.traffic(&model.nodes[at]);
    assert_eq!(of(&model, 2).map(|traffic| traffic.word()), Some("unknown"), "nobody has said anything");
    assert_eq!(of(&model, 0), None, "nobody sends to a relay");
    let cases = [
        (true, "proven", "", "yes", None),
        (false, "drained", "an operator drained it", "none", Some("no traffic from relay-1: an operator drained it")),
        (
            true,
            "floor",
            "fills the floor, although x",
            "yes",
            Some("traffic from relay-1: it fills the floor, although x"),
        ),
    ];
    for (eligible, standing, why, word, reason) in cases {
        model.see(at(1), "relay-1", pool(eligible, standing, why));
        let traffic = of(&model, 2).expect("a partial node");
        let reasons = reason.map(str::to_owned).into_iter().collect();
        let drained = why.contains("drained");
        assert_eq!(traffic, Traffic { from: usize::from(eligible), of: 1, drained, reasons });
        assert_eq!(traffic.word(), word);
        assert!(screen(&model, &Dialogue::Looking).contains(reason.unwrap_or("partial-2")));
    }
    assert!(screen(&model, &Dialogue::Looking).contains("health modes: partial auto, lenient in effect; final auto"));
}
