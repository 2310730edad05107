use super::*;
use proptest::prelude::*;

/// What came of a stream.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    blocks: Vec<u8>,
    overlong: u64,
    truncated: Option<Vec<u8>>,
}

/// Feeds `reads` in turn and then ends the stream.
fn framed(limit: usize, reads: &[&[u8]]) -> (Outcome, Framer) {
    let mut framer = Framer::new(limit);
    let mut outcome = Outcome::default();
    for read in reads {
        outcome.overlong += framer.push(read, &mut outcome.blocks);
        assert!(framer.held() <= limit, "{} bytes held of at most {limit}", framer.held());
        assert!(framer.tail.capacity() <= limit, "{} bytes of memory for at most {limit}", framer.tail.capacity());
        assert!(framer.held() > 0 || framer.tail.capacity() == 0, "memory without a tail");
    }
    outcome.truncated = framer.end();
    (outcome, framer)
}

#[track_caller]
fn check(limit: usize, reads: &[&str], blocks: &str, overlong: u64, truncated: Option<&str>) {
    let reads: Vec<&[u8]> = reads.iter().map(|read| read.as_bytes()).collect();
    let expected =
        Outcome { blocks: blocks.into(), overlong, truncated: truncated.map(|text| text.as_bytes().to_vec()) };
    assert_eq!(framed(limit, &reads).0, expected);
}

#[test]
fn whole_lines_pass_and_a_cut_line_is_put_together() {
    check(8, &["a\nb\n"], "a\nb\n", 0, None);
    check(8, &["a\nb", "c\n", "d\n"], "a\nbc\nd\n", 0, None);
    check(8, &["a", "", "b", "c", "\n"], "abc\n", 0, None);
    check(8, &["\n\n", "\n"], "\n\n\n", 0, None);
    check(8, &["a\r", "\n"], "a\r\n", 0, None);
}

#[test]
fn an_end_inside_a_line_gives_what_was_held() {
    check(8, &["a\nbc"], "a\n", 0, Some("bc"));
    check(8, &["b", "c"], "", 0, Some("bc"));
    check(8, &[], "", 0, None);
}

#[test]
fn a_line_of_exactly_the_limit_is_none_too_long() {
    check(4, &["abcd\n"], "abcd\n", 0, None);
    check(4, &["abcd", "\n"], "abcd\n", 0, None);
    check(4, &["abcd"], "", 0, Some("abcd"));
    check(4, &["abcde\n"], "", 1, None);
    check(4, &["abcd", "e\n"], "", 1, None);
}

#[test]
fn after_a_line_too_long_the_next_one_counts_again() {
    check(4, &["ab\nabcdefgh\ncd\n"], "ab\ncd\n", 1, None);
    check(4, &["abcde", "fgh", "ij\ncd\n"], "cd\n", 1, None);
    check(4, &["abcdefgh\nabcdefgh\nx\nabcdefgh"], "x\n", 3, None);
    check(4, &["abc", "defgh\nabcdefgh\nx"], "", 2, Some("x"));
    check(0, &["\na\n\nb"], "\n\n", 2, None);
}

#[test]
fn an_end_inside_a_line_too_long_counts_it_once() {
    check(4, &["abcdefgh"], "", 1, None);
    check(4, &["abcd", "efgh", "ijkl"], "", 1, None);
}

#[test]
fn the_start_of_the_latest_overlong_line_is_kept() {
    assert_eq!(framed(4, &[b"abc", b"defgh\nx\n"]).1.overlong_sample(), b"abcdefgh");
    assert_eq!(framed(4, &[b"12345\nabcdef\nx\n"]).1.overlong_sample(), b"abcdef");
    assert_eq!(framed(4, &[&[b'a'; 500]]).1.overlong_sample(), [b'a'; SAMPLE_BYTES]);
    assert_eq!(framed(4, &[b"ab\n"]).1.overlong_sample(), b"");
}

#[test]
fn an_ended_framer_starts_afresh() {
    let (_, mut framer) = framed(4, &[b"abcdefgh"]);
    let mut block = Vec::new();
    assert_eq!(framer.push(b"x\n", &mut block), 0);
    assert_eq!(block, b"x\n");
}

/// The definition, line by line over the whole stream.
fn defined(limit: usize, stream: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        let length = line.strip_suffix(b"\n").unwrap_or(line).len();
        if length > limit {
            outcome.overlong += 1;
        } else if length < line.len() {
            outcome.blocks.extend_from_slice(line);
        } else {
            outcome.truncated = Some(line.to_vec());
        }
    }
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn however_a_stream_is_cut_its_blocks_and_counts_are_the_same(
        stream in prop::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..120),
        cuts in prop::collection::vec(0..120_usize, 0..12),
        limit in 0..20_usize,
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let reads: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        let outcome = framed(limit, &reads).0;
        let lines_in = stream.split_inclusive(|byte| *byte == b'\n').count() as u64;
        let lines_out = memchr::memchr_iter(b'\n', &outcome.blocks).count() as u64;
        prop_assert_eq!(lines_in, lines_out + outcome.overlong + u64::from(outcome.truncated.is_some()));
        prop_assert_eq!(outcome, defined(limit, &stream));
    }
}
