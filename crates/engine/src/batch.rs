//! Batches: a sealed run of canonical lines with an identity. The same bytes are on the wire, on disk and in replay,
//! immutable for ever; what may differ between two sendings (class, attempt) is in the link frame around them.
//!
//! ```text
//! offset size  field (little-endian)
//!      0    4  magic "SPB1": the last byte is the format version
//!      4    2  header length H, its CRC included
//!      6    2  flags: none defined yet, must be 0
//!      8    8  sender      random id of the relay, made at its first start
//!     16    4  epoch       grows with every start of the sender
//!     20    4  seq         dense from 0 within (sender, epoch)
//!     24    8  boot nonce  tells two processes apart that run on copies of one disk
//!     32    8  rules version       the rules that the batch must be evaluated with
//!     40    4  partition-map version
//!     44    4  points
//!     48    4  min timestamp, seconds since 1970
//!     52    4  max timestamp
//!     56    4  body length
//!     60    4  CRC32C of the body
//!     64    2  number of partitions P that the batch feeds, 1..=64
//!     66    2  reserved, 0
//!     68  6*P  P times: partition u16, claim u32 (ascending partitions)
//!    H-4    4  CRC32C of the header before it
//!      H       body: canonical lines `name value timestamp\n`
//! ```
//!
//! **Claims.** Sequence numbers are dense per sender, but a partition sees only the batches that feed it. So that its
//! included set stays one interval in calm weather, a batch says for each partition it feeds from which number on it
//! is the first: `claim..=seq` is what the partition may mark as included with it. None of the numbers in
//! `claim..seq` feeds that partition, by construction of the sender.

use bytes::Bytes;

use crate::time::UnixSeconds;

/// Most partitions a cluster may have; a set of them is one `u64`.
pub const PARTITIONS_MAX: u16 = 64;
const MAGIC: [u8; 4] = *b"SPB1";
const FIXED: usize = 68;
const PER_PARTITION: usize = 6;
const CRC: usize = 4;

/// What a batch is called, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    pub sender: u64,
    pub epoch: u32,
    pub seq: u32,
}

/// Who a sender is in one run of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    pub sender: u64,
    pub epoch: u32,
    pub nonce: u64,
}

/// The epoch of a sender's next life: above its last one (`persisted`) and above all that others have seen of it (`known`;
/// zero: none), and no less than the clock, which heals a data directory that was restored from a backup. `None`: there
/// is none left.
pub fn next_epoch(persisted: u32, known: u32, now: UnixSeconds) -> Option<u32> {
    if mutant!("epoch_reused") {
        return Some(persisted);
    }
    persisted.max(known).checked_add(1).map(|next| next.max(now.0))
}

/// What batches must be evaluated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Versions {
    pub rules: u64,
    pub map: u32,
}

/// A set of partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionSet(pub u64);

impl PartitionSet {
    /// Every partition below `partitions`.
    pub const fn all(partitions: u16) -> PartitionSet {
        PartitionSet(if partitions >= 64 { u64::MAX } else { (1 << partitions) - 1 })
    }

    /// With `partition` (below [`PARTITIONS_MAX`]; others are ignored).
    #[must_use]
    pub const fn with(self, partition: u16) -> PartitionSet {
        if partition < PARTITIONS_MAX { PartitionSet(self.0 | 1 << partition) } else { self }
    }

    /// Whether `partition` is in the set.
    pub const fn contains(self, partition: u16) -> bool {
        partition < PARTITIONS_MAX && self.0 & (1 << partition) != 0
    }

    /// How many are in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether none is.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Ascending.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (0..PARTITIONS_MAX).filter(move |&partition| self.contains(partition))
    }
}

/// One partition that a batch feeds, and the first sequence number that it may mark as included with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub partition: u16,
    pub from: u32,
}

/// A batch's header, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: BatchId,
    pub nonce: u64,
    pub versions: Versions,
    pub points: u32,
    pub min_ts: UnixSeconds,
    pub max_ts: UnixSeconds,
    pub claims: Vec<Claim>,
    body_length: u32,
    body_crc: u32,
}

impl Header {
    /// The partitions fed.
    pub fn partitions(&self) -> PartitionSet {
        self.claims.iter().fold(PartitionSet::default(), |set, claim| set.with(claim.partition))
    }

    /// The first sequence number `partition` may mark with this batch, if the batch feeds it.
    pub fn claim(&self, partition: u16) -> Option<u32> {
        self.claims.iter().find(|claim| claim.partition == partition).map(|claim| claim.from)
    }
}

/// Why bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("{have} bytes are too few for a batch")]
    Short { have: usize },
    #[error("not a batch of format 1: it begins with {begins:02x?}")]
    Format { begins: [u8; 4] },
    #[error("batch header: {0}")]
    Header(&'static str),
    #[error("checksum of the {part} does not fit: the bytes were damaged on their way or on disk")]
    Checksum { part: &'static str },
}

/// A sealed batch. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    header: Header,
    bytes: Bytes,
    body_at: usize,
}

impl Batch {
    /// Reads a batch, checks both checksums.
    ///
    /// # Errors
    /// When the bytes are not exactly one batch. Nothing is allocated beyond the claims.
    pub fn decode(bytes: Bytes) -> Result<Batch, BatchError> {
        let (header, body_at) = decode_header(&bytes)?;
        let body = bytes.get(body_at..).unwrap_or_default();
        if body.len() != header.body_length as usize {
            return Err(BatchError::Header("body length does not fit the bytes"));
        }
        if crc32c::crc32c(body) != header.body_crc {
            return Err(BatchError::Checksum { part: "body" });
        }
        Ok(Batch { header, bytes, body_at })
    }

    /// The decoded header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Shorthand for the identity.
    pub fn id(&self) -> BatchId {
        self.header.id
    }

    /// Header and body as they are on the wire and on disk.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The canonical lines.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.body_at..).unwrap_or_default()
    }
}

fn decode_header(bytes: &[u8]) -> Result<(Header, usize), BatchError> {
    if bytes.len() < FIXED + PER_PARTITION + CRC {
        return Err(BatchError::Short { have: bytes.len() });
    }
    if bytes[..4] != MAGIC {
        return Err(BatchError::Format { begins: [bytes[0], bytes[1], bytes[2], bytes[3]] });
    }
    let partitions = usize::from(u16_at(bytes, 64));
    let length = usize::from(u16_at(bytes, 4));
    if partitions == 0 || partitions > usize::from(PARTITIONS_MAX) {
        return Err(BatchError::Header("feeds no partition, or more than 64"));
    }
    if length != header_length(partitions) || bytes.len() < length {
        return Err(BatchError::Header("length does not fit the number of partitions"));
    }
    if crc32c::crc32c(&bytes[..length - CRC]) != u32_at(bytes, length - CRC) {
        return Err(BatchError::Checksum { part: "header" });
    }
    if u16_at(bytes, 6) != 0 {
        return Err(BatchError::Header("flags that this version does not know"));
    }
    let id = BatchId { sender: u64_at(bytes, 8), epoch: u32_at(bytes, 16), seq: u32_at(bytes, 20) };
    let claims = read_claims(&bytes[FIXED..FIXED + partitions * PER_PARTITION], id.seq)?;
    let header = Header {
        id,
        nonce: u64_at(bytes, 24),
        versions: Versions { rules: u64_at(bytes, 32), map: u32_at(bytes, 40) },
        points: u32_at(bytes, 44),
        min_ts: UnixSeconds(u32_at(bytes, 48)),
        max_ts: UnixSeconds(u32_at(bytes, 52)),
        claims,
        body_length: u32_at(bytes, 56),
        body_crc: u32_at(bytes, 60),
    };
    Ok((header, length))
}

fn read_claims(bytes: &[u8], seq: u32) -> Result<Vec<Claim>, BatchError> {
    let claims: Vec<Claim> = bytes
        .chunks_exact(PER_PARTITION)
        .map(|entry| Claim { partition: u16_at(entry, 0), from: u32_at(entry, 2) })
        .collect();
    let ascending = claims.windows(2).all(|pair| pair[0].partition < pair[1].partition);
    if !ascending || claims.iter().any(|claim| claim.partition >= PARTITIONS_MAX || claim.from > seq) {
        return Err(BatchError::Header("claims out of order or out of range"));
    }
    Ok(claims)
}

fn header_length(partitions: usize) -> usize {
    FIXED + partitions * PER_PARTITION + CRC
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A batch that is still open: lines are appended behind room for the header, so sealing copies nothing.
#[derive(Debug)]
pub struct Builder {
    buffer: Vec<u8>,
    partitions: PartitionSet,
    points: u32,
    min_ts: UnixSeconds,
    max_ts: UnixSeconds,
}

impl Builder {
    /// An open batch for a set of partitions that is not empty.
    ///
    /// `capacity`: bytes of body to make room for.
    pub fn new(partitions: PartitionSet, capacity: usize) -> Builder {
        let head = header_length(partitions.len());
        let mut buffer = Vec::with_capacity(head + capacity);
        buffer.resize(head, 0);
        Builder { buffer, partitions, points: 0, min_ts: UnixSeconds(u32::MAX), max_ts: UnixSeconds(0) }
    }

    /// Appends whole canonical lines and what is known of them.
    pub fn append(&mut self, lines: &[u8], points: u32, min_ts: UnixSeconds, max_ts: UnixSeconds) {
        self.buffer.extend_from_slice(lines);
        self.points = self.points.saturating_add(points);
        self.min_ts = self.min_ts.min(min_ts);
        self.max_ts = self.max_ts.max(max_ts);
    }

    /// Points in it so far.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Bytes of body so far.
    pub fn body_len(&self) -> usize {
        self.buffer.len() - header_length(self.partitions.len())
    }

    /// The oldest timestamp in it; `None` while it is empty.
    pub fn min_ts(&self) -> Option<UnixSeconds> {
        (self.points > 0).then_some(self.min_ts)
    }

    /// The partitions fed.
    pub fn partitions(&self) -> PartitionSet {
        self.partitions
    }

    /// Gives the batch its identity and closes it.
    ///
    /// `claims`: one per partition of the set, ascending, none above `seq`.
    ///
    /// # Panics
    /// When there is not one claim for each partition, which is a bug of the caller.
    pub fn seal(self, incarnation: Incarnation, seq: u32, versions: Versions, claims: &[Claim]) -> Batch {
        let Builder { mut buffer, partitions, points, min_ts, max_ts } = self;
        let head = header_length(partitions.len());
        let body_length = u32::try_from(buffer.len() - head).unwrap_or(u32::MAX);
        let body_crc = crc32c::crc32c(&buffer[head..]);
        let id = BatchId { sender: incarnation.sender, epoch: incarnation.epoch, seq };
        let mut out = Vec::with_capacity(head);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&u16::try_from(head).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&id.sender.to_le_bytes());
        out.extend_from_slice(&id.epoch.to_le_bytes());
        out.extend_from_slice(&id.seq.to_le_bytes());
        out.extend_from_slice(&incarnation.nonce.to_le_bytes());
        out.extend_from_slice(&versions.rules.to_le_bytes());
        out.extend_from_slice(&versions.map.to_le_bytes());
        out.extend_from_slice(&points.to_le_bytes());
        out.extend_from_slice(&min_ts.0.to_le_bytes());
        out.extend_from_slice(&max_ts.0.to_le_bytes());
        out.extend_from_slice(&body_length.to_le_bytes());
        out.extend_from_slice(&body_crc.to_le_bytes());
        out.extend_from_slice(&u16::try_from(claims.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        for claim in claims {
            out.extend_from_slice(&claim.partition.to_le_bytes());
            out.extend_from_slice(&claim.from.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        assert_eq!(out.len(), head, "BUG: a batch is sealed with one claim for each of its partitions");
        buffer[..head].copy_from_slice(&out);
        let header = Header {
            id,
            nonce: incarnation.nonce,
            versions,
            points,
            min_ts,
            max_ts,
            claims: claims.to_vec(),
            body_length,
            body_crc,
        };
        Batch { header, bytes: Bytes::from(buffer), body_at: head }
    }
}

#[cfg(test)]
mod tests;
