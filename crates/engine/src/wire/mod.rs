//! Frames of the link: the acknowledged connection between two of our nodes.
//!
//! ```text
//! offset size  field (little-endian)
//!      0    4  length L of what follows, 4..=32 MiB
//!      4    1  kind (see `Kind`)
//!      5    1  flags: bit 0 attempt (sent before), bit 1 class replay; only on Batch
//!      6    2  reserved, 0
//!      8  L-4  payload; of every kind but Batch and Flush its last 4 bytes are the CRC32C of the payload before them
//! ```
//!
//! A Batch payload is the batch itself (`batch`, two checksums of its own). A Flush payload ends with a CRC32C, too.
//! A frame that is none ends that connection only; the error is a counted reason.
//!
//! Who sends what: the dialling side sends `Hello` first and gets `HelloOk` or `Refuse`. Relay to partial: `Batch`,
//! `Watermark`, `Ping`; back: `Durable`, `Nack`, `Pong`, `Drain`. Partial to final: `Flush`, `Watermark`, `Ping`;
//! back: `Rules`, `FlushReply`, `Pong`, `Drain`. Replayer to relay: `LeaseRequest`, `Done`, `Ping`; back: `Leased`, `LeaseEnd`,
//! `Backlog`, `Pong`, `Drain`. Replayer to partial: `Batch`, `Ping`, as a relay. Whoever accepted a link says its
//! `Verdict` every second. Epochs are retired by the watermark, which is repeated every second and so needs no answer.
//! On every link both sides say `Control`, what operators have ordered, when it is not the same on both.

mod control;
mod flush;
mod lease;

use bytes::{Buf, Bytes, BytesMut};

pub use control::{Durable, FORGOTTEN, Hello, HelloOk, NackReason, Range, RefuseReason, Role, Watermark, Word};
pub use flush::{Flush, FlushReply, Group, GroupReply, Included, Lane};
pub use lease::{Backlog, Done, LaneBacklog, LeaseEnd, LeaseRequest, Leased, Outcome, Ticket};

use crate::batch::{BatchError, BatchId};
use crate::verdict::Verdict;

/// Version of the link protocol, in `Hello`.
///
/// 2: `Control`. 3: rules have ids; `Rules`.
pub const PROTOCOL: u16 = 3;
/// Largest frame taken. A batch is at most about 320 KiB; a flush carries one partition's partials of one interval.
pub const FRAME_MAX: usize = 32 << 20;
/// Length, kind, flags and reserved bytes.
pub const FRAME_HEAD: usize = 8;

/// The bytes of a frame, before anything in them is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Bytes,
}

/// Whether a batch is live traffic or comes from a replay. Live never waits for replay (INV-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    #[default]
    Live,
    Replay,
}

/// One message of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    HelloOk(HelloOk),
    Refuse(RefuseReason),
    /// `attempt`: it may have been sent before. A hint only: it chooses the lane, never correctness.
    Batch {
        attempt: bool,
        class: Class,
        bytes: Bytes,
    },
    Durable(Durable),
    Nack {
        id: BatchId,
        reason: NackReason,
    },
    Watermark(Watermark),
    Ping {
        echo: u64,
    },
    Pong {
        echo: u64,
    },
    /// The sender of this takes no new work: it is about to leave.
    Drain,
    Flush(Flush),
    FlushReply(FlushReply),
    /// What a node says of itself, every second.
    Verdict(Verdict),
    /// What operators have ordered, see `control`.
    Control(Word),
    /// Rules of former days, from who remembers them (layout: `node::rules`).
    Rules(Bytes),
    LeaseRequest(LeaseRequest),
    Leased(Leased),
    LeaseEnd(LeaseEnd),
    Done(Done),
    Backlog(Backlog),
}

/// Why bytes are no frame. Each ends the connection it came from and is counted by [`FrameError::as_str`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {length} bytes; at most {FRAME_MAX} are taken")]
    TooLong { length: usize },
    #[error("frame of {length} bytes is shorter than its own head")]
    TooShort { length: usize },
    #[error("frame of unknown kind {kind}")]
    UnknownKind { kind: u8 },
    #[error("checksum of a {kind} frame does not fit")]
    Checksum { kind: &'static str },
    #[error("{kind} frame: {what}")]
    Malformed { kind: &'static str, what: &'static str },
    #[error("batch in a frame: {0}")]
    Batch(#[from] BatchError),
}

impl FrameError {
    /// The counted reason.
    pub fn as_str(&self) -> &'static str {
        match self {
            FrameError::TooLong { .. } => "frame_too_long",
            FrameError::TooShort { .. } => "frame_too_short",
            FrameError::UnknownKind { .. } => "frame_unknown_kind",
            FrameError::Checksum { .. } => "frame_checksum",
            FrameError::Malformed { .. } => "frame_malformed",
            FrameError::Batch(_) => "frame_batch",
        }
    }
}

const HELLO: u8 = 1;
const HELLO_OK: u8 = 2;
const REFUSE: u8 = 3;
const BATCH: u8 = 4;
const DURABLE: u8 = 5;
const NACK: u8 = 6;
const WATERMARK: u8 = 7;
const PING: u8 = 8;
const PONG: u8 = 9;
const DRAIN: u8 = 10;
const FLUSH: u8 = 11;
const FLUSH_REPLY: u8 = 12;
const VERDICT: u8 = 13;
const CONTROL: u8 = 14;
const RULES: u8 = 15;
const LEASE_REQUEST: u8 = 16;
const LEASED: u8 = 17;
const LEASE_END: u8 = 18;
const DONE: u8 = 19;
const BACKLOG: u8 = 20;

const FLAG_ATTEMPT: u8 = 1;
const FLAG_REPLAY: u8 = 2;

/// Cuts the next frame off the front of what was received; `None` when more bytes are needed.
///
/// # Errors
/// When the front is no frame.
pub fn next_raw(buffer: &mut BytesMut) -> Result<Option<RawFrame>, FrameError> {
    let Some(head) = buffer.get(..FRAME_HEAD) else { return Ok(None) };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let (kind, flags) = (head[4], head[5]);
    if length < FRAME_HEAD - 4 {
        return Err(FrameError::TooShort { length });
    }
    if length > FRAME_MAX {
        return Err(FrameError::TooLong { length });
    }
    if !(HELLO..=BACKLOG).contains(&kind) {
        return Err(FrameError::UnknownKind { kind });
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let mut frame = buffer.split_to(4 + length).freeze();
    frame.advance(FRAME_HEAD);
    Ok(Some(RawFrame { kind, flags, payload: frame }))
}

/// Understands a frame. A batch inside is checked later, by who takes it ([`crate::batch::Batch::decode`]).
///
/// # Errors
/// When the payload is not what its kind says.
pub fn decode(raw: RawFrame) -> Result<Frame, FrameError> {
    let RawFrame { kind, flags, payload } = raw;
    Ok(match kind {
        BATCH => Frame::Batch {
            attempt: flags & FLAG_ATTEMPT != 0,
            class: if flags & FLAG_REPLAY != 0 { Class::Replay } else { Class::Live },
            bytes: payload,
        },
        HELLO => Frame::Hello(control::hello(checked(&payload, "hello")?)?),
        HELLO_OK => Frame::HelloOk(control::hello_ok(checked(&payload, "hello_ok")?)?),
        REFUSE => Frame::Refuse(control::refuse(checked(&payload, "refuse")?)?),
        DURABLE => Frame::Durable(control::durable(checked(&payload, "durable")?)?),
        NACK => {
            let (id, reason) = control::nack(checked(&payload, "nack")?)?;
            Frame::Nack { id, reason }
        }
        WATERMARK => Frame::Watermark(control::watermark(checked(&payload, "watermark")?)?),
        PING => Frame::Ping { echo: control::echo(checked(&payload, "ping")?, "ping")? },
        PONG => Frame::Pong { echo: control::echo(checked(&payload, "pong")?, "pong")? },
        DRAIN => {
            checked(&payload, "drain")?;
            Frame::Drain
        }
        FLUSH => {
            checked(&payload, "flush")?;
            Frame::Flush(flush::decode(&payload.slice(..payload.len() - 4))?)
        }
        FLUSH_REPLY => Frame::FlushReply(flush::decode_reply(checked(&payload, "flush_reply")?)?),
        VERDICT => Frame::Verdict(control::verdict(checked(&payload, "verdict")?)?),
        CONTROL => Frame::Control(control::word(checked(&payload, "control")?)?),
        RULES => {
            checked(&payload, "rules")?;
            Frame::Rules(payload.slice(..payload.len() - 4))
        }
        LEASE_REQUEST => Frame::LeaseRequest(lease::request(checked(&payload, "lease_request")?)?),
        LEASED => {
            checked(&payload, "leased")?;
            Frame::Leased(lease::leased(&payload.slice(..payload.len() - 4))?)
        }
        LEASE_END => Frame::LeaseEnd(lease::lease_end(checked(&payload, "lease_end")?)?),
        DONE => Frame::Done(lease::done(checked(&payload, "done")?)?),
        BACKLOG => Frame::Backlog(lease::backlog(checked(&payload, "backlog")?)?),
        kind => return Err(FrameError::UnknownKind { kind }),
    })
}

/// Appends the frame's bytes to `out`.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD]);
    let payload = start + FRAME_HEAD;
    let (kind, flags) = match frame {
        Frame::Batch { attempt, class, bytes } => {
            out.extend_from_slice(bytes);
            (BATCH, batch_flags(*attempt, *class))
        }
        Frame::Hello(hello) => (control::put_hello(hello, out), 0),
        Frame::HelloOk(ok) => (control::put_hello_ok(ok, out), 0),
        Frame::Refuse(reason) => (control::put_refuse(*reason, out), 0),
        Frame::Durable(durable) => (control::put_durable(durable, out), 0),
        Frame::Nack { id, reason } => (control::put_nack(*id, *reason, out), 0),
        Frame::Watermark(watermark) => (control::put_watermark(watermark, out), 0),
        Frame::Ping { echo } => {
            out.extend_from_slice(&echo.to_le_bytes());
            (PING, 0)
        }
        Frame::Pong { echo } => {
            out.extend_from_slice(&echo.to_le_bytes());
            (PONG, 0)
        }
        Frame::Drain => (DRAIN, 0),
        Frame::Flush(body) => {
            flush::put(body, out);
            (FLUSH, 0)
        }
        Frame::FlushReply(reply) => {
            flush::put_reply(reply, out);
            (FLUSH_REPLY, 0)
        }
        Frame::Verdict(verdict) => (control::put_verdict(verdict, out), 0),
        Frame::Control(word) => (control::put_word(word, out), 0),
        Frame::Rules(bytes) => {
            out.extend_from_slice(bytes);
            (RULES, 0)
        }
        Frame::LeaseRequest(request) => (lease::put_request(request, out), 0),
        Frame::Leased(leased) => (lease::put_leased(leased, out), 0),
        Frame::LeaseEnd(end) => (lease::put_lease_end(*end, out), 0),
        Frame::Done(done) => (lease::put_done(done, out), 0),
        Frame::Backlog(backlog) => (lease::put_backlog(backlog, out), 0),
    };
    if kind != BATCH {
        let crc = crc32c::crc32c(out.get(payload..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
    }
    let head = frame_head(out.len() - payload, kind, flags);
    if let Some(room) = out.get_mut(start..payload) {
        room.copy_from_slice(&head);
    }
}

/// The eight bytes before a batch, so that a sender can write head and batch without copying the batch.
pub fn batch_head(batch_len: usize, attempt: bool, class: Class) -> [u8; FRAME_HEAD] {
    frame_head(batch_len, BATCH, batch_flags(attempt, class))
}

fn batch_flags(attempt: bool, class: Class) -> u8 {
    (if attempt { FLAG_ATTEMPT } else { 0 }) | (if class == Class::Replay { FLAG_REPLAY } else { 0 })
}

fn frame_head(payload_len: usize, kind: u8, flags: u8) -> [u8; FRAME_HEAD] {
    let length = u32::try_from(payload_len + FRAME_HEAD - 4).unwrap_or(u32::MAX).to_le_bytes();
    [length[0], length[1], length[2], length[3], kind, flags, 0, 0]
}

/// The payload without its checksum, if that fits.
fn checked<'p>(payload: &'p [u8], kind: &'static str) -> Result<&'p [u8], FrameError> {
    let (body, crc) = payload.split_last_chunk::<4>().ok_or(FrameError::Malformed { kind, what: "no checksum" })?;
    if crc32c::crc32c(body) == u32::from_le_bytes(*crc) { Ok(body) } else { Err(FrameError::Checksum { kind }) }
}

/// Reads little-endian fields off the front of a payload; every read says whether there was enough.
struct Reader<'p> {
    rest: &'p [u8],
    kind: &'static str,
}

impl<'p> Reader<'p> {
    fn new(rest: &'p [u8], kind: &'static str) -> Reader<'p> {
        Reader { rest, kind }
    }

    fn malformed(&self, what: &'static str) -> FrameError {
        FrameError::Malformed { kind: self.kind, what }
    }

    fn take(&mut self, n: usize) -> Result<&'p [u8], FrameError> {
        let (front, rest) =
            self.rest.split_at_checked(n).ok_or(FrameError::Malformed { kind: self.kind, what: "too short" })?;
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (front, rest) =
            self.rest.split_first_chunk::<N>().ok_or(FrameError::Malformed { kind: self.kind, what: "too short" })?;
        self.rest = rest;
        Ok(*front)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn id(&mut self) -> Result<BatchId, FrameError> {
        Ok(BatchId { sender: self.u64()?, epoch: self.u32()?, seq: self.u32()? })
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let length = usize::from(self.u16()?);
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed("text is not UTF-8"))
    }

    /// How many entries of `entry` bytes follow; never more than there are bytes for.
    fn count(&mut self, entry: usize) -> Result<usize, FrameError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(entry) > self.rest.len() {
            return Err(self.malformed("says it has more entries than bytes"));
        }
        Ok(count)
    }

    fn end(self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes left over")) }
    }
}

fn put_id(id: BatchId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.sender.to_le_bytes());
    out.extend_from_slice(&id.epoch.to_le_bytes());
    out.extend_from_slice(&id.seq.to_le_bytes());
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = text.as_bytes().get(..end).unwrap_or_default();
    out.extend_from_slice(&u16::try_from(end).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
