//! How a command comes to the nodes that it asks: with TLS or without, and with a token out of a file, never out of arguments or the environment, which
//! every user of the machine can see.

use std::cell::RefCell;
use std::path::PathBuf;

use anyhow::Context as _;
use auth::{Secret, read_tokens};
use config::{Cluster, TlsMode};
use tls::{Caller, Keys, Port};

use crate::exit::Failure;

/// Whose certificate a command shows where nodes want one: what `{node}` stands for in the paths of `[tls]`.
const OPERATOR: &str = "operator";

/// Where the token is, and how connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// The first that can be read is taken.
    files: Vec<PathBuf>,
    /// By the command line.
    is_given: bool,
    /// What is wrong with the TLS files, said by who asks: most of a cluster file can be looked into without them.
    caller: Result<Caller, String>,
}

/// What a request shows, and why that is all.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) token: Option<Secret>,
    /// For who is refused.
    pub(crate) hint: String,
    pub(crate) caller: Result<Caller, String>,
}

thread_local! {
    /// Of the command that runs on this thread. A command asks on its own thread only: [`crate::client::Client`] has a
    /// runtime of one thread, and a question that was asked elsewhere would show nothing and be told so.
    static PASS: RefCell<Pass> = const { RefCell::new(Pass::nothing()) };
}

/// Until this is dropped, questions show the token.
#[derive(Debug)]
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        PASS.with_borrow_mut(|pass| *pass = Pass::nothing());
    }
}

impl Pass {
    const fn nothing() -> Pass {
        Pass { files: Vec::new(), is_given: false, caller: Ok(Caller::plain()) }
    }

    /// `given`: by the command line, and then it is this one or none. Else those of the cluster file, the one that may do
    /// more first.
    pub(crate) fn of(cluster: &Cluster, given: Option<PathBuf>) -> Pass {
        let caller = caller(cluster).map_err(|error| error.to_string());
        let is_given = given.is_some();
        let of_file = [&cluster.auth.operate, &cluster.auth.read].into_iter().flatten().cloned();
        Pass { files: given.map_or_else(|| of_file.collect(), |path| vec![path]), is_given, caller }
    }

    pub(crate) fn enter(self) -> Entered {
        PASS.set(self);
        Entered(())
    }

    /// Read anew for each question: a screen that stays open outlives a token.
    fn shown(&self) -> Shown {
        let mut faults = Vec::new();
        for path in &self.files {
            match read_tokens(path) {
                Ok(tokens) => {
                    let hint =
                        format!("sent was the first token of {}; --token-file FILE chooses another", path.display());
                    return Shown { token: tokens.into_iter().next(), hint, caller: self.caller.clone() };
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        let hint = if faults.is_empty() {
            "no token was sent: give --token-file FILE or set SPILLWAY_TOKEN_FILE".to_owned()
        } else {
            format!("no token was sent: {}; --token-file FILE chooses another", faults.join("; "))
        };
        Shown { token: None, hint, caller: self.caller.clone() }
    }
}

/// Before the first question: a token file that was given by hand must be one. A node that is started with the variable set asks
/// nobody, and starts.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn check() -> Result<(), Failure> {
    PASS.with_borrow(|pass| match pass.files.first().filter(|_| pass.is_given) {
        Some(path) => read_tokens(path).map(drop).context("use the token file").map_err(Failure::usage),
        None => Ok(()),
    })
}

/// What the command of this thread shows.
pub(crate) fn shown() -> Shown {
    PASS.with_borrow(Pass::shown)
}

/// Whether the command of this thread shows a token.
pub(crate) fn shows_token() -> bool {
    PASS.with_borrow(|pass| !pass.files.is_empty())
}

fn caller(cluster: &Cluster) -> Result<Caller, tls::TlsError> {
    let tls = &cluster.tls;
    let keys = match tls.admin {
        TlsMode::Off => return Ok(Caller::plain()),
        TlsMode::On => Keys::open_authority(tls)?,
        TlsMode::Mutual => Keys::open(tls, OPERATOR)?,
    };
    Caller::new(Some(&keys), tls.admin, Port::Admin)
}
