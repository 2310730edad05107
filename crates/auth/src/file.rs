//! Files of tokens: a token a line, blank lines and those that begin with `#` passed over.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;

use crate::Secret;

/// 16 random letters and digits have 95 bits: nobody guesses them, whatever the network lets through.
pub const TOKEN_BYTES_MIN: usize = 16;
/// A token goes into a header line.
pub const TOKEN_BYTES_MAX: usize = 256;
/// More at once are no rotation any more, and every request is compared with all.
const TOKENS_MAX: usize = 16;
const FILE_BYTES_MAX: u64 = 16 << 10;
/// What a token file must not grant: anything to everybody, and to its group anything but reading.
const TOO_OPEN: u32 = 0o037;

/// Why a token file cannot be used. Never tells any part of its content.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenFileError {
    #[error("read {}: {why}", path.display())]
    Read { path: PathBuf, why: String },
    #[error("{}: its mode is {mode:03o}, so other users can get at the tokens: chmod 600, or 640 for a group", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{}: there is no token in it: write one a line, at least {TOKEN_BYTES_MIN} characters", path.display())]
    Empty { path: PathBuf },
    #[error("{}: line {line}: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
}

/// What tells one content of a file from the next, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &std::fs::Metadata) -> Stamp {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            mode: found.mode(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// `None` if it is not there or cannot be looked at.
    pub(crate) fn at(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().map(|found| Stamp::of(&found))
    }
}

/// The tokens of a file.
///
/// # Errors
/// When it cannot be read, can be read by all, or is not as it should be.
pub fn read_tokens(path: &Path) -> Result<Vec<Secret>, TokenFileError> {
    let failed = |error: io::Error| TokenFileError::Read { path: path.to_owned(), why: error.to_string() };
    // A pipe in its place must not hold up who reads.
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let flags = i32::try_from(flags).map_err(|error| failed(io::Error::other(error)))?;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    // Of what was opened, so that nothing can be put in its place between the look and the reading.
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(failed(io::Error::other("it is no file")));
    }
    if found.mode() & TOO_OPEN != 0 {
        return Err(TokenFileError::TooOpen { path: path.to_owned(), mode: found.mode() & 0o777 });
    }
    if found.size() > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Secret>, TokenFileError> {
    let mut tokens = Vec::new();
    for (line, token) in (1..).zip(text.lines()) {
        let token = token.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        let wrong = |what: String| TokenFileError::Line { path: path.to_owned(), line, what };
        // What a header may carry as a token by RFC 6750.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(fits) {
            return Err(wrong("a token has letters, digits and -._~+/= only".into()));
        }
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
            let has = token.len();
            return Err(wrong(format!(
                "a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters, this one {has}"
            )));
        }
        if tokens.len() == TOKENS_MAX {
            return Err(wrong(format!("more than {TOKENS_MAX} tokens")));
        }
        tokens.push(Secret::new(token));
    }
    if tokens.is_empty() {
        return Err(TokenFileError::Empty { path: path.to_owned() });
    }
    Ok(tokens)
}
