//! `[tls]`: which connections are encrypted, and whose certificates they are checked with.
//!
//! Here are paths and modes only; the files are read by the nodes, again whenever they change.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::document::{Document, Section};
use crate::setting::{Setting, quote};
use crate::suggest::nearest;

/// Stands for the node's name in a path.
const NODE: &str = "{node}";

/// How far a kind of connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain TCP.
    #[default]
    Off,
    /// TLS; who accepts shows a certificate.
    On,
    /// TLS; both sides show a certificate.
    Mutual,
}

impl TlsMode {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsMode::Off => "off",
            TlsMode::On => "on",
            TlsMode::Mutual => "mutual",
        }
    }

    /// Whether connections are encrypted at all.
    pub fn is_on(self) -> bool {
        self != TlsMode::Off
    }
}

/// A path of a PEM file, perhaps another one for each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate(String);

impl PathTemplate {
    /// With `node`'s name in its place; a relative one starts at the working directory.
    pub fn of(&self, node: &str) -> PathBuf {
        PathBuf::from(self.0.replace(NODE, node))
    }

    /// The same for every node.
    pub(crate) fn plain(path: &str) -> PathTemplate {
        PathTemplate(path.to_owned())
    }
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// What a node shows: its certificate, those that vouch for it behind. There wherever a mode is on.
    pub certificate: Option<PathTemplate>,
    /// Its private key. There wherever a mode is on.
    pub key: Option<PathTemplate>,
    /// What peers' certificates are checked against. There wherever one is checked.
    pub authority: Option<PathTemplate>,
    /// The admin API, and what asks it.
    pub admin: TlsMode,
    /// All links between nodes, at both ends.
    pub links: TlsMode,
    /// The listeners of relays for Graphite lines.
    pub graphite: TlsMode,
}

impl Tls {
    /// Whether any connection is encrypted, so that the files are needed.
    pub fn is_on(&self) -> bool {
        [self.admin, self.links, self.graphite].into_iter().any(TlsMode::is_on)
    }
}

/// A path, or `""` for none.
impl Setting for Option<PathTemplate> {
    const KIND: &'static str = "path of a PEM file";
    const EXPECTED: &'static str = "such as \"tls/{node}.pem\"; {node} is the node's name, a relative path starts at the working directory, \"\" is none";
    fn read(value: &DeValue<'_>) -> Option<Option<PathTemplate>> {
        let path = value.as_str()?;
        let rest = path.replace(NODE, "");
        let fits = !rest.contains(['{', '}', '\0']);
        fits.then(|| Some(PathTemplate(path.to_owned())).filter(|path| !path.0.is_empty()))
    }
    fn show(&self) -> String {
        quote(self.as_ref().map_or("", |path| &path.0))
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        let braced = value.as_str()?.contains(['{', '}']);
        braced.then(|| "{node}, the node's name, is all that may stand in braces".into())
    }
}

impl Setting for TlsMode {
    const KIND: &'static str = "TLS mode";
    const EXPECTED: &'static str = "off, on or mutual";
    fn read(value: &DeValue<'_>) -> Option<TlsMode> {
        let word = value.as_str()?;
        [TlsMode::Off, TlsMode::On, TlsMode::Mutual].into_iter().find(|mode| mode.as_str() == word)
    }
    fn show(&self) -> String {
        quote(self.as_str())
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        if let Some(on) = value.as_bool() {
            return Some(format!("write \"{}\", in quotes ({})", if on { "on" } else { "off" }, Self::EXPECTED));
        }
        let near = nearest(value.as_str()?, ["off", "on", "mutual"])?;
        Some(format!("did you mean \"{near}\"? ({})", Self::EXPECTED))
    }
}

/// Reads `[tls]`. A mode that is on without what it needs is a problem of that mode.
pub(crate) fn read(document: &Document<'_>, mut section: Section<'_, '_>) -> Tls {
    let read = Tls {
        certificate: section.or("certificate", None),
        key: section.or("key", None),
        authority: section.or("authority", None),
        admin: section.or("admin", TlsMode::Off),
        links: section.or("links", TlsMode::Off),
        graphite: section.or("graphite", TlsMode::Off),
    };
    section.finish();
    // A path that could not be read was reported already.
    let missing =
        |key: &str, path: &Option<PathTemplate>| path.is_none() && !document.has_error_at(&format!("tls.{key}"));
    for (word, mode) in [("admin", read.admin), ("links", read.links), ("graphite", read.graphite)] {
        let at = format!("tls.{word}");
        // Without an authority nobody could check what the node shows; clients of Graphite bring their own.
        let checks = mode == TlsMode::Mutual || (mode.is_on() && word != "graphite");
        let needs = [
            (mode.is_on(), "certificate", &read.certificate, "tls/{node}.pem"),
            (mode.is_on(), "key", &read.key, "tls/{node}.key"),
            (checks, "authority", &read.authority, "tls/ca.pem"),
        ];
        for (_, key, _, example) in needs.into_iter().filter(|(needed, key, path, _)| *needed && missing(key, path)) {
            let message = format!("{} needs `{key}`, which is not set", mode.show());
            document.error(&at, message, format!("add {key} = {} to `[tls]`", quote(example)));
        }
    }
    read
}

/// Certificates name nodes by names of DNS, whose grammar is narrower than ours.
pub(crate) fn check_names<'n>(document: &Document<'_>, tls: &Tls, names: impl Iterator<Item = &'n str>) {
    let Some((word, _)) = [("admin", tls.admin), ("links", tls.links)].into_iter().find(|(_, mode)| mode.is_on())
    else {
        return;
    };
    for name in names.filter(|name| !is_dns_name(name)) {
        let message = format!("no certificate can be for node {}", quote(name));
        let help = "rename it: parts between dots begin and end with a letter or digit, and the last is no number";
        document.error(&format!("tls.{word}"), message, help);
    }
}

/// `name` is a node's: letters, digits, `-`, `_` and `.`, at most 64.
fn is_dns_name(name: &str) -> bool {
    let fits = |part: &str| !part.is_empty() && part.len() <= 63 && !part.starts_with('-') && !part.ends_with('-');
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').all(fits) && !name.rsplit('.').next().is_some_and(number)
}
