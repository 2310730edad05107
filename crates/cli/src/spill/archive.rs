//! The file that an export writes and an import reads: records of a spill as they lie on disk, between checksums.
//!
//! ```text
//! head    magic "SPILLWAY", version u16, length u32 + JSON {cluster, node, program, at}, CRC32C of all this
//! block   1u8, length u16 + destination of the lane, records u32, length u32 + records, CRC32C of the block
//!         ... a record is its length (u32) and so many bytes
//! end     2u8, records u64, CRC32C of the end; nothing follows
//! ```
//!
//! Numbers are little-endian. Magic, version and head stay what they are in later versions, so that an older program can
//! say who wrote a file that it does not understand. A file is good only with its end: one that was cut off is damaged.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"SPILLWAY";
pub(super) const VERSION: u16 = 1;
const RECORDS: u8 = 1;
const END: u8 = 2;
/// A name, a name, a version.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What a node gives in one page, and a client takes.
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// Where the records come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) cluster: String,
    pub(super) node: String,
    /// What wrote the file, with its version.
    pub(super) program: String,
    /// Seconds since 1970.
    pub(super) at: u64,
}

/// Some records of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) destination: String,
    /// Each behind its length.
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Error)]
pub(super) enum ArchiveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no export of a spill")]
    Foreign,
    #[error("it has format version {version}, written by {program}; this program reads version {VERSION}")]
    Newer { version: u16, program: String },
    #[error("it is damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
}

/// How many records `bytes` are; `None` if they are not whole records.
pub(super) fn records_in(bytes: &[u8]) -> Option<u64> {
    let mut count = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = split_record(rest)?.1;
        count += 1;
    }
    Some(count)
}

/// The first record with its length, and what follows.
pub(super) fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?);
    bytes.split_at_checked(usize::try_from(length).ok()?.checked_add(4)?)
}

/// Writes an archive.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    records: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut out: W, head: &Head) -> io::Result<Writer<W>> {
        let json = serde_json::to_vec(head)?;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(json);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        out.write_all(&bytes)?;
        Ok(Writer { out, records: 0 })
    }

    /// `bytes`: `records` of them, as a node gave them.
    pub(super) fn block(&mut self, destination: &str, records: u64, bytes: &[u8]) -> io::Result<()> {
        let mut front = vec![RECORDS];
        front.extend(u16::try_from(destination.len()).map_err(io::Error::other)?.to_le_bytes());
        front.extend(destination.as_bytes());
        front.extend(u32::try_from(records).map_err(io::Error::other)?.to_le_bytes());
        front.extend(u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&front), bytes);
        self.out.write_all(&front)?;
        self.out.write_all(bytes)?;
        self.out.write_all(&checksum.to_le_bytes())?;
        self.records += records;
        Ok(())
    }

    /// The number of records, and what was written to.
    pub(super) fn end(mut self) -> io::Result<(u64, W)> {
        let mut bytes = vec![END];
        bytes.extend(self.records.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        self.out.write_all(&bytes)?;
        self.out.flush()?;
        Ok((self.records, self.out))
    }
}

/// Reads an archive, and believes nothing in it that a checksum has not confirmed.
#[derive(Debug)]
pub(super) struct Reader<R> {
    input: R,
    at: u64,
    checksum: u32,
    records: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn begin(input: R) -> Result<(Head, Reader<R>), ArchiveError> {
        let mut reader = Reader { input, at: 0, checksum: 0, records: 0 };
        let magic: [u8; 8] = reader.array().map_err(foreign)?;
        if magic != *MAGIC {
            return Err(ArchiveError::Foreign);
        }
        let version = u16::from_le_bytes(reader.array()?);
        let length = reader.length(HEAD_BYTES_MAX)?;
        let json = reader.bytes(length)?;
        reader.check()?;
        let program = |head: Option<Head>| head.map_or_else(|| "an unknown program".into(), |head: Head| head.program);
        let head = serde_json::from_slice::<Head>(&json).ok();
        if version > VERSION {
            return Err(ArchiveError::Newer { version, program: program(head) });
        }
        let head = head.filter(|_| version == VERSION).ok_or(ArchiveError::Foreign)?;
        Ok((head, reader))
    }

    /// The next block; `None` behind the last one, when the end was found to be right.
    pub(super) fn next(&mut self) -> Result<Option<Block>, ArchiveError> {
        self.checksum = 0;
        let [kind] = self.array()?;
        match kind {
            RECORDS => {
                let length = usize::from(u16::from_le_bytes(self.array()?));
                let destination = self.bytes(length)?;
                let records = u32::from_le_bytes(self.array()?);
                let length = self.length(BLOCK_BYTES_MAX)?;
                let bytes = self.bytes(length)?;
                self.check()?;
                let destination = String::from_utf8(destination).map_err(|_| self.damaged("a lane's name"))?;
                if records_in(&bytes) != Some(u64::from(records)) {
                    return Err(self.damaged("the lengths of its records do not add up"));
                }
                self.records += u64::from(records);
                Ok(Some(Block { destination, bytes }))
            }
            END => {
                let records = u64::from_le_bytes(self.array()?);
                self.check()?;
                if records != self.records {
                    return Err(self.damaged("records are missing"));
                }
                match self.input.read(&mut [0])? {
                    0 => Ok(None),
                    _ => Err(self.damaged("something follows its end")),
                }
            }
            _ => Err(self.damaged("neither records nor an end")),
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    fn check(&mut self) -> Result<(), ArchiveError> {
        let expected = self.checksum;
        if u32::from_le_bytes(self.array()?) == expected { Ok(()) } else { Err(self.damaged("a checksum is wrong")) }
    }

    fn length(&mut self, most: usize) -> Result<usize, ArchiveError> {
        let length = usize::try_from(u32::from_le_bytes(self.array()?)).ok().filter(|length| *length <= most);
        length.ok_or_else(|| self.damaged("a length is impossible"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        match self.input.read_exact(bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.damaged("it is cut off")),
            Err(error) => return Err(error.into()),
        }
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Damaged { at: self.at, what }
    }
}

/// What is too short for its magic is none.
fn foreign(error: ArchiveError) -> ArchiveError {
    match error {
        ArchiveError::Damaged { .. } => ArchiveError::Foreign,
        other @ (ArchiveError::Io(_) | ArchiveError::Foreign | ArchiveError::Newer { .. }) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { cluster: "c".into(), node: "relay-1".into(), program: "spillway 0.1.0".into(), at: 7 }
    }

    fn record(bytes: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        out.extend(bytes);
        out
    }

    fn archive() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
        writer.block("aggregate", 2, &[record(b"one"), record(b"")].concat()).unwrap();
        writer.block("carbon/127.0.0.1:2103", 1, &record(&[9; 1000])).unwrap();
        let (records, bytes) = writer.end().unwrap();
        assert_eq!(records, 3);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Head, Vec<Block>), ArchiveError> {
        let (head, mut reader) = Reader::begin(bytes)?;
        let mut blocks = Vec::new();
        while let Some(block) = reader.next()? {
            blocks.push(block);
        }
        assert_eq!(reader.position(), bytes.len() as u64);
        Ok((head, blocks))
    }

    #[test]
    fn what_is_written_reads_back() {
        let (read_head, blocks) = read(&archive()).unwrap();
        assert_eq!(read_head, head());
        let destinations: Vec<&str> = blocks.iter().map(|block| block.destination.as_str()).collect();
        assert_eq!(destinations, ["aggregate", "carbon/127.0.0.1:2103"]);
        assert_eq!(blocks[0].bytes, [record(b"one"), record(b"")].concat());
        let (first, rest) = split_record(&blocks[0].bytes).unwrap();
        assert_eq!((first, rest), (&*record(b"one"), &*record(b"")));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let good = archive();
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            assert!(read(&bad).is_err(), "flipped at {at}");
        }
        assert!(matches!(read(&[good, vec![0]].concat()), Err(ArchiveError::Damaged { .. })));
    }

    #[test]
    fn what_is_no_archive_and_what_is_newer_is_told_apart() {
        assert!(matches!(read(b""), Err(ArchiveError::Foreign)));
        assert!(matches!(read(b"#!/bin/sh\nexit 0\n"), Err(ArchiveError::Foreign)));
        let mut newer = MAGIC.to_vec();
        newer.extend(2u16.to_le_bytes());
        let json = br#"{"cluster":"c","node":"n","program":"spillway 9.9.9","at":1,"else":true}"#;
        newer.extend(u32::try_from(json.len()).unwrap().to_le_bytes());
        newer.extend(json);
        newer.extend(crc32c::crc32c(&newer).to_le_bytes());
        newer.extend(b"whatever comes then");
        let error = read(&newer).unwrap_err().to_string();
        assert_eq!(error, "it has format version 2, written by spillway 9.9.9; this program reads version 1");
    }

    #[test]
    fn records_are_whole_or_none() {
        assert_eq!(records_in(b""), Some(0));
        assert_eq!(records_in(&record(b"abc")), Some(1));
        assert_eq!(records_in(b"\x05\0\0\0abc"), None);
        assert_eq!(records_in(b"\x05\0\0"), None);
        assert_eq!(records_in(b"\xff\xff\xff\xff"), None);
    }
}
