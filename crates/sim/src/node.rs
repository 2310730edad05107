//! What a simulated process is to the world: it hears frames and time, and says frames. Shells only; decisions are in `engine`.

use std::collections::BTreeSet;

use engine::store_link;
use engine::time::{Mono, UnixSeconds};
use engine::wire::{Frame, Hello, HelloOk, RefuseReason};

use crate::disk::Disk;
use crate::file::FileId;
use crate::rng::Rng;
use crate::setup::{LinkId, NodeId, Setup};
use crate::trace::Trace;
use crate::truth::Truth;

/// One end of a connection, as the node that has it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// A link that it dials.
    Link(LinkId),
    /// A connection that it accepted.
    Conn(u64),
}

/// What a node asks of a connection to a plain store.
#[derive(Clone, Debug)]
pub enum Plain {
    Connect,
    HalfClose,
    Abort,
    /// Blocks of whole lines.
    Write(Vec<bytes::Bytes>),
}

/// What a node is given with every call, and where it leaves what it says.
pub struct Cx<'w> {
    pub me: NodeId,
    pub now: Mono,
    /// By this node's clock, which may be wrong.
    pub unix: UnixSeconds,
    pub rng: &'w mut Rng,
    pub setup: &'w Setup,
    /// What the cluster file is now; read at a start.
    pub file: FileId,
    pub truth: &'w mut Truth,
    pub trace: &'w mut Trace,
    pub disk: &'w mut Disk,
    /// Senders that this node has heard are forgotten.
    pub forgotten: &'w BTreeSet<u64>,
    /// The partial nodes in this node's cluster file.
    pub peers: &'w [usize],
    pub out: Vec<(Port, Frame)>,
    pub plain: Vec<(LinkId, Plain)>,
    /// Wake me then, with this tag.
    pub wakes: Vec<(Mono, u32)>,
    /// End these.
    pub hang_ups: Vec<Port>,
}

impl Cx<'_> {
    /// Says a frame.
    pub fn say(&mut self, to: Port, frame: Frame) {
        self.out.push((to, frame));
    }
}

/// See the module's head.
pub trait Node {
    /// Ten times a second.
    fn tick(&mut self, cx: &mut Cx<'_>);
    /// A time that it asked for has come.
    fn wake(&mut self, _cx: &mut Cx<'_>, _tag: u32) {}
    /// Whether it dials this link.
    fn dials(&self, _setup: &Setup, _link: LinkId) -> bool {
        true
    }
    /// Its greeting on a link that it dials.
    fn hello(&self, _setup: &Setup) -> Option<Hello> {
        None
    }
    /// Somebody dials it.
    ///
    /// # Errors
    /// Why it is not welcome.
    fn accept(&mut self, _cx: &mut Cx<'_>, _conn: u64, _hello: &Hello) -> Result<HelloOk, RefuseReason> {
        Err(RefuseReason::Role)
    }
    /// A link that it dialled was welcomed.
    fn up(&mut self, _cx: &mut Cx<'_>, _link: LinkId, _welcome: &HelloOk) {}
    /// A link that it dialled was not welcome.
    fn refused(&mut self, _cx: &mut Cx<'_>, _link: LinkId, _reason: RefuseReason) {}
    /// A link that it dialled is gone.
    fn down(&mut self, _cx: &mut Cx<'_>, _link: LinkId) {}
    /// A connection that it accepted is gone.
    fn closed(&mut self, _cx: &mut Cx<'_>, _conn: u64) {}
    /// A frame came in.
    ///
    /// # Errors
    /// Why the connection ends.
    fn frame(&mut self, cx: &mut Cx<'_>, from: Port, frame: Frame) -> Result<(), &'static str>;
    /// Something happened to a connection to a plain store.
    fn plain(&mut self, _cx: &mut Cx<'_>, _link: LinkId, _event: store_link::Event) {}
    /// Lines came in, at a plain store.
    fn lines(&mut self, _cx: &mut Cx<'_>, _lines: &[u8]) {}
    /// Says what there is to say now; after every other call.
    fn pump(&mut self, cx: &mut Cx<'_>);
}
