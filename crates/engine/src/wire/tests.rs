use proptest::prelude::*;

use super::*;
use crate::batch::{Incarnation, Versions};
use crate::time::UnixSeconds;

fn id(seq: u32) -> BatchId {
    BatchId { sender: 0xA1, epoch: 3, seq }
}

fn samples() -> Vec<Frame> {
    let incarnation = Incarnation { sender: 9, epoch: 2, nonce: 77 };
    let included = Included { id: id(5), nonce: 77, from: 2, points: 100 };
    let group = Group { included: vec![included], deltas: Bytes::from_static(b"deltas") };
    vec![
        Frame::Hello(Hello {
            protocol: PROTOCOL,
            role: Role::Partial,
            cluster: "example".into(),
            node: "partial-1".into(),
            incarnation,
            versions: Versions { rules: 1, map: 2 },
            partitions: 16,
        }),
        Frame::HelloOk(HelloOk { node: "final-1".into(), window_bytes: 1 << 20, known_epoch: 7, retired: 6 }),
        Frame::Refuse(RefuseReason::DuplicateSender),
        Frame::Batch { attempt: true, class: Class::Replay, bytes: Bytes::from_static(b"any bytes") },
        Frame::Durable(Durable {
            ranges: vec![Range { sender: 9, epoch: 2, first: 4, last: 9 }],
            queue_delay_ms: 3,
            window_bytes: 5,
        }),
        Frame::Nack { id: id(1), reason: NackReason::Overloaded { retry_after_ms: 250 } },
        Frame::Nack { id: id(1), reason: NackReason::DuplicateSender },
        Frame::Nack { id: id(1), reason: NackReason::Retired { floor: 3 } },
        Frame::Watermark(Watermark { sender: 9, epoch: 2, at: UnixSeconds(1_700_000_000), oldest_ms: 12, retired: 1 }),
        Frame::Ping { echo: 1 },
        Frame::Pong { echo: u64::MAX },
        Frame::Drain,
        Frame::Rules(Bytes::from_static(b"{}")),
        Frame::Verdict(Verdict::Ready),
        Frame::Verdict(Verdict::Overloaded { queue_bytes: 7, lag_ms: 1200 }),
        Frame::Verdict(Verdict::Degraded { worker: "partial.shard.0".into(), restarts: 3, error: "panic".into() }),
        Frame::Flush(Flush { number: 8, partition: 15, lane: Lane::Suspect, groups: vec![group.clone(), group] }),
        Frame::FlushReply(FlushReply {
            number: 8,
            partition: 15,
            lane: Lane::First,
            groups: vec![
                GroupReply::Merged,
                GroupReply::Refused { included: vec![id(1), id(2)] },
                GroupReply::TooManyHoles { ids: vec![id(7)] },
                GroupReply::DuplicateSender { ids: vec![id(8)] },
                GroupReply::Retired { ids: vec![id(9)], floor: 3 },
                GroupReply::Malformed,
            ],
        }),
        Frame::Control(Word::Digest(5)),
        Frame::Control(Word::All("spillway control 1\n".into())),
        Frame::LeaseRequest(LeaseRequest {
            number: 3,
            lane: 1,
            max_bytes: 1 << 20,
            max_points: 50_000,
            from: UnixSeconds(5),
            to: UnixSeconds(u32::MAX),
            matching: "web.*".into(),
        }),
        Frame::Leased(Leased {
            number: 3,
            ticket: Ticket { lane: 1, ordinal: 9 },
            bytes: Bytes::from_static(b"a batch"),
        }),
        Frame::LeaseEnd(LeaseEnd { number: 3, granted: 1 }),
        Frame::Done(Done { outcome: Outcome::Delivered, tickets: vec![Ticket { lane: 1, ordinal: 9 }] }),
        Frame::Done(Done { outcome: Outcome::DuplicateSender, tickets: Vec::new() }),
        Frame::Backlog(Backlog {
            lanes: vec![LaneBacklog {
                lane: 1,
                destination: "aggregate:final-1".into(),
                points: 5,
                batches: 2,
                bytes: 700,
                leased: 3,
                head: 9,
                tail: 11,
                oldest: UnixSeconds(1_700_000_000),
                newest: UnixSeconds(1_700_000_060),
            }],
        }),
    ]
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    encode(frame, &mut out);
    out
}

fn read_all(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut buffer = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(raw) = next_raw(&mut buffer)? {
        frames.push(decode(raw)?);
    }
    Ok(frames)
}

#[test]
fn every_kind_survives_the_wire() {
    let all: Vec<u8> = samples().iter().flat_map(bytes_of).collect();
    assert_eq!(read_all(&all).expect("frames"), samples());
}

#[test]
fn a_frame_is_taken_only_when_it_is_whole() {
    for frame in samples() {
        let bytes = bytes_of(&frame);
        for cut in 0..bytes.len() {
            assert_eq!(read_all(&bytes[..cut]).expect("just short"), [], "{frame:?} cut at {cut}");
        }
    }
}

#[test]
fn a_damaged_control_frame_is_refused() {
    for frame in samples() {
        if matches!(frame, Frame::Batch { .. }) {
            continue; // a batch has checksums of its own, checked by who takes it
        }
        let bytes = bytes_of(&frame);
        for at in FRAME_HEAD..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(read_all(&damaged).is_err(), "{frame:?} damaged at {at}");
        }
    }
}

#[test]
fn lengths_out_of_range_are_refused_before_any_memory_is_taken() {
    assert_eq!(read_all(&[0, 0, 0, 0, 1, 0, 0, 0]), Err(FrameError::TooShort { length: 0 }));
    assert_eq!(read_all(&[255, 255, 255, 255, 1, 0, 0, 0]), Err(FrameError::TooLong { length: 0xFFFF_FFFF }));
    assert_eq!(read_all(&[9, 0, 0, 0, 200, 0, 0, 0]), Err(FrameError::UnknownKind { kind: 200 }));
    assert_eq!(read_all(b"GET / HTTP/1.1\r\n"), Err(FrameError::TooLong { length: 0x2054_4547 }));
}

#[test]
fn a_head_before_a_batch_equals_the_whole_frame() {
    let body = Bytes::from_static(b"some batch");
    let whole = bytes_of(&Frame::Batch { attempt: true, class: Class::Live, bytes: body.clone() });
    let head = batch_head(body.len(), true, Class::Live);
    assert_eq!([&head[..], &body[..]].concat(), whole);
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(read_all(&bytes));
    }

    #[test]
    fn a_true_checksum_over_nonsense_does_not_panic_either(
        kind in 1u8..=13, body in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut payload = body.clone();
        payload.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        drop(decode(RawFrame { kind, flags: 0, payload: Bytes::from(payload) }));
    }
}
