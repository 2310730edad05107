use bytes::BytesMut;
use engine::batch::{Incarnation, Versions};
use engine::restart::RestartPolicy;
use engine::wire::{self, PROTOCOL, Role};
use runtime::{Clock, Supervisor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Service {
    standing: Standing,
    wake: Notify,
    told: Mutex<Vec<String>>,
}

impl Service {
    fn tell(&self, what: impl Into<String>) {
        locked(&self.told).push(what.into());
    }
}

impl Handler for Service {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        assert!(!matches!(frame, Frame::Ping { .. }), "pings are not the service's");
        self.tell(format!("{frame:?}"));
        Ok(())
    }

    fn next(&self, _out: &mut Outgoing) {}

    fn wake(&self) -> &Notify {
        &self.wake
    }
}

impl Dialer for Service {
    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            role: Role::Relay,
            cluster: "c".into(),
            node: "relay-1".into(),
            incarnation: Incarnation { sender: 1, epoch: 2, nonce: 3 },
            versions: Versions::default(),
            partitions: 4,
        }
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn up(&self, welcome: &HelloOk) {
        self.tell(format!("up {}", welcome.node));
    }

    fn down(&self, why: &Ended, was_up: bool) {
        self.tell(format!("down {} {was_up}", why.as_str()));
    }

    fn refused(&self, node: &str, peer: &str, reason: RefuseReason) {
        self.tell(format!("{node} refused by {peer}: {reason:?}"));
    }
}

/// The other end of a link.
struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    async fn say(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        wire::encode(&frame, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next frame that is no ping.
    async fn hear(&mut self) -> Frame {
        let heard = async {
            loop {
                match wire::next_raw(&mut self.buffer).unwrap().map(|raw| wire::decode(raw).unwrap()) {
                    Some(Frame::Ping { .. }) => {}
                    Some(frame) => return frame,
                    None => assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "it closed"),
                }
            }
        };
        tokio::time::timeout(SOON, heard).await.expect("a frame in time")
    }
}

async fn accepted(listener: &TcpListener) -> Peer {
    let (stream, _) = tokio::time::timeout(SOON, listener.accept()).await.expect("dialled in time").unwrap();
    let mut peer = Peer { stream, buffer: BytesMut::new() };
    assert!(matches!(peer.hear().await, Frame::Hello(_)));
    peer
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let looking = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn what_every_link_has_is_kept_for_its_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let supervisor = Supervisor::new("relay-1", Clock::new(), RestartPolicy::default()).unwrap();
    let service = Arc::new(Service::default());
    let dialled = Arc::clone(&service);
    supervisor.spawn_task("link", move |worker| {
        dial(worker, (addr.clone(), "partial-1".into()), Caller::plain(), Arc::clone(&dialled) as Arc<dyn Dialer>)
    });

    let mut peer = accepted(&listener).await;
    peer.say(Frame::Refuse(RefuseReason::Cluster)).await;
    let mut peer = accepted(&listener).await;
    let welcome = HelloOk { node: "partial-1".into(), window_bytes: 0, known_epoch: 0, retired: 0 };
    peer.say(Frame::HelloOk(welcome.clone())).await;
    peer.say(Frame::Ping { echo: 7 }).await;
    assert_eq!(peer.hear().await, Frame::Pong { echo: 7 });
    assert!(service.standing.is_up());
    peer.say(Frame::Verdict(Verdict::Ready)).await;
    peer.say(Frame::Drain).await;
    eventually("what was said", || locked(&service.told).last().is_some_and(|last| last == "Drain")).await;
    assert_eq!(service.standing.verdict(), Some(Verdict::Ready));
    drop(peer);

    let mut peer = accepted(&listener).await;
    assert!(!service.standing.is_up());
    assert_eq!(service.standing.verdict(), None, "it was said on a link that is gone");
    assert!(service.standing.last_error().is_some());
    peer.say(Frame::HelloOk(welcome)).await;
    eventually("the link again", || service.standing.is_up()).await;
    assert_eq!(supervisor.shutdown(SOON).await, Vec::<String>::new());
    let told = std::mem::take(&mut *locked(&service.told));
    let lost = told.iter().position(|said| said.starts_with("down") && said.ends_with("true")).expect("it was lost");
    assert_eq!(
        told[..lost],
        [
            "down stopping false",
            "relay-1 refused by partial-1: Cluster",
            "down refused false",
            "up partial-1",
            "Verdict(Ready)",
            "Drain",
        ]
    );
    assert_eq!(told[lost + 1..], ["up partial-1", "down stopping true"]);
}
