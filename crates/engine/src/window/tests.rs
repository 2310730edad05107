use proptest::prelude::*;

use super::*;
use crate::partial::PointOrder;
use crate::pattern::Selector;
use crate::rule::{Function, RuleSet, RuleSpec};
use crate::time::Mono;

/// Two rules: `a` every 10 s with sum and max, `b` every 60 s with a sum and completeness; grace 5 s.
fn specs() -> [RuleSpec; 2] {
    let rule = |name: &str, interval, functions: &[Function], completeness| RuleSpec {
        name: name.into(),
        selector: Selector::Glob(format!("{name}.**")),
        interval,
        grace: 5,
        functions: functions.to_vec(),
        output: format!("out.{name}.{{function}}"),
        group_by: Vec::new(),
        drop_raw: false,
        completeness,
        to: vec![0],
    };
    [rule("a", 10, &[Function::Sum, Function::Max], false), rule("b", 60, &[Function::Sum], true)]
}

fn rules() -> RuleSet {
    RuleSet::compile(&specs()).expect("the rules are good")
}

fn partial(shape: crate::partial::Shape, values: &[f64]) -> Partial {
    let mut partial = Partial::new(shape);
    values.iter().for_each(|value| partial.fold(*value, PointOrder::default(), 1));
    partial
}

/// A partition and everything it emitted.
struct Bench {
    windows: Windows,
    rules: RuleSet,
}

impl Bench {
    fn new() -> Bench {
        Bench { windows: Windows::new(UnixSeconds(0)), rules: rules() }
    }

    fn merge(&mut self, rule: usize, name: &str, window: u32, values: &[f64]) -> Merged {
        let rule = specs()[rule].id();
        let shape = self.rules.shape(rule);
        self.windows.merge(rule, name.as_bytes(), UnixSeconds(window), partial(shape, values))
    }

    /// Emits at second `now`, which is also the monotonic clock, and returns the lines.
    fn emit_up_to(&mut self, now: u32, watermark: Option<u32>, limit: usize) -> (Vec<String>, Emitted) {
        let mut lines = Vec::new();
        let mut counted = (0, 0);
        let mono = Mono::from_millis(u64::from(now) * 1000);
        let watermark = watermark.map(UnixSeconds);
        let emitted =
            self.windows.take_emissions(UnixSeconds(now), watermark, mono, &self.rules, limit, &mut |emission| {
                // A changed snapshot may have a name that is no text: the store's checksums find that, not this module.
                let text = String::from_utf8_lossy(emission.bytes);
                assert_eq!(text.lines().count(), usize::try_from(emission.lines).expect("few"));
                counted.0 += u64::from(emission.lines);
                counted.1 += u64::from(emission.correction);
                lines.extend(text.lines().map(str::to_owned));
            });
        assert_eq!(counted, (emitted.lines, emitted.corrections));
        (lines, emitted)
    }

    fn emit(&mut self, now: u32, watermark: Option<u32>) -> Vec<String> {
        self.emit_up_to(now, watermark, usize::MAX).0
    }

    /// Writes all snapshots and starts again from them.
    fn restart(&mut self) {
        let mut back = Windows::new(self.windows.sealed_before());
        let mut ids: Vec<BlockId> = self.windows.blocks.keys().copied().collect();
        ids.reverse();
        for id in ids {
            let mut bytes = Vec::new();
            assert!(self.windows.encode_block(id, 0, &mut bytes).is_some());
            back.restore(id, &bytes).expect("it was encoded");
        }
        self.windows = back;
    }
}

const OLD: u32 = 1000;
const APPLIED: Merged = Merged::Applied { corrected: false };
const CORRECTED: Merged = Merged::Applied { corrected: true };

#[test]
fn a_window_is_emitted_once_when_the_watermark_has_passed_its_end() {
    let mut bench = Bench::new();
    assert_eq!(bench.merge(0, "out.a.\0", OLD, &[1.0, 2.5]), APPLIED);
    assert_eq!(bench.emit(OLD + 9, Some(OLD + 9)), [""; 0]);
    assert_eq!(bench.emit(OLD + 10, Some(OLD + 10)), ["out.a.sum 3.5 1000", "out.a.max 2.5 1000"]);
    assert_eq!(bench.emit(OLD + 500, Some(OLD + 500)), [""; 0]);
}

#[test]
fn without_a_watermark_the_grace_ends_the_waiting() {
    let mut bench = Bench::new();
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    assert_eq!(bench.windows.next_due(&bench.rules).at, Some(UnixSeconds(OLD + 15)));
    assert_eq!(bench.emit(OLD + 14, None), [""; 0]);
    assert_eq!(bench.emit(OLD + 15, Some(OLD - 100)).len(), 2);
    assert_eq!(bench.windows.next_due(&bench.rules), Due::default());
}

#[test]
fn late_data_corrects_what_was_emitted_at_most_every_five_seconds() {
    let mut bench = Bench::new();
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    bench.merge(0, "out.other.\0", OLD, &[1.0]);
    assert_eq!(bench.emit(OLD + 15, None).len(), 4);
    assert_eq!(bench.merge(0, "out.a.\0", OLD, &[2.0]), CORRECTED);
    assert_eq!(bench.emit(OLD + 16, None), [""; 0]);
    assert_eq!(bench.merge(0, "out.a.\0", OLD, &[4.0]), CORRECTED);
    assert_eq!(bench.windows.next_due(&bench.rules).correction_at, Some(Mono::from_millis(1_020_000)));
    assert_eq!(bench.emit(OLD + 20, None), ["out.a.sum 7 1000", "out.a.max 4 1000"]);
    assert_eq!(bench.windows.corrections(), 1);
    // A key that comes late to a window corrects nothing: it was never emitted.
    assert_eq!(bench.merge(0, "out.late.\0", OLD, &[1.0]), APPLIED);
    assert_eq!(bench.emit(OLD + 30, None), ["out.late.sum 1 1000", "out.late.max 1 1000"]);
    assert_eq!(bench.windows.corrections(), 1);
}

#[test]
fn the_newest_windows_go_first_and_a_limit_leaves_the_rest_for_the_next_call() {
    let mut bench = Bench::new();
    for window in [OLD, OLD + 20, OLD + 10] {
        bench.merge(0, "out.a.\0", window, &[1.0]);
        bench.merge(0, "out.b.\0", window, &[1.0]);
    }
    let starts = |lines: &[String]| -> Vec<String> {
        let sums = lines.iter().filter(|line| line.contains("sum"));
        sums.filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect()
    };
    let (lines, emitted) = bench.emit_up_to(2000, None, 3);
    assert_eq!(starts(&lines), ["1020", "1020", "1010"]);
    assert!(emitted.more);
    let (lines, emitted) = bench.emit_up_to(2000, None, 3);
    assert_eq!(starts(&lines), ["1010", "1000", "1000"]);
    assert!(!emitted.more);
    assert_eq!(bench.emit(3000, None), [""; 0]);
}

#[test]
fn completeness_is_said_and_taken_back_to_true_when_the_watermark_comes() {
    let mut bench = Bench::new();
    bench.merge(1, "out.b.\0", 960, &[1.0]);
    assert_eq!(bench.emit(1025, Some(1000)), ["out.b.sum 1 960", "out.b.__complete 0 960"]);
    assert_eq!(bench.emit(1026, Some(1019)), [""; 0]);
    assert_eq!(bench.emit(1031, Some(1020)), ["out.b.sum 1 960", "out.b.__complete 1 960"]);
    assert_eq!(bench.emit(1040, Some(1030)), [""; 0]);
    assert_eq!(bench.windows.corrections(), 0, "the values did not change");
    // Late data of a sender that was not known: the window stays complete, as it was said.
    bench.merge(1, "out.b.\0", 960, &[2.0]);
    assert_eq!(bench.emit(1050, Some(900)), ["out.b.sum 3 960", "out.b.__complete 1 960"]);
}

#[test]
fn past_the_horizon_nothing_is_merged_and_nothing_emitted() {
    let mut bench = Bench::new();
    bench.merge(0, "out.a.\0", OLD, &[1.0, 2.0]);
    bench.merge(0, "out.a.\0", OLD + 10, &[3.0]);
    let sealed = bench.windows.seal_before(UnixSeconds(OLD + 10));
    let id = BlockId { window: UnixSeconds(OLD), rule: specs()[0].id() };
    assert_eq!(sealed, Sealed { blocks: vec![id], points: 2, unemitted: 1 });
    assert_eq!(bench.merge(0, "out.a.\0", OLD, &[9.0]), Merged::TooOld);
    assert_eq!(bench.emit(5000, None), ["out.a.sum 3 1010", "out.a.max 3 1010"]);
    assert_eq!(bench.windows.seal_before(UnixSeconds(1)), Sealed::default());
    assert_eq!(bench.windows.sealed_before(), UnixSeconds(OLD + 10));
    bench.windows.seal_before(UnixSeconds(9000));
    assert!(bench.windows.is_empty());
    assert_eq!(bench.windows.names.find(b"out.a.\0"), None, "a name goes with its last window");
}

#[test]
fn a_restart_keeps_values_and_what_is_still_to_be_emitted() {
    let mut bench = Bench::new();
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    bench.merge(0, "out.b.\0", OLD, &[1.0]);
    bench.restart();
    assert_eq!(bench.emit(OLD + 15, None).len(), 4);
    bench.merge(0, "out.b.\0", OLD, &[2.0]);
    bench.restart();
    assert_eq!(bench.emit(OLD + 16, None), ["out.b.sum 3 1000", "out.b.max 2 1000"]);
    assert_eq!(bench.windows.corrections(), 1);
    bench.restart();
    assert_eq!(bench.emit(OLD + 100, None), [""; 0]);
}

#[test]
fn a_checkpoint_gets_only_what_changed() {
    let mut bench = Bench::new();
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    bench.merge(0, "out.a.\0", OLD + 10, &[1.0]);
    let id = |window| BlockId { window: UnixSeconds(window), rule: specs()[0].id() };
    assert_eq!(bench.windows.take_changed(), [id(OLD), id(OLD + 10)]);
    assert_eq!(bench.windows.take_changed(), []);
    bench.emit(OLD + 15, None);
    assert_eq!(bench.windows.take_changed(), [id(OLD)], "that it was emitted is worth keeping");
    bench.emit(OLD + 16, None);
    assert_eq!(bench.windows.take_changed(), []);
    bench.windows.mark_changed(id(OLD));
    bench.windows.mark_changed(id(5));
    assert_eq!(bench.windows.take_changed(), [id(OLD)]);
}

#[test]
fn a_block_at_rest_leaves_memory_and_comes_back_for_late_data() {
    let mut bench = Bench::new();
    let id = BlockId { window: UnixSeconds(OLD), rule: specs()[0].id() };
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    assert!(!bench.windows.evict(id), "not written");
    bench.emit(OLD + 15, None);
    assert!(!bench.windows.evict(id), "not written");
    bench.windows.take_changed();
    let mut bytes = Vec::new();
    let rest = bench.windows.encode_block(id, 0, &mut bytes).expect("it is in memory");
    assert_eq!((rest.points, rest.keys, rest.emitted, rest.dirty), (1, 1, true, false));
    assert_eq!(snapshot_rest(&bytes), Ok(rest));
    assert_eq!(bench.windows.evictable(10, false), [id]);
    assert!(bench.windows.evict(id));
    assert_eq!((bench.windows.len(), bench.windows.is_empty()), (0, false));
    assert_eq!(bench.merge(0, "out.a.\0", OLD, &[2.0]), Merged::Absent);
    assert_eq!(bench.emit(OLD + 40, None), [""; 0]);
    bench.windows.restore(id, &bytes).expect("it was encoded");
    assert_eq!(bench.merge(0, "out.a.\0", OLD, &[2.0]), CORRECTED);
    assert_eq!(bench.emit(OLD + 50, None), ["out.a.sum 3 1000", "out.a.max 2 1000"]);
    bench.windows.take_changed();
    bench.windows.encode_block(id, 0, &mut Vec::new());
    assert!(bench.windows.evict(id));
    let sealed = bench.windows.seal_before(UnixSeconds(OLD + 1));
    assert_eq!((sealed.blocks, sealed.points), (vec![id], 2), "absent blocks are counted too");
    bench.windows.set_absent(id, rest);
    assert!(bench.windows.is_empty(), "below the floor nothing comes back");
}

#[test]
fn a_store_that_was_away_gets_a_window_again_in_parts() {
    let mut bench = Bench::new();
    let id = BlockId { window: UnixSeconds(OLD), rule: specs()[0].id() };
    for key in ["a", "b", "c"] {
        bench.merge(0, &format!("{key}.\0"), OLD, &[1.0]);
    }
    bench.emit(OLD + 100, None);
    let again = |bench: &Bench, from| {
        let mut lines = Vec::new();
        let done = bench.windows.emit_again(id, from, 2, &bench.rules, &mut |emission| {
            lines.push(String::from_utf8_lossy(emission.bytes).lines().next().unwrap_or_default().to_owned());
        });
        (done, lines)
    };
    assert_eq!(again(&bench, 0), (Again::More(2), vec!["a.sum 1 1000".to_owned(), "b.sum 1 1000".to_owned()]));
    assert_eq!(again(&bench, 2), (Again::Done, vec!["c.sum 1 1000".to_owned()]));
    bench.windows.take_changed();
    bench.windows.encode_block(id, 0, &mut Vec::new());
    assert!(bench.windows.evict(id));
    assert_eq!(again(&bench, 0).0, Again::Absent);
    bench.windows.seal_before(UnixSeconds(OLD + 1));
    assert_eq!(again(&bench, 0).0, Again::Gone);
}

#[test]
fn a_window_that_left_memory_before_it_was_due_is_asked_for_in_time() {
    let mut bench = Bench::new();
    let id = BlockId { window: UnixSeconds(OLD), rule: specs()[0].id() };
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    bench.windows.take_changed();
    let mut bytes = Vec::new();
    bench.windows.encode_block(id, 0, &mut bytes);
    assert_eq!(bench.windows.evictable(10, false), []);
    assert_eq!(bench.windows.evictable(10, true), [id]);
    assert!(bench.windows.evict(id));
    assert_eq!(bench.emit(OLD + 14, None), [""; 0]);
    assert_eq!(bench.windows.wanted().count(), 0);
    assert_eq!(bench.emit(OLD + 15, None), [""; 0]);
    assert_eq!(bench.windows.wanted().collect::<Vec<_>>(), [id]);
    bench.windows.restore(id, &bytes).expect("it was encoded");
    assert_eq!(bench.emit(OLD + 15, None), ["out.a.sum 1 1000", "out.a.max 1 1000"]);
    assert_eq!(bench.windows.wanted().count(), 0);
}

#[test]
fn a_damaged_window_takes_no_points_that_would_overwrite_what_was_emitted() {
    let id = BlockId { window: UnixSeconds(OLD), rule: specs()[0].id() };
    for emitted in [false, true] {
        let mut bench = Bench::new();
        bench.merge(0, "out.a.\0", OLD, &[1.0, 1.0]);
        if emitted {
            bench.emit(OLD + 15, None);
        }
        bench.windows.take_changed();
        let mut bytes = Vec::new();
        bench.windows.encode_block(id, 0, &mut bytes);
        assert!(bench.windows.evict(id));
        bytes[6] ^= 1;
        assert!(bench.windows.restore(id, &bytes).is_err(), "not what was written");
        assert_eq!(bench.windows.lose(id), 2);
        let again = bench.merge(0, "out.a.\0", OLD, &[1.0]);
        assert_eq!(again, if emitted { Merged::Lost } else { APPLIED });
        assert_eq!(bench.windows.lost().count(), usize::from(emitted));
    }
}

#[test]
fn a_change_of_the_rules_loses_no_window() {
    let mut bench = Bench::new();
    bench.merge(0, "out.a.\0", OLD, &[1.0]);
    bench.merge(1, "out.b.\0", 960, &[2.0, 3.0]);
    let [a, b] = specs();
    // Another order, a function more; and a rule that is gone, of which the node still knows.
    let a = RuleSpec { functions: vec![Function::Sum, Function::Max, Function::Percentile(990)], ..a };
    bench.rules = RuleSet::compile(&[a]).expect("good");
    bench.rules.remember(&[b]).expect("good");
    bench.merge(0, "out.a.\0", OLD, &[4.0]);
    let lines = bench.emit(5000, None);
    for line in ["out.a.sum 5 1000", "out.a.max 4 1000", "out.b.sum 5 960"] {
        assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("p99")), "a percentile of a part of the points is none");
}

#[test]
fn rules_that_are_unknown_leave_their_windows_alone() {
    let mut bench = Bench::new();
    assert_eq!(bench.windows.merge(9, b"x", UnixSeconds(OLD), partial(bench.rules.shape(9), &[1.0])), APPLIED);
    assert_eq!(bench.emit(9000, Some(9000)), [""; 0]);
    assert!(bench.windows.get(BlockId { window: UnixSeconds(OLD), rule: 9 }, b"x").is_some());
}

#[test]
fn values_are_printed_short_and_read_back_the_same() {
    for (value, text) in [
        (0.0, "0"),
        (3.0, "3"),
        (-17.0, "-17"),
        (0.1, "0.1"),
        (9_007_199_254_740_991.0, "9007199254740991"),
        (1e16, "1e+16"),
        (1e300, "1e+300"),
        (-2.5e-7, "-2.5e-7"),
        (123_456_789.25, "123456789.25"),
    ] {
        let mut bench = Bench::new();
        bench.merge(0, "n.\0", OLD, &[value]);
        let lines = bench.emit(9000, None);
        assert_eq!(lines[0], format!("n.sum {text} 1000"));
        assert_eq!(text.parse::<f64>(), Ok(value));
    }
}

#[test]
fn a_value_out_of_range_is_counted_and_the_others_are_emitted() {
    let mut bench = Bench::new();
    bench.merge(0, "n.\0", OLD, &[f64::MAX, f64::MAX]);
    let (lines, emitted) = bench.emit_up_to(9000, None, 10);
    assert_eq!(lines.len(), 1);
    assert_eq!(emitted.valueless, 1);
}

fn steps() -> impl Strategy<Value = Vec<(usize, u8, u32, i32, u32, bool)>> {
    prop::collection::vec((0usize..2, 0u8..6, 0u32..8, -9i32..9, 0u32..9, any::<bool>()), 1..80)
}

proptest! {
    /// Whatever the order of merging, emitting and restarting: the last line of each series is the value of all points.
    #[test]
    fn the_last_lines_are_those_of_all_points(steps in steps()) {
        let mut bench = Bench::new();
        let mut emitted: BTreeMap<(String, u32), f64> = BTreeMap::new();
        let mut expected: BTreeMap<(String, u32), f64> = BTreeMap::new();
        let mut now = OLD;
        let mut lines = Vec::new();
        for (rule, key, window, value, pass, restart) in steps {
            let window = OLD + window * 60;
            bench.merge(rule, &format!("k{key}.{rule}.\0"), window, &[f64::from(value)]);
            *expected.entry((format!("k{key}.{rule}.sum"), window)).or_default() += f64::from(value);
            now += pass * 10;
            lines.extend(bench.emit_up_to(now, (pass % 3 == 0).then_some(now), 4).0);
            if restart {
                bench.restart();
            }
        }
        lines.extend(bench.emit(now + 10_000, Some(now + 10_000)));
        for line in &lines {
            let fields: Vec<&str> = line.split(' ').collect();
            emitted.insert((fields[0].to_owned(), fields[2].parse().expect("seconds")), fields[1].parse().expect("a number"));
        }
        emitted.retain(|(name, _), _| name.ends_with(".sum"));
        prop_assert_eq!(emitted, expected);
        prop_assert_eq!(bench.windows.next_due(&bench.rules), Due::default());
    }

    #[test]
    fn changed_snapshots_never_panic(
        values in prop::collection::vec((0u8..5, -5.0..5.0f64), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bench = Bench::new();
        values.iter().for_each(|(key, value)| { bench.merge(0, &format!("k{key}"), OLD, &[*value]); });
        let id = BlockId { window: UnixSeconds(OLD), rule: specs()[0].id() };
        let mut bytes = Vec::new();
        bench.windows.encode_block(id, 0, &mut bytes);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 2);
        let mut back = Bench::new();
        let outcome = back.windows.restore(id, &bytes);
        prop_assert_eq!(outcome.is_ok(), snapshot_rest(&bytes).is_ok());
        if outcome.is_ok() {
            back.merge(0, "k0", OLD, &[1.0]);
            back.emit(9000, Some(9000));
            back.windows.seal_before(UnixSeconds(OLD + 1));
        }
        prop_assert!(back.windows.is_empty());
    }
}
