use proptest::prelude::*;

use super::*;

fn stamp(now_ms: u64, origin: &str) -> Stamp<'_> {
    Stamp { now_ms, origin, by: "cli" }
}

fn mode(layer: &str, mode: Mode, until: Option<u64>) -> Order {
    Order::Mode { layer: layer.into(), mode, until }
}

fn drain(node: &str) -> Order {
    Order::Drain { node: node.into() }
}

fn undrain(node: &str) -> Order {
    Order::Undrain { node: node.into() }
}

fn forget(node: &str, sender: Option<u64>) -> Order {
    Order::Forget { node: node.into(), what: Forgotten { sender, lost_points: 0 } }
}

/// Gives orders one second apart and says what each wrote; `=` where it was in force.
#[track_caller]
fn check(orders: &[Order], expected: &[&str]) {
    let mut control = Control::default();
    let mut wrote = Vec::new();
    for (second, order) in (1_000u64..).zip(orders) {
        let change = control.order(order, stamp(second * 1_000, "relay-1"));
        wrote.push(change.map_or("=".to_owned(), |change| format!("{} {}", change.key, change.entry.value)));
        assert_eq!(control.order(order, stamp(second * 1_000, "relay-2")), None, "{order:?} again");
    }
    assert_eq!(wrote, expected);
}

#[test]
fn what_is_in_force_is_not_ordered_again() {
    check(&[drain("a"), drain("a"), undrain("a"), undrain("a")], &["drain/a drained", "=", "drain/a active", "="]);
    check(&[undrain("a")], &["="]);
    check(
        &[
            mode("partial", Mode::Lenient, None),
            mode("final", Mode::Lenient, None),
            mode("partial", Mode::Strict, None),
        ],
        &["mode/partial lenient", "mode/final lenient", "mode/partial strict"],
    );
}

#[test]
fn a_mode_for_a_time_carries_what_holds_afterwards() {
    check(
        &[
            mode("partial", Mode::Lenient, Some(1_500)),
            mode("partial", Mode::Strict, Some(1_600)),
            mode("partial", Mode::Lenient, None),
            mode("partial", Mode::Auto, Some(1_700)),
        ],
        &[
            "mode/partial lenient until 1500 then default",
            "mode/partial strict until 1600 then default",
            "mode/partial lenient",
            "mode/partial auto until 1700 then lenient",
        ],
    );
}

#[test]
fn a_mode_reverts_by_itself_in_its_second() {
    let mut control = Control::default();
    control.order(&mode("partial", Mode::Strict, None), stamp(1_000_000, "a"));
    control.order(&mode("partial", Mode::Lenient, Some(1_030)), stamp(1_000_000, "a"));
    let at = |now| control.mode("partial", Mode::Auto, now);
    let until = Some((1_030, Mode::Strict));
    assert_eq!(at(1_029), ModeNow { mode: Mode::Lenient, until, ordered: true });
    assert_eq!(at(1_030), ModeNow { mode: Mode::Strict, until: None, ordered: true });
    assert_eq!(control.mode("final", Mode::Auto, 0), ModeNow { mode: Mode::Auto, until: None, ordered: false });
    let reverted = ("partial".to_owned(), "lenient until 1030 then strict".to_owned(), "strict".to_owned());
    assert_eq!(control.reverted(1_029, 1_030), [reverted]);
    assert_eq!((control.reverted(1_030, 2_000), control.reverted(0, 1_029)), (vec![], vec![]));
    assert!(control.order(&mode("partial", Mode::Strict, None), stamp(1_031_000, "a")).is_none(), "it holds already");
}

#[test]
fn a_forgotten_node_stays_forgotten() {
    check(
        &[drain("r"), forget("r", None), forget("r", Some(10)), undrain("r"), drain("r"), forget("r", None)],
        &["drain/r drained", "forget/r forgotten", "forget/r forgotten 000000000000000a", "drain/r active", "=", "="],
    );
    let mut control = Control::default();
    control.order(&forget("r", Some(10)), stamp(1, "a"));
    control.order(&undrain("r"), stamp(2, "a"));
    let known = Forgotten { sender: Some(10), lost_points: 0 };
    assert_eq!((control.hand("r"), control.forgotten_node("r")), (Hand::Forgotten, Some(known)));
    let lost = Forgotten { sender: Some(11), lost_points: 500 };
    control.order(&Order::Forget { node: "s".into(), what: lost }, stamp(3, "a"));
    assert_eq!(control.forgotten().collect::<Vec<_>>(), [("r", known), ("s", lost)]);
    assert_eq!(Forgotten::parse("forgotten 000000000000000b lost 500 and more"), Some(lost));
    assert_eq!(Forgotten::parse("forgiven"), None);
}

#[test]
fn the_newer_order_wins_also_from_a_node_whose_clock_is_late() {
    let (mut a, mut b) = (Control::default(), Control::default());
    a.order(&drain("n"), stamp(9_000_000, "a"));
    b.merge(&a);
    // This node's clock is hours behind, but it has seen the drain.
    b.order(&undrain("n"), stamp(1_000, "b"));
    assert_eq!(a.merge(&b).len(), 1);
    assert_eq!(a.hand("n"), Hand::Off);
    assert_eq!(b.merge(&a), []);
}

#[test]
fn a_tie_is_decided_the_same_way_everywhere() {
    let (mut a, mut b) = (Control::default(), Control::default());
    a.order(&mode("partial", Mode::Strict, None), stamp(5, "a"));
    b.order(&mode("partial", Mode::Lenient, None), stamp(5, "b"));
    let (before_a, before_b) = (a.clone(), b.clone());
    a.merge(&before_b);
    b.merge(&before_a);
    assert_eq!(a, b);
    assert_eq!(a.mode("partial", Mode::Auto, 0).mode, Mode::Lenient, "the greater origin");
}

#[test]
fn what_is_written_reads_back_and_what_is_unknown_is_kept() {
    let mut control = Control::default();
    control.order(&mode("partial", Mode::Lenient, Some(77)), stamp(1_500, "relay-1"));
    control.order(&drain("a\tb\nc"), Stamp { now_ms: 2_000, origin: "x", by: "who\nelse" });
    let later = Entry { version: 9, origin: "z".into(), value: "green 7".into(), when: 1, by: String::new() };
    control.entries.insert("colour/partial".into(), later.clone());
    let text = control.encode();
    assert!(text.starts_with("spillway control 1\ncolour/partial\tgreen 7\t9\tz\t1\t\n"), "{text}");
    assert_eq!(Control::decode(&text), Ok(control.clone()));
    let mut other = Control::default();
    assert_eq!(other.merge(&control).len(), 3);
    assert_eq!((other.digest(), &other), (control.digest(), &control));
    assert_eq!(other.entries().next(), Some(("colour/partial", &later)));
}

#[test]
fn damage_is_noticed_and_a_newer_format_is_named() {
    let mut control = Control::default();
    control.order(&drain("a"), stamp(1, "a"));
    let text = control.encode();
    for cut in 0..text.len() - 1 {
        assert!(Control::decode(text.get(..cut).unwrap()).is_err(), "cut at {cut}");
    }
    assert!(Control::decode(&text.replace("drained", "drainex")).is_err());
    let newer = text.replace("control 1", "control 2");
    assert_eq!(Control::decode(&newer), Err(DecodeError::Newer { format: 2 }));
    assert!(Control::decode("").is_err());
    assert_eq!(Control::decode(&Control::default().encode()), Ok(Control::default()));
    assert_eq!(Control::default().digest(), 0);
}

#[test]
fn it_is_bounded() {
    let mut control = Control::default();
    for n in 0..ENTRIES_MAX + 10 {
        control.order(&drain(&format!("n{n:04}{}", "x".repeat(1_000))), stamp(1, &"o".repeat(1_000)));
    }
    assert_eq!(control.entries().count(), ENTRIES_MAX);
    assert!(control.encode().len() < ENTRIES_MAX * (4 * FIELD_MAX + 64), "{}", control.encode().len());
    let mut full = control.clone();
    let mut more = Control::default();
    more.order(&drain("another"), stamp(2, "a"));
    assert_eq!(full.merge(&more), []);
    assert_eq!(Control::decode(&control.encode()), Ok(control));
}

/// Some orders given to three nodes that have heard of each other in between.
fn orders() -> impl Strategy<Value = Vec<(usize, Order, u64, bool)>> {
    let order = prop_oneof![
        (0usize..3, 0usize..3, proptest::option::of(1_000u64..1_010)).prop_map(|(layer, which, until)| mode(
            ["partial", "final", "x"][layer],
            Mode::ALL[which],
            until
        )),
        (0usize..4).prop_map(|n| drain(["a", "b", "c", "d"][n])),
        (0usize..4).prop_map(|n| undrain(["a", "b", "c", "d"][n])),
        (0usize..2, proptest::option::of(0u64..3)).prop_map(|(n, sender)| forget(["a", "b"][n], sender)),
    ];
    proptest::collection::vec((0usize..3, order, 1_000_000u64..1_000_006, any::<bool>()), 0..40)
}

proptest! {
    #[test]
    fn merging_is_commutative_associative_and_idempotent(given in orders()) {
        let mut nodes = [Control::default(), Control::default(), Control::default()];
        for (at, order, now_ms, hears) in given {
            if hears {
                let other = nodes[(at + 1) % 3].clone();
                nodes[at].merge(&other);
            }
            nodes[at].order(&order, stamp(now_ms, ["a", "b", "c"][at]));
        }
        let [a, b, c] = nodes;
        let merged = |left: &Control, right: &Control| {
            let mut all = left.clone();
            all.merge(right);
            all
        };
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        let all = merged(&merged(&a, &b), &c);
        prop_assert_eq!(merged(&all, &all), all.clone());
        prop_assert_eq!(merged(&all, &b), all.clone());
        prop_assert_eq!(Control::decode(&all.encode()), Ok(all));
    }
}

proptest! {
    /// Operators who give one order after the other, each as often as they like and to as many nodes as answer, while nodes
    /// are away and come back from what they had on disk, and while clocks disagree: once all have spoken with each other, the
    /// last order is in force on every node, and any further one takes effect.
    #[test]
    fn the_last_order_wins_whatever_was_repeated_and_whoever_was_away(
        given in proptest::collection::vec((0usize..4, 0u8..7, 1u8..8, 1u32..4, any::<u8>()), 1..30),
        clocks in proptest::array::uniform3(0u64..100_000),
    ) {
        let names = ["relay-1", "partial-1", "final-1"];
        let order_of = |what: usize| match what {
            0 => drain("p"),
            1 => undrain("p"),
            2 => mode("partial", Mode::Lenient, None),
            _ => mode("partial", Mode::Strict, None),
        };
        let mut nodes = [Control::default(), Control::default(), Control::default()];
        let (mut is_drained, mut ordered_mode) = (false, Mode::Auto);
        for (time, (what, told, heard, times, restart)) in (1_000_000u64..).step_by(1_000).zip(given) {
            let order = order_of(what);
            // At least one node takes it, and that one has heard all before: an operator sees what he changes.
            let told: Vec<usize> = (0..3).filter(|node| (told + 1) & (1 << node) != 0).collect();
            for &node in &told {
                let others: Vec<Control> = nodes.to_vec();
                others.iter().for_each(|other| drop(nodes[node].merge(other)));
                for _ in 0..times {
                    nodes[node].order(&order, stamp(time + clocks[node], names[node]));
                }
                prop_assert_eq!(nodes[node].order(&order, stamp(time + clocks[node] + 9, names[node])), None);
            }
            match what {
                0 | 1 => is_drained = what == 0,
                2 => ordered_mode = Mode::Lenient,
                _ => ordered_mode = Mode::Strict,
            }
            // Some hear of it, some not; some start again.
            for node in (0..3).filter(|node| heard & (1 << node) != 0) {
                let other = nodes[told[0]].clone();
                nodes[node].merge(&other);
            }
            for node in (0..3).filter(|node| restart & (1 << node) != 0) {
                nodes[node] = Control::decode(&nodes[node].encode()).expect("what was written");
            }
        }
        for _ in 0..2 {
            for node in 0..3 {
                let other = nodes[(node + 1) % 3].clone();
                nodes[node].merge(&other);
            }
        }
        for node in &mut nodes {
            prop_assert_eq!(node.hand("p") == Hand::Drained, is_drained);
            prop_assert_eq!(node.mode("partial", Mode::Auto, 9_999_999).mode, ordered_mode);
            let another = if is_drained { undrain("p") } else { drain("p") };
            prop_assert!(node.order(&another, stamp(0, "relay-1")).is_some(), "stuck");
        }
    }
}
