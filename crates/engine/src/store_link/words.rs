//! What a link and its shell say to each other.

use bytes::Bytes;

/// Whole canonical lines, each with its LF, in the order in which the store shall see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The lines. An empty block is taken and forgotten.
    pub bytes: Bytes,
    /// How many lines.
    pub points: u32,
}

/// What happened to the connection. Offers and pulls are methods, because they answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection asked for by [`Command::Connect`] stands.
    Connected,
    /// It does not.
    ConnectFailed,
    /// The kernel took bytes; the first `blocks` blocks of the hand are in it wholly. Zero: only a part of one.
    Written {
        /// How many blocks.
        blocks: usize,
    },
    /// EOF that is no answer to our half-close.
    PeerClosed,
    /// The connection broke, or the shell that owned it did.
    Reset,
    /// EOF in answer to our half-close: the store has read everything.
    Fin,
    /// Time has passed, see [`super::StoreLink::next_deadline`].
    Tick,
    /// Shutdown: takes no more, half-closes when all is written.
    Drain,
}

/// What the shell owes the world. Done in order, before the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a connection; answer with `Connected` or `ConnectFailed`.
    Connect,
    /// `shutdown(WR)`; answer with `Fin`, `PeerClosed` or `Reset`.
    HalfClose,
    /// Forget the connection, with whatever it still holds.
    Close,
}

/// Whether the store answers a half-close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipts {
    /// No rotation has told yet.
    Unknown,
    /// At least one FIN came.
    Supported,
    /// Two rotations in a row gave no FIN and none ever did, or two with the longest patience.
    Unsupported,
}

/// The state of the connection, for status pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting to connect.
    Disconnected,
    /// Connecting.
    Connecting,
    /// Writing.
    Open,
    /// Half-closed, waiting for the receipt.
    AwaitingReceipt,
    /// Shut down, with nothing left to write.
    Drained,
}
