//! The words of our binary layouts: LEB128 variable-length integers, little-endian `f64` and `u64`, and a reader that
//! never panics and never allocates.

/// Why bytes are not what they should be. The bytes come from a peer or a disk, so this is never our own bug alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the bytes end inside a field")]
    Truncated,
    #[error("layout version {0} is not known to this program")]
    Version(u8),
    #[error("{0}")]
    Malformed(&'static str),
}

/// Appends `value` in 1 to 10 bytes, seven bits each, lowest first, the top bit set on all but the last.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// Appends the 8 bytes of `value`, little-endian.
pub fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a byte string: its length as varint, then the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[allow(clippy::cast_possible_truncation, reason = "the low byte is what is asked for")]
fn low_byte(value: u64) -> u8 {
    value as u8
}

/// Reads fields off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// `Truncated` when there are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// `Truncated` at the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// A variable-length integer.
    ///
    /// # Errors
    /// `Truncated` at the end, `Malformed` when it does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("a variable-length integer of more than 64 bits"))
    }

    /// A variable-length integer of at most 32 bits.
    ///
    /// # Errors
    /// As [`Reader::varint`], and `Malformed` when it is larger.
    pub fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Malformed("an integer of more than 32 bits"))
    }

    /// A variable-length count of things of which each takes at least `bytes_each` bytes. So a count can never make
    /// the caller reserve more than the bytes at hand could hold.
    ///
    /// # Errors
    /// As [`Reader::varint`], and `Truncated` when the rest cannot hold that many.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        match count.checked_mul(bytes_each) {
            Some(least) if least <= self.rest.len() => Ok(count),
            Some(_) | None => Err(DecodeError::Truncated),
        }
    }

    /// A fixed 8-byte integer.
    ///
    /// # Errors
    /// `Truncated` at the end.
    pub fn u64_fixed(&mut self) -> Result<u64, DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*taken))
    }

    /// A number; any bits.
    ///
    /// # Errors
    /// `Truncated` at the end.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.u64_fixed().map(f64::from_bits)
    }

    /// A finite number.
    ///
    /// # Errors
    /// `Truncated` at the end, `Malformed` for an infinity or NaN.
    pub fn f64_finite(&mut self) -> Result<f64, DecodeError> {
        let value = self.f64()?;
        if value.is_finite() { Ok(value) } else { Err(DecodeError::Malformed("a number that is not finite")) }
    }
}
