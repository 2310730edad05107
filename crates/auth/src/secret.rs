//! Something that must not be seen.

use std::fmt;

use subtle::{Choice, ConstantTimeEq as _};

/// A token. It cannot be printed; who sends it asks for it by [`Secret::expose`], which is easy to search for.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Of this text.
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The token itself, to be sent and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this token, in a time that tells nothing of where they differ; only whether the length does.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.matches(shown).into()
    }

    /// The same, to be put together with others before anybody looks.
    pub(crate) fn matches(&self, shown: &[u8]) -> Choice {
        self.0.as_bytes().ct_eq(shown)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
