//! Any bytes on a link: no panic, the same frames however they were read, and a frame that was understood is written
//! and understood again as the same frame. The second half gives the payload a checksum that fits, so that the fuzzer
//! reaches what stands behind it.
#![no_main]

use bytes::{Bytes, BytesMut};
use engine::wire::{Frame, RawFrame, decode, encode, next_raw};
use libfuzzer_sys::fuzz_target;

/// All frames of a stream, up to the first error.
fn frames<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Vec<RawFrame> {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match next_raw(&mut buffer) {
                Ok(Some(raw)) => found.push(raw),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fn round_trip(raw: RawFrame) {
    let Ok(frame) = decode(raw) else { return };
    let mut bytes = Vec::new();
    encode(&frame, &mut bytes);
    let mut buffer = BytesMut::from(bytes.as_slice());
    let again = next_raw(&mut buffer).expect("what was encoded is a frame").expect("and a whole one");
    assert!(buffer.is_empty(), "and no more than that");
    let again: Frame = decode(again).expect("what was encoded is understood");
    assert_eq!(again, frame);
}

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_at_checked(3) else { return };
    let whole = frames(std::iter::once(bytes));
    let pieces = frames(bytes.chunks(usize::from(head[2]) + 1));
    assert_eq!(whole, pieces, "the same frames, however they were read");
    whole.into_iter().for_each(round_trip);

    let mut payload = bytes.to_vec();
    payload.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    round_trip(RawFrame { kind: head[0], flags: head[1], payload: Bytes::from(payload) });
});
