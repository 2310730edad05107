use std::time::Duration;

use super::*;

mod flapping;

const PROOF: Duration = Duration::from_secs(300);
const RECOVER: Duration = Duration::from_secs(600);
const TIMEOUT: Duration = Duration::from_secs(3);

fn settings(mode: Mode) -> Settings {
    Settings {
        kind: Kind::Free,
        probe: Probe::Canary { timeout: TIMEOUT },
        mode,
        proof: PROOF,
        recover: RECOVER,
        floor_percent: 50,
        max_ejected_percent: 20,
    }
}

fn names(n: usize) -> Vec<String> {
    (1..=n).map(|index| format!("partial-{index}")).collect()
}

/// A pool, its clock, and what its nodes do in each second.
struct World {
    pool: Pool,
    now: Mono,
    round: u64,
    /// Whether each answers its canaries.
    answers: Vec<bool>,
    latency: Vec<Duration>,
}

impl World {
    /// All linked, ready, answering.
    fn new(mode: Mode, n: usize) -> World {
        World::with(settings(mode), n)
    }

    fn with(settings: Settings, n: usize) -> World {
        let now = Mono::from_millis(1_000_000);
        let mut pool = Pool::new(settings, names(n), now);
        for node in 0..n {
            pool.link_up(now, node);
            pool.verdict(now, node, Verdict::Ready);
        }
        World { pool, now, round: 0, answers: vec![true; n], latency: vec![Duration::from_millis(400); n] }
    }

    /// Seconds go by, each with a round of canaries.
    fn run(&mut self, seconds: u64) -> &mut World {
        for _ in 0..seconds {
            self.round += 1;
            let nodes = self.answers.len();
            (0..nodes).for_each(|node| self.pool.canary_sent(self.now, node, self.round));
            self.now = self.now + Duration::from_millis(400);
            for node in 0..nodes {
                self.pool.latency(node, self.latency[node]);
                if self.answers[node] {
                    self.pool.canary_acked(self.now, node, self.round);
                }
            }
            self.now = self.now + Duration::from_millis(600);
            self.pool.set_orders(self.now, &self.pool.orders());
        }
        self
    }

    fn order(&mut self, mode: Mode, hands: &[Hand]) {
        let mut orders = Orders { mode, hands: hands.to_vec() };
        orders.hands.resize(self.answers.len(), Hand::Off);
        let seen = self.pool.preview(self.now, &orders);
        self.pool.set_orders(self.now, &orders);
        assert_eq!(&seen, self.pool.outcome(), "the preview is the outcome");
    }

    /// Each node's word, a `+` before those that get traffic.
    fn standings(&self) -> String {
        let word = |standing: &Standing| format!("{}{}", if standing.is_in() { "+" } else { "-" }, standing.as_str());
        self.pool.outcome().nodes.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(&self, expected: &str) {
        assert_eq!(self.standings(), expected);
    }

    fn events(&mut self) -> Vec<Event> {
        self.pool.take_events()
    }
}

fn degraded() -> Verdict {
    Verdict::Degraded { worker: "partial.shard.0".into(), restarts: 1, error: "panic".into() }
}

#[test]
fn a_start_has_no_proof_and_begins_lenient_until_strict_could_hold_for_long_enough() {
    let mut world = World::new(Mode::Auto, 3);
    world.check("+link_up +link_up +link_up");
    assert!(!world.events().iter().any(|event| matches!(event, Event::WentLenient { .. })));
    world.run(PROOF.as_secs() + RECOVER.as_secs() - 2).check("+link_up +link_up +link_up");
    world.run(6).check("+proven +proven +proven");
    assert_eq!(world.events().pop(), Some(Event::WentStrict));
}

#[test]
fn a_cold_start_in_strict_fills_the_floor_with_the_least_bad() {
    let mut world = World::new(Mode::Strict, 3);
    world.check("+floor +floor -unproven");
    world.answers[0] = false;
    world.run(60).check("-unproven +floor +floor");
    world.run(PROOF.as_secs() - 30).check("-unproven +proven +proven");
}

#[test]
fn one_canary_that_is_lost_alone_breaks_the_proof_and_the_others_keep_theirs() {
    let mut world = World::new(Mode::Strict, 3);
    world.run(301).check("+proven +proven +proven");
    world.answers[1] = false;
    world.run(1);
    world.answers[1] = true;
    world.run(4).check("+proven -unproven +proven");
    world.run(PROOF.as_secs()).check("+proven +proven +proven");
}

#[test]
fn a_round_that_nobody_survived_counts_against_nobody() {
    let mut world = World::new(Mode::Strict, 3);
    world.run(301);
    world.answers = vec![false; 3];
    world.run(60).check("+proven +proven +proven");
}

#[test]
fn overload_is_no_evidence_and_ejects_nobody() {
    let mut world = World::new(Mode::Strict, 3);
    world.run(301);
    world.answers[2] = false;
    for node in 0..3 {
        world.pool.verdict(world.now, node, Verdict::Overloaded { queue_bytes: 9, lag_ms: 5_000 });
    }
    world.run(60).check("+proven +proven +proven");
}

#[test]
fn a_verdict_decides_only_in_strict() {
    #[track_caller]
    fn check(verdict: Verdict, strict: &str, lenient: &str) {
        let mut world = World::new(Mode::Strict, 4);
        world.run(301);
        world.pool.verdict(world.now, 0, verdict.clone());
        assert!(world.standings().starts_with(strict), "{verdict:?} in strict: {}", world.standings());
        world.order(Mode::Lenient, &[]);
        assert!(world.standings().starts_with(lenient), "{verdict:?} in lenient: {}", world.standings());
    }
    check(Verdict::Ready, "+proven", "+link_up");
    check(Verdict::Overloaded { queue_bytes: 1, lag_ms: 1 }, "+proven", "+link_up");
    check(Verdict::Starting, "-starting", "+link_up");
    check(degraded(), "-degraded", "+link_up");
    check(Verdict::Draining, "-leaving", "-leaving");
}

#[test]
fn auto_goes_lenient_at_once_says_so_and_comes_back_after_recover() {
    let mut world = World::new(Mode::Auto, 4);
    world.run(PROOF.as_secs() + RECOVER.as_secs() + 4);
    world.check("+proven +proven +proven +proven");
    world.events();
    for node in 0..2 {
        world.pool.verdict(world.now, node, degraded());
    }
    world.check("-degraded -degraded +proven +proven");
    world.pool.verdict(world.now, 2, degraded());
    world.check("+link_up +link_up +link_up +link_up");
    assert!(world.events().contains(&Event::WentLenient { strict: 1, floor: 2, size: 4 }));
    (0..3).for_each(|node| world.pool.verdict(world.now, node, Verdict::Ready));
    world.run(RECOVER.as_secs() - 1).check("+link_up +link_up +link_up +link_up");
    world.run(2).check("+proven +proven +proven +proven");
}

#[test]
fn hard_evidence_is_never_overridden_not_even_for_the_floor() {
    let mut world = World::new(Mode::Strict, 4);
    world.pool.link_down(world.now, 0);
    world.pool.verdict(world.now, 1, Verdict::Draining);
    world.order(Mode::Strict, &[Hand::Off, Hand::Off, Hand::Forgotten, Hand::Drained]);
    world.check("-link_down -leaving -forgotten +floor");
}

#[test]
fn drained_nodes_fill_the_floor_last() {
    let mut world = World::new(Mode::Lenient, 4);
    world.order(Mode::Lenient, &[Hand::Drained]);
    world.check("-drained +link_up +link_up +link_up");
    world.order(Mode::Lenient, &[Hand::Drained, Hand::Drained, Hand::Drained]);
    world.check("+floor -drained -drained +link_up");
    world.order(Mode::Strict, &[Hand::Drained, Hand::Drained]);
    world.check("-drained -drained +floor +floor");
    world.order(Mode::Strict, &[]);
    world.run(301).check("+proven +proven +proven +proven");
}

#[test]
fn the_floor_is_rounded_up_and_counts_who_is_not_forgotten() {
    for (n, forgotten, floor) in
        [(1, 0, 1), (2, 0, 1), (3, 0, 2), (4, 0, 2), (5, 0, 3), (4, 1, 2), (4, 2, 1), (2, 2, 0)]
    {
        let mut world = World::new(Mode::Auto, n);
        world.order(Mode::Auto, &vec![Hand::Forgotten; forgotten]);
        assert_eq!(world.pool.outcome().floor, floor, "{n} nodes, {forgotten} forgotten");
    }
}

#[test]
fn a_node_that_is_far_slower_than_the_others_is_ejected_for_a_while_and_each_time_longer() {
    let mut world = World::new(Mode::Strict, 5);
    world.run(301);
    world.latency[4] = Duration::from_secs(4);
    world.run(4).check("+proven +proven +proven +proven +proven");
    world.run(8).check("+proven +proven +proven +proven -ejected");
    world.latency[4] = Duration::from_millis(400);
    world.run(40).check("+proven +proven +proven +proven +proven");
    world.latency[4] = Duration::from_secs(4);
    while !world.run(1).standings().ends_with("-ejected") {}
    let mut out = 1;
    while world.run(1).standings().ends_with("-ejected") {
        out += 1;
    }
    assert!((48..=75).contains(&out), "the second ejection is twice as long: {out} s");
}

#[test]
fn at_most_the_cap_is_ejected_however_many_stand_out() {
    let mut world = World::new(Mode::Strict, 10);
    world.run(301);
    for node in 0..4 {
        world.latency[node] = Duration::from_secs(9);
    }
    for _ in 0..600 {
        world.run(1);
        let ejected = world.standings().matches("-ejected").count();
        assert!(ejected <= 2, "{ejected} of 10 ejected");
    }
    world.order(Mode::Lenient, &[]);
    assert_eq!(world.standings().matches("+link_up").count(), 10, "lenient ejects nobody");
}

#[test]
fn a_pool_that_is_slow_as_a_whole_has_no_outlier() {
    let mut world = World::new(Mode::Strict, 4);
    world.run(301);
    world.latency = vec![Duration::from_secs(20); 4];
    world.run(60).check("+proven +proven +proven +proven");
}

#[test]
fn owners_are_kept_whatever_soft_evidence_says_and_only_an_order_holds_them_off() {
    let fixed = Settings { kind: Kind::Fixed, probe: Probe::Link, ..settings(Mode::Strict) };
    let mut world = World::with(fixed, 3);
    world.check("+owner +owner +owner");
    world.pool.verdict(world.now, 0, degraded());
    world.pool.verdict(world.now, 1, Verdict::Draining);
    world.latency[2] = Duration::from_secs(60);
    world.run(60).check("+owner +owner +owner");
    world.order(Mode::Strict, &[Hand::Drained, Hand::Drained, Hand::Drained]);
    world.check("-drained -drained -drained");
    world.order(Mode::Auto, &[Hand::Off, Hand::Drained]);
    (1..3).for_each(|node| world.pool.link_down(world.now, node));
    world.check("+owner -drained -link_down");
}

#[test]
fn an_observer_without_canaries_takes_the_link_for_proof() {
    let mut world = World::with(Settings { probe: Probe::Link, ..settings(Mode::Strict) }, 2);
    world.now = world.now + PROOF;
    world.pool.set_orders(world.now, &world.pool.orders());
    world.check("+proven +proven");
}

#[test]
fn a_lost_link_takes_its_proof_with_it_and_makes_room_for_who_was_out() {
    let mut world = World::new(Mode::Strict, 3);
    world.run(301);
    world.answers[2] = false;
    world.run(10).check("+proven +proven -unproven");
    world.pool.link_down(world.now, 0);
    world.check("-link_down +proven +floor");
    world.pool.link_up(world.now, 0);
    world.pool.verdict(world.now, 0, Verdict::Ready);
    world.run(2).check("+floor +proven -unproven");
}

#[test]
fn the_same_order_again_changes_nothing() {
    let mut world = World::new(Mode::Auto, 3);
    world.run(400);
    let before = world.pool.outcome().clone();
    let Stance::AutoLenient { could: Some(_), .. } = before.stance else { panic!("{:?}", before.stance) };
    world.events();
    world.order(Mode::Auto, &[]);
    assert_eq!(world.pool.outcome(), &before);
    assert_eq!(world.events(), []);
}

#[test]
fn every_standing_and_event_has_a_sentence() {
    let mut world = World::new(Mode::Strict, 4);
    world.pool.link_down(world.now, 0);
    world.order(Mode::Strict, &[Hand::Off, Hand::Drained]);
    let said: Vec<String> = world.pool.outcome().nodes.iter().map(Standing::explain).collect();
    assert_eq!(said[0], "there is no link to it");
    assert_eq!(said[1], "an operator drained it");
    assert_eq!(said[2], "fills the floor, although clean for 0 s of 5 min");
    let names = names(4);
    let said: Vec<String> = world.events().iter().map(|event| event.say(|node| &names[node])).collect();
    assert!(said.contains(&"partial-1 gets no traffic: there is no link to it".to_owned()), "{said:?}");
    let lenient = Event::WentLenient { strict: 1, floor: 2, size: 4 };
    let expected = "the layer went lenient: strict would leave 1 of 4 nodes, and the floor is 2";
    assert_eq!(lenient.say(|_| ""), expected);
    assert!(lenient.is_warning() && !Event::WentStrict.is_warning());
}
