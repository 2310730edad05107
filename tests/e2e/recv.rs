//! Every way in which receiving can go wrong, injected from outside: it ends at most the one connection it belongs to, is
//! counted under its reason, and the relay goes on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Admin, Cluster, Keep, Layer, Process, Sink, TempDir, eventually, one_at_a_time, raise_open_files};

use crate::{SOON, small_cluster, support, when};

/// A running pipeline under test.
struct Fixture {
    sink: Sink,
    cluster: Cluster,
    spillway: Process,
    relay: Admin,
    _dir: TempDir,
}

impl Fixture {
    #[track_caller]
    fn start(name: &str, more: &str, open_files: Option<u32>) -> Fixture {
        let dir = TempDir::new(name);
        let sink = Sink::start(Keep::Points);
        let cluster = small_cluster(&sink).with(more);
        let mut spillway = Process::up_unready(&support::spillway(), &cluster, dir.path(), open_files);
        spillway.wait_ready(&cluster);
        let relay = cluster.first(Layer::Relay).api();
        Fixture { sink, cluster, spillway, relay, _dir: dir }
    }

    #[track_caller]
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.cluster.graphite()).expect("the relay listens")
    }

    /// Waits until connections that ended for `reason` count `count`.
    #[track_caller]
    fn closed(&self, reason: &str, count: u32) {
        let label = format!("reason=\"{reason}\"");
        eventually(SOON, &label, || {
            let closed = self.relay.metric("spillway_connections_closed_total", &label)?;
            when(closed >= f64::from(count), closed)
        });
    }

    #[track_caller]
    fn rejected(&self, reason: &str, count: u64) {
        eventually(SOON, reason, || {
            let ledger = self.relay.ledger()?;
            when(ledger.rejected.get(reason) == Some(&count), ledger.rejected)
        });
    }

    /// A new client's line goes through: the service is up.
    #[track_caller]
    fn serves(&self, name: &str) {
        self.connect().write_all(format!("{name} 1 1700000000\n").as_bytes()).expect("the relay reads");
        self.arrives(name);
    }

    #[track_caller]
    fn arrives(&self, name: &str) {
        eventually(SOON, name, || self.sink.look(|seen| when(seen.series(name).len() == 1, seen.names())));
    }

    #[track_caller]
    fn end(self, announced: &[&str]) {
        self.cluster.settled(SOON);
        self.spillway.stop(announced);
    }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(stream);
}

#[test]
fn a_reset_ends_its_own_connection_only() {
    let fixture = Fixture::start("reset", "", None);
    let mut other = fixture.connect();
    let mut client = fixture.connect();
    client.write_all(b"before.reset 1 1700000000\n").expect("the relay reads");
    fixture.arrives("before.reset");
    reset(client);
    fixture.closed("reset", 1);
    other.write_all(b"other 1 1700000000\n").expect("the other connection lives");
    fixture.arrives("other");
    drop(other);
    fixture.end(&[]);
}

#[test]
fn an_end_inside_a_line_rejects_the_half_and_takes_the_rest() {
    let fixture = Fixture::start("truncated", "", None);
    let mut client = fixture.connect();
    client.write_all(b"whole 1 1700000000\nhalf 2 17000").expect("the relay reads");
    client.shutdown(Shutdown::Write).expect("half-close");
    assert_eq!(client.read(&mut [0; 1]).expect("the relay closes in order"), 0);
    fixture.arrives("whole");
    fixture.closed("eof_in_line", 1);
    fixture.rejected("truncated", 1);
    fixture.sink.look(|seen| assert!(seen.series("half").is_empty(), "a half line is no point"));
    fixture.end(&["inside a line", "truncated", "bad line"]);
}

#[test]
fn a_slow_loris_is_cut_by_the_line_time_out_and_a_slow_but_honest_client_is_not() {
    let fixture = Fixture::start("loris", "[receive]\nline_timeout = \"1s\"\n", None);
    let mut loris = fixture.connect();
    loris.write_all(b"never.end").expect("the relay reads");
    let mut honest = fixture.connect();
    honest.write_all(b"honest.one 1 1700000000\n").expect("the relay reads");
    fixture.closed("timeout_line", 1);
    honest.write_all(b"honest.two 1 1700000000\n").expect("between lines nothing is slow");
    fixture.arrives("honest.two");
    drop(honest);
    fixture.end(&["line", "time-out"]);
}

#[test]
fn a_line_that_is_too_long_is_rejected_and_the_next_one_is_taken() {
    let fixture = Fixture::start("long", "[receive]\nmax_line = \"1KiB\"\nmax_name = \"512B\"\n", None);
    let mut client = fixture.connect();
    for _ in 0..100 {
        client.write_all(&[b'x'; 10_000]).expect("the connection stays open");
    }
    client.write_all(b" 1 1700000000\nafter.long 1 1700000000\n").expect("the connection stays open");
    fixture.arrives("after.long");
    fixture.rejected("line_too_long", 1);
    drop(client);
    fixture.end(&["bad line", "rejected", "too long"]);
}

#[test]
fn binary_garbage_is_counted_and_harms_nobody() {
    let fixture = Fixture::start("garbage", "", None);
    let mut client = fixture.connect();
    // A TLS hello, a pickle frame and every byte there is, by a fixed generator: the same garbage each time. Not at the very
    // front: a connection that begins so is a TLS client's and closed.
    let mut garbage = b"\x80\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\x00\x00\x00\x25\x80\x02]q\x00\n".to_vec();
    let mut state = 1_u32;
    garbage.extend((0..200_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    }));
    client.write_all(&garbage).expect("the connection stays open");
    client.write_all(b"\nafter.garbage 1 1700000000\n").expect("the connection stays open");
    fixture.arrives("after.garbage");
    let lines = garbage.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>() + 2;
    eventually(SOON, "every line of garbage in the books", || {
        let ledger = fixture.relay.ledger()?;
        when(ledger.received == lines && ledger.unaccounted == 0 && ledger.in_hand == 0, ledger)
    });
    drop(client);
    fixture.end(&["bad line", "rejected"]);
}

#[test]
fn ten_thousand_idle_clients_leave_room_for_one_that_speaks() {
    const IDLE: u32 = 10_000;
    let _turn = one_at_a_time();
    raise_open_files(u64::from(IDLE) + 500).expect("10,000 clients need as many files");
    let fixture = Fixture::start("idle", "", None);
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| fixture.connect()).collect();
    eventually(SOON, "every client's connection", || {
        let open = fixture.relay.metric("spillway_connections_open", "")?;
        when(open >= f64::from(IDLE), open)
    });
    fixture.serves("among.idle");
    // The first of them speaks at last.
    let mut first = idle.first().expect("10,000 of them");
    first.write_all(b"idle.speaks 1 1700000000\n").expect("it was not closed");
    fixture.arrives("idle.speaks");
    drop(idle);
    fixture.closed("eof", IDLE);
    fixture.end(&[]);
}

#[test]
fn a_listener_without_files_rests_and_takes_clients_again() {
    let _turn = one_at_a_time();
    let fixture = Fixture::start("emfile", "", Some(256));
    // More clients than files: the last ones wait in the backlog, which the kernel accepts for the relay.
    let many: Vec<TcpStream> = (0..300).map(|_| fixture.connect()).collect();
    eventually(SOON, "accept to run out of files", || {
        let log = fixture.spillway.log_text();
        when(log.contains("process_files") || log.contains("open files") || log.contains("EMFILE"), log.lines().last())
    });
    drop(many);
    fixture.serves("after.emfile");
    let pauses = fixture.relay.metric("spillway_accept_pauses_total", "reason=\"process_files\"").expect("metrics");
    assert!(pauses >= 1.0, "{pauses} pauses were counted");
    fixture.end(&["accept", "files", "RocksDB"]);
}

/// A client that looks for the relay's end as carbon-relay-ng does: what it wrote before it saw the end counts, all of it.
#[test]
fn a_relay_that_stops_tells_its_clients_and_reads_them_to_their_end() {
    let _turn = one_at_a_time();
    let fixture = Fixture::start("recv-leave", "", None);
    let to = fixture.cluster.graphite();
    let mut client = fixture.connect();
    let (mut lines, mut asked) = (0, false);
    let looks_at = |client: &TcpStream| {
        client.set_nonblocking(true).expect("an option");
        let seen = client.peek(&mut [0; 1]);
        client.set_nonblocking(false).expect("an option");
        matches!(seen, Ok(0))
    };
    while !looks_at(&client) {
        client.write_all(format!("leave.{lines} 1 1700000000\n").as_bytes()).expect("the relay reads");
        lines += 1;
        if lines == 10 {
            fixture.spillway.signal(Signal::TERM);
            asked = true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(asked, "the relay ended the connection by itself");
    client.write_all(format!("leave.{lines} 1 1700000000\n").as_bytes()).expect("the relay reads on");
    client.shutdown(Shutdown::Write).expect("half-close");
    assert!(TcpStream::connect(to).is_err(), "a relay that stops takes no new client");
    let Fixture { sink, mut spillway, .. } = fixture;
    assert!(spillway.wait_end(SOON).success());
    sink.look(|seen| {
        for line in 0..=lines {
            assert!(
                seen.points.contains_key(&(format!("leave.{line}"), 1_700_000_000)),
                "{line} of {lines} is missing"
            );
        }
    });
}
