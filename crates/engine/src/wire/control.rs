//! The small frames: greeting, acknowledgement, refusal, watermark.

use super::{
    CONTROL, DURABLE, FrameError, HELLO, HELLO_OK, NACK, REFUSE, Reader, VERDICT, WATERMARK, put_count, put_id,
    put_text,
};
use crate::batch::{BatchId, Incarnation, Versions};
use crate::time::UnixSeconds;
use crate::verdict::Verdict;

/// What the dialling side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Relay,
    Partial,
    Replayer,
    /// Asks what is known of its sender (in `HelloOk`), and goes.
    Visitor,
}

/// What a node says of the orders that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Of all of them; who has another one answers with `All`.
    Digest(u64),
    /// The text of all of them, as `control` writes it.
    All(String),
}

/// The first frame of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub protocol: u16,
    pub role: Role,
    pub cluster: String,
    pub node: String,
    pub incarnation: Incarnation,
    pub versions: Versions,
    pub partitions: u16,
}

/// The answer to a `Hello` that is welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloOk {
    pub node: String,
    /// How many bytes of batches may be out without an answer on this link.
    pub window_bytes: u64,
    /// The highest epoch of the dialling sender that the final layer knows, as far as this node can tell; 0: none. From a
    /// relay to a replayer: the epoch of the relay's process, so that places in its spill are of one life.
    pub known_epoch: u32,
    /// The epochs of that sender up to this one are retired; 0: none, [`FORGOTTEN`]: all that ever come.
    pub retired: u32,
}

/// The floor of a sender that an operator has forgotten: all its epochs are retired, also those to come.
pub const FORGOTTEN: u32 = u32::MAX;

/// Why a `Hello` is not welcome. The text of each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    Protocol,
    Cluster,
    Partitions,
    Versions,
    DuplicateSender,
    Role,
    Draining,
    Forgotten,
    /// Said in plain to a peer that speaks plain.
    Tls,
    Certificate,
}

impl RefuseReason {
    /// All there are, in the order of their codes.
    pub const ALL: [RefuseReason; 10] = [
        RefuseReason::Protocol,
        RefuseReason::Cluster,
        RefuseReason::Partitions,
        RefuseReason::Versions,
        RefuseReason::DuplicateSender,
        RefuseReason::Role,
        RefuseReason::Draining,
        RefuseReason::Forgotten,
        RefuseReason::Tls,
        RefuseReason::Certificate,
    ];

    /// What happened and what would be right.
    pub fn explain(self) -> &'static str {
        match self {
            RefuseReason::Protocol => "the peer speaks another link protocol: run the same version on both nodes",
            RefuseReason::Cluster => "the peer belongs to another cluster: check `cluster.name` and the link addresses",
            RefuseReason::Partitions => {
                "the peer has another number of partitions: `cluster.partitions` is fixed for the life of a cluster"
            }
            RefuseReason::Versions => {
                "the peer does not know this node's rules yet, or has another list of final nodes: give every node the same cluster file, and restart final nodes first, then partial nodes, then relays"
            }
            RefuseReason::DuplicateSender => {
                "two nodes run with one identity: a data directory was copied; empty the `data` directory of the copy"
            }
            RefuseReason::Role => "the peer does not take links of this kind: check `layer` and `link` of both nodes",
            RefuseReason::Draining => "the peer is draining",
            RefuseReason::Forgotten => {
                "an operator has forgotten this node (`spillway node forget`): stop it, and empty its `data` directory before it serves again"
            }
            RefuseReason::Tls => "the peer takes links over TLS only: `links` of `[tls]` must be the same in all nodes",
            RefuseReason::Certificate => {
                "this node's certificate is for another name: its name in the cluster file must be among the certificate's"
            }
        }
    }

    fn code(self) -> u8 {
        match self {
            RefuseReason::Protocol => 0,
            RefuseReason::Cluster => 1,
            RefuseReason::Partitions => 2,
            RefuseReason::Versions => 3,
            RefuseReason::DuplicateSender => 4,
            RefuseReason::Role => 5,
            RefuseReason::Draining => 6,
            RefuseReason::Forgotten => 7,
            RefuseReason::Tls => 8,
            RefuseReason::Certificate => 9,
        }
    }
}

/// A run of sequence numbers of one sender's epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub sender: u64,
    pub epoch: u32,
    pub first: u32,
    pub last: u32,
}

/// Batches that are safe at the final layer, and how the receiver does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    pub ranges: Vec<Range>,
    /// How long the receiver's oldest queued batch has waited.
    pub queue_delay_ms: u32,
    /// The window from now on; see [`HelloOk::window_bytes`].
    pub window_bytes: u64,
}

/// Why one batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NackReason {
    /// Come again after so many milliseconds, or go elsewhere.
    Overloaded { retry_after_ms: u32 },
    /// Every point is past the horizon. For good.
    TooOld,
    /// Damaged on its way; once more.
    BadChecksum,
    /// Rules or partition map unknown here. For good.
    UnknownVersion,
    /// The included set has too many holes: replay the oldest first. Come again.
    TooManyHoles,
    /// It killed a worker twice. For good.
    Poison,
    /// The final layer knows this sender's epoch with another nonce: a data directory was copied. For good.
    DuplicateSender,
    /// The sender has said that it holds nothing of epochs up to `floor`, and this batch is of such an epoch: its data
    /// directory was rolled back or copied, or it is a ghost's late copy. Whether its points are in is not known any
    /// more. For good under this identity.
    Retired { floor: u32 },
}

impl NackReason {
    /// Whether the same batch may be taken later.
    pub fn is_retryable(self) -> bool {
        match self {
            NackReason::Overloaded { .. } | NackReason::BadChecksum | NackReason::TooManyHoles => true,
            NackReason::TooOld
            | NackReason::UnknownVersion
            | NackReason::Poison
            | NackReason::DuplicateSender
            | NackReason::Retired { .. } => false,
        }
    }

    /// The counted reason.
    pub fn as_str(self) -> &'static str {
        match self {
            NackReason::Overloaded { .. } => "overloaded",
            NackReason::TooOld => "too_old",
            NackReason::BadChecksum => "bad_checksum",
            NackReason::UnknownVersion => "unknown_version",
            NackReason::TooManyHoles => "too_many_holes",
            NackReason::Poison => "poison",
            NackReason::DuplicateSender => "duplicate_sender",
            NackReason::Retired { .. } => "retired",
        }
    }
}

/// "I hold nothing older than this back."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    pub sender: u64,
    pub epoch: u32,
    pub at: UnixSeconds,
    /// Age of the sender's oldest batch that is not durable.
    pub oldest_ms: u32,
    /// The sender holds nothing of epochs up to this one and never will: their numbers need not be remembered.
    pub retired: u32,
}

pub(super) fn put_hello(hello: &Hello, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&hello.protocol.to_le_bytes());
    out.push(match hello.role {
        Role::Relay => 0,
        Role::Partial => 1,
        Role::Replayer => 2,
        Role::Visitor => 3,
    });
    out.extend_from_slice(&hello.partitions.to_le_bytes());
    out.extend_from_slice(&hello.incarnation.sender.to_le_bytes());
    out.extend_from_slice(&hello.incarnation.epoch.to_le_bytes());
    out.extend_from_slice(&hello.incarnation.nonce.to_le_bytes());
    out.extend_from_slice(&hello.versions.rules.to_le_bytes());
    out.extend_from_slice(&hello.versions.map.to_le_bytes());
    put_text(&hello.cluster, out);
    put_text(&hello.node, out);
    HELLO
}

pub(super) fn hello(body: &[u8]) -> Result<Hello, FrameError> {
    let mut reader = Reader::new(body, "hello");
    let protocol = reader.u16()?;
    let role = match reader.u8()? {
        0 => Role::Relay,
        1 => Role::Partial,
        2 => Role::Replayer,
        3 => Role::Visitor,
        _ => return Err(reader.malformed("unknown role")),
    };
    let partitions = reader.u16()?;
    let incarnation = Incarnation { sender: reader.u64()?, epoch: reader.u32()?, nonce: reader.u64()? };
    let versions = Versions { rules: reader.u64()?, map: reader.u32()? };
    let hello =
        Hello { protocol, role, cluster: reader.text()?, node: reader.text()?, incarnation, versions, partitions };
    reader.end()?;
    Ok(hello)
}

pub(super) fn put_hello_ok(ok: &HelloOk, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&ok.window_bytes.to_le_bytes());
    out.extend_from_slice(&ok.known_epoch.to_le_bytes());
    out.extend_from_slice(&ok.retired.to_le_bytes());
    put_text(&ok.node, out);
    HELLO_OK
}

pub(super) fn hello_ok(body: &[u8]) -> Result<HelloOk, FrameError> {
    let mut reader = Reader::new(body, "hello_ok");
    let (window_bytes, known_epoch, retired) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let ok = HelloOk { window_bytes, known_epoch, retired, node: reader.text()? };
    reader.end()?;
    Ok(ok)
}

pub(super) fn put_refuse(reason: RefuseReason, out: &mut Vec<u8>) -> u8 {
    out.push(reason.code());
    REFUSE
}

pub(super) fn refuse(body: &[u8]) -> Result<RefuseReason, FrameError> {
    let mut reader = Reader::new(body, "refuse");
    let code = reader.u8()?;
    let reason = RefuseReason::ALL.into_iter().find(|reason| reason.code() == code);
    let reason = reason.ok_or_else(|| reader.malformed("unknown reason"))?;
    reader.end()?;
    Ok(reason)
}

pub(super) fn put_durable(durable: &Durable, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&durable.queue_delay_ms.to_le_bytes());
    out.extend_from_slice(&durable.window_bytes.to_le_bytes());
    put_count(durable.ranges.len(), out);
    for range in &durable.ranges {
        put_id(BatchId { sender: range.sender, epoch: range.epoch, seq: range.first }, out);
        out.extend_from_slice(&range.last.to_le_bytes());
    }
    DURABLE
}

pub(super) fn durable(body: &[u8]) -> Result<Durable, FrameError> {
    let mut reader = Reader::new(body, "durable");
    let queue_delay_ms = reader.u32()?;
    let window_bytes = reader.u64()?;
    let count = reader.count(20)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        let BatchId { sender, epoch, seq: first } = reader.id()?;
        let last = reader.u32()?;
        if last < first {
            return Err(reader.malformed("range ends before it begins"));
        }
        ranges.push(Range { sender, epoch, first, last });
    }
    reader.end()?;
    Ok(Durable { ranges, queue_delay_ms, window_bytes })
}

pub(super) fn put_nack(id: BatchId, reason: NackReason, out: &mut Vec<u8>) -> u8 {
    put_id(id, out);
    let (code, after) = match reason {
        NackReason::Overloaded { retry_after_ms } => (0, retry_after_ms),
        NackReason::TooOld => (1, 0),
        NackReason::BadChecksum => (2, 0),
        NackReason::UnknownVersion => (3, 0),
        NackReason::TooManyHoles => (4, 0),
        NackReason::Poison => (5, 0),
        NackReason::DuplicateSender => (6, 0u32),
        NackReason::Retired { floor } => (7, floor),
    };
    out.push(code);
    out.extend_from_slice(&after.to_le_bytes());
    NACK
}

pub(super) fn nack(body: &[u8]) -> Result<(BatchId, NackReason), FrameError> {
    let mut reader = Reader::new(body, "nack");
    let id = reader.id()?;
    let code = reader.u8()?;
    let number = reader.u32()?;
    let reason = match code {
        0 => NackReason::Overloaded { retry_after_ms: number },
        1 => NackReason::TooOld,
        2 => NackReason::BadChecksum,
        3 => NackReason::UnknownVersion,
        4 => NackReason::TooManyHoles,
        5 => NackReason::Poison,
        6 => NackReason::DuplicateSender,
        7 => NackReason::Retired { floor: number },
        _ => return Err(reader.malformed("unknown reason")),
    };
    reader.end()?;
    Ok((id, reason))
}

pub(super) fn put_watermark(watermark: &Watermark, out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&watermark.sender.to_le_bytes());
    out.extend_from_slice(&watermark.epoch.to_le_bytes());
    out.extend_from_slice(&watermark.at.0.to_le_bytes());
    out.extend_from_slice(&watermark.oldest_ms.to_le_bytes());
    out.extend_from_slice(&watermark.retired.to_le_bytes());
    WATERMARK
}

pub(super) fn watermark(body: &[u8]) -> Result<Watermark, FrameError> {
    let mut reader = Reader::new(body, "watermark");
    let watermark = Watermark {
        sender: reader.u64()?,
        epoch: reader.u32()?,
        at: UnixSeconds(reader.u32()?),
        oldest_ms: reader.u32()?,
        retired: reader.u32()?,
    };
    if watermark.retired >= watermark.epoch && watermark.epoch > 0 {
        return Err(reader.malformed("retires its own epoch"));
    }
    reader.end()?;
    Ok(watermark)
}

/// State u8, two numbers u64 (queue bytes and lag, or restarts and 0), two texts (worker and error, or empty).
pub(super) fn put_verdict(verdict: &Verdict, out: &mut Vec<u8>) -> u8 {
    let (state, numbers, texts): (u8, [u64; 2], [&str; 2]) = match verdict {
        Verdict::Starting => (0, [0, 0], ["", ""]),
        Verdict::Ready => (1, [0, 0], ["", ""]),
        Verdict::Overloaded { queue_bytes, lag_ms } => (2, [*queue_bytes, *lag_ms], ["", ""]),
        Verdict::Degraded { worker, restarts, error } => (3, [*restarts, 0], [worker, error]),
        Verdict::Draining => (4, [0, 0], ["", ""]),
    };
    out.push(state);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    texts.iter().for_each(|text| put_text(text, out));
    VERDICT
}

pub(super) fn verdict(body: &[u8]) -> Result<Verdict, FrameError> {
    let mut reader = Reader::new(body, "verdict");
    let state = reader.u8()?;
    let (first, second) = (reader.u64()?, reader.u64()?);
    let (worker, error) = (reader.text()?, reader.text()?);
    let verdict = match state {
        0 => Verdict::Starting,
        1 => Verdict::Ready,
        2 => Verdict::Overloaded { queue_bytes: first, lag_ms: second },
        3 => Verdict::Degraded { worker, restarts: first, error },
        4 => Verdict::Draining,
        _ => return Err(reader.malformed("unknown state")),
    };
    reader.end()?;
    Ok(verdict)
}

/// `0, digest u64`, or `1` and the text to the end.
pub(super) fn put_word(word: &Word, out: &mut Vec<u8>) -> u8 {
    match word {
        Word::Digest(digest) => {
            out.push(0);
            out.extend_from_slice(&digest.to_le_bytes());
        }
        Word::All(text) => {
            out.push(1);
            out.extend_from_slice(text.as_bytes());
        }
    }
    CONTROL
}

pub(super) fn word(body: &[u8]) -> Result<Word, FrameError> {
    let mut reader = Reader::new(body, "control");
    match reader.u8()? {
        0 => {
            let digest = reader.u64()?;
            reader.end()?;
            Ok(Word::Digest(digest))
        }
        1 => {
            let text = String::from_utf8(reader.rest.to_vec()).map_err(|_| reader.malformed("text is not UTF-8"))?;
            Ok(Word::All(text))
        }
        _ => Err(reader.malformed("neither a digest nor a text")),
    }
}

pub(super) fn echo(body: &[u8], kind: &'static str) -> Result<u64, FrameError> {
    let mut reader = Reader::new(body, kind);
    let echo = reader.u64()?;
    reader.end()?;
    Ok(echo)
}
