use super::*;
use proptest::prelude::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// What `line` becomes under `policy`: its canonical form, or the reason against it.
fn parsed(line: &[u8], policy: &LinePolicy) -> Result<String, Reject> {
    let mut scratch = Scratch::default();
    let mut out = Vec::new();
    parse_line(line, NOW, policy, &mut scratch).map(|point| {
        write_canonical(&point, &mut out);
        String::from_utf8(out).expect("canonical lines are UTF-8")
    })
}

#[track_caller]
fn check(cases: &[(&str, Result<&str, Reject>)]) {
    for (line, expected) in cases {
        let found = parsed(line.as_bytes(), &LinePolicy::default());
        assert_eq!(found, expected.map(|text| format!("{text}\n")), "{line:?}");
    }
}

#[test]
fn blanks_around_and_between_fields_do_not_matter() {
    let canonical = Ok("a.b 1 1700000000");
    check(&[
        ("a.b 1 1700000000", canonical),
        ("a.b\t1\t1700000000", canonical),
        ("a.b  1 \t 1700000000", canonical),
        (" \ta.b 1 1700000000", canonical),
        ("a.b 1 1700000000 \t", canonical),
        ("a.b 1 1700000000\r", canonical),
        ("a.b 1 1700000000 \r", canonical),
        ("a.b 1 1700000000\r\r", Err(Reject::BadTimestamp)),
        ("a.b 1 1700000000\r ", Err(Reject::BadTimestamp)),
    ]);
}

#[test]
fn a_line_has_two_or_three_fields() {
    check(&[
        ("", Err(Reject::Empty)),
        ("\r", Err(Reject::Empty)),
        (" \t ", Err(Reject::Empty)),
        ("a", Err(Reject::TooFewFields)),
        (" a ", Err(Reject::TooFewFields)),
        ("a 1", Ok("a 1 1800000000")),
        ("a 1 1700000000 x", Err(Reject::TooManyFields)),
        ("disk usage 5 1700000000", Err(Reject::TooManyFields)),
        ("a nan 5 1700000000", Err(Reject::TooManyFields)),
    ]);
    let strict = LinePolicy { two_fields: false, ..LinePolicy::default() };
    assert_eq!(parsed(b"a 1", &strict), Err(Reject::TooFewFields));
    assert_eq!(parsed(b"a 1 N", &strict), Ok("a 1 1800000000\n".into()));
}

#[test]
fn a_value_is_a_finite_decimal_number_and_keeps_its_text() {
    for text in
        ["0", "-0", "+1", "1.", ".5", "-.5", "1e3", "1E+3", "1.5e-300", "00012", "123456789012345678901234567890"]
    {
        check(&[(&format!("a {text} 1700000000"), Ok(&format!("a {text} 1700000000")))]);
    }
    let texts = [
        "x", "0x10", "1_000", "1e", "1e+", "e5", ".", "-", "+", "--1", "+-1", "1,5", "1.5.2", "1f", "nano", "nan(1)",
        "in", "infinite", "½",
    ];
    for text in texts {
        check(&[
            (&format!("a {text} 1700000000"), Err(Reject::BadValue)),
            (&format!("a {text}"), Err(Reject::BadValue)),
        ]);
    }
    for text in ["nan", "NaN", "-nan", "+NAN"] {
        check(&[(&format!("a {text} 1700000000"), Err(Reject::Nan)), (&format!("a {text}"), Err(Reject::Nan))]);
    }
    for text in ["inf", "-Inf", "+infinity", "INFINITY", "1e309", "-1e999999999999"] {
        check(&[(&format!("a {text} 1700000000"), Err(Reject::Infinite))]);
    }
}

#[test]
fn a_timestamp_is_whole_seconds_within_32_bits_or_now() {
    for (text, expected) in [
        ("1", Ok("1")),
        ("4294967295", Ok("4294967295")),
        ("1700000000.75", Ok("1700000000")),
        ("1700000000.", Ok("1700000000")),
        ("0000000001700000000", Ok("1700000000")),
        ("-1", Ok("1800000000")),
        ("-1.0", Ok("1800000000")),
        ("N", Ok("1800000000")),
        ("0", Err(Reject::TimestampOutOfRange)),
        ("0.9", Err(Reject::TimestampOutOfRange)),
        ("4294967296", Err(Reject::TimestampOutOfRange)),
        ("1700000000000", Err(Reject::TimestampOutOfRange)),
        ("99999999999999999999999999", Err(Reject::TimestampOutOfRange)),
        ("-2", Err(Reject::TimestampOutOfRange)),
        ("-1.5", Err(Reject::TimestampOutOfRange)),
        ("-0", Err(Reject::TimestampOutOfRange)),
        ("n", Err(Reject::BadTimestamp)),
        ("nan", Err(Reject::BadTimestamp)),
        ("inf", Err(Reject::BadTimestamp)),
        ("+1", Err(Reject::BadTimestamp)),
        ("-", Err(Reject::BadTimestamp)),
        (".5", Err(Reject::BadTimestamp)),
        ("1.5.5", Err(Reject::BadTimestamp)),
        ("1.7e9", Err(Reject::BadTimestamp)),
        ("17000x0000", Err(Reject::BadTimestamp)),
        ("1700000000/", Err(Reject::BadTimestamp)),
    ] {
        let expected = expected.map(|seconds: &str| format!("a 1 {seconds}"));
        check(&[(&format!("a 1 {text}"), expected.as_deref().map_err(|why| *why))]);
    }
}

#[test]
fn a_name_is_text_without_control_characters_and_otherwise_left_alone() {
    for name in [
        "a..b",
        "...",
        "a.",
        "é.中",
        "a\u{a0}b",
        "m{a=\"b\"}",
        "a=b",
        "1",
        "a~",
        "12345678",
        "1234567é",
        "1234567890123456",
    ] {
        check(&[(&format!("{name} 1 1700000000"), Ok(&format!("{name} 1 1700000000")))]);
    }
    for control in ['\0', '\u{1}', '\u{b}', '\r', '\u{1f}', '\u{7f}', '\u{80}', '\u{9f}'] {
        for name in [
            format!("{control}"),
            format!("a{control}b"),
            format!("abcdefgh.abc{control}"),
            format!("{control}abcdefghi"),
        ] {
            check(&[(&format!("{name} 1 1700000000"), Err(Reject::ControlCharacter))]);
        }
    }
    for name in [&b"\xff"[..], b"abcdefg\xc3", b"a\xc3(b", b"\xed\xa0\x80", b"a;k=\xff"] {
        let line = [name, b" 1 1700000000"].concat();
        assert_eq!(parsed(&line, &LinePolicy::default()), Err(Reject::BadUtf8), "{name:?}");
    }
}

#[test]
fn names_come_out_with_their_tags_in_normal_form() {
    check(&[
        ("m;b=2;a=1 5 1700000000", Ok("m;a=1;b=2 5 1700000000")),
        ("m;a=1;b=2 5 1700000000", Ok("m;a=1;b=2 5 1700000000")),
        ("~m 5 1700000000", Ok("m 5 1700000000")),
        (";a=1 5 1700000000", Err(Reject::EmptyName)),
        ("~ 5 1700000000", Err(Reject::EmptyName)),
        ("m;a 5 1700000000", Err(Reject::BadTag)),
        ("m; 5 1700000000", Err(Reject::BadTag)),
    ]);
}

#[test]
fn lengths_are_limited_to_the_byte() {
    let policy = LinePolicy { max_line_bytes: 20, max_name_bytes: 8, two_fields: true };
    assert_eq!(parsed(b"abcdefgh 1 170000000", &policy), Ok("abcdefgh 1 170000000\n".into()));
    assert_eq!(parsed(b"abcdefgh 1 1700000000", &policy), Err(Reject::LineTooLong));
    assert_eq!(parsed(b"abcdefghi 1", &policy), Err(Reject::NameTooLong));
    assert_eq!(parsed(&b" ".repeat(21), &policy), Err(Reject::LineTooLong));
}

#[test]
fn reasons_are_a_closed_list_with_distinct_names() {
    for (place, why) in Reject::ALL.into_iter().enumerate() {
        assert_eq!(why.index(), place);
        assert_eq!(why.warns(), !matches!(why.as_str(), "nan" | "empty"));
        assert!(Reject::ALL[..place].iter().all(|other| other.as_str() != why.as_str()));
    }
}

/// A canonical line with its value, or a refused line with the reason.
type Told = Result<(String, f64), (Vec<u8>, Reject)>;

#[derive(Default)]
struct Heard(Vec<Told>);

impl LineSink for Heard {
    fn point(&mut self, point: &Point<'_>) {
        let mut out = Vec::new();
        write_canonical(point, &mut out);
        self.0.push(Ok((String::from_utf8(out).expect("UTF-8"), point.value)));
    }
    fn reject(&mut self, line: &[u8], why: Reject) {
        self.0.push(Err((line.to_vec(), why)));
    }
}

fn heard(block: &[u8]) -> Heard {
    let mut heard = Heard::default();
    parse_block(block, NOW, &LinePolicy::default(), &mut Scratch::default(), &mut heard);
    heard
}

#[test]
fn a_block_tells_of_every_line_in_order() {
    let heard = heard(b"a 1 1700000000\n\nb x\r\nm;b=1;a=1 2 1700000000\r\nrest 3 1700000000").0;
    assert_eq!(
        heard,
        [
            Ok(("a 1 1700000000\n".into(), 1.0)),
            Err((b"".to_vec(), Reject::Empty)),
            Err((b"b x\r".to_vec(), Reject::BadValue)),
            Ok(("m;a=1;b=1 2 1700000000\n".into(), 2.0)),
            Ok(("rest 3 1700000000\n".into(), 3.0)),
        ]
    );
}

/// Bytes that are likely to make a line, or nearly.
fn line_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ -~]{0,12}".prop_map(String::into_bytes),
        4 => "[a-c.;=~!é\u{85}]{0,20}".prop_map(String::into_bytes),
        2 => "[ \t\r]{0,3}".prop_map(String::into_bytes),
        4 => "[-+]?[0-9]{0,12}(\\.[0-9]{0,3})?(e-?[0-9]{1,3})?".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.join(&b' '))
}

/// Limits that are met now and then.
const SMALL: LinePolicy = LinePolicy { max_line_bytes: 40, max_name_bytes: 16, two_fields: true };

/// What the fast lane of a block takes, or nearly.
fn nearly_canonical() -> impl Strategy<Value = Vec<u8>> {
    let name = "[a-c.;~]{0,18}";
    let value = "-?[0-9]{0,17}(\\.[0-9]{0,17})?";
    let timestamp = prop_oneof!["[0-9]{9,11}", Just("0000000000".to_owned()), "429496729[4-7]", "[0-9./:]{10}"];
    (name, value, timestamp, "\r?")
        .prop_map(|(name, value, timestamp, end)| format!("{name} {value} {timestamp}{end}").into_bytes())
}

/// The name and whether it is plain, byte by byte.
fn slow_name(line: &[u8]) -> (&[u8], bool) {
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let name = &line[..end];
    (name, name.first() != Some(&b'~') && name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b';'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_accepted_line_parses_to_the_same_point_from_its_canonical_form(line in line_like()) {
        let (mut scratch, mut again) = (Scratch::default(), Scratch::default());
        let policy = LinePolicy::default();
        if let Ok(point) = parse_line(&line, NOW, &policy, &mut scratch) {
            let mut canonical = Vec::new();
            write_canonical(&point, &mut canonical);
            prop_assert_eq!(canonical.pop(), Some(b'\n'));
            let other = UnixSeconds(1);
            prop_assert_eq!(parse_line(&canonical, other, &policy, &mut again), Ok(point));
            prop_assert_eq!(std::str::from_utf8(point.value_text).map(str::parse), Ok(Ok(point.value)));
        }
    }

    #[test]
    fn the_quick_look_at_a_name_agrees_with_a_slow_one(line in line_like()) {
        let (name, traits) = fields::name(&line);
        let (slow, plain) = slow_name(&line);
        prop_assert_eq!(name, slow);
        // Being careful about a plain name costs time, not rightness; taking another for plain would be wrong.
        prop_assert!(plain || !traits.plain());
        prop_assert!(!plain || traits.plain(), "a plain name is seen as such");
    }

    #[test]
    fn a_block_is_its_lines(lines in prop::collection::vec(prop_oneof![line_like(), nearly_canonical()], 0..6)) {
        let lines: Vec<Vec<u8>> =
            lines.into_iter().map(|line| line.into_iter().filter(|byte| *byte != b'\n').collect()).collect();
        let block: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        let mut expected = Heard::default();
        let mut scratch = Scratch::default();
        for line in &lines {
            match parse_line(line, NOW, &SMALL, &mut scratch) {
                Ok(point) => expected.point(&point),
                Err(why) => expected.reject(line, why),
            }
        }
        let mut found = Heard::default();
        parse_block(&block, NOW, &SMALL, &mut scratch, &mut found);
        prop_assert_eq!(found.0, expected.0);
    }
}
