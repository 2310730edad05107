//! Which records are meant: by time and by series.

use super::record::{Content, Header};
use crate::batch::Batch;
use crate::pattern::{Pattern, PatternError, Selector};
use crate::time::UnixSeconds;
use bytes::Bytes;

/// A time range, both ends included, and perhaps a glob over series.
#[derive(Clone, Debug)]
pub struct Filter {
    from: UnixSeconds,
    to: UnixSeconds,
    glob: String,
    pattern: Option<Pattern>,
}

impl Filter {
    /// An empty `glob` selects every series.
    ///
    /// # Errors
    /// When the glob is none.
    pub fn new(from: UnixSeconds, to: UnixSeconds, glob: &str) -> Result<Filter, PatternError> {
        let pattern = if glob.is_empty() { None } else { Some(Pattern::compile(&Selector::Glob(glob.to_owned()))?) };
        Ok(Filter { from, to, glob: glob.to_owned(), pattern })
    }

    /// Whether it selects everything.
    pub fn is_all(&self) -> bool {
        self.from.0 == 0 && self.to.0 == u32::MAX && self.pattern.is_none()
    }

    /// Whether two filters select the same.
    pub(super) fn same(&self, other: &Filter) -> bool {
        (self.from, self.to, &self.glob) == (other.from, other.to, &other.glob)
    }

    /// Whether a record may have a point in the time range, by its header.
    pub(super) fn overlaps(&self, header: &Header<'_>) -> bool {
        header.min_ts <= self.to && self.from <= header.max_ts
    }

    /// Whether all points of a record lie in the time range.
    pub(super) fn contains(&self, header: &Header<'_>) -> bool {
        self.from <= header.min_ts && header.max_ts <= self.to
    }

    /// Whether there is a glob: then the content has to be read.
    pub(super) fn reads_content(&self) -> bool {
        self.pattern.is_some()
    }

    /// Whether any series of the content matches.
    pub(super) fn any_series(&self, content: Content, bytes: &Bytes) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| names(&lines(content, bytes)).any(|name| pattern.is_match(name)))
    }

    /// Whether every series of the content matches.
    pub(super) fn all_series(&self, content: Content, bytes: &Bytes) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| names(&lines(content, bytes)).all(|name| pattern.is_match(name)))
    }
}

/// The canonical lines of a record's content.
fn lines(content: Content, bytes: &Bytes) -> Bytes {
    match content {
        Content::Block { .. } => bytes.clone(),
        Content::Batch(_) => {
            Batch::decode(bytes.clone()).map(|batch| bytes.slice_ref(batch.body())).unwrap_or_default()
        }
    }
}

/// The series of canonical lines.
fn names(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    whole.map(|line| memchr::memchr(b' ', line).map_or(line, |end| &line[..end]))
}

/// Oldest and newest timestamp of canonical lines, which end in one; `None` without lines.
pub fn timestamps(lines: &[u8]) -> Option<(UnixSeconds, UnixSeconds)> {
    let mut bounds: Option<(u32, u32)> = None;
    let mut start = 0;
    // The last word of the line before, with its space: most lines of a block have the same.
    let mut last: &[u8] = &[];
    for end in memchr::memchr_iter(b'\n', lines) {
        let line = &lines[start..end];
        start = end + 1;
        if last.len() > 1 && line.ends_with(last) {
            continue;
        }
        let at = memchr::memrchr(b' ', line);
        last = at.map_or(&[], |space| &line[space..]);
        let digits = &line[at.map_or(0, |space| space + 1)..];
        let at = digits.iter().try_fold(0u32, |number, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            number.checked_mul(10)?.checked_add(u32::from(digit))
        });
        // What is no number is none of our lines; it may be from any time.
        let (low, high) = at.map_or((0, u32::MAX), |at| (at, at));
        bounds = Some(bounds.map_or((low, high), |(oldest, newest)| (oldest.min(low), newest.max(high))));
    }
    bounds.map(|(oldest, newest)| (UnixSeconds(oldest), UnixSeconds(newest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_lines_are_their_last_words() {
        for (lines, expected) in [
            (&b""[..], None),
            (b"a 1 60\n", Some((60, 60))),
            (b"a 1 60\nb;x=y 2.5 50\nc 3 4294967295\n", Some((50, u32::MAX))),
            (b"a 1 x\n", Some((0, u32::MAX))),
            (b"a 1 60\nb 1 60\nb 1 160\nb 1 60\nc 1 61\n", Some((60, 160))),
            (b"a 1 60\n60\nb 1 60\n", Some((60, 60))),
            (b"a 1 60\n\nb 1 60\n", Some((0, 60))),
        ] {
            let expected = expected.map(|(oldest, newest)| (UnixSeconds(oldest), UnixSeconds(newest)));
            assert_eq!(timestamps(lines), expected, "{}", lines.escape_ascii());
        }
    }

    #[test]
    fn a_glob_is_about_the_series_of_each_line() {
        let filter = Filter::new(UnixSeconds(0), UnixSeconds(u32::MAX), "web.*").expect("a glob");
        let block = Content::Block { epoch: 1, number: 1 };
        for (lines, any, all) in [
            (&b"web.a 1 60\nweb.b;dc=1 1 60\n"[..], true, true),
            (b"web.a 1 60\ndb.a 1 60\n", true, false),
            (b"db.a 1 60\n", false, false),
        ] {
            let bytes = Bytes::copy_from_slice(lines);
            assert_eq!((filter.any_series(block, &bytes), filter.all_series(block, &bytes)), (any, all));
        }
        assert!(Filter::new(UnixSeconds(0), UnixSeconds(9), "a.{").is_err());
    }
}
