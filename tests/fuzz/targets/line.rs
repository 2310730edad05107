//! Any bytes from a client: no panic, exactly one verdict a line, however the bytes were cut into reads; and an accepted
//! line, written in canonical form, is the same point again.
#![no_main]

use engine::line::{Framer, LinePolicy, LineSink, Point, Reject, Scratch, parse_block, parse_line, write_canonical};
use engine::time::UnixSeconds;
use libfuzzer_sys::fuzz_target;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

#[derive(Default, PartialEq, Debug)]
struct Verdicts {
    accepted: Vec<u8>,
    values: Vec<u64>,
    rejected: Vec<(Vec<u8>, Reject)>,
}

impl LineSink for Verdicts {
    fn point(&mut self, point: &Point<'_>) {
        assert!(point.value.is_finite());
        write_canonical(point, &mut self.accepted);
        self.values.push(point.value.to_bits());
    }
    fn reject(&mut self, line: &[u8], why: Reject) {
        self.rejected.push((line.to_vec(), why));
    }
}

/// Frames `reads` and parses the lines that came out; how many were too long comes with it.
fn run<'a>(reads: impl Iterator<Item = &'a [u8]>, policy: &LinePolicy) -> (Verdicts, u64, Option<Vec<u8>>) {
    let mut framer = Framer::new(policy.max_line_bytes);
    let (mut verdicts, mut scratch, mut block, mut overlong) = (Verdicts::default(), Scratch::default(), Vec::new(), 0);
    for read in reads {
        block.clear();
        overlong += framer.push(read, &mut block);
        parse_block(&block, NOW, policy, &mut scratch, &mut verdicts);
    }
    (verdicts, overlong, framer.end())
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let policy = LinePolicy { max_line_bytes: 256, max_name_bytes: 128, two_fields: cut & 1 == 0 };
    let whole = run(std::iter::once(bytes), &policy);
    let pieces = run(bytes.chunks(usize::from(cut >> 1) + 1), &policy);
    assert_eq!(whole, pieces, "the same lines, however they were read");

    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    let (verdicts, overlong, _rest) = whole;
    let decided = verdicts.values.len() as u64 + verdicts.rejected.len() as u64 + overlong;
    // A line that is too long counts when its length is known, which may be before its LF.
    assert!(decided == lines || decided == lines + 1, "{decided} verdicts on {lines} lines");

    let mut scratch = Scratch::default();
    for (line, value) in verdicts.accepted.split_inclusive(|byte| *byte == b'\n').zip(&verdicts.values) {
        let line = &line[..line.len() - 1];
        let policy = LinePolicy { max_line_bytes: 1024, max_name_bytes: 1024, two_fields: false };
        let mut again = Vec::new();
        match parse_line(line, UnixSeconds(1), &policy, &mut scratch) {
            Ok(point) => {
                assert_eq!(point.value.to_bits(), *value);
                write_canonical(&point, &mut again);
            }
            Err(why) => panic!("canonical line {:?} is refused: {why:?}", String::from_utf8_lossy(line)),
        }
        assert_eq!(again.strip_suffix(b"\n"), Some(line), "canonical form is its own canonical form");
    }
});
