//! A million lines, over one connection and over a hundred: none lost, none twice, the books balanced, and the aggregates
//! exact. `SPILLWAY_ROUNDS` says how often (default 1; 5 before a release).

use std::time::Duration;

use testkit::{Keep, Layer, Load, Process, Sink, TempDir, eventually, one_at_a_time, unix_now};

use crate::{small_cluster, support, when};

const LINES: u64 = 1_000_000;
/// For a debug binary on two cores that share the load, the product and the sink.
const LONG: Duration = Duration::from_secs(120);

pub(crate) const RULE: &str = "[[rule]]\nname = \"all\"\nglob = \"load.*\"\noutput = \"all.{function}\"\ninterval = \"10s\"\n\
                    grace = \"1s\"\nfunctions = [\"sum\", \"count\", \"max\"]\nto = [\"carbon\"]\n";

fn rounds() -> u32 {
    let text = std::env::var("SPILLWAY_ROUNDS").unwrap_or_else(|_| "1".to_owned());
    text.parse().unwrap_or_else(|error| panic!("SPILLWAY_ROUNDS = {text:?}: {error}"))
}

#[track_caller]
fn check(connections: usize) {
    let _turn = one_at_a_time();
    for _ in 0..rounds() {
        let dir = TempDir::new("million");
        let sink = Sink::start(Keep::Numbers { prefix: "load.".to_owned(), limit: LINES });
        let cluster = small_cluster(&sink).with(RULE);
        let spillway = Process::up(&support::spillway(), &cluster, dir.path());
        let now = unix_now();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
        let first_timestamp = (now as u64) / 10 * 10 - 60;
        let load =
            Load { first_timestamp, lines_per_timestamp: 25_000, ..Load::new(cluster.graphite(), connections, LINES) };
        let report = load.start().finish();
        assert_eq!((report.taken, report.cut, report.doubtful), (LINES, 0, 0), "{report:?}");

        eventually(LONG, "every number in the sink", || {
            sink.look(|seen| when(seen.distinct() == LINES, (seen.distinct(), seen.lines)))
        });
        let books = cluster.settled(LONG);
        let relay = books.iter().find(|ledger| ledger.layer == "relay").expect("a relay's books");
        assert_eq!((relay.received, relay.accepted, relay.routed), (LINES, LINES, LINES));
        assert!(relay.rejected.values().chain(relay.dropped.values()).all(|count| *count == 0), "{relay:?}");
        for destination in &relay.destinations {
            assert_eq!(destination.owed, LINES, "{destination:?}");
        }
        let total = |name: &str| sink.look(|seen| seen.series(name).values().sum::<f64>());
        eventually(LONG, "the counts of all windows", || when(total("all.count") == LINES as f64, total("all.count")));
        let sum = (LINES * (LINES - 1) / 2) as f64;
        eventually(LONG, "the sums of all windows", || when(total("all.sum") == sum, total("all.sum")));
        sink.look(|seen| {
            assert_eq!((seen.lost(LINES), seen.duplicated()), (0, 0), "lost, duplicated");
            assert!(seen.strange.is_empty(), "{:?}", seen.strange);
        });
        assert_eq!(cluster.first(Layer::Relay).api().ledger().map(|ledger| ledger.unaccounted), Ok(0));
        spillway.stop(&[]);
    }
}

#[test]
fn a_million_lines_over_one_connection_arrive_once() {
    check(1);
}

#[test]
fn a_million_lines_over_a_hundred_connections_arrive_once() {
    check(100);
}
