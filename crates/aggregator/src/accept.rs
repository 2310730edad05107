//! The listener of links: greet, see what the peer is, and give the connection to the role that serves it.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use engine::batch::Versions;
use engine::wire::{Class, FORGOTTEN, Frame, Hello, HelloOk, PROTOCOL, RefuseReason, Role};
use link::{Ended, Greeted, Handler};
use node::desk::{Accepted, Desk};
use node::rules::RuleBook;
use runtime::{Clock, Supervisor, Worker, WorkerError};
use tls::{Door, Stream};
use tokio::net::{TcpListener, TcpStream};
use tracing::info;

use crate::finals::{self, FinalRole};
use crate::forgotten::Forgotten;
use crate::partial::{self, PartialRole};
use crate::partial_lock as lock;
use crate::senders::Senders;
use crate::speaker::{Speaker, Voice};

/// What an aggregator serves, and what it expects of peers.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) versions: Versions,
    pub(crate) book: Arc<RuleBook>,
    pub(crate) partitions: u16,
    pub(crate) partial: Option<Arc<PartialRole>>,
    pub(crate) finals: Option<Arc<FinalRole>>,
    pub(crate) voice: Arc<Voice>,
    pub(crate) senders: Arc<Senders>,
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) clock: Clock,
    pub(crate) desk: Arc<Desk>,
    pub(crate) door: Door,
    /// Links that ended, by reason.
    pub(crate) closed: Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

/// Accepts links until the worker is asked to stop. The listener outlives the worker.
pub(crate) async fn listen(
    worker: Worker,
    listener: Arc<TcpListener>,
    service: Arc<Service>,
    supervisor: Supervisor,
    group: &'static str,
) -> Result<(), WorkerError> {
    let serve = move |stream| {
        let service = Arc::clone(&service);
        async move {
            let ended = service.serve(stream).await;
            *lock(&service.closed).entry(ended.as_str()).or_default() += 1;
            ended
        }
    };
    link::listen(worker, listener, supervisor, group, serve).await
}

impl Service {
    async fn serve(&self, stream: TcpStream) -> Ended {
        let Greeted { mut stream, hello, early } = match link::greeted(stream, &self.door).await {
            Ok(greeted) => greeted,
            Err(ended) => return ended,
        };
        if hello.role == Role::Visitor && hello.protocol == PROTOCOL && hello.cluster == self.cluster {
            let told = link::send(&mut stream, &self.greeting(&hello)).await;
            return told.err().unwrap_or(Ended::Closed);
        }
        // A relay counts as present for as long as its connection is served.
        let is_relay = hello.role == Role::Relay;
        let presence = if is_relay { self.senders.enter_soon(hello.incarnation).await } else { None };
        let served =
            if is_relay && presence.is_none() { Err(RefuseReason::DuplicateSender) } else { self.role_for(&hello) };
        match served {
            Ok(handler) => self.welcome(stream, early, &hello, handler).await,
            Err(reason) => link::refuse(&mut stream, reason).await,
        }
    }

    fn speaker(&self) -> Speaker {
        Speaker::new(Arc::clone(&self.voice))
    }

    /// Who serves this peer, or why nobody does.
    fn role_for(&self, hello: &Hello) -> Result<Arc<dyn Handler>, RefuseReason> {
        if hello.protocol != PROTOCOL {
            return Err(RefuseReason::Protocol);
        }
        if hello.cluster != self.cluster {
            return Err(RefuseReason::Cluster);
        }
        if hello.partitions != self.partitions {
            return Err(RefuseReason::Partitions);
        }
        // What a replayer brings says for itself what rules it was made for.
        let knows_rules = hello.role == Role::Replayer || self.book.knows(hello.versions.rules);
        if hello.versions.map != self.versions.map || !knows_rules {
            return Err(RefuseReason::Versions);
        }
        if hello.role == Role::Relay && self.forgotten.refuses(hello) {
            return Err(RefuseReason::Forgotten);
        }
        match (hello.role, &self.partial, &self.finals) {
            (Role::Relay | Role::Replayer, Some(role), _) => {
                if role.machine().is_impostor(hello.incarnation) {
                    return Err(RefuseReason::DuplicateSender);
                }
                Ok(Arc::new(partial::Inbound::new(Arc::clone(role), self.speaker(), class_of(hello.role))))
            }
            (Role::Partial, _, Some(role)) => Ok(Arc::new(finals::Inbound::new(Arc::clone(role), self.speaker()))),
            (Role::Relay | Role::Replayer | Role::Partial | Role::Visitor, _, _) => Err(RefuseReason::Role),
        }
    }

    /// The welcome, with what this node knows of the sender.
    fn greeting(&self, hello: &Hello) -> Frame {
        let window_bytes = self.partial.as_ref().map_or(0, |role| role.window_bytes(class_of(hello.role)));
        let known = self.finals.as_ref().and_then(|role| role.known(hello.incarnation.sender)).unwrap_or_default();
        let seen = self.partial.as_ref().map_or(0, |role| role.epoch_of(hello.incarnation.sender));
        let is_forgotten = hello.role == Role::Visitor && self.forgotten.refuses(hello);
        Frame::HelloOk(HelloOk {
            node: self.node.clone(),
            window_bytes,
            known_epoch: known.epoch.max(seen),
            retired: if is_forgotten { FORGOTTEN } else { known.floor },
        })
    }

    async fn welcome(&self, mut stream: Stream, early: BytesMut, hello: &Hello, handler: Arc<dyn Handler>) -> Ended {
        if let Err(ended) = link::send(&mut stream, &self.greeting(hello)).await {
            return ended;
        }
        info!(node = %self.node, peer = %hello.node, "link accepted");
        link::run(stream, early, &Accepted::new(&self.desk, &*handler), self.clock).await
    }
}

/// What a peer sends.
fn class_of(role: Role) -> Class {
    match role {
        Role::Replayer => Class::Replay,
        Role::Relay | Role::Partial | Role::Visitor => Class::Live,
    }
}
