//! Reading the layout of `deltas`, and the names that it shares with the snapshots of `window`.

use crate::partial::Partial;
use crate::rule::RuleId;
use crate::sketch::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::time::UnixSeconds;

pub(super) const VERSION: u8 = 2;
/// The longest name of an output that a peer may send.
pub const NAME_BYTES_MAX: usize = 65535;

/// The partial of one key and window, as it came from a shard. The name is that of an `OutputKey`.
#[derive(Debug)]
pub struct Delta<'a> {
    pub rule: RuleId,
    pub name: &'a [u8],
    pub window: UnixSeconds,
    pub partial: Partial,
}

/// What one flush holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Partials: pairs of key and window.
    pub partials: u64,
    /// Points folded into them.
    pub points: u64,
}

/// Reads all of `bytes` without keeping anything. What passes here, [`decode`] visits to its end.
///
/// # Errors
/// When the bytes are no deltas.
pub fn check(bytes: &[u8]) -> Result<Totals, DecodeError> {
    decode(bytes, |_| ())
}

/// Visits every partial in `bytes`, in their order. On an error, what stands before the fault has been visited: who
/// must not apply half of a flush calls [`check`] first.
///
/// # Errors
/// When the bytes are no deltas. Allocations are bounded by a small multiple of the bytes given.
pub fn decode(bytes: &[u8], mut visit: impl FnMut(Delta<'_>)) -> Result<Totals, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let mut totals = Totals::default();
    let mut names = NameReader::default();
    for _ in 0..reader.varint()? {
        let rule = reader.varint_u32()?;
        names.next(&mut reader)?;
        let windows = reader.varint()?;
        if windows == 0 {
            return Err(DecodeError::Malformed("a key without windows"));
        }
        let mut start = 0u32;
        for index in 0..windows {
            let step = reader.varint_u32()?;
            if index > 0 && step == 0 {
                return Err(DecodeError::Malformed("windows of a key out of order"));
            }
            start = start.checked_add(step).ok_or(DecodeError::Malformed("a window after the year 2106"))?;
            let partial = Partial::decode(&mut reader)?;
            totals.partials += 1;
            totals.points = totals.points.saturating_add(partial.points());
            visit(Delta { rule, name: names.name(), window: UnixSeconds(start), partial });
        }
    }
    if reader.remaining() > 0 {
        return Err(DecodeError::Malformed("bytes behind the last key"));
    }
    Ok(totals)
}

/// Appends `name` as what it does not share with the start of `previous`.
pub(crate) fn put_name(out: &mut Vec<u8>, previous: &[u8], name: &[u8]) {
    let shared = previous.iter().zip(name).take_while(|(left, right)| left == right).count();
    put_varint(out, shared as u64);
    put_bytes(out, &name[shared..]);
}

/// Reads what a run of [`put_name`] wrote.
#[derive(Debug, Default)]
pub(crate) struct NameReader {
    name: Vec<u8>,
}

impl NameReader {
    /// Reads the next name.
    pub(crate) fn next(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let shared = usize::try_from(reader.varint()?).map_err(|_| DecodeError::Truncated)?;
        if shared > self.name.len() {
            return Err(DecodeError::Malformed("a name that shares more than its predecessor has"));
        }
        let length = reader.count(1)?;
        if shared + length == 0 || shared + length > NAME_BYTES_MAX {
            return Err(DecodeError::Malformed("an empty name or one of more than 65535 bytes"));
        }
        self.name.truncate(shared);
        self.name.extend_from_slice(reader.take(length)?);
        Ok(())
    }

    /// The name read last.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }
}
