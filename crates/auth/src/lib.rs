//! The tokens of the admin API: reading them from files, keeping them out of sight, comparing them.
//!
//! Who may do what is decided in `admin_api::access`; here is which role a token has. Used by both sides: a node keeps
//! [`Keys`], and what asks it shows one [`Secret`] of such a file.

mod file;
mod keys;
mod secret;

pub use file::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, TokenFileError, read_tokens};
pub use keys::Keys;
pub use secret::Secret;

#[cfg(test)]
mod tests;
