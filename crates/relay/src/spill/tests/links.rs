//! Over a socket, as a replayer dials.

use bytes::BytesMut;
use engine::wire::{Hello, PROTOCOL, RefuseReason, Role, decode, next_raw};
use node::VerdictKeeper;
use node::desk::{Desk, Roster};
use runtime::net;
use runtime::queue::byte_queue;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;

fn hello(role: Role) -> Hello {
    Hello {
        protocol: PROTOCOL,
        role,
        cluster: "test".into(),
        node: "replayer-1".into(),
        incarnation: Incarnation { sender: 1, epoch: 1, nonce: 1 },
        versions: Versions::default(),
        partitions: 4,
    }
}

/// Where the spill of `world` is lent.
fn lend(world: &World) -> std::net::SocketAddr {
    let clock = Clock::new();
    let (_, lines) = byte_queue::<crate::router::Input>("lines", 1 << 20);
    let keeper = Arc::new(VerdictKeeper::new(world.supervisor.clone(), clock, Duration::from_secs(5)));
    let orders = std::env::temp_dir().join(format!("spillway-lender-{}", std::process::id()));
    std::fs::create_dir_all(&orders).expect("a directory");
    let desk = Desk::open(&orders, Roster::default(), "relay-1", clock).expect("a desk");
    let lender = Arc::new(Lender {
        node: "relay-1".into(),
        cluster: "test".into(),
        versions: Versions::default(),
        book: Arc::new(node::rules::RuleBook::blank()),
        partitions: 4,
        epoch: 1,
        handle: Arc::clone(&world.handle),
        keeper,
        queue: lines.probe(),
        clock,
        desk,
        door: tls::Door::plain(),
        closed: Mutex::default(),
    });
    let listener = Arc::new(net::listen("127.0.0.1:0".parse().expect("an address"), 16).expect("listens"));
    let addr = listener.local_addr().expect("an address");
    let owner = world.supervisor.clone();
    world.supervisor.spawn_task("relay.link", move |worker| {
        let lender = Arc::clone(&lender);
        let serve = move |stream| {
            let lender = Arc::clone(&lender);
            async move { lender.serve(stream).await }
        };
        link::listen(worker, Arc::clone(&listener), owner.clone(), "relay.replayer", serve)
    });
    addr
}

/// Reads frames until one is wanted.
async fn until(stream: &mut TcpStream, buffer: &mut BytesMut, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let read = async {
        loop {
            while let Some(raw) = next_raw(buffer).expect("a frame") {
                let frame = decode(raw).expect("a frame");
                frames.push(frame);
                if frames.last().is_some_and(&wanted) {
                    return;
                }
            }
            assert!(stream.read_buf(buffer).await.expect("reads") > 0, "closed");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time");
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayer_is_greeted_lent_to_and_told_the_backlog_and_others_are_refused() {
    let live = Arc::new(Fake::default());
    let disk = memory(&MemDisk::new(1 << 30), &MemWitness::default(), &Steps::default());
    let world = World::start(Arc::clone(&live), disk, 1 << 30);
    live.give((0..10).map(|seq| due(seq, 10, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    let addr = lend(&world);
    for (wrong, reason) in [
        (hello(Role::Relay), RefuseReason::Role),
        (Hello { cluster: "other".into(), ..hello(Role::Replayer) }, RefuseReason::Cluster),
        (Hello { partitions: 5, ..hello(Role::Replayer) }, RefuseReason::Partitions),
    ] {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        link::send(&mut stream, &Frame::Hello(wrong)).await.expect("sends");
        let frames = until(&mut stream, &mut BytesMut::new(), |_| true).await;
        assert_eq!(frames, [Frame::Refuse(reason)]);
    }
    let (mut stream, mut buffer) = (TcpStream::connect(addr).await.expect("connects"), BytesMut::new());
    link::send(&mut stream, &Frame::Hello(hello(Role::Replayer))).await.expect("sends");
    let request = LeaseRequest {
        number: 5,
        lane: 0,
        max_bytes: 1 << 20,
        max_points: 30,
        from: UnixSeconds(0),
        to: UnixSeconds(u32::MAX),
        matching: String::new(),
    };
    link::send(&mut stream, &Frame::LeaseRequest(request)).await.expect("sends");
    link::send(&mut stream, &Frame::Ping { echo: 9 }).await.expect("sends");
    let mut frames = until(&mut stream, &mut buffer, |frame| matches!(frame, Frame::Backlog(_))).await;
    if !frames.iter().any(|frame| matches!(frame, Frame::LeaseEnd(_))) {
        frames.extend(until(&mut stream, &mut buffer, |frame| matches!(frame, Frame::LeaseEnd(_))).await);
    }
    assert!(matches!(&frames[0], Frame::HelloOk(welcome) if welcome.node == "relay-1"), "{:?}", frames[0]);
    let lent = frames.iter().filter(|frame| matches!(frame, Frame::Leased(leased) if leased.number == 5)).count();
    assert_eq!(lent, 3);
    assert!(frames.contains(&Frame::Pong { echo: 9 }), "the thread answers pings");
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Verdict(_))), "and the node says its verdict");
    drop(stream);
    let again = link(&world);
    let mut lent = 0;
    for _ in 0..1_000 {
        lent += again.lease(0, 1_000).await.len();
        if lent == 10 {
            break;
        }
    }
    assert_eq!(lent, 10, "its leases ended with it");
    world.stop().await;
}
