use std::collections::BTreeSet;
use std::io;

use super::*;

const fn close(reason: CloseReason) -> Disposition {
    Disposition::Close { reason }
}

#[track_caller]
fn check(outcome: ReadOutcome, expected: Disposition) {
    assert_eq!(outcome.disposition(), expected, "{outcome:?}");
}

/// As the shell does it: errno to `io::Error` to outcome.
fn read_failed(errno: i32) -> ReadOutcome {
    let error = io::Error::from_raw_os_error(errno);
    ReadOutcome::of_error(error.kind(), error.raw_os_error())
}

fn accept_failed(errno: i32) -> AcceptOutcome {
    let error = io::Error::from_raw_os_error(errno);
    AcceptOutcome::of_error(error.kind(), error.raw_os_error())
}

#[test]
fn data_goes_on_and_end_of_file_depends_on_held_bytes() {
    check(ReadOutcome::of_count(17, 0), Disposition::Continue);
    check(ReadOutcome::of_count(17, 9), Disposition::Continue);
    check(ReadOutcome::of_count(0, 0), close(CloseReason::Eof));
    assert_eq!(ReadOutcome::of_count(0, 9), ReadOutcome::EofInLine { held_bytes: 9 });
    check(ReadOutcome::of_count(0, 9), close(CloseReason::EofInLine));
}

#[test]
fn every_errno_of_recv_has_its_disposition() {
    let cases = [
        ("EINTR", 4, Disposition::Retry),
        ("EAGAIN", 11, Disposition::Retry),
        ("ECONNRESET", 104, close(CloseReason::Reset)),
        ("ECONNABORTED", 103, close(CloseReason::Reset)),
        ("ETIMEDOUT", 110, close(CloseReason::PeerGone)),
        ("EHOSTUNREACH", 113, close(CloseReason::PeerGone)),
        ("ENETUNREACH", 101, close(CloseReason::PeerGone)),
        ("EPIPE", 32, close(CloseReason::BrokenPipe)),
        ("ENOTCONN", 107, close(CloseReason::BrokenPipe)),
        ("ENOMEM", 12, close(CloseReason::NoMemory)),
        ("ENOBUFS", 105, close(CloseReason::NoMemory)),
        ("EBADF", 9, close(CloseReason::Io)),
        ("EIO", 5, close(CloseReason::Io)),
        ("an errno that does not exist", 4000, close(CloseReason::Io)),
    ];
    for (name, errno, expected) in cases {
        assert_eq!(read_failed(errno).disposition(), expected, "{name}");
    }
}

#[test]
fn kinds_without_an_errno_are_decided_too() {
    let cases = [
        (io::ErrorKind::TimedOut, close(CloseReason::PeerGone)),
        (io::ErrorKind::UnexpectedEof, close(CloseReason::EofInLine)),
        (io::ErrorKind::Interrupted, Disposition::Retry),
        (io::ErrorKind::InvalidData, close(CloseReason::Io)),
    ];
    for (kind, expected) in cases {
        check(ReadOutcome::of_error(kind, None), expected);
    }
}

#[test]
fn timers_of_the_shell_close_with_reasons_of_their_own() {
    check(ReadOutcome::Idle, close(CloseReason::TimeoutIdle));
    check(ReadOutcome::SlowLine { held_bytes: 3 }, close(CloseReason::TimeoutLine));
}

#[test]
fn no_failure_of_accept_ends_the_listener() {
    let pause = Disposition::PauseAccept(ACCEPT_PAUSE);
    let cases = [
        ("EMFILE", 24, pause),
        ("ENFILE", 23, pause),
        ("ENOMEM", 12, pause),
        ("ENOBUFS", 105, pause),
        ("EPERM, a firewall's", 1, pause),
        ("an errno that does not exist", 4000, pause),
        ("ECONNABORTED", 103, Disposition::Retry),
        ("EPROTO", 71, Disposition::Retry),
        ("EHOSTUNREACH", 113, Disposition::Retry),
        ("ENONET", 64, Disposition::Retry),
        ("EAGAIN", 11, Disposition::Retry),
        ("EINTR", 4, Disposition::Retry),
    ];
    for (name, errno, expected) in cases {
        assert_eq!(accept_failed(errno).disposition(), expected, "{name}");
    }
    assert_eq!(AcceptOutcome::Connection.disposition(), Disposition::Continue);
    assert_eq!(AcceptOutcome::OverLimit.disposition(), close(CloseReason::TooManyConnections));
}

#[test]
fn files_of_the_process_and_of_the_machine_are_told_apart() {
    assert_eq!(accept_failed(24), AcceptOutcome::ProcessFiles);
    assert_eq!(accept_failed(23), AcceptOutcome::SystemFiles);
}

#[test]
fn reasons_are_listed_once_and_have_words_of_their_own() {
    let words: BTreeSet<&str> = CloseReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), CloseReason::ALL.len());
    assert!(CloseReason::ALL.is_sorted(), "in the order of the enum, none twice");
    assert_eq!(CloseReason::ALL.last(), Some(&CloseReason::Tls(HandshakeFault::Io)));
    assert_eq!(CloseReason::ALL.len(), 12 + HandshakeFault::ALL.len());
    for fault in HandshakeFault::ALL {
        check(ReadOutcome::Tls(fault), close(CloseReason::Tls(fault)));
    }
}
