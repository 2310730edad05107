//! A replayer over real sockets, with a fake relay that lends and a fake aggregator that answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use admin::Controls;
use admin_api::{Ledger, ReplayChange, ReplayStatus};
use bytes::{Bytes, BytesMut};
use engine::batch::{Batch, Builder, Claim, Incarnation, PartitionSet, Versions};
use engine::time::UnixSeconds;
use engine::wire::{
    Backlog, Class, Done, Durable, Frame, HelloOk, LaneBacklog, LeaseEnd, LeaseRequest, Leased, NackReason, Outcome,
    Range, Role, Ticket,
};
use link::{Ended, Handler, Outgoing};
use runtime::{Clock, Supervisor};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::shared::locked;
use crate::{Running, start};

const LIMIT: Duration = Duration::from_secs(20);
const POINTS: u32 = 100;

fn batch(seq: u32) -> Bytes {
    let mut builder = Builder::new(PartitionSet::default().with(0), 64);
    builder.append(b"a.b 1 100\n", POINTS, UnixSeconds(100), UnixSeconds(100));
    let incarnation = Incarnation { sender: 7, epoch: 1, nonce: 1 };
    builder.seal(incarnation, seq, Versions::default(), &[Claim { partition: 0, from: seq }]).bytes().clone()
}

/// What both fakes are made of: frames to write, and what was seen.
#[derive(Debug, Default)]
struct Fake {
    out: Mutex<Vec<Frame>>,
    wake: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lane to what is not settled, and whether it is lent.
    spill: BTreeMap<Ticket, bool>,
    destinations: BTreeMap<u16, String>,
    done: BTreeMap<Outcome, Vec<Ticket>>,
    received: Vec<u32>,
    /// Batches to refuse, and why.
    refuse: BTreeMap<u32, NackReason>,
    queue_delay_ms: u32,
    seen_live: bool,
}

impl Fake {
    fn say(&self, frame: Frame) {
        locked(&self.out).push(frame);
        self.wake.notify_one();
    }

    fn lend(&self, request: &LeaseRequest) {
        let mut state = locked(&self.state);
        let free: Vec<Ticket> =
            state.spill.iter().filter(|(at, lent)| at.lane == request.lane && !**lent).map(|(at, _)| *at).collect();
        let (mut bytes, mut granted) = (0, 0);
        for ticket in free {
            let record = match state.destinations.get(&ticket.lane) {
                Some(to) if to.starts_with("aggregate") => batch(u32::try_from(ticket.ordinal).unwrap()),
                _ => Bytes::from("a.b 1 100\n".repeat(POINTS as usize)),
            };
            bytes += record.len();
            if granted > 0 && bytes > request.max_bytes as usize {
                break;
            }
            granted += 1;
            state.spill.insert(ticket, true);
            self.say(Frame::Leased(Leased { number: request.number, ticket, bytes: record }));
        }
        self.say(Frame::LeaseEnd(LeaseEnd { number: request.number, granted }));
    }

    fn settle(&self, done: Done) {
        let mut state = locked(&self.state);
        for ticket in &done.tickets {
            if done.outcome == Outcome::Released {
                state.spill.entry(*ticket).and_modify(|lent| *lent = false);
            } else {
                state.spill.remove(ticket);
            }
        }
        state.done.entry(done.outcome).or_default().extend(done.tickets);
    }

    fn backlog(&self) -> Frame {
        let state = locked(&self.state);
        let lane = |(lane, destination): (&u16, &String)| {
            let waiting = state.spill.keys().filter(|ticket| ticket.lane == *lane).count() as u64;
            LaneBacklog {
                lane: *lane,
                destination: destination.clone(),
                points: waiting * u64::from(POINTS),
                batches: waiting,
                bytes: waiting * 100,
                leased: 0,
                head: 0,
                tail: 0,
                oldest: UnixSeconds(100),
                newest: UnixSeconds(100),
            }
        };
        Frame::Backlog(Backlog { lanes: state.destinations.iter().map(lane).collect() })
    }

    fn take(&self, class: Class, bytes: Bytes) {
        let id = Batch::decode(bytes).unwrap().id();
        let mut state = locked(&self.state);
        state.received.push(id.seq);
        state.seen_live |= class == Class::Live;
        let answer = match state.refuse.get(&id.seq) {
            Some(reason) => Frame::Nack { id, reason: *reason },
            None => {
                let range = Range { sender: id.sender, epoch: id.epoch, first: id.seq, last: id.seq };
                durable(vec![range], state.queue_delay_ms)
            }
        };
        drop(state);
        self.say(answer);
    }
}

fn durable(ranges: Vec<Range>, queue_delay_ms: u32) -> Frame {
    Frame::Durable(Durable { ranges, queue_delay_ms, window_bytes: 1 << 20 })
}

/// A link of a fake, relay or aggregator by who dialled what.
struct FakeLink {
    fake: Arc<Fake>,
    lends: bool,
}

impl Handler for FakeLink {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Ping { echo } => self.fake.say(Frame::Pong { echo }),
            Frame::LeaseRequest(request) if self.lends => self.fake.lend(&request),
            Frame::Done(done) if self.lends => self.fake.settle(done),
            Frame::Batch { class, bytes, .. } if !self.lends => self.fake.take(class, bytes),
            Frame::Rules(_) => {}
            Frame::LeaseRequest(_)
            | Frame::Done(_)
            | Frame::Batch { .. }
            | Frame::Hello(_)
            | Frame::HelloOk(_)
            | Frame::Refuse(_)
            | Frame::Durable(_)
            | Frame::Nack { .. }
            | Frame::Watermark(_)
            | Frame::Pong { .. }
            | Frame::Drain
            | Frame::Flush(_)
            | Frame::FlushReply(_)
            | Frame::Verdict(_)
            | Frame::Leased(_)
            | Frame::LeaseEnd(_)
            | Frame::Control(_)
            | Frame::Backlog(_) => return Err(Ended::Unexpected("not for a fake")),
        }
        Ok(())
    }

    fn next(&self, out: &mut Outgoing) {
        std::mem::take(&mut *locked(&self.fake.out)).iter().for_each(|frame| out.frame(frame));
    }

    fn wake(&self) -> &Notify {
        &self.fake.wake
    }

    fn tick(&self) {
        let delay = locked(&self.fake.state).queue_delay_ms;
        self.fake.say(if self.lends { self.fake.backlog() } else { durable(Vec::new(), delay) });
    }
}

/// Serves links until the supervisor stops.
async fn serve(fake: Arc<Fake>, lends: bool, supervisor: &Supervisor) -> SocketAddr {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().unwrap();
    supervisor.spawn_task(if lends { "fake.relay" } else { "fake.partial" }, move |worker| {
        let (listener, fake) = (Arc::clone(&listener), Arc::clone(&fake));
        async move {
            loop {
                let Ok((stream, _)) = worker.idle(listener.accept()).await else { return Ok(()) };
                let greeted = link::greeted(stream, &tls::Door::plain()).await;
                let Ok(link::Greeted { mut stream, hello, early }) = greeted else { continue };
                assert_eq!(hello.role, Role::Replayer);
                let window_bytes = 1 << 20;
                let welcome = HelloOk { node: "fake".into(), window_bytes, known_epoch: 0, retired: 0 };
                if link::send(&mut stream, &Frame::HelloOk(welcome)).await.is_err() {
                    continue;
                }
                let handler = FakeLink { fake: Arc::clone(&fake), lends };
                if lends {
                    fake.say(fake.backlog());
                }
                let ended = worker.idle(link::run(stream, BytesMut::from(&early[..]), &handler, worker.clock())).await;
                assert!(!matches!(ended, Ended::Unexpected(_) | Ended::Frame(_)), "{ended}");
            }
        }
    });
    addr
}

struct World {
    relay: Arc<Fake>,
    partial: Arc<Fake>,
    supervisor: Supervisor,
    config: config::Cluster,
    dir: PathBuf,
    running: Option<Running>,
    clock: Clock,
}

impl World {
    /// `backlog`: records of lane 0 (to the final layer); `replay`: keys of that section.
    async fn new(name: &str, backlog: u64, replay: &str, store: SocketAddr) -> World {
        let clock = Clock::new();
        let supervisor = Supervisor::new("fakes", clock, engine::restart::RestartPolicy::default()).unwrap();
        let (relay, partial) = (Arc::new(Fake::default()), Arc::new(Fake::default()));
        {
            let mut state = locked(&relay.state);
            state.destinations.insert(0, "aggregate".into());
            state.spill = (0..backlog).map(|ordinal| (Ticket { lane: 0, ordinal }, false)).collect();
        }
        let relay_addr = serve(Arc::clone(&relay), true, &supervisor).await;
        let partial_addr = serve(Arc::clone(&partial), false, &supervisor).await;
        let dir = std::env::temp_dir().join(format!("spillway-replayer-{}-{name}", std::process::id()));
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[cluster]\nname = \"test\"\n\
             [[node]]\nname = \"relay-1\"\nlayer = \"relay\"\ngraphite = \"{}\"\nlink = \"{relay_addr}\"\nadmin = \"{}\"\n\
             [[node]]\nname = \"partial-1\"\nlayer = \"partial\"\nlink = \"{partial_addr}\"\nadmin = \"{}\"\n\
             [[node]]\nname = \"final-1\"\nlayer = \"final\"\nlink = \"{}\"\nadmin = \"{}\"\n\
             [[node]]\nname = \"replayer-1\"\nlayer = \"replayer\"\nadmin = \"{}\"\ndata = {:?}\n\
             [[store]]\nname = \"carbon\"\naddresses = [\"{store}\"]\n\
             [[rule]]\nname = \"r\"\nglob = \"a.*\"\noutput = \"o.{{function}}\"\nfunctions = [\"sum\"]\n\
             [replay]\n{replay}\n",
            free(),
            free(),
            free(),
            free(),
            free(),
            free(),
            dir.display().to_string(),
        );
        let config = config::load("test.toml", &text).unwrap_or_else(|problems| panic!("{problems}")).cluster;
        let mut world = World { relay, partial, supervisor, config, dir, running: None, clock };
        world.start();
        world
    }

    /// The relay has spilled so many batches for the aggregators.
    fn spilled(&self, batches: u64) {
        locked(&self.relay.state).spill = (0..batches).map(|ordinal| (Ticket { lane: 0, ordinal }, false)).collect();
    }

    fn start(&mut self) {
        let me = self.config.node("replayer-1").unwrap();
        self.running = Some(start(&self.config, me, self.clock).unwrap());
    }

    async fn restart(&mut self) {
        let running = self.running.take().unwrap();
        assert_eq!(running.stop(Duration::from_secs(5)).await, Vec::<String>::new());
        self.start();
    }

    fn status(&self) -> ReplayStatus {
        self.running.as_ref().unwrap().controls().replay().unwrap()
    }

    fn ledger(&self) -> Ledger {
        self.running.as_ref().unwrap().controls().ledger()
    }

    fn change(&self, change: ReplayChange) -> Result<ReplayStatus, String> {
        let change = ReplayChange { by: "test".into(), ..change };
        self.running.as_ref().unwrap().controls().change_replay(change).map_err(|refusal| format!("{refusal:?}"))
    }

    fn done(&self, outcome: Outcome) -> usize {
        locked(&self.relay.state).done.get(&outcome).map_or(0, Vec::len)
    }

    async fn end(self) {
        if let Some(running) = self.running {
            running.stop(Duration::from_secs(5)).await;
        }
        self.supervisor.shutdown(Duration::from_secs(1)).await;
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

#[track_caller]
fn eventually(clock: Clock, what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (end, what) = (clock.now() + LIMIT, what.to_owned());
    let mut check = move || holds();
    async move {
        while !check() {
            assert!(clock.now() < end, "not within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_replayed_settled_and_counted() {
    let world = World::new("backlog", 0, "rate = \"10000000/s\"", nowhere()).await;
    {
        let mut state = locked(&world.partial.state);
        state.refuse.insert(7, NackReason::TooOld);
        state.refuse.insert(8, NackReason::Poison);
    }
    world.spilled(300);
    eventually(world.clock, "everything settled", || locked(&world.relay.state).spill.is_empty()).await;
    assert_eq!((world.done(Outcome::Delivered), world.done(Outcome::TooOld), world.done(Outcome::Poison)), (298, 1, 1));
    {
        let state = locked(&world.partial.state);
        assert!(!state.seen_live, "replay must be in class replay");
        let distinct: BTreeSet<u32> = state.received.iter().copied().collect();
        assert_eq!((distinct.len(), state.received.len()), (300, 300));
        assert!(state.received.is_sorted(), "oldest first");
    }
    let ledger = world.ledger();
    assert!(ledger.balanced && ledger.received == 300 * u64::from(POINTS), "{ledger:?}");
    let to = &ledger.destinations[0];
    assert_eq!((to.delivered, to.in_flight, to.dropped.len()), (298 * u64::from(POINTS), 0, 2));
    eventually(world.clock, "an idle replay", || world.status().limited_by == "idle").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_pause_and_resume_are_in_force_at_once_and_survive_a_restart() {
    let mut world =
        World::new("rate", 100_000, "rate = \"1000/s\"\nfloor = \"100/s\"\nlarge = 100000000", nowhere()).await;
    let rate = |world: &World| {
        let received = Arc::clone(&world.partial);
        let clock = world.clock;
        async move {
            let count = || locked(&received.state).received.len() as u64 * u64::from(POINTS);
            let (from, at) = (count(), clock.now());
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            (count() - from) * 1_000 / u64::try_from(clock.now().since(at).as_millis()).unwrap()
        }
    };
    eventually(world.clock, "the first batch", || !locked(&world.partial.state).received.is_empty()).await;
    let slow = rate(&world).await;
    assert!(slow <= 1_200, "{slow}/s under a ceiling of 1000/s");
    world.change(ReplayChange { rate: Some(200_000), ..ReplayChange::default() }).unwrap();
    eventually(world.clock, "the new ceiling", || world.status().ceiling_now == 200_000).await;
    let fast = rate(&world).await;
    assert!((20_000..=240_000).contains(&fast), "{fast}/s under a ceiling of 200000/s");
    world.change(ReplayChange { paused: Some(true), ..ReplayChange::default() }).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rate(&world).await, 0);
    assert_eq!((world.status().limited_by.as_str(), world.status().ceiling_now), ("paused", 0));
    world.restart().await;
    eventually(world.clock, "the backlog after the restart", || world.status().backlog_points > 0).await;
    let status = world.status();
    assert!(status.settings.paused && status.settings.rate == 200_000 && status.settings.version == 2, "{status:?}");
    let audit = world.running.as_ref().unwrap().controls().audit();
    assert_eq!(audit.iter().map(|entry| entry.what.as_str()).collect::<Vec<_>>(), ["paused", "rate"]);
    assert_eq!((audit[1].old.as_str(), audit[1].new.as_str(), audit[1].by.as_str()), ("1000", "200000", "test"));
    world.change(ReplayChange { paused: Some(false), ..ReplayChange::default() }).unwrap();
    assert!(rate(&world).await > 10_000);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_right_is_refused_and_changes_nothing() {
    let world = World::new("refused", 0, "", nowhere()).await;
    for (change, expected) in [
        (
            ReplayChange { rate: Some(0), ..ReplayChange::default() },
            "pausing is `spillway replay pause`; in force: 50000/s",
        ),
        (ReplayChange { rate: Some(u64::MAX), ..ReplayChange::default() }, "is absurd: a rate is 1/s to 100M/s"),
        (ReplayChange { source: Some("relay-9".into()), ..ReplayChange::default() }, "known sources: relay-1"),
    ] {
        let error = world.change(change).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(world.status().settings.version, 0);
    assert!(!world.dir.join("replay.json").exists());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_begins_at_the_floor_until_an_operator_speaks() {
    let world = World::new("cautious", 100_000, "floor = \"500/s\"\nlarge = 1000", nowhere()).await;
    eventually(world.clock, "a cautious replay", || {
        let status = world.status();
        status.limited_by == "cautious" && status.ceiling_now == 500
    })
    .await;
    let status = world.status();
    assert!(status.settings.cautious, "{status:?}");
    assert!(status.notes.iter().any(|note| note.contains("floor rate of 500/s")), "{:?}", status.notes);
    let status = world.change(ReplayChange { rate: Some(40_000), ..ReplayChange::default() }).unwrap();
    assert!(!status.settings.cautious && status.ceiling_now == 40_000, "{status:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded_receivers_stop_it_and_it_goes_on_by_itself() {
    let world = World::new("overload", 100_000, "large = 100000000\nfloor = \"5000/s\"", nowhere()).await;
    eventually(world.clock, "batches", || locked(&world.partial.state).received.len() > 10).await;
    locked(&world.partial.state).queue_delay_ms = 400;
    eventually(world.clock, "a stop", || {
        let status = world.status();
        status.ceiling_now == 0 && status.limited_by == "receiver"
    })
    .await;
    locked(&world.partial.state).queue_delay_ms = 0;
    eventually(world.clock, "it goes on", || world.status().ceiling_now >= 5_000).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_s_blocks_are_settled_when_the_store_has_read_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let world = World::new("store", 0, "", addr).await;
    let read = Arc::new(Mutex::new(0));
    let (listener, counted) = (Arc::new(listener), Arc::clone(&read));
    world.supervisor.spawn_task("fake.store", move |worker| {
        let (listener, counted) = (Arc::clone(&listener), Arc::clone(&counted));
        async move {
            use tokio::io::AsyncReadExt;
            loop {
                let Ok((mut stream, _)) = worker.idle(listener.accept()).await else { return Ok(()) };
                let mut bytes = Vec::new();
                // A store closes when it has read all of what was half-closed.
                let Ok(_) = worker.idle(stream.read_to_end(&mut bytes)).await else { continue };
                *locked(&counted) += bytes.iter().filter(|byte| **byte == b'\n').count();
            }
        }
    });
    {
        let mut state = locked(&world.relay.state);
        state.destinations.insert(3, format!("carbon/{addr}"));
        state.spill = (0..20).map(|ordinal| (Ticket { lane: 3, ordinal }, false)).collect();
    }
    eventually(world.clock, "everything settled", || locked(&world.relay.state).spill.is_empty()).await;
    assert_eq!((world.done(Outcome::Delivered), *locked(&read)), (20, 20 * POINTS as usize));
    let ledger = world.ledger();
    assert!(ledger.balanced, "{ledger:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_store_that_is_away() {
    let store = nowhere();
    let mut world = World::new("away", 0, "", store).await;
    {
        let mut state = locked(&world.relay.state);
        state.destinations.insert(3, format!("carbon/{store}"));
        state.spill = (0..20).map(|ordinal| (Ticket { lane: 3, ordinal }, false)).collect();
    }
    let held = |world: &World| {
        let peers = world.running.as_ref().unwrap().controls().status().peers;
        peers.iter().map(|peer| peer.in_flight_points).sum::<u64>()
    };
    eventually(world.clock, "blocks in the hands of the sender", || held(&world) > 0).await;
    let (start, deadline) = (world.clock.now(), Duration::from_secs(30));
    let late = world.running.take().unwrap().stop(deadline).await;
    let took = world.clock.now().since(start);
    assert!(took < deadline / 3 && late.is_empty(), "{took:?}, late: {late:?}");
    assert_eq!(locked(&world.relay.state).spill.len(), 20, "nothing is done");
    world.end().await;
}
