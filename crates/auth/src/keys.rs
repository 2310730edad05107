//! The tokens that are in force on a node.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use admin_api::access::Role;
use subtle::Choice;
use tracing::{error, info};

use crate::Secret;
use crate::file::{Stamp, TokenFileError, read_tokens};

/// The token files of a node and what was last read of them.
///
/// A file that changes is read again before the next token is looked at; what it then says holds at once, also for tokens
/// that are gone from it. While it cannot be used, or is not there, the tokens that it last had stay in force: who takes
/// somebody's token away writes a file without it, for a disk that fails must not lock out who can repair it.
#[derive(Debug)]
pub struct Keys(Mutex<Vec<Shelf>>);

/// One file.
#[derive(Debug)]
struct Shelf {
    role: Role,
    path: PathBuf,
    tokens: Vec<Secret>,
    /// Of the file as it was last tried.
    stamp: Option<Stamp>,
    /// Why its present content is not in force.
    fault: Option<TokenFileError>,
}

impl Keys {
    /// Reads the files. One that cannot be used is said in the log, and lets nobody in until it can.
    pub fn open(files: impl IntoIterator<Item = (Role, PathBuf)>) -> Keys {
        let shelf = |(role, path): (Role, PathBuf)| {
            let mut shelf = Shelf { role, path, tokens: Vec::new(), stamp: None, fault: None };
            shelf.read();
            shelf
        };
        Keys(Mutex::new(files.into_iter().map(shelf).collect()))
    }

    /// The highest role that has this token.
    pub fn role_of(&self, shown: &[u8]) -> Option<Role> {
        let mut shelves = self.shelves();
        let mut highest = None;
        for shelf in shelves.iter_mut() {
            shelf.refresh();
            // All of them, so that the time tells nothing of which one it was.
            let found = shelf.tokens.iter().fold(Choice::from(0), |found, token| found | token.matches(shown));
            if bool::from(found) {
                highest = highest.max(Some(shelf.role));
            }
        }
        highest
    }

    /// For each file its role, and why its present content is not in force.
    pub fn faults(&self) -> Vec<(Role, Option<TokenFileError>)> {
        let mut shelves = self.shelves();
        shelves.iter_mut().for_each(Shelf::refresh);
        shelves.iter().map(|shelf| (shelf.role, shelf.fault.clone())).collect()
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn refresh(&mut self) {
        // Read again as long as it is not there: whatever else is wrong with it shows in its stamp when it changes.
        if self.stamp.is_none() || Stamp::at(&self.path) != self.stamp {
            self.read();
        }
    }

    fn read(&mut self) {
        // Taken first: what is written meanwhile is read next time.
        self.stamp = Stamp::at(&self.path);
        let (role, path) = (self.role.as_str(), self.path.display());
        match read_tokens(&self.path) {
            Ok(tokens) => {
                info!(role, %path, tokens = tokens.len(), "tokens are in force");
                (self.tokens, self.fault) = (tokens, None);
            }
            Err(fault) => {
                if self.fault.as_ref() != Some(&fault) {
                    error!(role, error = %fault, kept = self.tokens.len(), "token file cannot be used; earlier tokens stay in force");
                }
                self.fault = Some(fault);
            }
        }
    }
}
