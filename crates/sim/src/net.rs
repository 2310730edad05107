//! The network: connections that keep their order, delays, and what goes wrong between two nodes. What is written to a
//! connection arrives in order or not at all; what two connections carry arrives in any order.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::store_link;
use engine::time::Mono;
use engine::wire::{self, Frame};

use crate::node::{Plain, Port};
use crate::sender::{LINGER, SILENCE};
use crate::setup::{LinkId, LinkKind, NodeId};
use crate::world::{Event, World};

const PING_EVERY: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// What goes over a connection.
pub enum Msg {
    Frame(Vec<u8>),
    Ping,
    Pong,
    Lines(Bytes),
    HalfClose,
    /// The answer to a half-close.
    Fin,
    /// The process at the other end is gone, and had read all that had come.
    Closed,
    Reset,
}

/// One connection. Side 0 dialled, side 1 accepted.
#[derive(Debug)]
pub struct Conn {
    pub link: LinkId,
    pub open: [bool; 2],
    pub greeted: [bool; 2],
    /// When the last thing arrives at each side.
    last: [Mono; 2],
    /// Something on its way to each side was held up until then, so nothing behind it comes sooner.
    held: [Mono; 2],
    alive: [Mono; 2],
    pinged: [Mono; 2],
    half_closed: bool,
    /// A slow store reads the next block then.
    reads_at: Mono,
    /// Lines to a store do not reach its kernel since then.
    unacknowledged: Option<Mono>,
    /// When the end that dialled was closed.
    closed_at: Option<Mono>,
}

impl World {
    fn is_plain(&self, link: LinkId) -> bool {
        self.setup.links[link].kind == LinkKind::Plain
    }

    fn delay(&mut self) -> Duration {
        let (low, high) = self.setup.tunables.delay_ms;
        Duration::from_micros(self.rng.range(low * 1000, high * 1000))
    }

    /// Something is written at the other side of `to`.
    fn send(&mut self, conn: u64, to: usize, msg: Msg) {
        let at = self.now + self.delay();
        let Some(of) = self.conns.get_mut(&conn) else { return };
        let at = at.max(of.last[to] + Duration::from_nanos(1));
        of.last[to] = at;
        self.plan(at, Event::Deliver { conn, to, msg });
    }

    /// A node says a frame.
    pub fn say(&mut self, port: Port, frame: &Frame) {
        let (conn, to) = match port {
            Port::Link(link) => match self.dials[link].conn.filter(|_| self.dials[link].up) {
                Some(conn) => (conn, 1),
                None => return,
            },
            Port::Conn(conn) => (conn, 0),
        };
        if self.conns.get(&conn).is_some_and(|of| of.open[1 - to]) {
            let mut bytes = Vec::new();
            wire::encode(frame, &mut bytes);
            self.send(conn, to, Msg::Frame(bytes));
        }
    }

    /// How long nothing arrives from one node at another; `None`: it does.
    fn cut_until(&self, from: NodeId, to: NodeId) -> Option<Mono> {
        self.cuts.get(&(from, to)).copied().filter(|until| *until > self.now)
    }

    /// Something arrives.
    pub fn deliver(&mut self, conn: u64, to: usize, msg: Msg) {
        let Some(of) = self.conns.get(&conn) else { return };
        let link = &self.setup.links[of.link];
        let (node, from) = if to == 0 { (link.dialer, link.acceptor) } else { (link.acceptor, link.dialer) };
        let is_away = self.hosts[node].process.is_none() || self.cut_until(from, node).is_some();
        if matches!(msg, Msg::Lines(_)) {
            let now = self.now;
            if let Some(of) = self.conns.get_mut(&conn) {
                of.unacknowledged = is_away.then(|| of.unacknowledged.unwrap_or(now));
            }
        }
        let Some(of) = self.conns.get(&conn) else { return };
        if !of.open[to] {
            // A kernel that does not know the connection says so.
            let answers = of.open[1 - to] && self.hosts[node].process.is_some();
            if answers && !matches!(msg, Msg::Reset | Msg::Fin | Msg::Closed) {
                self.send(conn, 1 - to, Msg::Reset);
            }
            return;
        }
        let paused = Some(self.hosts[node].paused_until).filter(|until| *until > self.now);
        let reads = Some(of.reads_at).filter(|_| matches!(msg, Msg::Lines(_) | Msg::HalfClose));
        let slow = reads.filter(|at| *at > self.now && self.slow(node).is_some());
        let until = self.cut_until(from, node).or(paused).max(slow).map(|until| until + Duration::from_micros(10));
        if let Some(at) = until.max(Some(of.held[to]).filter(|held| *held > self.now)) {
            // What comes behind it must not overtake it.
            if let Some(of) = self.conns.get_mut(&conn) {
                of.last[to] = of.last[to].max(at);
                of.held[to] = of.held[to].max(at);
            }
            self.plan(at, Event::Deliver { conn, to, msg });
            return;
        }
        if let (Some(each), Some(of)) = (self.slow(node), self.conns.get_mut(&conn)) {
            of.reads_at = self.now + each;
        }
        let Some(of) = self.conns.get(&conn) else { return };
        self.trace.note(self.now, 5, conn << 1 | to as u64);
        match msg {
            Msg::Ping => self.send(conn, 1 - to, Msg::Pong),
            Msg::Pong => self.note_alive(conn, to),
            Msg::Frame(bytes) => self.frame(conn, to, &bytes),
            // A sender counts on it that bytes of a connection that it has lost are gone by then.
            Msg::Lines(_) if of.closed_at.is_some_and(|at| self.now.since(at) >= LINGER) => {}
            Msg::Lines(bytes) => {
                self.trace.bytes(&bytes);
                self.call(node, |process, cx| process.node().lines(cx, &bytes));
            }
            Msg::HalfClose => {
                self.send(conn, 0, Msg::Fin);
                if let Some(of) = self.conns.get_mut(&conn) {
                    of.open[1] = false;
                }
            }
            Msg::Fin => {
                let (link, half_closed) = (of.link, of.half_closed);
                let event = if half_closed { store_link::Event::Fin } else { store_link::Event::PeerClosed };
                self.end_plain(conn, link, event);
            }
            // What was half-closed meanwhile gets a reset behind it, which the shell sees.
            Msg::Closed if of.half_closed => self.close(conn, to, false),
            Msg::Closed => {
                let link = of.link;
                self.end_plain(conn, link, store_link::Event::PeerClosed);
            }
            Msg::Reset => self.close(conn, to, false),
        }
    }

    /// How long a store takes for a block now, if it is slow.
    fn slow(&self, node: NodeId) -> Option<Duration> {
        self.hosts[node].slow.filter(|(until, _)| *until > self.now).map(|(_, each)| each)
    }

    fn note_alive(&mut self, conn: u64, side: usize) {
        let now = self.now;
        if let Some(of) = self.conns.get_mut(&conn) {
            of.alive[side] = now;
        }
    }

    fn end_plain(&mut self, conn: u64, link: LinkId, event: store_link::Event) {
        let now = self.now;
        if let Some(of) = self.conns.get_mut(&conn) {
            of.open[0] = false;
            of.closed_at.get_or_insert(now);
        }
        if self.dials[link].conn == Some(conn) {
            self.dials[link].conn = None;
            self.tell_plain(link, event);
        }
    }

    fn frame(&mut self, conn: u64, to: usize, bytes: &[u8]) {
        self.trace.bytes(bytes);
        let mut buffer = BytesMut::from(bytes);
        let frame = match wire::next_raw(&mut buffer).and_then(|raw| raw.map(wire::decode).transpose()) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                self.truth.violated("wire", || format!("a frame that was encoded cannot be decoded: {error}"));
                return;
            }
        };
        let Some(greeted) = self.conns.get(&conn).map(|of| of.greeted[to]) else { return };
        match (greeted, to, frame) {
            (false, 1, Frame::Hello(hello)) => self.greet(conn, &hello),
            (false, 0, Frame::HelloOk(welcome)) => {
                let Some(of) = self.conns.get_mut(&conn) else { return };
                of.greeted[0] = true;
                let link = of.link;
                self.dials[link].up = true;
                let node = self.setup.links[link].dialer;
                for bytes in self.dials[link].heard.take().unwrap_or_default() {
                    self.truth.visit("heard again");
                    self.send(conn, 1, Msg::Frame(bytes));
                }
                self.call(node, |process, cx| process.node().up(cx, link, &welcome));
            }
            (false, _, frame) => {
                self.truth.visit("link refused");
                self.close(conn, to, true);
                if let (Frame::Refuse(reason), Some((node, Port::Link(link)))) = (frame, self.port_of(conn, to)) {
                    self.call(node, |process, cx| process.node().refused(cx, link, reason));
                }
            }
            (true, _, frame) => {
                let Some((node, port)) = self.port_of(conn, to) else { return };
                self.hear(conn, &frame, bytes);
                let mut refused = None;
                self.call(node, |process, cx| refused = process.node().frame(cx, port, frame).err());
                if let Some(why) = refused {
                    self.truth.violated("wire", || format!("node {node} ends a link: {why}"));
                    self.close(conn, to, true);
                }
            }
        }
    }

    /// Remembers what is to be repeated.
    fn hear(&mut self, conn: u64, frame: &Frame, bytes: &[u8]) {
        let Some(of) = self.conns.get(&conn) else { return };
        let link = of.link;
        if self.dials[link].conn == Some(conn)
            && matches!(frame, Frame::Batch { .. } | Frame::Flush(_))
            && let Some(heard) = self.dials[link].heard.as_mut().filter(|heard| heard.len() < 8)
        {
            heard.push(bytes.to_vec());
        }
    }

    fn greet(&mut self, conn: u64, hello: &wire::Hello) {
        let Some((node, _)) = self.port_of(conn, 1) else { return };
        let mut answer = Err(wire::RefuseReason::Role);
        // The welcome goes out before anything that the node says then.
        self.accept(node, conn, hello, &mut answer);
        match answer {
            Ok(_) => {}
            Err(reason) => {
                self.say(Port::Conn(conn), &Frame::Refuse(reason));
                self.close_later(conn);
            }
        }
    }

    fn accept(
        &mut self,
        node: NodeId,
        conn: u64,
        hello: &wire::Hello,
        answer: &mut Result<wire::HelloOk, wire::RefuseReason>,
    ) {
        let mut said = Vec::new();
        self.call(node, |process, cx| {
            *answer = process.node().accept(cx, conn, hello);
            if let Ok(welcome) = answer {
                said.push((Port::Conn(conn), Frame::HelloOk(welcome.clone())));
                cx.out.append(&mut said);
            }
        });
        if let (Ok(_), Some(of)) = (&answer, self.conns.get_mut(&conn)) {
            of.greeted[1] = true;
        }
    }

    /// After a refusal the acceptor's end is gone; the dialler closes when it hears.
    fn close_later(&mut self, conn: u64) {
        if let Some(of) = self.conns.get_mut(&conn) {
            of.open[1] = false;
        }
    }

    /// One side ends a connection. `tells`: the other side hears of it.
    pub fn close(&mut self, conn: u64, side: usize, tells: bool) {
        let Some(of) = self.conns.get_mut(&conn).filter(|of| of.open[side]) else { return };
        of.open[side] = false;
        let (link, greeted) = (of.link, of.greeted[side]);
        if tells {
            self.send(conn, 1 - side, Msg::Reset);
        }
        if self.is_plain(link) {
            if side == 0 {
                self.end_plain(conn, link, store_link::Event::Reset);
            }
        } else if side == 0 {
            self.dial_over(link);
        } else if greeted {
            let node = self.setup.links[link].acceptor;
            self.call(node, |process, cx| process.node().closed(cx, conn));
        }
    }

    fn dial_over(&mut self, link: LinkId) {
        let random = self.rng.number();
        let now = self.now;
        let dial = &mut self.dials[link];
        dial.conn = None;
        dial.up = false;
        dial.dialing = false;
        dial.next = now + dial.backoff.on_failure(random);
        let node = self.setup.links[link].dialer;
        self.call(node, |process, cx| process.node().down(cx, link));
    }

    /// A node hangs up.
    pub fn hang_up(&mut self, port: Port) {
        match port {
            Port::Link(link) => {
                if let Some(conn) = self.dials[link].conn {
                    self.close(conn, 0, true);
                }
            }
            Port::Conn(conn) => self.close(conn, 1, true),
        }
    }

    /// Links that are down are dialled again, when it is time.
    pub fn dial_again(&mut self, node: NodeId) {
        let Some(process) = &mut self.hosts[node].process else { return };
        let (process, setup) = (process.node(), &self.setup);
        let is_wanted = |link: &LinkId| setup.links[*link].kind != LinkKind::Plain && process.dials(setup, *link);
        let links: Vec<LinkId> = setup.dialed_by(node).filter(is_wanted).collect();
        for link in links {
            let dial = &mut self.dials[link];
            if dial.conn.is_none() && !dial.dialing && dial.next <= self.now {
                dial.dialing = true;
                self.begin_dial(link);
            }
        }
    }

    fn begin_dial(&mut self, link: LinkId) {
        let of = self.setup.links[link];
        let life = self.hosts[of.dialer].life;
        let is_cut = self.cut_until(of.dialer, of.acceptor).or(self.cut_until(of.acceptor, of.dialer)).is_some();
        let wait = if is_cut { CONNECT_WITHIN } else { self.delay() };
        self.plan(self.now + wait, Event::Dial(link, life));
    }

    /// A connection attempt is decided.
    pub fn dialed(&mut self, link: LinkId, life: u32) {
        let of = self.setup.links[link];
        if self.hosts[of.dialer].life != life {
            return;
        }
        let is_cut = self.cut_until(of.dialer, of.acceptor).or(self.cut_until(of.acceptor, of.dialer)).is_some();
        let works = !is_cut && self.hosts[of.acceptor].process.is_some();
        self.trace.note(self.now, 6, (link as u64) << 1 | u64::from(works));
        if !works {
            if self.is_plain(link) {
                self.tell_plain(link, store_link::Event::ConnectFailed);
            } else {
                self.dial_over(link);
            }
            return;
        }
        let conn = self.next_conn;
        self.next_conn += 1;
        let now = self.now;
        let plain = self.is_plain(link);
        let made = Conn {
            link,
            open: [true; 2],
            greeted: [plain; 2],
            last: [now; 2],
            held: [now; 2],
            alive: [now; 2],
            pinged: [now; 2],
            half_closed: false,
            reads_at: now,
            unacknowledged: None,
            closed_at: None,
        };
        self.conns.insert(conn, made);
        self.dials[link].conn = Some(conn);
        self.dials[link].dialing = false;
        if plain {
            self.tell_plain(link, store_link::Event::Connected);
            return;
        }
        let setup = &self.setup;
        let hello = self.hosts[of.dialer].process.as_mut().and_then(|process| process.node().hello(setup));
        if let Some(hello) = hello {
            let mut bytes = Vec::new();
            wire::encode(&Frame::Hello(hello), &mut bytes);
            self.send(conn, 1, Msg::Frame(bytes));
        }
    }

    /// A sender to a plain store wants something.
    pub fn plain(&mut self, link: LinkId, what: Plain) {
        let conn = self.dials[link].conn;
        match (what, conn) {
            (Plain::Connect, _) => self.begin_dial(link),
            (Plain::HalfClose, Some(conn)) => {
                if let Some(of) = self.conns.get_mut(&conn) {
                    of.half_closed = true;
                }
                self.send(conn, 1, Msg::HalfClose);
            }
            (Plain::Write(blocks), Some(conn)) => {
                for block in blocks {
                    self.send(conn, 1, Msg::Lines(block));
                }
            }
            (Plain::Abort, Some(conn)) => {
                self.dials[link].conn = None;
                let now = self.now;
                if let Some(of) = self.conns.get_mut(&conn).filter(|of| of.open[0]) {
                    of.open[0] = false;
                    of.closed_at = Some(now);
                    self.send(conn, 1, Msg::Reset);
                }
            }
            (Plain::HalfClose | Plain::Write(_) | Plain::Abort, None) => {}
        }
    }

    /// Pings, and ends what has been silent for too long.
    pub fn heartbeats(&mut self, node: NodeId) {
        let (mut pings, mut dead) = (Vec::new(), Vec::new());
        let now = self.now;
        for (id, of) in &mut self.conns {
            let link = &self.setup.links[of.link];
            if link.kind == LinkKind::Plain {
                let is_dead = of.unacknowledged.is_some_and(|since| now.since(since) > SILENCE);
                if link.dialer == node && of.open[0] && is_dead {
                    dead.push((*id, 0));
                }
                continue;
            }
            let side = usize::from(link.acceptor == node);
            if !of.open[side] || (link.dialer != node && link.acceptor != node) {
                continue;
            }
            if now.since(of.alive[side]) > DEAD_AFTER {
                dead.push((*id, side));
            } else if now.since(of.pinged[side]) >= PING_EVERY && of.greeted[side] {
                of.pinged[side] = now;
                pings.push((*id, 1 - side));
            }
        }
        pings.into_iter().for_each(|(conn, to)| self.send(conn, to, Msg::Ping));
        for (conn, side) in dead {
            self.truth.visit("link silent");
            self.close(conn, side, true);
        }
        self.conns.retain(|_, of| of.open != [false; 2] || of.last[0].max(of.last[1]) > now);
    }

    /// A process is gone: its ends are closed, and the peers hear of it, or not.
    pub fn drop_conns_of(&mut self, node: NodeId, silently: bool) {
        let mut told = Vec::new();
        for (id, of) in &mut self.conns {
            let link = &self.setup.links[of.link];
            for (side, end) in [link.dialer, link.acceptor].into_iter().enumerate() {
                if end == node && of.open[side] {
                    of.open[side] = false;
                    of.closed_at = if side == 0 { Some(self.now) } else { of.closed_at };
                    told.push((*id, 1 - side));
                }
            }
        }
        for (conn, to) in told.into_iter().filter(|_| !silently) {
            // A kernel says FIN for a store that had read all, else RST.
            let plain = to == 0 && self.conns.get(&conn).is_some_and(|of| self.is_plain(of.link));
            let says_fin = plain && conn.is_multiple_of(2);
            self.send(conn, to, if says_fin { Msg::Closed } else { Msg::Reset });
        }
        let links: Vec<LinkId> = self.setup.dialed_by(node).collect();
        for link in links {
            self.dials[link].conn = None;
            self.dials[link].up = false;
            self.dials[link].dialing = false;
        }
    }
}
