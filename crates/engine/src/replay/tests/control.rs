//! What operators set, and what a large backlog at the start does.

use crate::rate::RATE_MAX;

use super::*;

#[test]
fn canaries_are_the_first_receivers_and_a_pause_stops_what_it_names() {
    #[track_caller]
    fn check(change: &Change, expected: [usize; 2], lanes: [usize; 2]) {
        let mut replay = replay();
        let (control, _) = replay.control().apply(change, &replay.known_sources()).unwrap();
        replay.set_control(control);
        lend(&mut replay, at(0), 0, 0..4);
        lend(&mut replay, at(0), 1, 0..4);
        let keys = turns(&mut replay, at(0));
        let of = |lane| keys.iter().filter(|key| key.1.lane == lane).count();
        assert_eq!([written(&mut replay, 0).len(), written(&mut replay, 1).len()], expected, "{change:?}");
        assert_eq!([of(0), of(1)], lanes, "{change:?}");
    }
    let paused =
        |source: Option<&str>| Change { source: source.map(Into::into), paused: Some(true), ..Change::default() };
    check(&Change::default(), [4, 4], [4, 4]);
    check(&Change { canary_percent: Some(1), ..Change::default() }, [8, 0], [4, 4]);
    check(&Change { canary_percent: Some(51), ..Change::default() }, [4, 4], [4, 4]);
    check(&paused(None), [0, 0], [0, 0]);
    check(&paused(Some("relay-1")), [0, 0], [0, 0]);
    check(&paused(Some("relay-2")), [4, 4], [4, 4]);
    check(&paused(Some("relay-1/aggregate:final-2")), [2, 2], [4, 0]);
}

#[test]
fn a_receiver_that_the_pool_keeps_out_gets_nothing_also_when_its_link_comes_anew() {
    let mut replay = replay();
    replay.set_eligible(&[false, true]);
    replay.receiver_up(at(0), 0, 1 << 20);
    lend(&mut replay, at(0), 0, 0..8);
    turns(&mut replay, at(0));
    assert_eq!((written(&mut replay, 0).len(), written(&mut replay, 1).len()), (0, 8));
    replay.set_eligible(&[true, false]);
    lend(&mut replay, at(0), 0, 8..16);
    turns(&mut replay, at(0));
    assert_eq!((written(&mut replay, 0).len(), written(&mut replay, 1).len()), (8, 0));
}

#[test]
fn a_source_s_own_ceiling_holds() {
    let mut replay = replay();
    let change = Change { source: Some("relay-1/aggregate:final-1".into()), rate: Some(100), ..Change::default() };
    let (control, _) = replay.control().apply(&change, &replay.known_sources()).unwrap();
    replay.set_control(control);
    let mut went = 0;
    for step in 0..100 {
        let now = at(step * 100);
        lend(&mut replay, now, 0, step * 3..step * 3 + 3);
        went += turns(&mut replay, now).len();
        written(&mut replay, 0);
        written(&mut replay, 1);
        replay.durable(now, 0, &durable_of(0, u32::MAX));
    }
    assert!((98..=101).contains(&went), "10 s at 100 points a second in tens: {went}");
}

#[test]
fn a_large_backlog_at_the_start_makes_it_cautious_until_an_operator_speaks() {
    let large =
        |replay: &mut Replay, source| replay.backlog(source, Backlog { lanes: vec![said(0, "aggregate", 2_000_000)] });
    let settings = Settings { sources: vec!["relay-1".into(), "relay-2".into()], ..Settings::default() };
    let fresh = |plan| Replay::new(settings.clone(), plan, Control::new(50_000, true));
    let mut replay = fresh(PLAN);
    assert!(large(&mut replay, 0));
    assert!(!large(&mut replay, 0) && !large(&mut replay, 1), "said once");
    assert_eq!(replay.control().bounds(&PLAN).ceiling, 1_000);
    let paused = Plan { start: Start::Paused, ..PLAN };
    let mut stopped = fresh(paused);
    assert!(large(&mut stopped, 0) && stopped.control().is_paused());
    let (resumed, _) = stopped.control().apply(&Change { paused: Some(false), ..Change::default() }, &[]).unwrap();
    assert!(!resumed.is_paused() && !resumed.is_cautious());
    let mut gone = stopped.control().clone();
    assert!(gone.ran_empty() && !gone.is_paused(), "nobody would resume the next one");
    let (slowed, _) = stopped.control().apply(&Change { rate: Some(7), ..Change::default() }, &[]).unwrap();
    assert!(slowed.is_paused() && !slowed.is_cautious(), "a rate alone lets nothing go");
    let (mut held, _) = stopped.control().apply(&Change { paused: Some(true), ..Change::default() }, &[]).unwrap();
    assert!(held.is_cautious() && held.ran_empty() && held.is_paused(), "what an operator paused stays so");
    // A restart in the middle: the machine still stands still.
    let again = Replay::new(settings.clone(), paused, stopped.control().clone());
    assert!(again.control().is_paused());
    let (control, changed) = replay.control().apply(&Change { rate: Some(50_000), ..Change::default() }, &[]).unwrap();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(control.bounds(&PLAN).ceiling, 50_000);
    // A restart in the middle of it is no new matter; after it ran empty it is.
    let mut again = Replay::new(settings.clone(), PLAN, control.clone());
    assert!(!large(&mut again, 0));
    let mut control = control;
    assert!(control.ran_empty() && !control.ran_empty());
    assert!(large(&mut Replay::new(settings.clone(), PLAN, control), 0));
    // A backlog that grew while it ran is no start.
    let mut replay = fresh(PLAN);
    replay.backlog(0, Backlog::default());
    assert!(!large(&mut replay, 0));
    assert!(!large(&mut fresh(Plan { start: Start::Rate, ..PLAN }), 0));
}

#[test]
fn what_cannot_be_right_is_refused_with_what_is_in_force() {
    #[track_caller]
    fn check(change: Change, expected: &str) {
        let known = ["relay-1".to_owned(), "relay-1/aggregate".to_owned()];
        let error = Control::new(50_000, true).apply(&change, &known).unwrap_err();
        assert!(error.contains(expected), "{change:?}: {error}");
    }
    let none = Change::default;
    for rate in [0, RATE_MAX + 1] {
        let expected = crate::rate::check(rate).unwrap_err().in_force("50000/s");
        check(Change { rate: Some(rate), ..none() }, &expected);
        check(Change { source: Some("relay-1".into()), rate: Some(rate), ..none() }, &expected);
    }
    check(Change { source: Some("relay-9".into()), ..none() }, "known sources: relay-1, relay-1/aggregate");
    check(Change { source: Some("relay-1".into()), adaptive: Some(true), ..none() }, "set for all sources");
    check(Change { canary_percent: Some(0), ..none() }, "from 1 to 100 %; 100 % is in force");
    check(Change { canary_percent: Some(101), ..none() }, "from 1 to 100 %");
    check(Change { range: Some((Some(9), Some(3))), ..none() }, "ends (3) before it begins (9)");
    check(Change { range: Some((Some(1 << 40), None)), ..none() }, "is no time");
    check(Change { matching: Some("a.{b".into()), ..none() }, "the glob a.{b");
    check(Change { matching: Some("x".repeat(5_000)), ..none() }, "at most 2048");
}

#[test]
fn the_share_of_a_replayer_that_is_forgotten_goes_to_the_others() {
    let mut replay = replay();
    assert!(replay.set_replayers(2) && !replay.set_replayers(2));
    let ceiling = |replay: &Replay| replay.control().bounds(replay.plan()).ceiling;
    let half = ceiling(&replay);
    assert!(replay.set_replayers(1));
    assert_eq!(ceiling(&replay), 2 * half);
}

#[test]
fn a_change_sent_twice_is_one() {
    let change = Change {
        rate: Some(7),
        adaptive: Some(false),
        canary_percent: Some(10),
        range: Some((Some(5), None)),
        matching: Some("a.**".into()),
        ..Change::default()
    };
    let (once, changed) = Control::new(50_000, true).apply(&change, &[]).unwrap();
    let what: Vec<&str> = changed.iter().map(|changed| changed.what.as_str()).collect();
    assert_eq!(what, ["rate", "adaptive", "canary_percent", "from", "matching"]);
    let (twice, changed) = once.apply(&change, &[]).unwrap();
    assert!(twice == once && changed.is_empty(), "{changed:?}");
    let source = |rate, paused| Change { source: Some("r".into()), rate, paused, ..Change::default() };
    let (own, changed) = once.apply(&source(Some(3), Some(true)), &["r".into()]).unwrap();
    assert_eq!(changed.len(), 2);
    assert!(own.source_paused("r", "x") && own.source_rate("r", &PLAN) == Some(3));
    let halves = Plan { replayers: 2, ..PLAN };
    assert_eq!((own.source_rate("r", &halves), own.bounds(&halves).ceiling), (Some(1), 3), "each takes its share");
}

#[test]
fn a_narrower_range_gives_back_what_waits() {
    let mut replay = replay();
    lend(&mut replay, at(0), 0, 0..3);
    let turn = replay.next_turn(at(0)).unwrap();
    let change = Change { range: Some((Some(50), None)), ..Change::default() };
    let (control, _) = replay.control().apply(&change, &[]).unwrap();
    replay.set_control(control);
    assert_eq!(done(&mut replay), [(Outcome::Released, vec![1, 2])]);
    assert!(replay.go(at(0), turn.key).is_some());
    assert_eq!(replay.next_request(at(0), 0).unwrap().from, UnixSeconds(50));
}

#[test]
fn what_was_kept_of_the_caution_comes_back_as_it_was() {
    for start in [Start::Floor, Start::Paused, Start::Rate] {
        let plan = Plan { start, ..PLAN };
        let mut control = Control::new(50_000, true);
        let back = |of: &Control| Caution::restored(of.is_cautious(), of.caution == Caution::Acknowledged, start);
        assert_eq!(back(&control), control.caution);
        control.found_at_start(&plan, u64::MAX);
        assert_eq!(back(&control), control.caution);
        let (control, _) = control.apply(&Change { paused: Some(false), ..Change::default() }, &[]).unwrap();
        assert_eq!(back(&control), control.caution);
    }
    assert_eq!(Caution::restored(true, true, Start::Floor), Caution::Acknowledged, "both is nothing a machine writes");
}

fn commands() -> impl proptest::strategy::Strategy<Value = Vec<(u8, u64, u32)>> {
    proptest::collection::vec((0u8..8, 1u64..1_000_000, 1u32..4), 1..60)
}

proptest::proptest! {
    /// Whatever comes between: a command given again changes nothing, the last word of an operator is in force, and one
    /// `resume` with a rate always lets the replay go at that rate.
    #[test]
    fn the_last_word_is_in_force_and_nothing_is_stuck(given in commands(), start in 0usize..3) {
        let plan = Plan { start: [Start::Floor, Start::Paused, Start::Rate][start], ..PLAN };
        let mut control = Control::new(50_000, true);
        let (mut word, mut rate) = (false, 50_000);
        for (what, number, times) in given {
            let change = match what {
                0 => Change { paused: Some(true), ..Change::default() },
                1 => Change { paused: Some(false), ..Change::default() },
                2 => Change { rate: Some(number), ..Change::default() },
                3 => Change { rate: Some(number), paused: Some(false), ..Change::default() },
                4 => Change { canary_percent: Some(7), ..Change::default() },
                5 => { control.found_at_start(&plan, number * 10); continue }
                6 => { control.ran_empty(); continue }
                _ => {
                    // A restart: what is kept is two flags and the settings.
                    control.caution = Caution::restored(control.is_cautious(), control.caution == Caution::Acknowledged, plan.start);
                    continue;
                }
            };
            // A rate while it stands still by itself makes that an operator's pause.
            word = change.paused.unwrap_or(word || (change.rate.is_some() && control.caution == Caution::Halt));
            rate = change.rate.unwrap_or(rate);
            let (next, _) = control.apply(&change, &[]).unwrap();
            control = next;
            for _ in 1..times {
                let (same, changed) = control.apply(&change, &[]).unwrap();
                proptest::prop_assert_eq!((&same, changed), (&control, vec![]));
            }
            proptest::prop_assert_eq!((control.paused, control.rate), (word, rate));
            proptest::prop_assert!(control.is_paused() || !word);
            proptest::prop_assert!(!(control.is_cautious() && (change.rate.is_some() || change.paused == Some(false))));
        }
        let go = Change { rate: Some(9_000), paused: Some(false), ..Change::default() };
        let bounds = control.apply(&go, &[]).unwrap().0.bounds(&plan);
        proptest::prop_assert!(!bounds.paused && bounds.ceiling == 9_000);
    }
}
