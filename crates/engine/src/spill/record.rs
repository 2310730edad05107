//! One spilled batch, or one spilled block of lines for a store, as it lies on disk.
//!
//! ```text
//! offset size  field (little-endian)
//!      0    4  magic "SPR1": the last byte is the format version
//!      4    1  codec: 0 as it is, 1 zstd
//!      5    1  why it was spilled (`Why`)
//!      6    1  kind: 0 batch, 1 block of canonical lines for a store
//!      7    1  length D of the destination
//!      8    8  ordinal in its lane
//!     16    8  points of the lane before it
//!     24    8  bytes of the lane's records before it
//!     32    4  points
//!     36    4  min timestamp, seconds since 1970
//!     40    4  max timestamp
//!     44    4  spilled at, seconds since 1970
//!     48    4  length of the content when it is not compressed, at most 32 MiB
//!     52    4  epoch        of the batch; of the relay's process that spilled the block
//!     56    8  sender       of the batch; number of the block in its sender
//!     64    4  seq          of the batch; 0
//!     68    D  destination, in UTF-8
//!   68+D       content: the batch, header and all, or the lines
//!    end    4  CRC32C of everything before it
//! ```
//!
//! The sums before it make every two readable records of a lane say exactly what lay between them. An exported record
//! is these same bytes: it names its destination itself.

use std::fmt;

use bytes::Bytes;

use xxhash_rust::xxh3::Xxh3;

use super::Why;
use super::books::{Mark, Run};
use crate::batch::{Batch, BatchError, BatchId};
use crate::time::UnixSeconds;
use crate::wire::FRAME_MAX;

const MAGIC: [u8; 4] = *b"SPR1";
const FIXED: usize = 68;
const CRC: usize = 4;
/// Level 1 of zstd: 63-byte lines become 8 to 15 bytes at some 400 MB/s.
const LEVEL: i32 = 1;

/// What a record holds, by its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    Batch(BatchId),
    /// A block for a store, which has no identity beyond the process that made it.
    Block {
        epoch: u32,
        number: u64,
    },
}

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub why: Why,
    pub content: Content,
    pub destination: &'a str,
    /// What the lane had taken before it; its ordinal among it.
    pub before: Mark,
    pub points: u32,
    pub min_ts: UnixSeconds,
    pub max_ts: UnixSeconds,
    pub spilled_at: UnixSeconds,
    /// Bytes of the content when it is not compressed.
    pub raw_bytes: u32,
}

impl Header<'_> {
    /// Who may have what is in it besides the spill.
    pub fn origin(&self) -> Origin<'_> {
        Origin { why: self.why, content: self.content, destination: self.destination }
    }
}

/// What is in a record, for asking the live path whether it still has it. A block's number is one of the journal's if
/// that is why it was written, otherwise one of the spill's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub why: Why,
    pub content: Content,
    pub destination: &'a str,
}

/// A record whose checksum fits.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub header: Header<'a>,
    /// Bytes of the record on disk.
    pub stored_bytes: u64,
    codec: u8,
    body: &'a [u8],
}

impl Record<'_> {
    /// Its place among the lane's sums.
    pub fn run(&self) -> Run {
        let before = self.header.before;
        Run { first: before, end: before.after(u64::from(self.header.points), self.stored_bytes) }
    }
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{have} bytes are too few for a record")]
    Short { have: usize },
    #[error("written in format {version} of a spill record; this program knows 1: use a newer program")]
    Newer { version: char },
    #[error("not a spill record: it begins with {begins:02x?}")]
    Format { begins: [u8; 4] },
    #[error("spill record: {0}")]
    Header(&'static str),
    #[error("checksum of the record does not fit: it was damaged on disk")]
    Checksum,
    #[error("content does not decompress: {0}")]
    Content(String),
    #[error("batch in the record: {0}")]
    Batch(#[from] BatchError),
}

/// Reads a record and checks its checksum; nothing is decompressed.
///
/// # Errors
/// When the bytes are not exactly one record.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED).filter(|(_, rest)| rest.len() >= CRC) else {
        return Err(RecordError::Short { have: bytes.len() });
    };
    let begins = [fixed[0], fixed[1], fixed[2], fixed[3]];
    if begins != MAGIC {
        let ours = begins[..3] == MAGIC[..3] && begins[3].is_ascii_graphic() && begins[3] > MAGIC[3];
        let version = char::from(begins[3]);
        return Err(if ours { RecordError::Newer { version } } else { RecordError::Format { begins } });
    }
    let covered = &bytes[..bytes.len() - CRC];
    if crc32c::crc32c(covered) != u32_at(bytes, covered.len()) {
        return Err(RecordError::Checksum);
    }
    let rest = &rest[..rest.len() - CRC];
    let (destination, body) =
        rest.split_at_checked(usize::from(fixed[7])).ok_or(RecordError::Header("destination is cut off"))?;
    let destination = std::str::from_utf8(destination).map_err(|_| RecordError::Header("destination is no text"))?;
    let epoch = u32_at(fixed, 52);
    let content = match fixed[6] {
        0 => Content::Batch(BatchId { sender: u64_at(fixed, 56), epoch, seq: u32_at(fixed, 64) }),
        1 => Content::Block { epoch, number: u64_at(fixed, 56) },
        _ => return Err(RecordError::Header("unknown kind")),
    };
    let header = Header {
        why: Why::from_code(fixed[5]).ok_or(RecordError::Header("unknown reason"))?,
        content,
        destination,
        before: Mark { ordinal: u64_at(fixed, 8), points: u64_at(fixed, 16), bytes: u64_at(fixed, 24) },
        points: u32_at(fixed, 32),
        min_ts: UnixSeconds(u32_at(fixed, 36)),
        max_ts: UnixSeconds(u32_at(fixed, 40)),
        spilled_at: UnixSeconds(u32_at(fixed, 44)),
        raw_bytes: u32_at(fixed, 48),
    };
    if fixed[4] > 1 || header.raw_bytes as usize > FRAME_MAX {
        return Err(RecordError::Header("unknown codec, or content too long"));
    }
    Ok(Record { header, stored_bytes: bytes.len() as u64, codec: fixed[4], body })
}

/// Compresses and decompresses; keeps its contexts and its scratch memory from record to record.
pub struct Codec {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    scratch: Vec<u8>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").field("scratch", &self.scratch.capacity()).finish_non_exhaustive()
    }
}

impl Default for Codec {
    /// Without memory for a context, records are stored as they are.
    fn default() -> Codec {
        Codec {
            compressor: zstd::bulk::Compressor::new(LEVEL).ok(),
            decompressor: zstd::bulk::Decompressor::new().ok(),
            scratch: Vec::new(),
        }
    }
}

impl Codec {
    /// The bytes of a record. Content that does not get smaller is stored as it is.
    pub fn encode(&mut self, header: &Header<'_>, content: &[u8]) -> Vec<u8> {
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(content.len()));
        let scratch = &mut self.scratch;
        let smaller = self
            .compressor
            .as_mut()
            .and_then(|compressor| compressor.compress_to_buffer(content, scratch).ok())
            .is_some_and(|length| length < content.len());
        let (codec, body) = if smaller { (1, self.scratch.as_slice()) } else { (0, content) };
        frame(header, codec, body)
    }

    /// What was spilled: the batch's bytes, or the lines.
    ///
    /// # Errors
    /// When it does not decompress to what the header says.
    pub fn content(&mut self, record: &Record<'_>) -> Result<Bytes, RecordError> {
        let length = record.header.raw_bytes as usize;
        let bytes = if record.codec == 0 {
            Bytes::copy_from_slice(record.body)
        } else {
            let decompressor = self.decompressor.as_mut();
            let decompressor = decompressor.ok_or_else(|| RecordError::Content("no memory for a context".into()))?;
            let mut content = Vec::with_capacity(length);
            decompressor
                .decompress_to_buffer(record.body, &mut content)
                .map_err(|error| RecordError::Content(error.to_string()))?;
            Bytes::from(content)
        };
        if bytes.len() == length { Ok(bytes) } else { Err(RecordError::Content("its length is another".into())) }
    }

    /// As [`Codec::content`], and looks whether it is what the header calls it.
    ///
    /// # Errors
    /// When it is not.
    pub fn verified(&mut self, record: &Record<'_>) -> Result<Bytes, RecordError> {
        let content = self.content(record)?;
        match record.header.content {
            Content::Batch(id) => {
                if Batch::decode(content.clone())?.id() != id {
                    return Err(RecordError::Header("the batch in it is another one"));
                }
            }
            Content::Block { .. } => {
                let lines = memchr::memchr_iter(b'\n', &content).count() as u64;
                if lines != u64::from(record.header.points) {
                    return Err(RecordError::Header("the lines in it are not as many as it says"));
                }
            }
        }
        Ok(content)
    }
}

/// A record at another place: its content stays as it is, compressed or not.
pub(super) fn moved(record: &Record<'_>, before: Mark, why: Why) -> Vec<u8> {
    let header = Header { before, why, ..record.header.clone() };
    frame(&header, record.codec, record.body)
}

fn frame(header: &Header<'_>, codec: u8, body: &[u8]) -> Vec<u8> {
    let destination = clipped(header.destination);
    let length = u8::try_from(destination.len()).unwrap_or(u8::MAX);
    let (kind, epoch, sender, seq) = match header.content {
        Content::Batch(id) => (0, id.epoch, id.sender, id.seq),
        Content::Block { epoch, number } => (1, epoch, number, 0),
    };
    let mut out = Vec::with_capacity(FIXED + destination.len() + body.len() + CRC);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[codec, header.why.code(), kind, length]);
    for number in [header.before.ordinal, header.before.points, header.before.bytes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let times = [header.min_ts.0, header.max_ts.0, header.spilled_at.0];
    for number in [header.points].into_iter().chain(times).chain([header.raw_bytes, epoch]) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&sender.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(destination.as_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

/// A destination as it fits: names of nodes and stores with an address are far shorter.
pub(super) fn clipped(destination: &str) -> &str {
    let mut end = destination.len().min(usize::from(u8::MAX));
    while !destination.is_char_boundary(end) {
        end -= 1;
    }
    destination.get(..end).unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A number that is the same for the same records in the same order.
pub fn fingerprint(records: &[Bytes]) -> u64 {
    let mut hash = Xxh3::new();
    for record in records {
        hash.update(&(record.len() as u64).to_le_bytes());
        hash.update(record);
    }
    hash.digest()
}

#[cfg(test)]
mod tests;
