//! `[[notify]]`: endpoints outside of the cluster that hear what happened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use engine::notify::Topic;
use toml::de::DeValue;

use crate::document::{Document, Item, Section};
use crate::setting::{Bytes, Name, Setting, quote, store_address};
use crate::tls::{PathTemplate, Tls};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const KIB: u64 = 1 << 10;
/// Whom the machine trusts, on Debian.
const AUTHORITY: &str = "/etc/ssl/certs/ca-certificates.crt";
const TOPICS: &str = "a list of orders, health and gaps";

/// One `[[notify]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub name: String,
    pub url: HookUrl,
    pub events: Vec<Topic>,
    /// Who vouches for the endpoint; there if the URL is one of `https`.
    pub authority: Option<Tls>,
    /// Its first line is sent as a bearer token.
    pub token_file: Option<PathBuf>,
    /// For one attempt, from connecting to the answer.
    pub timeout: Duration,
    /// What nobody took for so long is given up.
    pub give_up: Duration,
    /// Bound of what waits.
    pub queue_bytes: usize,
}

/// `http://host[:port]/path`, or the same with `https`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookUrl {
    /// Over TLS.
    pub is_https: bool,
    /// An IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    /// With the query, beginning with `/`.
    pub path: String,
}

impl HookUrl {
    /// Host and port, to connect to and for the header `host`.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn parse(text: &str) -> Option<HookUrl> {
        let (is_https, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at)?,
            None => (rest, ""),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let with_port =
            if has_port { authority.to_owned() } else { format!("{authority}:{}", if is_https { 443 } else { 80 }) };
        // A user's name or password in it would be no host.
        let address = store_address(&with_port).filter(|address| address.instance.is_none())?;
        let path_fits = path.chars().all(|c| c.is_ascii_graphic() && c != '#');
        path_fits.then_some(HookUrl { is_https, host: address.host, port: address.port, path })
    }
}

impl Setting for HookUrl {
    const KIND: &'static str = "URL of an endpoint";
    const EXPECTED: &'static str = "such as \"http://127.0.0.1:9099/hook\", without a user, a password or a `#`";
    fn read(value: &DeValue<'_>) -> Option<HookUrl> {
        HookUrl::parse(value.as_str()?)
    }
    fn show(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        quote(&format!("{scheme}://{}{}", self.authority(), self.path))
    }
}

/// Reads one `[[notify]]`; nothing if a part of it is missing or wrong.
pub(crate) fn read(document: &Document<'_>, mut section: Section<'_, '_>) -> (String, Option<Notify>) {
    section.show_header("notify");
    let name = section.required::<Name>("name", "metrics and logs say it").map(|name| name.0);
    let url = section.required::<HookUrl>("url", "where notices are posted");
    let all = Topic::ALL.map(Topic::as_str);
    let mut events = Vec::new();
    for Item { path, text } in section.strings_or("events", TOPICS, &all) {
        match Topic::parse(&text) {
            Some(topic) if events.contains(&topic) => {
                document.error(&path, format!("{} stands here twice", quote(&text)), "each once");
            }
            Some(topic) => events.push(topic),
            None => {
                let help = crate::nodes::known_names(&text, "events", all.into_iter());
                document.error(&path, format!("there is no event {}", quote(&text)), help);
            }
        }
    }
    let trusted = section.or("authority", String::from(AUTHORITY));
    let is_https = url.as_ref().is_some_and(|url| url.is_https);
    let authority = is_https.then(|| Tls { authority: Some(PathTemplate::plain(&trusted)), ..Tls::default() });
    let token_file = section.optional::<PathBuf>("token_file");
    let timeout = section.within("timeout", 5 * SECOND, Duration::from_millis(100)..=60 * SECOND);
    let give_up = section.within("give_up", 900 * SECOND, SECOND..=DAY);
    let queue = section.within("queue", Bytes(256 * KIB), Bytes(16 * KIB)..=Bytes(64 * 1024 * KIB)).0;
    let queue_bytes = usize::try_from(queue).unwrap_or(usize::MAX);
    let path = section.path().to_owned();
    section.finish();
    let notify = name.zip(url).map(|(name, url)| Notify {
        name,
        url,
        authority,
        events,
        token_file,
        timeout,
        give_up,
        queue_bytes,
    });
    (path, notify)
}

/// Two endpoints of one name.
pub(crate) fn check_names(document: &Document<'_>, endpoints: &[(String, Option<Notify>)]) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, endpoint) in endpoints {
        let Some(endpoint) = endpoint else { continue };
        match names.get(endpoint.name.as_str()) {
            Some(first) => {
                let (key, other) = (format!("{path}.name"), format!("{first}.name"));
                let message = format!("{} is taken", quote(&endpoint.name));
                document.clash(&key, message, "each endpoint has its own name", &other, "by this endpoint");
            }
            None => {
                names.insert(&endpoint.name, path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, u16, &str)>) {
        check_of(text, expected, "http://");
        check_of(
            &text.replacen("http://", "https://", 1),
            expected.map(|(h, p, path)| (h, if p == 80 { 443 } else { p }, path)),
            "https://",
        );
    }

    #[track_caller]
    fn check_of(text: &str, expected: Option<(&str, u16, &str)>, scheme: &str) {
        let is_https = HookUrl::parse(text).map(|url| url.is_https);
        assert_eq!(is_https, expected.map(|_| scheme == "https://"), "{text}");
        let read = HookUrl::parse(text);
        let read = read.as_ref().map(|url| (url.host.as_str(), url.port, url.path.as_str()));
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn a_url_is_a_host_a_port_and_a_path() {
        check("http://127.0.0.1:9099/hook", Some(("127.0.0.1", 9099, "/hook")));
        check("http://chat.example/a/b?c=d&e", Some(("chat.example", 80, "/a/b?c=d&e")));
        check("http://chat.example", Some(("chat.example", 80, "/")));
        check("http://chat.example:81?x", Some(("chat.example", 81, "/?x")));
        check("http://[::1]:9/h", Some(("::1", 9, "/h")));
        check("http://[::1]/h", Some(("::1", 80, "/h")));
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "http://",
            "http:///x",
            "ftp://a/b",
            "127.0.0.1:9099",
            "http://user:secret@host/x",
            "http://a:0/",
            "http://a b/",
            "http://a/b#c",
            "http://a/b c",
            "http://a:80=x/",
            "http://a/é",
            "http://a:99999/",
            "http://a:/",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["http://[::1]:9/h?x", "http://host/p", "https://host/p"] {
            let url = HookUrl::parse(text).expect("a good one");
            assert_eq!(HookUrl::parse(url.show().trim_matches('"')).as_ref(), Some(&url));
        }
    }
}
