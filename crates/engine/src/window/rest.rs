//! What is known of a block without reading its snapshot.

use crate::sketch::DecodeError;
use crate::sketch::codec::{Reader, put_varint};

const EMITTED: u8 = 1;
const COMPLETE: u8 = 2;
const DIRTY: u8 = 4;

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Points merged into it.
    pub points: u64,
    pub keys: u32,
    /// It was emitted at least once.
    pub emitted: bool,
    /// The watermark had passed when it was emitted last.
    pub complete: bool,
    /// There are keys to be emitted.
    pub dirty: bool,
    /// Records of the log below this number are in it.
    pub as_of: u64,
    /// CRC32C of the snapshot.
    pub crc: u32,
}

impl Rest {
    /// Whether there is nothing to emit and nothing to wait for, so far as the block itself knows.
    pub(super) fn is_at_rest(self) -> bool {
        self.complete && !self.dirty
    }

    /// Appends `flags u8 (emitted, complete, dirty), points varint, keys varint, as_of varint, crc u32`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        out.push(flag(self.emitted, EMITTED) | flag(self.complete, COMPLETE) | flag(self.dirty, DIRTY));
        put_varint(out, self.points);
        put_varint(out, u64::from(self.keys));
        put_varint(out, self.as_of);
        out.extend_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads what [`Rest::encode`] wrote off the front.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Rest, DecodeError> {
        let flags = reader.u8()?;
        if flags & !(EMITTED | COMPLETE | DIRTY) != 0 {
            return Err(DecodeError::Malformed("unknown flags of a block"));
        }
        let (points, keys, as_of) = (reader.varint()?, reader.varint_u32()?, reader.varint()?);
        let crc = reader.take(4)?.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let is = |flag| flags & flag != 0;
        Ok(Rest { points, keys, emitted: is(EMITTED), complete: is(COMPLETE), dirty: is(DIRTY), as_of, crc })
    }
}
