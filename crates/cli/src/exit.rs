//! Exit codes: what a script can rely on. `sysexits.h` names those from 64 on.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    /// `ledger` only: some node's books do not balance.
    Unbalanced,
    /// `spill verify` only: some records are damaged.
    Damaged,
    /// `rollout check` only: better not now.
    NotNow,
    /// Some nodes did not answer; they are named.
    Partial,
    /// It would lose data and `--force` was not given, or a node said no: why is told, and nothing was changed there.
    Refused,
    /// Wrong arguments or a wrong cluster file; every problem is listed and nothing was started.
    Usage,
    /// No node answered, or a port is taken.
    Unavailable,
    /// A fault of Spillway itself.
    Internal,
    /// A node did not let us in: no token, a wrong one, or one that may not change anything.
    NoPermission,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Unbalanced | Exit::Damaged | Exit::NotNow => 1,
            Exit::Partial => 2,
            Exit::Refused => 3,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::NoPermission => 77,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0   all is well
  1   ledger: the books of at least one node do not balance; spill verify: records are damaged;
      rollout check: better not now
  2   some nodes did not answer (they are named); the rest of the answer is good
  3   refused: it would lose data and --force was not given, or a node said no; nothing was changed there
  64  wrong arguments or a wrong cluster file; every problem is listed, nothing was started
  69  no node answered, or a port is taken
  70  a fault of Spillway itself
  77  a node did not let us in: no token, a wrong one, or one with which one may not change anything";

/// Why a command could not do its work, and how the program ends for it.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
}

impl Failure {
    pub fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Usage, error: error.into() }
    }

    pub fn refused(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Refused, error: error.into() }
    }

    pub fn unavailable(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Unavailable, error: error.into() }
    }
}

/// What is not said to be anything else is our own fault.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure { exit: Exit::Internal, error }
    }
}
