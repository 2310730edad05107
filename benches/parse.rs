//! Parsing: ns per line from bytes to points, and to canonical lines, beside the floor of finding newlines.

mod harness;

use engine::line::{LinePolicy, LineSink, Point, Reject, Scratch, parse_block, write_canonical};
use engine::time::UnixSeconds;
use harness::{Row, lines, measure, newlines, print};
use std::hint::black_box;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

#[derive(Default)]
struct Sum {
    points: u64,
    total: f64,
}

impl LineSink for Sum {
    fn point(&mut self, point: &Point<'_>) {
        self.points += 1;
        self.total += point.value;
    }
    fn reject(&mut self, _line: &[u8], _why: Reject) {
        panic!("a line of the benchmark is refused");
    }
}

#[derive(Default)]
struct Copy(Vec<u8>);

impl LineSink for Copy {
    fn point(&mut self, point: &Point<'_>) {
        write_canonical(point, &mut self.0);
    }
    fn reject(&mut self, _line: &[u8], _why: Reject) {
        panic!("a line of the benchmark is refused");
    }
}

fn main() {
    let block = lines(10_000, 10_000);
    let count = 10_000;
    let policy = LinePolicy::default();
    let mut scratch = Scratch::default();
    let mut copy = Copy::default();
    print(
        "parse, 63-byte lines",
        &[
            Row::new("memchr: count newlines (floor)", measure(count, || newlines(black_box(&block)))),
            Row::new(
                "parse_block",
                measure(count, || {
                    let mut sum = Sum::default();
                    parse_block(black_box(&block), NOW, &policy, &mut scratch, &mut sum);
                    (sum.points, sum.total)
                }),
            ),
            Row::new(
                "parse_block + write_canonical",
                measure(count, || {
                    copy.0.clear();
                    parse_block(black_box(&block), NOW, &policy, &mut scratch, &mut copy);
                    copy.0.len()
                }),
            ),
        ],
    );
}
