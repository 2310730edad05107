//! A relay that is alone: what it takes goes to disk, is there after its end, and its books balance at every look.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Cluster, Layer, Load, Node, Process, TempDir, eventually, one_at_a_time, reserve, unix_now};

use crate::million::RULE;
use crate::{SOON, support, when};

/// The acknowledgement time-out, a look, and a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// A relay whose aggregators and whose store are away.
struct Lonely {
    cluster: Cluster,
    dir: TempDir,
}

impl Lonely {
    fn new(name: &str, more: &str) -> Lonely {
        let nobody = reserve(1)[0];
        let cluster = Cluster::new(1, 1, 1).store("carbon", &[nobody]).route_all(&["aggregate", "carbon"]).with(RULE);
        Lonely { cluster: cluster.with(more), dir: TempDir::new(name) }
    }

    #[track_caller]
    fn start(&self) -> Process {
        let file = self.dir.write("cluster.toml", &self.cluster.toml());
        let mut command = Command::new(support::spillway());
        command.args(["up", "--node", "relay-1", "--config"]).arg(file).current_dir(self.dir.path());
        let process = Process::start("relay-1", command, &self.dir.path().join("relay.log"));
        eventually(SOON, "the relay", || self.relay().api().health().and_then(|(health, ready)| when(ready, health)));
        process
    }

    fn relay(&self) -> &Node {
        self.cluster.first(Layer::Relay)
    }

    #[track_caller]
    fn send(&self, lines: usize) {
        let mut client = TcpStream::connect(self.cluster.graphite()).expect("it listens");
        let now = unix_now();
        let text: String = (0..lines).map(|n| format!("load.{n} 1 {now:.0}\n")).collect();
        client.write_all(text.as_bytes()).expect("it reads");
        drop(client);
        eventually(SOON, "the lines to be read", || {
            let ledger = self.relay().api().ledger()?;
            when(ledger.received >= lines as u64, ledger)
        });
    }

    /// Owed, in flight, pending on disk, of the aggregators and of the store.
    fn books(&self) -> Result<[[u64; 3]; 2], String> {
        let ledger = self.relay().api().ledger()?;
        when(ledger.balanced && ledger.unaccounted == 0, &ledger)?;
        let of = |name: &str| {
            let to = ledger.destinations.iter().find(|to| to.destination == name);
            to.map(|to| [to.owed, to.in_flight, to.spill_pending]).ok_or_else(|| format!("no {name}: {ledger:?}"))
        };
        Ok([of("aggregate")?, of("carbon")?])
    }

    #[track_caller]
    fn has(&self, limit: Duration, expected: [u64; 3]) {
        eventually(limit, "the books", || self.books().and_then(|books| when(books == [expected; 2], books)));
    }
}

#[test]
fn what_a_lonely_relay_takes_is_on_disk_after_the_time_out_and_survives_a_kill() {
    let _turn = one_at_a_time();
    let lonely = Lonely::new("lonely", "");
    let mut relay = lonely.start();
    lonely.send(1_000);
    lonely.has(LONG, [1_000, 0, 1_000]);
    relay.signal(Signal::KILL);
    relay.wait_end(SOON);
    let relay = lonely.start();
    lonely.has(SOON, [1_000, 0, 1_000]);
    relay.stop(&[]);
}

#[test]
fn what_a_lonely_relay_holds_at_sigterm_is_on_disk_at_its_next_start() {
    let _turn = one_at_a_time();
    let lonely = Lonely::new("lonely-sigterm", "");
    for life in 1..=2 {
        let relay = lonely.start();
        lonely.has(SOON, [(life - 1) * 1_000, 0, (life - 1) * 1_000]);
        lonely.send(1_000);
        relay.stop(&[]);
    }
    let relay = lonely.start();
    lonely.has(SOON, [2_000, 0, 2_000]);
    relay.stop(&[]);
}

#[test]
fn a_journal_has_every_sealed_batch_and_block_at_once_and_a_kill_loses_none_of_them() {
    let _turn = one_at_a_time();
    // The time-out is far away: nothing is on disk for another reason.
    let lonely = Lonely::new("journal", "[send]\njournal = true\nack_timeout = \"60s\"\n");
    let mut relay = lonely.start();
    lonely.send(1_000);
    for lane in ["aggregate:", "carbon/"] {
        eventually(SOON, "the journal", || {
            let label = format!("lane=\"{lane}");
            let pending = lonely.relay().api().metric("spillway_spill_lane_pending_points", &label)?;
            when(pending >= 1_000.0, pending)
        });
    }
    let books = lonely.books().expect("the books");
    assert_eq!(books, [[1_000, 1_000, 0]; 2], "it is still in flight, and counted once");
    relay.signal(Signal::KILL);
    relay.wait_end(SOON);
    let relay = lonely.start();
    lonely.has(SOON, [1_000, 0, 1_000]);
    relay.stop(&[]);
}

#[test]
fn the_books_balance_at_every_look_while_memory_overflows_to_disk() {
    let _turn = one_at_a_time();
    let lonely = Lonely::new("overflow", "[send]\nretain = \"4MiB\"\n");
    let relay = lonely.start();
    let load = Load { rate: Some(50_000), ..Load::new(lonely.cluster.graphite(), 4, 400_000) };
    let load = load.start();
    let mut looks = 0u32;
    let mut most = 0;
    loop {
        let books = lonely.books().unwrap_or_else(|error| panic!("look {looks}: {error}"));
        looks += 1;
        most = most.max(books[1][2]);
        if books.iter().all(|[owed, _, pending]| *owed == 400_000 && *pending == 400_000) {
            break;
        }
        assert!(looks < 20_000, "it never ends: {books:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = load.stop();
    assert_eq!((report.taken, most), (400_000, 400_000), "{report:?}");
    let ledger = lonely.relay().api().ledger().expect("a ledger");
    assert!(ledger.destinations.iter().all(|to| to.dropped.is_empty()), "{ledger:?}");
    relay.stop(&[]);
}
