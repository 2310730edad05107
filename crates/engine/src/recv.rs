//! Every way a read or an accept can turn out, and what to do about it: decided here and nowhere else.
//!
//! The shell turns what the kernel said into a [`ReadOutcome`] or an [`AcceptOutcome`] and does what [`Disposition`]
//! says. An outcome ends at most the one connection it belongs to; a listener never ends by an outcome. A bad line is
//! no outcome: it is counted by the line parser, and the connection goes on.

mod handshake;

use std::io::ErrorKind;
use std::time::Duration;

pub use handshake::{HandshakeFault, begins_tls, may_begin_tls};

/// How long a listener rests when the process or the machine has no file left: long enough for some to be closed, short
/// enough for a client's first retry.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// Linux errno values, for outcomes that `ErrorKind` has no stable name for (asm-generic/errno*.h).
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EPROTO: i32 = 71;
const ENOPROTOOPT: i32 = 92;
const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const ENOBUFS: i32 = 105;
const ETIMEDOUT: i32 = 110;
const EHOSTDOWN: i32 = 112;
const EHOSTUNREACH: i32 = 113;
const ENONET: i32 = 64;

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// That many bytes, at least one.
    Data(usize),
    /// The peer closed between two lines (or frames).
    Eof,
    /// The peer closed inside a line; the held bytes are no line and are counted as rejected.
    EofInLine { held_bytes: usize },
    /// The peer reset the connection.
    Reset,
    /// The kernel gave the peer up: keepalive or `TCP_USER_TIMEOUT`.
    PeerGone,
    /// No byte for the idle time-out, between two lines. The shell's timer, not the kernel's.
    Idle,
    /// A line begun and not ended within the line time-out. The shell's timer.
    SlowLine { held_bytes: usize },
    /// Nothing to read yet.
    WouldBlock,
    /// A signal came in between.
    Interrupted,
    /// Our own side was shut down.
    BrokenPipe,
    /// No memory for the read.
    NoMemory,
    /// TLS failed, or came where none is spoken.
    Tls(HandshakeFault),
    /// Anything else; the kind is kept for the log.
    Other(ErrorKind),
}

impl ReadOutcome {
    /// From a read that returned `count` bytes while `held_bytes` of an unfinished line were already held.
    pub fn of_count(count: usize, held_bytes: usize) -> ReadOutcome {
        match (count, held_bytes) {
            (0, 0) => ReadOutcome::Eof,
            (0, held_bytes) => ReadOutcome::EofInLine { held_bytes },
            (count, _) => ReadOutcome::Data(count),
        }
    }

    /// From a read that failed. `raw`: the errno, where there is one.
    #[allow(clippy::wildcard_enum_match_arm, reason = "`ErrorKind` is not ours and is non-exhaustive")]
    pub fn of_error(kind: ErrorKind, raw: Option<i32>) -> ReadOutcome {
        match (kind, raw) {
            (_, Some(ENOMEM | ENOBUFS)) | (ErrorKind::OutOfMemory, _) => ReadOutcome::NoMemory,
            (_, Some(ETIMEDOUT | EHOSTUNREACH | ENETUNREACH | EHOSTDOWN)) => ReadOutcome::PeerGone,
            (kind, _) => match kind {
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => ReadOutcome::Reset,
                ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    ReadOutcome::PeerGone
                }
                ErrorKind::WouldBlock => ReadOutcome::WouldBlock,
                ErrorKind::Interrupted => ReadOutcome::Interrupted,
                ErrorKind::BrokenPipe | ErrorKind::NotConnected => ReadOutcome::BrokenPipe,
                ErrorKind::UnexpectedEof => ReadOutcome::EofInLine { held_bytes: 0 },
                other => ReadOutcome::Other(other),
            },
        }
    }

    /// What to do.
    pub fn disposition(self) -> Disposition {
        match self {
            ReadOutcome::Data(_) => Disposition::Continue,
            ReadOutcome::WouldBlock | ReadOutcome::Interrupted => Disposition::Retry,
            ReadOutcome::Eof => Disposition::Close { reason: CloseReason::Eof },
            ReadOutcome::EofInLine { .. } => Disposition::Close { reason: CloseReason::EofInLine },
            ReadOutcome::Reset => Disposition::Close { reason: CloseReason::Reset },
            ReadOutcome::PeerGone => Disposition::Close { reason: CloseReason::PeerGone },
            ReadOutcome::Idle => Disposition::Close { reason: CloseReason::TimeoutIdle },
            ReadOutcome::SlowLine { .. } => Disposition::Close { reason: CloseReason::TimeoutLine },
            ReadOutcome::BrokenPipe => Disposition::Close { reason: CloseReason::BrokenPipe },
            ReadOutcome::NoMemory => Disposition::Close { reason: CloseReason::NoMemory },
            ReadOutcome::Tls(fault) => Disposition::Close { reason: CloseReason::Tls(fault) },
            ReadOutcome::Other(_) => Disposition::Close { reason: CloseReason::Io },
        }
    }
}

/// What one accept brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// A connection.
    Connection,
    /// A connection beyond the configured limit: it is closed at once.
    OverLimit,
    /// No connection waits.
    WouldBlock,
    /// A signal came in between.
    Interrupted,
    /// The connection was gone before it was accepted, or came with a network error of its own (accept(2): these are to
    /// be treated like `EAGAIN`).
    Gone,
    /// The process has no file descriptor left (EMFILE).
    ProcessFiles,
    /// The machine has no file descriptor left (ENFILE).
    SystemFiles,
    /// No memory for a socket.
    NoMemory,
    /// Anything else; the kind is kept for the log.
    Other(ErrorKind),
}

impl AcceptOutcome {
    /// From an accept that failed. `raw`: the errno, where there is one.
    #[allow(clippy::wildcard_enum_match_arm, reason = "`ErrorKind` is not ours and is non-exhaustive")]
    pub fn of_error(kind: ErrorKind, raw: Option<i32>) -> AcceptOutcome {
        match (kind, raw) {
            (_, Some(EMFILE)) => AcceptOutcome::ProcessFiles,
            (_, Some(ENFILE)) => AcceptOutcome::SystemFiles,
            (_, Some(ENOMEM | ENOBUFS)) | (ErrorKind::OutOfMemory, _) => AcceptOutcome::NoMemory,
            (
                _,
                Some(
                    ENETDOWN | EPROTO | ENOPROTOOPT | EHOSTDOWN | ENONET | EHOSTUNREACH | EOPNOTSUPP | ENETUNREACH
                    | ETIMEDOUT,
                ),
            ) => AcceptOutcome::Gone,
            (kind, _) => match kind {
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => AcceptOutcome::Gone,
                ErrorKind::WouldBlock => AcceptOutcome::WouldBlock,
                ErrorKind::Interrupted => AcceptOutcome::Interrupted,
                other => AcceptOutcome::Other(other),
            },
        }
    }

    /// What to do. The listener is kept in every case: an unknown error pauses it, so that it cannot spin.
    pub fn disposition(self) -> Disposition {
        match self {
            AcceptOutcome::Connection => Disposition::Continue,
            AcceptOutcome::OverLimit => Disposition::Close { reason: CloseReason::TooManyConnections },
            AcceptOutcome::WouldBlock | AcceptOutcome::Interrupted | AcceptOutcome::Gone => Disposition::Retry,
            AcceptOutcome::ProcessFiles
            | AcceptOutcome::SystemFiles
            | AcceptOutcome::NoMemory
            | AcceptOutcome::Other(_) => Disposition::PauseAccept(ACCEPT_PAUSE),
        }
    }

    /// The word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            AcceptOutcome::Connection => "connection",
            AcceptOutcome::OverLimit => "over_limit",
            AcceptOutcome::WouldBlock => "would_block",
            AcceptOutcome::Interrupted => "interrupted",
            AcceptOutcome::Gone => "gone",
            AcceptOutcome::ProcessFiles => "process_files",
            AcceptOutcome::SystemFiles => "system_files",
            AcceptOutcome::NoMemory => "no_memory",
            AcceptOutcome::Other(_) => "other",
        }
    }
}

/// What the shell must do about an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Go on with what came.
    Continue,
    /// Ask the kernel again (when it says that there is something).
    Retry,
    /// End this connection, count it by reason, keep everything else.
    Close { reason: CloseReason },
    /// Keep the listener, accept nothing for this long, count it.
    PauseAccept(Duration),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The peer closed between two lines: the ordinary end.
    Eof,
    /// The peer closed inside a line.
    EofInLine,
    /// The peer reset the connection.
    Reset,
    /// The kernel gave the peer up.
    PeerGone,
    /// No byte for the idle time-out.
    TimeoutIdle,
    /// A line begun and not ended in time (slow-loris).
    TimeoutLine,
    /// Our own side was shut down.
    BrokenPipe,
    /// No memory for the read.
    NoMemory,
    /// Another I/O error.
    Io,
    /// More connections than configured.
    TooManyConnections,
    /// A frame that is no frame; links only.
    BadFrame,
    /// The node stops.
    Shutdown,
    /// TLS failed, or came where none is spoken.
    Tls(HandshakeFault),
}

impl CloseReason {
    /// Every reason, in the order of the enum.
    pub const ALL: [CloseReason; 12 + HandshakeFault::ALL.len()] = with_faults([
        CloseReason::Eof,
        CloseReason::EofInLine,
        CloseReason::Reset,
        CloseReason::PeerGone,
        CloseReason::TimeoutIdle,
        CloseReason::TimeoutLine,
        CloseReason::BrokenPipe,
        CloseReason::NoMemory,
        CloseReason::Io,
        CloseReason::TooManyConnections,
        CloseReason::BadFrame,
        CloseReason::Shutdown,
    ]);

    /// The word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            CloseReason::Eof => "eof",
            CloseReason::EofInLine => "eof_in_line",
            CloseReason::Reset => "reset",
            CloseReason::PeerGone => "peer_gone",
            CloseReason::TimeoutIdle => "timeout_idle",
            CloseReason::TimeoutLine => "timeout_line",
            CloseReason::BrokenPipe => "broken_pipe",
            CloseReason::NoMemory => "no_memory",
            CloseReason::Io => "io",
            CloseReason::TooManyConnections => "too_many_connections",
            CloseReason::BadFrame => "bad_frame",
            CloseReason::Shutdown => "shutdown",
            CloseReason::Tls(fault) => fault.as_str(),
        }
    }
}

/// `reasons` and behind them every fault of TLS.
const fn with_faults<const N: usize, const M: usize>(reasons: [CloseReason; N]) -> [CloseReason; M] {
    let mut all = [CloseReason::Shutdown; M];
    let mut index = 0;
    while index < M {
        all[index] = if index < N { reasons[index] } else { CloseReason::Tls(HandshakeFault::ALL[index - N]) };
        index += 1;
    }
    all
}

#[cfg(test)]
mod tests;
