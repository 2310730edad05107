use proptest::prelude::*;

use super::*;

fn rule(name: &str, glob: &str, output: &str) -> RuleSpec {
    RuleSpec {
        name: name.into(),
        selector: Selector::Glob(glob.into()),
        interval: 10,
        grace: 5,
        functions: vec![Function::Sum, Function::Max],
        output: output.into(),
        group_by: Vec::new(),
        drop_raw: false,
        completeness: false,
        to: vec![0],
    }
}

fn regex(name: &str, regex: &str, output: &str) -> RuleSpec {
    RuleSpec { selector: Selector::Regex(regex.into()), ..rule(name, "a", output) }
}

fn grouped(spec: RuleSpec, group_by: &[&str]) -> RuleSpec {
    RuleSpec { group_by: group_by.iter().map(|tag| (*tag).to_owned()).collect(), ..spec }
}

/// The outputs of `name`, as `number:name` with `{}` for the function.
fn outputs(specs: &[RuleSpec], name: &str) -> Vec<String> {
    let mut keys = Vec::new();
    RuleSet::compile(specs).expect("the rules are good").outputs(name.as_bytes(), &mut keys);
    let place = |key: &OutputKey| specs.iter().position(|spec| spec.id() == key.rule).expect("one of them");
    let show = |key: &OutputKey| format!("{}:{}", place(key), String::from_utf8_lossy(&key.name).replace('\0', "{}"));
    keys.iter().map(show).collect()
}

#[track_caller]
fn check(specs: &[RuleSpec], name: &str, expected: &[&str]) {
    assert_eq!(outputs(specs, name), expected, "{name}");
}

/// The first problem of each faulty rule contains the words.
#[track_caller]
fn check_refused(specs: &[RuleSpec], expected: &[(usize, &str)]) {
    let errors = RuleSet::compile(specs).expect_err("a rule is wrong");
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, (rule, words)) in errors.iter().zip(expected) {
        assert_eq!(error.rule, *rule, "{error:?}");
        assert!(error.message.contains(words), "{} has no {words}", error.message);
    }
}

#[test]
fn names_of_functions_come_back() {
    for (text, function, printed) in [
        ("sum", Function::Sum, "sum"),
        ("distinct", Function::Distinct, "distinct"),
        ("p5", Function::Percentile(50), "p5"),
        ("p50", Function::Percentile(500), "p50"),
        ("p99", Function::Percentile(990), "p99"),
        ("p100", Function::Percentile(1000), "p100"),
        ("p999", Function::Percentile(999), "p999"),
        ("p99.9", Function::Percentile(999), "p999"),
        ("p0.5", Function::Percentile(5), "p005"),
        ("p005", Function::Percentile(5), "p005"),
        ("p10.1", Function::Percentile(101), "p101"),
    ] {
        assert_eq!(Function::parse(text), Some(function), "{text}");
        assert_eq!(function.as_str(), printed);
    }
    for permille in 0..=1000 {
        let function = Function::Percentile(permille);
        assert_eq!(Function::parse(&function.as_str()), Some(function));
    }
    for text in ["", "p", "SUM", "median", "p1001", "p9999", "p99.99", "p-1", "p+1", "p1.", "p.5", "p100.1", "p9.x"] {
        assert_eq!(Function::parse(text), None, "{text}");
    }
}

#[test]
fn a_series_feeds_every_rule_that_takes_it() {
    let specs = [
        rule("a", "web.*.requests", "web.all.requests.{function}"),
        rule("b", "web.<host>.**", "hosts.{host}.{function}"),
        regex("c", r"^(\w+)\.(\w+)", "{2}.{1}.{function}"),
        regex("d", r"never", "never.{function}"),
        regex("e", r"requests$", "e.{function}"),
    ];
    check(&specs, "web.a1.requests", &["0:web.all.requests.{}", "1:hosts.a1.{}", "2:a1.web.{}", "4:e.{}"]);
    check(&specs, "web.a1", &["1:hosts.a1.{}", "2:a1.web.{}"]);
    check(&specs, "-", &[]);
}

#[test]
fn two_stars_at_the_end_also_take_the_element_before_them() {
    check(&[rule("a", "a.b.**", "x.{function}")], "a.b", &["0:x.{}"]);
}

#[test]
fn tags_are_grouped_by_in_normal_form_and_a_missing_one_is_left_out() {
    let specs = [grouped(rule("a", "cpu", "total.{function};zone=z;a={function}"), &["rack", "dc"])];
    check(&specs, "cpu;dc=d1;host=h;rack=r", &["0:total.{};a={};dc=d1;rack=r;zone=z"]);
    check(&specs, "cpu;host=h;rack=r", &["0:total.{};a={};rack=r;zone=z"]);
    check(&specs, "cpu", &["0:total.{};a={};zone=z"]);
}

#[test]
fn a_captured_value_cannot_break_a_name() {
    let specs = [regex("a", r"^a(.*)b(x)?", "o.{1}.{2}.{function};t={1}")];
    for (name, path) in [
        ("a;k=v;b", "0:o._k=v_._.{};t=_k=v_"),
        ("a..b", "0:o._._.{};t=_"),
        ("a.~q.bx", "0:o._q.x.{};t=_q"),
        ("a{function}b", "0:o.{function}._.{};t={function}"),
        ("a\0 \tb", "0:o.___._.{};t=___"),
    ] {
        check(&specs, name, &[path]);
    }
}

#[test]
fn holes_are_filled_when_a_name_is_written() {
    let mut spec = rule("a", "a", "x.{function}.y;f={function}");
    spec.functions = vec![Function::Sum, Function::Percentile(999)];
    let set = RuleSet::compile(&[spec]).expect("the rule is good");
    let mut keys = Vec::new();
    set.outputs(b"a", &mut keys);
    let mut name = b"old".to_vec();
    set.output_name(keys[0].rule, &keys[0].name, 1, &mut name);
    assert_eq!(name, b"x.p999.y;f=p999");
    set.complete_name(&keys[0].name, &mut name);
    assert_eq!(name, b"x.__complete.y;f=__complete");
    set.complete_name(b"x.y;k=v", &mut name);
    assert_eq!(name, b"x.y.__complete;k=v");
}

#[test]
fn holes_must_fit_the_captures() {
    check_refused(&[rule("a", "web.<host>.x", "o.{hots}.{function}")], &[(0, "it captures by name: host")]);
    check_refused(&[rule("a", "web.x", "o.{1}.{function}")], &[(0, "has 0 captures")]);
    check_refused(&[rule("a", "web.<h>", "o.{0}.{function}")], &[(0, "count from 1")]);
    check_refused(&[rule("a", "web.x", "o.{function")], &[(0, "without its `}`")]);
    check_refused(&[rule("a", "web.x", "o}.{function}")], &[(0, "without its `{`")]);
}

#[test]
fn an_output_must_be_a_name() {
    for (output, words) in [
        ("", "empty element"),
        ("a..{function}", "empty element"),
        (".{function}", "empty element"),
        ("a b.{function}", "blank"),
        ("~a.{function}", "`~`"),
        ("a.{function};k", "no tag"),
        ("a.{function};=v", "no tag"),
        ("a.{function};k=", "no tag"),
        ("a.{function};k=~v", "no tag"),
        ("a.{function};name=v", "no tag"),
        ("a.{function};k=1;k=2", "twice"),
        ("a.{function};{1}=2", "not in a tag's key"),
    ] {
        check_refused(&[rule("a", "<x>.y", output)], &[(0, words)]);
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let mut bad = rule("a", "x", "all");
    bad.interval = 0;
    let mut none = rule("b", "x", "none.{function}");
    none.functions.clear();
    let mut twice = grouped(rule("c", "x", "twice.{function};dc=1"), &["dc", "a=b"]);
    twice.functions.push(Function::Sum);
    check_refused(
        &[bad, none, twice, regex("d", "(", "d.{function}"), rule("a", "y", "fine.{function}")],
        &[
            (0, "at least one second"),
            (0, "put `{function}` into the output"),
            (1, "at least one function"),
            (2, "`sum` stands twice"),
            (2, "tag `dc` twice"),
            (2, "`a=b` in group_by"),
            (3, "unclosed"),
            (4, "already called `a`"),
        ],
    );
}

#[test]
fn one_name_from_two_rules_is_refused() {
    let first = rule("a", "x.<h>", "o.{h}.{function}");
    check_refused(&[first.clone(), rule("b", "y.<h>", "o.{h}.{function}")], &[(1, "rule `b` and rule `a` both write")]);
    let mut fixed = rule("b", "y.<h>", "o.{h}.max");
    fixed.functions = vec![Function::Count];
    check_refused(&[first.clone(), fixed], &[(1, "both write")]);
    check_refused(&[first.clone(), grouped(rule("b", "y.<h>", "o.{h}.{function}"), &["dc"])], &[(1, "both write")]);
    let mut other_functions = rule("b", "y.<h>", "o.{h}.{function}");
    other_functions.functions = vec![Function::Min];
    assert!(RuleSet::compile(&[first, other_functions]).is_ok());
}

#[test]
fn a_rule_that_would_take_an_output_is_a_warning() {
    let specs = [rule("a", "web.*.requests", "web.all.{function}"), rule("b", "web.**", "b.{function}")];
    let set = RuleSet::compile(&specs).expect("it is allowed");
    let warnings = set.warnings();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].rule, 1);
    assert!(warnings[0].message.contains("not aggregated again"));
}

#[test]
fn raw_is_dropped_if_any_rule_that_takes_it_says_so() {
    let mut drops = regex("b", "secret", "b.{function}");
    drops.drop_raw = true;
    let set = RuleSet::compile(&[rule("a", "**", "a.{function}"), drops]).expect("the rules are good");
    assert!(set.drop_raw(b"x.secret"));
    assert!(!set.drop_raw(b"x.public"));
}

#[test]
fn the_version_changes_with_every_part_of_a_rule() {
    let base = rule("a", "a", "o.{function}");
    let version = |spec: &RuleSpec| RuleSet::compile(std::slice::from_ref(spec)).expect("good").version();
    let mut versions = vec![version(&base)];
    for change in [
        |spec: &mut RuleSpec| spec.name.push('x'),
        |spec: &mut RuleSpec| spec.selector = Selector::Regex("a".into()),
        |spec: &mut RuleSpec| spec.interval += 1,
        |spec: &mut RuleSpec| spec.grace += 1,
        |spec: &mut RuleSpec| spec.functions.swap(0, 1),
        |spec: &mut RuleSpec| spec.output.push('x'),
        |spec: &mut RuleSpec| spec.group_by.push("x".into()),
        |spec: &mut RuleSpec| spec.drop_raw = true,
        |spec: &mut RuleSpec| spec.completeness = true,
        |spec: &mut RuleSpec| spec.to.push(1),
    ] {
        let mut changed = base.clone();
        change(&mut changed);
        versions.push(version(&changed));
    }
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 11);
    // Persisted with batches and compared between machines: a change of the algorithm needs a new layout version.
    assert_eq!(version(&base), 18_170_887_685_056_344_491);
}

#[test]
fn partitions_do_not_depend_on_the_number_of_the_rule() {
    let key = |rule: RuleId| OutputKey { rule, name: b"web.all.requests.\0"[..].into() };
    assert_eq!(partition_of(&key(0), 64), partition_of(&key(7), 64));
    assert_eq!(partition_of(&key(0), 0), 0);
    // Every node must agree: pinned.
    assert_eq!(partition_of(&key(0), 64), 27);
}

#[test]
fn a_rule_is_the_same_one_as_long_as_it_writes_the_same_outputs() {
    let base = rule("a", "a", "a.{function}");
    let same = RuleSpec {
        name: "renamed".to_owned(),
        selector: Selector::Glob("other.*".to_owned()),
        grace: 30,
        functions: vec![Function::Max],
        drop_raw: true,
        ..base.clone()
    };
    assert_eq!(base.id(), same.id());
    let slower = RuleSpec { interval: 60, ..base.clone() };
    let elsewhere = RuleSpec { output: "b.{function}".to_owned(), ..base.clone() };
    let grouped = RuleSpec { group_by: vec!["dc".to_owned()], ..base.clone() };
    let ids = std::collections::BTreeSet::from([base.id(), slower.id(), elsewhere.id(), grouped.id()]);
    assert_eq!(ids.len(), 4);
    // On disks and between machines: pinned.
    assert_eq!(base.id(), 4_242_651_583);
}

#[test]
fn former_rules_take_no_series_and_still_have_names_for_their_windows() {
    let former = [rule("old", "x", "old.{function}"), rule("renamed since", "x", "a.{function}")];
    let mut set = RuleSet::compile(&[rule("a", "x", "a.{function}")]).expect("good");
    let version = set.version();
    set.remember(&former).expect("good");
    let mut keys = Vec::new();
    set.outputs(b"x", &mut keys);
    assert_eq!(keys.len(), 1, "one rule is in force");
    assert_eq!((set.len(), set.version()), (1, version));
    assert_eq!(set.spec(former[0].id()).map(|spec| spec.name.as_str()), Some("old"));
    assert_eq!(set.spec(former[1].id()).map(|spec| spec.name.as_str()), Some("a"), "the rule in force goes before");
    let mut name = Vec::new();
    set.output_name(former[0].id(), b"old.\0", 0, &mut name);
    assert_eq!(name, b"old.sum");
    let broken = RuleSpec { functions: Vec::new(), ..rule("b", "x", "b.{function}") };
    let kept = rule("c", "x", "c.{function}");
    let errors = set.remember(&[broken, kept.clone()]).expect_err("one cannot be compiled");
    assert_eq!((errors.len(), errors[0].rule), (1, 0));
    assert!(set.spec(kept.id()).is_some());
}

proptest! {
    #[test]
    fn any_captured_bytes_leave_a_name_whole(captured in prop::collection::vec(any::<u8>(), 0..30)) {
        let set = RuleSet::compile(&[regex("a", r"(?s-u)^x(.*)y", "o.{1}.{function};t={1}")]).expect("good");
        let mut keys = Vec::new();
        set.outputs(&[b"x", &captured[..], b"y"].concat(), &mut keys);
        let name = &keys[0].name;
        prop_assert_eq!(name.iter().filter(|byte| **byte == b';').count(), 1);
        prop_assert_eq!(name.iter().filter(|byte| **byte == FUNCTION_HOLE).count(), 1);
        prop_assert!(!name.iter().any(|byte| *byte != FUNCTION_HOLE && (*byte <= b' ' || *byte == 0x7f)));
        prop_assert!(!name.windows(2).any(|pair| pair == b"=~") || captured.windows(2).any(|pair| pair == b"=~"));
    }

    #[test]
    fn partitions_are_used_evenly(seed in any::<u32>()) {
        let mut counts = [0u32; 8];
        for at in 0..4000u32 {
            let key = OutputKey { rule: 0, name: format!("web.{seed}.{at}").into_bytes().into() };
            counts[usize::from(partition_of(&key, 8))] += 1;
        }
        prop_assert!(counts.iter().all(|count| (350..650).contains(count)), "{:?}", counts);
    }
}
