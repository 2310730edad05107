//! Why a node does not start. Nothing of it runs then.

use std::io;

use runtime::identity::IdentityError;
use runtime::net::ListenError;
use thiserror::Error;

use crate::desk::DeskError;

/// See the module.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("start {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("{0}")]
    Config(String),
}

impl StartError {
    /// Whether a port is taken (exit code 69).
    pub fn is_taken(&self) -> bool {
        matches!(self, StartError::Listen(ListenError::Taken { .. }))
    }
}

/// For `map_err`: names what was being started.
pub fn io_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

/// All of a list of problems as one error.
pub fn listed<E: std::fmt::Display>(errors: &[E]) -> StartError {
    StartError::Config(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}
