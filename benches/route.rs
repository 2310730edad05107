//! Routing: ns per line from bytes to the open batch of its destination, when the series is known (the rule) and when it
//! is new (a pass over routes and ring), at 10,000 and a million series.

mod harness;

use engine::line::{LinePolicy, LineSink, Point, Reject, Scratch, parse_block, write_canonical};
use engine::pattern::Selector;
use engine::ring::Ring;
use engine::route::{RingKind, RouteSpec, RouteTable, StoreAddress, StoreSpec, Target};
use engine::series::{self, SeriesTable};
use engine::time::UnixSeconds;
use harness::{Row, lines, measure, name, newlines, print};
use std::hint::black_box;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn store() -> StoreSpec {
    let address = |number: u8| StoreAddress { host: format!("10.0.0.{number}"), port: 2003, instance: None };
    StoreSpec {
        name: "carbon".to_owned(),
        addresses: (1..=4).map(address).collect(),
        ring: RingKind::CarbonCh,
        replicas: 1,
    }
}

fn routes() -> RouteTable {
    let route = |selector, to: Vec<Target>, stop| RouteSpec { selector, to, stop };
    let routes = [
        route(Selector::Regex(r"^secret\.".to_owned()), vec![Target::Drop], true),
        route(Selector::Glob("**".to_owned()), vec![Target::Store(0)], false),
    ];
    RouteTable::compile(&routes, &[store()]).unwrap_or_else(|errors| panic!("{errors:?}"))
}

struct Router {
    routes: RouteTable,
    table: SeriesTable<u32>,
    open: [Vec<u8>; 4],
}

impl LineSink for Router {
    fn point(&mut self, point: &Point<'_>) {
        let hash = series::hash(point.name);
        let slot = match self.table.get(point.name, hash) {
            Some(slot) => slot,
            None => {
                let decision = self.routes.decide(point.name);
                let slot =
                    decision.addresses.first().and_then(|(_, address)| u32::try_from(*address).ok()).unwrap_or(0);
                self.table.insert(point.name, hash, slot);
                slot
            }
        };
        write_canonical(point, &mut self.open[slot as usize]);
    }
    fn reject(&mut self, _line: &[u8], _why: Reject) {
        panic!("a line of the benchmark is refused");
    }
}

fn known(series: u32) -> f64 {
    let count = series.max(100_000);
    let block = lines(count, series);
    let policy = LinePolicy::default();
    let mut scratch = Scratch::default();
    let mut router = Router { routes: routes(), table: SeriesTable::new(512 << 20), open: Default::default() };
    measure(count, || {
        for piece in block.chunks(63 * 4_000) {
            router.open.iter_mut().for_each(Vec::clear);
            parse_block(black_box(piece), NOW, &policy, &mut scratch, &mut router);
        }
        router.open[0].len()
    })
}

fn main() {
    let names: Vec<Vec<u8>> = (0..10_000).map(|number| name(number).into_bytes()).collect();
    let table = routes();
    let ring = Ring::build(&store());
    let mut picked = Vec::new();
    let block = lines(100_000, 10_000);
    print(
        "route to 4 addresses by carbon_ch, 63-byte lines",
        &[
            Row::new("memchr: count newlines (floor)", measure(100_000, || newlines(black_box(&block)))),
            Row::new("known series, 10,000 of them", known(10_000)),
            Row::new("known series, 1,000,000 of them", known(1_000_000)),
            Row::new(
                "a new series: routes and ring",
                measure(10_000, || {
                    names.iter().map(|name| table.decide(black_box(name)).addresses.len()).sum::<usize>()
                }),
            ),
            Row::new(
                "a new series: ring alone",
                measure(10_000, || {
                    names
                        .iter()
                        .map(|name| {
                            ring.pick(black_box(name), &mut picked);
                            picked.len()
                        })
                        .sum::<usize>()
                }),
            ),
        ],
    );
}
