//! The Graphite plaintext line: what Spillway takes for a point, what it refuses, and how it writes a point again.
//!
//! A line is `name value [timestamp]`, ended by LF or CRLF, its fields separated (and surrounded) by any run of spaces
//! and tabs. One bad line is one counted [`Reject`]; it never affects the next line and never closes a connection.
//!
//! * **name**: UTF-8 without control characters, at most [`LinePolicy::max_name_bytes`], tags in normal form afterwards
//!   (`crate::tags`). Dots are not tidied up: `a..b` and `..a` stay as they are, as carbon keeps them.
//! * **value**: a finite decimal number: sign, digits, fraction, exponent. `nan` and `inf` have reasons of their own.
//! * **timestamp**: seconds since 1970 as decimal digits with or without a fraction (which is cut off),
//!   1..=`u32::MAX`; `-1`, `N` and (by policy) no timestamp at all mean "now", which is resolved here, so that every
//!   later copy of the point carries the same second.
//!
//! Where peers disagree about a form, COMPAT 4.3 lists what each of them does. We differ from carbon in that
//! timestamps with an exponent and values with `_` are refused, and in that nothing here ends a connection.
//!
//! Nothing on the way of a good line allocates once its [`Scratch`] is warm.

mod fields;
pub mod framing;
mod quick;
mod reject;
#[cfg(test)]
mod tests;

pub use framing::Framer;
pub use reject::Reject;

use crate::tags;
use crate::time::UnixSeconds;
use fields::TimestampField;

/// Limits and choices of the line grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinePolicy {
    /// Longest line in bytes, without its LF. Longer ones are [`Reject::LineTooLong`].
    pub max_line_bytes: usize,
    /// Longest name in bytes as the client sent it, tags included.
    pub max_name_bytes: usize,
    /// Whether a line without a timestamp means "now"; otherwise it is [`Reject::TooFewFields`].
    pub two_fields: bool,
}

impl Default for LinePolicy {
    fn default() -> LinePolicy {
        LinePolicy {
            // carbon's own limit (twisted's LineReceiver.MAX_LENGTH): what it took, we take.
            max_line_bytes: 16 * 1024,
            // Half of Linux's PATH_MAX: a whisper file of that name still has a path that can be opened.
            max_name_bytes: 2048,
            two_fields: true,
        }
    }
}

/// Working memory of the parser, to be kept and used again for every line.
#[derive(Debug, Default)]
pub struct Scratch {
    tags: tags::Scratch,
}

/// One accepted line. Borrows from the line, or from the [`Scratch`] where the tags had to be put in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point<'a> {
    /// The series: UTF-8, not empty, tags in normal form.
    pub name: &'a [u8],
    /// Finite.
    pub value: f64,
    /// The value as the client wrote it; what is sent on, so that no digit changes on the way.
    pub value_text: &'a [u8],
    /// The point's own second, or the second of its arrival if it had none.
    pub timestamp: UnixSeconds,
}

/// What becomes of the lines of a block, in their order.
pub trait LineSink {
    /// An accepted line. The point lives only as long as this call.
    fn point(&mut self, point: &Point<'_>);
    /// An accepted line that came in canonical form: `line`, LF included, is what [`write_canonical`] would write.
    fn canonical(&mut self, point: &Point<'_>, line: &[u8]) {
        debug_assert!(line.ends_with(b"\n"), "BUG: a canonical line comes with its LF");
        self.point(point);
    }
    /// A refused line, without its LF.
    fn reject(&mut self, line: &[u8], why: Reject);
}

/// Parses one line.
///
/// `line`: without its LF; a CR at its end is not part of the last field.
/// `now`: what a line without a timestamp of its own gets; not zero.
///
/// # Errors
/// The first reason found why the line is no point.
pub fn parse_line<'a>(
    line: &'a [u8],
    now: UnixSeconds,
    policy: &LinePolicy,
    scratch: &'a mut Scratch,
) -> Result<Point<'a>, Reject> {
    if line.len() > policy.max_line_bytes {
        return Err(Reject::LineTooLong);
    }
    let line = fields::trim(line);
    if line.is_empty() {
        return Err(Reject::Empty);
    }
    let (sent_name, traits) = fields::name(line);
    let rest = fields::skip_separators(&line[sent_name.len()..]);
    if rest.is_empty() {
        return Err(Reject::TooFewFields);
    }
    let (value, value_text) = fields::value(rest).map_err(|why| fields::or_too_many(line, why))?;
    let rest = fields::skip_separators(&rest[value_text.len()..]);
    let timestamp = if rest.is_empty() {
        if !policy.two_fields {
            return Err(Reject::TooFewFields);
        }
        now
    } else {
        match fields::timestamp(rest).map_err(|why| fields::or_too_many(line, why))? {
            TimestampField::Now => now,
            TimestampField::At(seconds) => seconds,
        }
    };
    if sent_name.len() > policy.max_name_bytes {
        return Err(Reject::NameTooLong);
    }
    let name = if traits.plain() {
        sent_name
    } else {
        fields::check_characters(sent_name)?;
        tags::normalise(sent_name, &mut scratch.tags).map_err(|why| match why {
            tags::BadName::NoPath => Reject::EmptyName,
            tags::BadName::Tag => Reject::BadTag,
        })?
    };
    Ok(Point { name, value, value_text, timestamp })
}

/// Parses every line of `block` in order and tells `sink` about each: exactly one call a line.
///
/// `block`: whole lines, each ending in LF, as [`Framer::push`] makes them. Bytes after the last LF are taken for a line.
pub fn parse_block(
    block: &[u8],
    now: UnixSeconds,
    policy: &LinePolicy,
    scratch: &mut Scratch,
    sink: &mut impl LineSink,
) {
    let mut rest = block;
    while !rest.is_empty() {
        if let Some((point, length)) = quick::point(rest, policy) {
            let (line, behind) = rest.split_at(length);
            sink.canonical(&point, line);
            rest = behind;
            continue;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        match parse_line(line, now, policy, scratch) {
            Ok(point) => sink.point(&point),
            Err(why) => sink.reject(line, why),
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
}

/// Appends `name value timestamp\n` with single spaces: the one form in which points are batched, stored and sent.
///
/// The value keeps the client's text; the timestamp is the resolved one.
#[inline]
pub fn write_canonical(point: &Point<'_>, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let timestamp = digits.format(point.timestamp.0).as_bytes();
    out.reserve(point.name.len() + point.value_text.len() + timestamp.len() + 3);
    out.extend_from_slice(point.name);
    out.push(b' ');
    out.extend_from_slice(point.value_text);
    out.push(b' ');
    out.extend_from_slice(timestamp);
    out.push(b'\n');
}
