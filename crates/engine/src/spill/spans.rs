//! The timestamps of a lane's pending records, as bounds over pieces of the lane: few of them, and never too narrow.

use std::collections::VecDeque;

use super::books::Books;
use crate::time::UnixSeconds;

/// Pieces at most; then neighbours become one.
const PIECES_MAX: usize = 256;
/// Records of one piece, until pieces are joined.
const RECORDS: u64 = 16;

#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u64,
    last: u64,
    oldest: UnixSeconds,
    newest: UnixSeconds,
}

/// Bounds for records in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    pieces: VecDeque<Piece>,
    /// For records that nobody has looked at in this life: what the books say of them.
    unseen: Option<(UnixSeconds, UnixSeconds)>,
}

impl Spans {
    /// Forgets the pieces; `bounds` hold for everything until it is [`Spans::add`]ed and [`Spans::seen`].
    pub(super) fn unseen(&mut self, bounds: Option<(UnixSeconds, UnixSeconds)>) {
        self.pieces.clear();
        self.unseen = bounds;
    }

    /// Every pending record was added.
    pub(super) fn seen(&mut self) {
        self.unseen = None;
    }

    /// A record is pending.
    pub(super) fn add(&mut self, ordinal: u64, oldest: UnixSeconds, newest: UnixSeconds) {
        // A check runs beside appends, so a record may belong between pieces that are there.
        let at = self.pieces.partition_point(|piece| piece.first <= ordinal);
        if let Some(piece) = at.checked_sub(1).and_then(|before| self.pieces.get_mut(before))
            && (ordinal <= piece.last || (ordinal == piece.last + 1 && ordinal - piece.first < RECORDS))
        {
            piece.last = piece.last.max(ordinal);
            piece.oldest = piece.oldest.min(oldest);
            piece.newest = piece.newest.max(newest);
            return;
        }
        self.pieces.insert(at, Piece { first: ordinal, last: ordinal, oldest, newest });
        if self.pieces.len() > PIECES_MAX {
            self.join_neighbours();
        }
    }

    /// Halves the number of pieces.
    fn join_neighbours(&mut self) {
        let mut joined = VecDeque::with_capacity(PIECES_MAX);
        let mut pieces = std::mem::take(&mut self.pieces).into_iter();
        while let Some(mut piece) = pieces.next() {
            if let Some(next) = pieces.next() {
                piece.last = next.last;
                piece.oldest = piece.oldest.min(next.oldest);
                piece.newest = piece.newest.max(next.newest);
            }
            joined.push_back(piece);
        }
        self.pieces = joined;
    }

    /// Forgets pieces in which nothing is pending any more.
    pub(super) fn trim(&mut self, books: &Books) {
        self.pieces.retain(|piece| books.next_pending(piece.first) <= piece.last);
    }

    /// Oldest and newest timestamp of what is pending; `None` when nothing is.
    pub(super) fn bounds(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        let pieces = self.pieces.iter().map(|piece| (piece.oldest, piece.newest)).chain(self.unseen);
        pieces.reduce(|(oldest, newest), (o, n)| (oldest.min(o), newest.max(n)))
    }
}
