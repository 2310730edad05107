//! The blocks that are being written: large writes from blocks of any size, and which of them are wholly written.
//!
//! Blocks of 16 KiB and more are written from where they are; smaller ones are copied together, up to 128 KiB, because a
//! system call costs more than the copy.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use runtime::net::TcpStream;

/// Blocks below this size are copied together.
const SMALL_BYTES: usize = 16 * 1024;
/// What is copied together is at most this long.
const COPY_BYTES: usize = 128 * 1024;
/// Slices in one `writev`.
const SLICES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Hand {
    chunks: VecDeque<Bytes>,
    /// Bytes still to be written of each block, in the order of `chunks`.
    blocks: VecDeque<usize>,
    copy: BytesMut,
}

impl Hand {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.blocks.clear();
    }

    /// Takes the blocks out of `pulled`, in order.
    pub(crate) fn fill(&mut self, pulled: &mut Vec<Bytes>) {
        for block in pulled.drain(..) {
            self.blocks.push_back(block.len());
            if self.copy.len() + block.len() > COPY_BYTES {
                self.seal_copy();
            }
            if block.len() >= SMALL_BYTES {
                self.seal_copy();
                self.chunks.push_back(block);
            } else {
                if self.copy.is_empty() {
                    // Takes the former allocation again when everything in it is written.
                    self.copy.reserve(COPY_BYTES);
                }
                self.copy.extend_from_slice(&block);
            }
        }
        self.seal_copy();
    }

    /// One `writev`. Gives the number of blocks that are now wholly in the kernel; zero also when only a part of one is.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel takes nothing now; anything else means that the connection is gone.
    pub(crate) fn try_write(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.chunks.len().min(SLICES);
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
        }
        let written = match &slices[..count] {
            [one] => stream.try_write(one)?,
            many => stream.try_write_vectored(many)?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(self.advance(written))
    }

    fn advance(&mut self, written: usize) -> usize {
        let mut left = written;
        while let Some(chunk) = self.chunks.front_mut().filter(|_| left > 0) {
            let part = chunk.len().min(left);
            chunk.advance(part);
            left -= part;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        let (mut left, mut whole) = (written, 0);
        while let Some(block) = self.blocks.front_mut() {
            if *block > left {
                *block -= left;
                break;
            }
            left -= *block;
            self.blocks.pop_front();
            whole += 1;
        }
        whole
    }

    fn seal_copy(&mut self) {
        if !self.copy.is_empty() {
            self.chunks.push_back(self.copy.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lengths: &[usize], chunks: &[usize], writes: &[(usize, usize)]) {
        let mut hand = Hand::default();
        let mut pulled: Vec<Bytes> = lengths.iter().map(|&length| Bytes::from(vec![b'x'; length])).collect();
        hand.fill(&mut pulled);
        assert!(pulled.is_empty());
        assert_eq!(hand.chunks.iter().map(Bytes::len).collect::<Vec<_>>(), chunks, "chunks");
        for &(written, whole) in writes {
            assert_eq!(hand.advance(written), whole, "blocks wholly written after {written} bytes more");
        }
    }

    #[test]
    fn small_blocks_are_copied_together_and_large_ones_are_not() {
        check(&[100, 200, 20_000, 300, 400], &[300, 20_000, 700], &[]);
        check(&[15_000; 10], &[120_000, 30_000], &[]);
    }

    #[test]
    fn a_block_counts_when_its_last_byte_is_written() {
        check(&[100, 200, 20_000], &[300, 20_000], &[(99, 0), (1, 1), (199, 0), (2, 1), (19_998, 0), (1, 1)]);
        check(&[10, 10, 10], &[30], &[(30, 3)]);
    }
}
