//! `[auth]`: who may use the admin API of the nodes.
//!
//! Here are paths only; the files are read by the nodes and by what asks them, again whenever they change.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::document::{Document, Section};
use crate::setting::{Setting, quote};
use crate::suggest::nearest;
use crate::tls::{Tls, TlsMode};

/// Who may read `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Everybody who reaches the port.
    #[default]
    Open,
    /// Who has a token, as for the rest.
    Token,
}

impl MetricsAccess {
    fn as_str(self) -> &'static str {
        match self {
            MetricsAccess::Open => "open",
            MetricsAccess::Token => "token",
        }
    }
}

/// `[auth]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// A file of tokens, one a line, with which one may look; a relative path starts at the working directory.
    pub read: Option<PathBuf>,
    /// A file of tokens with which one may look and change.
    pub operate: Option<PathBuf>,
    pub metrics: MetricsAccess,
    /// Everybody who reaches the port may do everything, and that is meant.
    pub open: bool,
}

impl Auth {
    /// Whether there are tokens at all.
    pub fn has_tokens(&self) -> bool {
        self.read.is_some() || self.operate.is_some()
    }
}

/// Whether the admin API is for those only who show a token or a certificate.
pub(crate) fn is_guarded(auth: &Auth, tls: &Tls) -> bool {
    auth.has_tokens() || tls.admin == TlsMode::Mutual
}

/// What is wrong with an admin API that listens at `address`; `None` if nothing.
pub(crate) fn exposure(auth: &Auth, tls: &Tls, address: SocketAddr) -> Option<(String, &'static str)> {
    if address.ip().to_canonical().is_loopback() || auth.open || is_guarded(auth, tls) {
        return None;
    }
    let message = format!("everybody who reaches {address} could change this node");
    let help = "name token files in `[auth]` (read, operate), or set tls.admin = \"mutual\", or listen on 127.0.0.1; \
                auth.open = true if that is meant";
    Some((message, help))
}

/// A path, or `""` for none.
impl Setting for Option<PathBuf> {
    const KIND: &'static str = "path of a token file";
    const EXPECTED: &'static str =
        "such as \"tokens/operate\"; a relative path starts at the working directory, \"\" is none";
    fn read(value: &DeValue<'_>) -> Option<Option<PathBuf>> {
        let path = value.as_str()?;
        (!path.contains('\0')).then(|| Some(PathBuf::from(path)).filter(|_| !path.is_empty()))
    }
    fn show(&self) -> String {
        quote(&self.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default())
    }
}

impl Setting for MetricsAccess {
    const KIND: &'static str = "access to /metrics";
    const EXPECTED: &'static str = "open or token";
    fn read(value: &DeValue<'_>) -> Option<MetricsAccess> {
        let word = value.as_str()?;
        [MetricsAccess::Open, MetricsAccess::Token].into_iter().find(|access| access.as_str() == word)
    }
    fn show(&self) -> String {
        quote(self.as_str())
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        let near = nearest(value.as_str()?, ["open", "token"])?;
        Some(format!("did you mean \"{near}\"? ({})", Self::EXPECTED))
    }
}

/// Reads `[auth]`.
pub(crate) fn read(mut section: Section<'_, '_>) -> Auth {
    let read = Auth {
        read: section.or("read", None),
        operate: section.or("operate", None),
        metrics: section.or("metrics", MetricsAccess::Open),
        open: section.or("open", false),
    };
    section.finish();
    read
}

/// What `[auth]` and the nodes' addresses say together. `admins`: the key of each admin address.
pub(crate) fn check(
    document: &Document<'_>,
    auth: &Auth,
    tls: &Tls,
    admins: impl Iterator<Item = (String, SocketAddr)>,
) {
    let guarded = is_guarded(auth, tls);
    if auth.open && guarded {
        let by = if auth.has_tokens() { "there are tokens" } else { "tls.admin is \"mutual\"" };
        document.error("auth.open", format!("{by}, so it is not open"), "remove the one or the other");
    }
    if auth.metrics == MetricsAccess::Token && !guarded {
        document.error("auth.metrics", "no token is there that could be asked for", "set auth.read and auth.operate");
    }
    if auth.read.is_some() && auth.operate.is_none() && tls.admin != TlsMode::Mutual {
        document.warning("auth.read", "nobody may change anything", "set auth.operate too");
    }
    if auth.read.is_some() && auth.read == auth.operate {
        let help = "who may only look has tokens of their own: another file";
        document.clash("auth.read", "the same file as auth.operate", help, "auth.operate", "this one");
    }
    // A path or a mode that could not be read was reported already, and may be what guards.
    let unread = ["auth.read", "auth.operate", "auth.open", "tls.admin"];
    if unread.into_iter().any(|key| document.has_error_at(key)) {
        return;
    }
    for (key, address) in admins {
        if let Some((message, help)) = exposure(auth, tls, address) {
            document.error(&key, message, help);
        }
    }
}
