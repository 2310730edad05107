use super::*;
use crate::batch::{Builder, Claim, Incarnation, PartitionSet, Versions};

/// As the module's head draws it, field by field.
const GOLDEN: [&str; 15] = [
    "53505231",
    "00 04 01 06",
    "0100000000000000",
    "0a00000000000000",
    "6400000000000000",
    "02000000",
    "3c000000",
    "46000000",
    "e8030000",
    "0e000000",
    "07000000",
    "0900000000000000",
    "00000000",
    "612f623a3233",
    "6120312036300a6220322037300a",
];
const GOLDEN_CRC: [u8; 4] = [0x1b, 0xf2, 0x5c, 0x09];

fn block() -> (Header<'static>, &'static [u8]) {
    let lines = b"a 1 60\nb 2 70\n";
    let header = Header {
        why: Why::Journal,
        content: Content::Block { epoch: 7, number: 9 },
        destination: "a/b:23",
        before: Mark { ordinal: 1, points: 10, bytes: 100 },
        points: 2,
        min_ts: UnixSeconds(60),
        max_ts: UnixSeconds(70),
        spilled_at: UnixSeconds(1000),
        raw_bytes: 14,
    };
    (header, lines)
}

fn batch(lines: usize) -> Batch {
    let mut builder = Builder::new(PartitionSet(1), 0);
    for n in 0..lines {
        let line = format!("servers.web{}.cpu.user 12.5 {}\n", n % 100, 1_700_000_000 + n % 60);
        builder.append(line.as_bytes(), 1, UnixSeconds(1_700_000_000), UnixSeconds(1_700_000_059));
    }
    let claims = [Claim { partition: 0, from: 0 }];
    builder.seal(Incarnation { sender: 5, epoch: 6, nonce: 7 }, 8, Versions::default(), &claims)
}

fn batch_header(batch: &Batch) -> Header<'static> {
    Header {
        why: Why::Timeout,
        content: Content::Batch(batch.id()),
        destination: "aggregate",
        before: Mark::default(),
        points: batch.header().points,
        min_ts: batch.header().min_ts,
        max_ts: batch.header().max_ts,
        spilled_at: UnixSeconds(1),
        raw_bytes: u32::try_from(batch.bytes().len()).expect("small"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

#[test]
fn the_bytes_of_a_record_are_as_drawn() {
    let (header, lines) = block();
    let bytes = Codec::default().encode(&header, lines);
    let mut golden = unhex(&GOLDEN.concat());
    golden.extend_from_slice(&GOLDEN_CRC);
    assert_eq!(bytes, golden);
    let record = decode(&bytes).expect("a record");
    assert_eq!(record.header, header);
    assert_eq!(record.run().end, Mark { ordinal: 2, points: 12, bytes: 100 + bytes.len() as u64 });
    assert_eq!(Codec::default().verified(&record).expect("content"), lines);
}

#[test]
fn a_batch_comes_back_as_it_was_and_smaller_on_disk() {
    let batch = batch(4_000);
    let mut codec = Codec::default();
    let bytes = codec.encode(&batch_header(&batch), batch.bytes());
    assert!(bytes.len() * 3 < batch.bytes().len(), "{} of {} bytes", bytes.len(), batch.bytes().len());
    let record = decode(&bytes).expect("a record");
    assert_eq!(codec.verified(&record).expect("content"), batch.bytes());
}

#[test]
fn any_changed_byte_is_noticed() {
    let bytes = Codec::default().encode(&batch_header(&batch(3)), batch(3).bytes());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(decode(&damaged).is_err(), "byte {at}");
    }
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_newer_record_says_that_it_is_newer() {
    let (header, lines) = block();
    let mut bytes = Codec::default().encode(&header, lines);
    bytes[3] = b'2';
    assert_eq!(decode(&bytes).map(|record| record.stored_bytes), Err(RecordError::Newer { version: '2' }));
}

#[test]
fn content_that_is_not_what_the_header_says_is_found_by_verifying() {
    let mut codec = Codec::default();
    let (header, lines) = block();
    let wrong = codec.encode(&Header { points: 3, ..header }, lines);
    assert!(codec.verified(&decode(&wrong).expect("a record")).is_err());
    let batch = batch(3);
    let id = BatchId { seq: 9, ..batch.id() };
    let wrong = codec.encode(&Header { content: Content::Batch(id), ..batch_header(&batch) }, batch.bytes());
    assert!(codec.verified(&decode(&wrong).expect("a record")).is_err());
}

#[test]
fn moving_a_record_changes_its_place_and_nothing_else() {
    let batch = batch(100);
    let mut codec = Codec::default();
    let bytes = codec.encode(&batch_header(&batch), batch.bytes());
    let before = Mark { ordinal: 9, points: 8, bytes: 7 };
    let moved = moved(&decode(&bytes).expect("a record"), before, Why::Import);
    let record = decode(&moved).expect("a record");
    assert_eq!(record.header, Header { before, why: Why::Import, ..batch_header(&batch) });
    assert_eq!(codec.verified(&record).expect("content"), batch.bytes());
}

#[test]
fn a_destination_too_long_is_cut_between_characters() {
    let long = "é".repeat(200);
    assert_eq!(clipped(&long), "é".repeat(127));
    assert_eq!(clipped("short"), "short");
}
