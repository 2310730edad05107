//! Framing: what reads return becomes blocks of whole lines, however the bytes were cut on the way.
//!
//! The books are exact: of every stream, the number of LFs (plus one for an unfinished last line) equals the number of
//! lines put into blocks, plus those reported as overlong, plus those returned by [`Framer::end`]. Blocks and counts do
//! not depend on where the reads cut the stream.
//!
//! Memory: nothing on the heap while no unfinished line is held, else at most the line limit.

/// How much of an overlong line is kept to show it to a person.
const SAMPLE_BYTES: usize = 64;

/// Framing state of one connection.
#[derive(Debug)]
pub struct Framer {
    max_line_bytes: usize,
    /// The start of a line whose LF was not seen yet, within the limit.
    tail: Vec<u8>,
    /// Inside a line that is already counted as overlong: everything up to the next LF is dropped.
    skipping: bool,
    sample: [u8; SAMPLE_BYTES],
    sample_len: usize,
}

impl Framer {
    /// `max_line_bytes`: the longest line, without its LF; see `LinePolicy`.
    pub fn new(max_line_bytes: usize) -> Framer {
        Framer { max_line_bytes, tail: Vec::new(), skipping: false, sample: [0; SAMPLE_BYTES], sample_len: 0 }
    }

    /// Appends to `block` every line that `read` completes, each with its LF, and holds the rest.
    ///
    /// Returns how many overlong lines were met. Such a line counts when its length passes the limit, once, and is
    /// left out up to and including its LF; [`Framer::overlong_sample`] has the start of the latest.
    pub fn push(&mut self, read: &[u8], block: &mut Vec<u8>) -> u64 {
        let mut overlong = 0;
        let mut rest = read;
        if self.skipping {
            let Some(end) = memchr::memchr(b'\n', rest) else { return 0 };
            self.skipping = false;
            rest = &rest[end + 1..];
        }
        if !self.tail.is_empty() {
            match self.finish_tail(rest, block) {
                TailEnd::Open => return 0,
                TailEnd::Finished { used } => rest = &rest[used..],
                TailEnd::Overlong { used } => {
                    overlong += 1;
                    rest = &rest[used..];
                }
            }
        }
        while !rest.is_empty() {
            // A line that starts at `rest` and is not too long has its LF within this window, and so has every line
            // that starts later and ends here. One search from the end of the window replaces one per line.
            let window = rest.len().min(self.max_line_bytes.saturating_add(1));
            if let Some(last) = memchr::memrchr(b'\n', &rest[..window]) {
                block.extend_from_slice(&rest[..=last]);
                rest = &rest[last + 1..];
            } else if rest.len() <= self.max_line_bytes {
                self.hold(rest);
                break;
            } else {
                overlong += 1;
                self.keep_sample(&[], rest);
                rest = self.skip_line(rest);
            }
        }
        overlong
    }

    /// Bytes of the unfinished line that is held.
    pub fn held(&self) -> usize {
        self.tail.len()
    }

    /// The start of the latest overlong line, at most 64 bytes; empty if there was none.
    pub fn overlong_sample(&self) -> &[u8] {
        &self.sample[..self.sample_len]
    }

    /// The stream has ended: the unfinished line, to be counted as truncated. `None` if the stream ended at a line's
    /// end, or inside a line that was counted as overlong before.
    pub fn end(&mut self) -> Option<Vec<u8>> {
        self.skipping = false;
        if self.tail.is_empty() { None } else { Some(std::mem::take(&mut self.tail)) }
    }

    /// Looks for the end of the held line in `rest`.
    fn finish_tail(&mut self, rest: &[u8], block: &mut Vec<u8>) -> TailEnd {
        // The tail is never longer than the limit, so the room is at least one byte: that of the LF.
        let room = (self.max_line_bytes - self.tail.len()).saturating_add(1);
        let window = &rest[..rest.len().min(room)];
        if let Some(end) = memchr::memchr(b'\n', window) {
            block.extend_from_slice(&self.tail);
            block.extend_from_slice(&rest[..=end]);
            self.tail = Vec::new();
            return TailEnd::Finished { used: end + 1 };
        }
        if rest.len() < room {
            self.hold(rest);
            return TailEnd::Open;
        }
        let tail = std::mem::take(&mut self.tail);
        self.keep_sample(&tail, rest);
        let left = self.skip_line(rest).len();
        TailEnd::Overlong { used: rest.len() - left }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let needed = self.tail.len() + bytes.len();
        if needed > self.tail.capacity() {
            // Doubling, so that a client that sends byte by byte costs no copy per byte; never beyond the limit.
            let wanted = needed.max(self.tail.capacity() * 2).min(self.max_line_bytes).max(needed);
            self.tail.reserve_exact(wanted - self.tail.len());
        }
        self.tail.extend_from_slice(bytes);
    }

    /// What follows the first LF in `rest`; without one, nothing follows and the next reads are skipped too.
    fn skip_line<'r>(&mut self, rest: &'r [u8]) -> &'r [u8] {
        match memchr::memchr(b'\n', rest) {
            Some(end) => &rest[end + 1..],
            None => {
                self.skipping = true;
                &[]
            }
        }
    }

    fn keep_sample(&mut self, start: &[u8], rest: &[u8]) {
        self.sample_len = 0;
        for byte in start.iter().chain(rest).take_while(|byte| **byte != b'\n').take(SAMPLE_BYTES) {
            self.sample[self.sample_len] = *byte;
            self.sample_len += 1;
        }
    }
}

/// How `Framer::finish_tail` left the held line; `used` bytes of the read belong to it.
enum TailEnd {
    Open,
    Finished { used: usize },
    Overlong { used: usize },
}

#[cfg(test)]
mod tests;
