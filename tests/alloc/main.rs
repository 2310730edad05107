//! The relay's hot path allocates nothing per line: counted by an allocator that counts, over blocks of lines whose
//! series are known.

use engine::line::{Framer, LinePolicy, LineSink, Point, Reject, Scratch, parse_block, write_canonical};
use engine::series::{self, SeriesTable};
use engine::time::UnixSeconds;

const SERIES: usize = 1_000;
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// What a router does with a line of a known series.
struct Router {
    table: SeriesTable<u32>,
    /// One open batch for each decision.
    open: [Vec<u8>; 4],
    unknown: usize,
}

impl LineSink for Router {
    fn point(&mut self, point: &Point<'_>) {
        let hash = series::hash(point.name);
        let slot = match self.table.get(point.name, hash) {
            Some(slot) => slot,
            None => {
                self.unknown += 1;
                let slot = (hash % 4) as u32;
                self.table.insert(point.name, hash, slot);
                slot
            }
        };
        write_canonical(point, &mut self.open[slot as usize]);
    }

    fn reject(&mut self, line: &[u8], why: Reject) {
        panic!("{:?} is refused: {why:?}", String::from_utf8_lossy(line));
    }
}

/// Lines as the framer hands them over: plain names, and every tenth with tags in normal form.
fn block() -> Vec<u8> {
    let line = |n: usize| match n % 10 {
        0 => format!("disk.used;datacenter=dc1;rack=a{n:04} {n} 1700000000\n"),
        _ => format!("servers.web{n:06}.dc3.rack07.cpu7.time.user 10{n:05} 1700000000\n"),
    };
    (0..SERIES).flat_map(|n| line(n).into_bytes()).collect()
}

/// Allocations of `rounds` blocks in the steady state. `read_bytes`: how much each read brings.
fn allocations(rounds: usize, read_bytes: usize) -> u64 {
    let block = block();
    let policy = LinePolicy::default();
    let mut scratch = Scratch::default();
    let mut framer = Framer::new(policy.max_line_bytes);
    let mut framed = Vec::new();
    let mut router = Router { table: SeriesTable::new(1 << 20), open: Default::default(), unknown: 0 };
    let mut pass = |router: &mut Router| {
        framed.clear();
        for read in block.chunks(read_bytes) {
            assert_eq!(framer.push(read, &mut framed), 0, "no line is too long");
        }
        parse_block(&framed, NOW, &policy, &mut scratch, router);
        for batch in &mut router.open {
            assert!(!batch.is_empty(), "every decision is used");
            batch.clear(); // a sealed batch's buffer goes back to the pool of buffers
        }
    };
    pass(&mut router);
    pass(&mut router); // the second finds every series and every buffer at its size
    assert_eq!(router.unknown, SERIES);
    let counted = allocation_counter::measure(|| (0..rounds).for_each(|_| pass(&mut router)));
    assert_eq!(router.unknown, SERIES, "the measured blocks hit the table");
    counted.count_total
}

#[test]
fn a_line_of_a_known_series_allocates_nothing() {
    assert_eq!(allocations(10, usize::MAX), 0, "allocations in {} lines", 10 * SERIES);
}

/// A connection between two lines holds no memory, so that idle ones are cheap. What that costs: one allocation for the
/// start of a line at a read's end, whatever the number of lines in the read.
#[test]
fn a_read_that_ends_inside_a_line_allocates_at_most_once() {
    const READ_BYTES: usize = 4_096;
    let reads = 10 * block().len().div_ceil(READ_BYTES) as u64;
    let counted = allocations(10, READ_BYTES);
    assert!(counted <= reads, "{counted} allocations in {reads} reads");
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert_eq!(counted.count_total, 1);
}
