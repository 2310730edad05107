//! Who may ask what. A browser also carries requests of other pages here: none of them may change or read anything.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};

/// Said by the console's own page with what changes something. A page of another origin cannot say it without being allowed
/// to first, and nobody is.
pub(super) const CONSOLE: HeaderName = HeaderName::from_static("x-spillway-console");
/// Said by browsers: where a request comes from.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) error: String,
}

/// Lets a request to `listen` in.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn check(listen: SocketAddr, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = only(headers, &HOST).unwrap_or_default();
    if !is_ours(listen, host) {
        // A name of somebody else's that leads here (DNS rebinding) would make its page one of ours.
        return Err(refuse(
            StatusCode::MISDIRECTED_REQUEST,
            format!("the console is not {host:?}: open http://{}/", shown(listen)),
        ));
    }
    if let Some(site) = only(headers, &SITE)
        && !matches!(site, "same-origin" | "none")
        && *method != Method::GET
    {
        return Err(refuse(StatusCode::FORBIDDEN, "this request comes from another page".to_owned()));
    }
    if *method == Method::GET || *method == Method::HEAD {
        return Ok(());
    }
    if only(headers, &CONSOLE) != Some("1") {
        return Err(refuse(StatusCode::FORBIDDEN, format!("what changes something needs the header {CONSOLE}: 1")));
    }
    let own = format!("http://{host}");
    match only(headers, &ORIGIN) {
        Some(origin) if origin == own => Ok(()),
        Some(origin) => Err(refuse(StatusCode::FORBIDDEN, format!("origin {origin:?} is not the console's, {own}"))),
        None => Err(refuse(StatusCode::FORBIDDEN, format!("what changes something needs the header origin: {own}"))),
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
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let listen = listen.parse().expect("an address");
        check(listen, &method, &map).map_or_else(|refusal| refusal.code.as_u16(), |()| 200)
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
}
