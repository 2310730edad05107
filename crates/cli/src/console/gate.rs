//! Who may ask what. A browser also carries requests of other pages here: none of them may change or read anything. And where
//! the console shows a token to the nodes, whoever reaches its port (any user of this machine) would act with it: then it has
//! a key of its own, new with each start, which only its address on the operator's terminal has.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use auth::Secret;
use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};

/// Said by the console's own page: the key, or 1. A page of another origin cannot say it without being allowed to first, and
/// nobody is.
pub(super) const CONSOLE: HeaderName = HeaderName::from_static("x-spillway-console");
/// Said by browsers: where a request comes from.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) error: String,
}

/// What only the address on the operator's terminal has.
#[derive(Clone)]
pub(crate) struct Key(Secret);

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no randomness.
    pub(super) fn new() -> io::Result<Key> {
        Ok(Key(Secret::new(&format!("{:016x}{:016x}", runtime::random_u64()?, runtime::random_u64()?))))
    }

    /// For the address.
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }

    fn is(&self, shown: &str) -> bool {
        self.0.is(shown.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The console's own address, and its key if it has one.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) listen: SocketAddr,
    pub(super) key: Option<Key>,
}

impl Gate {
    /// Lets a request in. The page itself has no secret and is for everybody.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn check(&self, path: &str, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = only(headers, &HOST).unwrap_or_default();
        if !is_ours(self.listen, host) {
            // A name of somebody else's that leads here (DNS rebinding) would make its page one of ours.
            return Err(refuse(
                StatusCode::MISDIRECTED_REQUEST,
                format!("the console is not {host:?}: open http://{}/", shown(self.listen)),
            ));
        }
        let looks = *method == Method::GET || *method == Method::HEAD;
        if let Some(site) = only(headers, &SITE)
            && !matches!(site, "same-origin" | "none")
            && !looks
        {
            return Err(refuse(StatusCode::FORBIDDEN, "this request comes from another page".to_owned()));
        }
        if let Some(key) = self.key.as_ref().filter(|_| path.starts_with("/api/"))
            && !only(headers, &CONSOLE).is_some_and(|shown| key.is(shown))
        {
            let error = "this console acts with a token, so it has a key: open the whole address that it printed when it \
                         was started";
            return Err(refuse(StatusCode::UNAUTHORIZED, error.to_owned()));
        }
        if looks { Ok(()) } else { self.check_change(host, headers) }
    }

    fn check_change(&self, host: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.key.is_none() && only(headers, &CONSOLE) != Some("1") {
            let error = format!("what changes something needs the header {CONSOLE}: 1");
            return Err(refuse(StatusCode::FORBIDDEN, error));
        }
        let own = format!("http://{host}");
        match only(headers, &ORIGIN) {
            Some(origin) if origin == own => Ok(()),
            Some(origin) => {
                Err(refuse(StatusCode::FORBIDDEN, format!("origin {origin:?} is not the console's, {own}")))
            }
            None => {
                Err(refuse(StatusCode::FORBIDDEN, format!("what changes something needs the header origin: {own}")))
            }
        }
    }
}

fn refuse(code: StatusCode, error: String) -> Refusal {
    Refusal { code, error }
}

/// The value of a header that stands there once; with two it is not known which one counts.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether a browser that says this host has come by the address itself. On all addresses: by any number, never by a name.
fn is_ours(listen: SocketAddr, host: &str) -> bool {
    let by_name = listen.ip().is_loopback() && host == format!("localhost:{}", listen.port());
    let address = match host.parse::<SocketAddr>() {
        Ok(address) => Some(address),
        // Browsers leave the port out when it is HTTP's own.
        Err(_) => bare(host).map(|ip| SocketAddr::new(ip, 80)),
    };
    by_name
        || address.is_some_and(|address| {
            address.port() == listen.port() && (address.ip() == listen.ip() || listen.ip().is_unspecified())
        })
}

fn bare(host: &str) -> Option<IpAddr> {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    v6.unwrap_or(host).parse().ok()
}

fn shown(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() { format!("ADDRESS:{}", listen.port()) } else { listen.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: &str = "127.0.0.1:8640";

    #[track_caller]
    fn code(listen: &str, method: Method, headers: &[(&'static str, &'static str)]) -> u16 {
        let gate = Gate { listen: listen.parse().expect("an address"), key: None };
        code_of(&gate, "/api/state", method, headers)
    }

    #[track_caller]
    fn code_of(gate: &Gate, path: &str, method: Method, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        gate.check(path, &method, &map).map_or_else(|refusal| refusal.code.as_u16(), |()| 200)
    }

    #[test]
    fn only_a_host_that_is_the_address_itself_is_answered() {
        let cases = [
            (LISTEN, "127.0.0.1:8640", 200),
            (LISTEN, "localhost:8640", 200),
            (LISTEN, "127.0.0.1:9999", 421),
            (LISTEN, "127.0.0.1", 421),
            (LISTEN, "evil.example:8640", 421),
            (LISTEN, "localhost.evil.example:8640", 421),
            (LISTEN, "", 421),
            ("127.0.0.1:80", "127.0.0.1", 200),
            ("[::1]:8640", "[::1]:8640", 200),
            ("0.0.0.0:8640", "10.1.2.3:8640", 200),
            ("0.0.0.0:8640", "evil.example:8640", 421),
            ("0.0.0.0:8640", "localhost:8640", 421),
        ];
        for (listen, host, expected) in cases {
            assert_eq!(code(listen, Method::GET, &[("host", host)]), expected, "{listen} asked as {host:?}");
        }
        assert_eq!(code(LISTEN, Method::GET, &[]), 421, "no host at all");
        assert_eq!(code(LISTEN, Method::GET, &[("host", LISTEN), ("host", "evil.example")]), 421, "two hosts");
    }

    #[test]
    fn only_the_console_s_own_page_changes_something() {
        let host = ("host", LISTEN);
        let own = ("origin", "http://127.0.0.1:8640");
        let console = ("x-spillway-console", "1");
        let cases: [(&[(&'static str, &'static str)], u16); 8] = [
            (&[host, own, console], 200),
            (&[host, own, console, ("sec-fetch-site", "same-origin")], 200),
            (&[host, own], 403),
            (&[host, console], 403),
            (&[host, console, ("origin", "http://evil.example")], 403),
            (&[host, console, ("origin", "null")], 403),
            (&[host, console, ("origin", "https://127.0.0.1:8640")], 403),
            (&[host, own, console, ("sec-fetch-site", "cross-site")], 403),
        ];
        for (headers, expected) in cases {
            assert_eq!(code(LISTEN, Method::PUT, headers), expected, "{headers:?}");
            assert_eq!(code(LISTEN, Method::POST, headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn with_a_key_nothing_but_the_page_itself_is_given_without_it() {
        let gate = Gate { listen: LISTEN.parse().expect("an address"), key: Some(Key(Secret::new("00ff"))) };
        let host = ("host", LISTEN);
        let own = ("origin", "http://127.0.0.1:8640");
        let key = |key: &'static str| ("x-spillway-console", key);
        type Case<'h> = (&'h str, Method, &'h [(&'static str, &'static str)], u16);
        let cases: [Case<'_>; 8] = [
            ("/", Method::GET, &[host], 200),
            ("/app.js", Method::GET, &[host], 200),
            ("/api/state", Method::GET, &[host], 401),
            ("/api/state", Method::GET, &[host, key("1")], 401),
            ("/api/state", Method::GET, &[host, key("00fe")], 401),
            ("/api/state", Method::GET, &[host, key("00ff")], 200),
            ("/api/order", Method::PUT, &[host, own, key("1")], 401),
            ("/api/order", Method::PUT, &[host, own, key("00ff")], 200),
        ];
        for (path, method, headers, expected) in cases {
            assert_eq!(code_of(&gate, path, method, headers), expected, "{path} {headers:?}");
        }
        let (one, two) = (Key::new().expect("random"), Key::new().expect("random"));
        assert!(one.expose().len() == 32 && !one.is(two.expose()) && one.is(one.expose()), "a new one with each start");
        assert_eq!(format!("{one:?}"), "Key(..)");
    }
}
