//! The three fields of a line. Every function here takes bytes that begin at its field.

use super::Reject;
use crate::time::UnixSeconds;

/// What was seen in the bytes of a name while its end was looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameTraits(bool);

impl NameTraits {
    /// Printable ASCII without `;` or a leading `~`: valid and in normal form as it stands.
    pub(super) fn plain(self) -> bool {
        self.0
    }
}

pub(super) enum TimestampField {
    Now,
    At(UnixSeconds),
}

const fn is_separator(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Cuts one CR at the end, then spaces and tabs at both ends.
#[inline]
pub(super) fn trim(line: &[u8]) -> &[u8] {
    let mut line = line.strip_suffix(b"\r").unwrap_or(line);
    while let [rest @ .., last] = line
        && is_separator(*last)
    {
        line = rest;
    }
    skip_separators(line)
}

#[inline]
pub(super) fn skip_separators(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_separator(*first)
    {
        bytes = rest;
    }
    bytes
}

fn until_separator(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr2(b' ', b'\t', bytes).unwrap_or(bytes.len())]
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// The high bit of every byte that is zero; bytes above the first hit may be marked wrongly.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS
}

/// The name at the start of `line`, up to the first space or tab, and what it is made of.
#[inline]
pub(super) fn name(line: &[u8]) -> (&[u8], NameTraits) {
    let (end, plain) = scan(line);
    // The scan also stops at control characters, but only separators end a name.
    if line.get(end).is_none_or(|byte| is_separator(*byte)) {
        (&line[..end], NameTraits(plain))
    } else {
        (until_separator(line), NameTraits(false))
    }
}

/// Where the first space or control character is (or the end), and whether what stands before it is plain: printable
/// ASCII without `;` or a leading `~`.
///
/// Eight bytes at a time: names are the longest part of a line, and this one pass finds their end and whether the slow
/// checks (UTF-8, control characters, tags) are needed at all.
#[inline]
pub(super) fn scan(line: &[u8]) -> (usize, bool) {
    let mut odd = u64::from(line.first() == Some(&b'~'));
    let (words, tail) = line.as_chunks::<8>();
    for (index, bytes) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*bytes);
        // Bytes up to and including the space: separators and control characters.
        let low = word.wrapping_sub(LOW_BITS * 0x21) & !word & HIGH_BITS;
        let marks =
            (word & HIGH_BITS) | zero_bytes(word ^ (LOW_BITS * b';' as u64)) | zero_bytes(word ^ (LOW_BITS * 0x7f));
        if low == 0 {
            odd |= marks;
            continue;
        }
        let at = low.trailing_zeros() / 8;
        odd |= marks & ((1_u64 << (at * 8)) - 1);
        return (index * 8 + at as usize, odd == 0);
    }
    let start = line.len() - tail.len();
    for (index, byte) in tail.iter().enumerate() {
        if *byte <= b' ' {
            return (start + index, odd == 0);
        }
        odd |= u64::from(*byte >= 0x7f || *byte == b';');
    }
    (line.len(), odd == 0)
}

/// Checks a name that is not plain ASCII.
pub(super) fn check_characters(name: &[u8]) -> Result<(), Reject> {
    let text = std::str::from_utf8(name).map_err(|_| Reject::BadUtf8)?;
    if text.chars().any(char::is_control) { Err(Reject::ControlCharacter) } else { Ok(()) }
}

/// The value at the start of `rest` and its text.
#[inline]
pub(super) fn value(rest: &[u8]) -> Result<(f64, &[u8]), Reject> {
    match fast_float2::parse_partial::<f64, _>(rest) {
        Ok((value, length)) if value.is_finite() && rest.get(length).is_none_or(|next| is_separator(*next)) => {
            Ok((value, &rest[..length]))
        }
        Ok(_) | Err(_) => Err(why_no_value(until_separator(rest))),
    }
}

#[cold]
fn why_no_value(field: &[u8]) -> Reject {
    let unsigned = field.strip_prefix(b"-").or_else(|| field.strip_prefix(b"+")).unwrap_or(field);
    if unsigned.eq_ignore_ascii_case(b"nan") {
        return Reject::Nan;
    }
    // What is left and still parses as a whole is a literal infinity, or overflows to one.
    if fast_float2::parse::<f64, _>(field).is_ok_and(f64::is_infinite) { Reject::Infinite } else { Reject::BadValue }
}

/// The timestamp that `rest` consists of.
#[inline]
pub(super) fn timestamp(rest: &[u8]) -> Result<TimestampField, Reject> {
    // Ten digits are enough until 2286, and cannot overflow.
    if rest.len() <= 10 {
        let mut seconds = 0_u64;
        let mut digits_only = true;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            digits_only &= digit <= 9;
            seconds = seconds.wrapping_mul(10).wrapping_add(u64::from(digit));
        }
        if digits_only {
            return in_range(seconds);
        }
    }
    unusual_timestamp(rest)
}

#[inline]
fn in_range(seconds: u64) -> Result<TimestampField, Reject> {
    match u32::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Ok(TimestampField::At(UnixSeconds(seconds))),
        Ok(_) | Err(_) => Err(Reject::TimestampOutOfRange),
    }
}

/// Everything but up to ten digits: `N`, `-1`, a fraction, leading zeros, too large.
#[cold]
fn unusual_timestamp(field: &[u8]) -> Result<TimestampField, Reject> {
    if field == b"N" {
        return Ok(TimestampField::Now);
    }
    let (negative, unsigned) = field.strip_prefix(b"-").map_or((false, field), |rest| (true, rest));
    let dot = memchr::memchr(b'.', unsigned).unwrap_or(unsigned.len());
    let fraction = unsigned.get(dot + 1..).unwrap_or_default();
    if dot == 0 || !unsigned[..dot].iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Reject::BadTimestamp);
    }
    let seconds = unsigned[..dot]
        .iter()
        .fold(0_u64, |seconds, byte| seconds.saturating_mul(10).saturating_add(u64::from(byte - b'0')));
    match (negative, seconds) {
        (true, 1) if fraction.iter().all(|digit| *digit == b'0') => Ok(TimestampField::Now),
        (true, _) => Err(Reject::TimestampOutOfRange),
        (false, seconds) => in_range(seconds),
    }
}

/// The better reason for a bad second or third field: `disk usage 5 1700000000` has a space too many, not a bad value.
#[cold]
pub(super) fn or_too_many(line: &[u8], why: Reject) -> Reject {
    let fields = line.split(|byte| is_separator(*byte)).filter(|field| !field.is_empty()).count();
    if fields > 3 { Reject::TooManyFields } else { why }
}
