//! Types of single values: how each is read from TOML, how it is shown, and what to say when it does not fit.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use engine::route::{RingKind, StoreAddress};
use toml::de::DeValue;

use crate::cluster::{HealthMode, Layer, OwnMetrics, PointsPerSecond, ReplayStart, SpillSync, Threads};
use crate::quantity::{parse_bytes, parse_count, parse_duration, parse_percent, parse_rate, show_bytes, show_duration};
use crate::suggest::nearest;

/// A value of one key.
pub(crate) trait Setting: Sized {
    /// A noun, for "is no ...".
    const KIND: &'static str;
    /// What would be right.
    const EXPECTED: &'static str;
    /// The value, or `None` if it does not fit.
    fn read(value: &DeValue<'_>) -> Option<Self>;
    /// As TOML that [`Setting::read`] takes back.
    fn show(&self) -> String;
    /// A better answer than `EXPECTED` for this very value.
    fn hint(_value: &DeValue<'_>) -> Option<String> {
        None
    }
}

/// A TOML string: literal where that spares escapes, else basic.
pub(crate) fn quote(text: &str) -> String {
    let plain = !text.contains('\'') && !text.chars().any(char::is_control);
    if plain && text.contains(['\\', '"']) {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

/// `5` where `"5s"` is right, as a number or as a string.
fn unit_forgotten(value: &DeValue<'_>, unit: &str) -> Option<String> {
    let number = whole_number(value).or_else(|| value.as_str().and_then(parse_count))?;
    Some(format!("with its unit, such as \"{number}{unit}\""))
}

impl Setting for bool {
    const KIND: &'static str = "boolean";
    const EXPECTED: &'static str = "true or false";
    fn read(value: &DeValue<'_>) -> Option<bool> {
        value.as_bool()
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        let word = value.as_str()?;
        matches!(word, "true" | "false").then(|| format!("{word}, without quotes"))
    }
}

/// A whole number, as a number or as a string.
impl Setting for u64 {
    const KIND: &'static str = "whole number";
    const EXPECTED: &'static str = "a whole number, such as 16";
    fn read(value: &DeValue<'_>) -> Option<u64> {
        whole_number(value).or_else(|| value.as_str().and_then(parse_count))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const KIND: &'static str = "string";
    const EXPECTED: &'static str = "a string in quotes";
    fn read(value: &DeValue<'_>) -> Option<String> {
        value.as_str().map(str::to_owned)
    }
    fn show(&self) -> String {
        quote(self)
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";
    const EXPECTED: &'static str =
        "a directory, such as \"data/relay-1\"; a relative one starts at the working directory";
    fn read(value: &DeValue<'_>) -> Option<PathBuf> {
        value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(PathBuf::from)
    }
    fn show(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

/// Name of a node, store, rule or cluster: it becomes part of metric names, paths and messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);

impl Setting for Name {
    const KIND: &'static str = "name";
    const EXPECTED: &'static str = "up to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit";
    fn read(value: &DeValue<'_>) -> Option<Name> {
        let name = value.as_str()?;
        let fits = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        fits.then(|| Name(name.to_owned()))
    }
    fn show(&self) -> String {
        quote(&self.0)
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";
    const EXPECTED: &'static str = "a number with its unit (us, ms, s, m, h, d), such as \"100ms\", \"5m\" or \"24h\"";
    fn read(value: &DeValue<'_>) -> Option<Duration> {
        value.as_str().and_then(parse_duration)
    }
    fn show(&self) -> String {
        quote(&show_duration(*self))
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        unit_forgotten(value, "s")
    }
}

/// A duration or `"off"`.
impl Setting for Option<Duration> {
    const KIND: &'static str = "duration";
    const EXPECTED: &'static str = "\"off\", or a number with its unit, such as \"10m\"";
    fn read(value: &DeValue<'_>) -> Option<Option<Duration>> {
        match value.as_str()? {
            "off" => Some(None),
            text => parse_duration(text).map(Some),
        }
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| quote("off"), Setting::show)
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        Duration::hint(value)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

impl Setting for Bytes {
    const KIND: &'static str = "size";
    const EXPECTED: &'static str = "a number with its unit (B, KiB, MiB, GiB, TiB), such as \"256KiB\" or \"20GiB\"";
    fn read(value: &DeValue<'_>) -> Option<Bytes> {
        value.as_str().and_then(parse_bytes).map(Bytes)
    }
    fn show(&self) -> String {
        quote(&show_bytes(self.0))
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        unit_forgotten(value, "B")
    }
}

/// Hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percent(pub(crate) u8);

impl Setting for Percent {
    const KIND: &'static str = "percentage";
    const EXPECTED: &'static str = "a whole number from 0 to 100 with `%`, such as \"50%\"";
    fn read(value: &DeValue<'_>) -> Option<Percent> {
        value.as_str().and_then(parse_percent).map(Percent)
    }
    fn show(&self) -> String {
        quote(&format!("{}%", self.0))
    }
}

impl Setting for PointsPerSecond {
    const KIND: &'static str = "rate";
    const EXPECTED: &'static str = engine::rate::EXPECTED;
    fn read(value: &DeValue<'_>) -> Option<PointsPerSecond> {
        value.as_str().and_then(parse_rate).and_then(PointsPerSecond::new)
    }
    fn show(&self) -> String {
        quote(&engine::rate::show(self.get()))
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        unit_forgotten(value, "/s")
    }
}

/// Where a node listens and where others reach it. Without a port the layer's default is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Full(SocketAddr),
    HostOnly(IpAddr),
}

impl Listen {
    pub(crate) fn with_port(self, default_port: u16) -> SocketAddr {
        match self {
            Listen::Full(address) => address,
            Listen::HostOnly(host) => SocketAddr::new(host, default_port),
        }
    }
}

impl Setting for Listen {
    const KIND: &'static str = "address";
    const EXPECTED: &'static str =
        "an IP address and port, such as \"127.0.0.1:2003\" or \"[::1]:2003\"; the default port may be left out";
    fn read(value: &DeValue<'_>) -> Option<Listen> {
        let text = value.as_str()?;
        let full = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).map(Listen::Full);
        full.or_else(|| text.parse::<IpAddr>().ok().map(Listen::HostOnly))
    }
    fn show(&self) -> String {
        match self {
            Listen::Full(address) => quote(&address.to_string()),
            Listen::HostOnly(host) => quote(&host.to_string()),
        }
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        let text = value.as_str()?;
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        if host == "localhost" {
            return Some(format!("names are not looked up here: write \"127.0.0.1:{port}\""));
        }
        if host.is_empty() && !port.is_empty() {
            return Some(format!("write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all interfaces"));
        }
        (port == "0").then(|| "a port from 1 to 65535: other nodes must know it".into())
    }
}

/// Reads `host:port` or `host:port=instance`; an IPv6 host stands in brackets. The host is kept as written, because
/// some rings hash it.
pub(crate) fn store_address(text: &str) -> Option<StoreAddress> {
    let (address, instance) = match text.split_once('=') {
        Some((address, instance)) => (address, Some(instance)),
        None => (text, None),
    };
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')),
    };
    let instance_fits = instance.is_none_or(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic()));
    (host_fits && instance_fits).then(|| StoreAddress {
        host: bracketed.unwrap_or(host).to_owned(),
        port,
        instance: instance.map(str::to_owned),
    })
}

/// A closed list of words, with the nearest as the hint.
macro_rules! words {
    ($type:ty, $kind:literal, $expected:literal, $($word:literal => $value:expr),+ $(,)?) => {
        impl Setting for $type {
            const KIND: &'static str = $kind;
            const EXPECTED: &'static str = $expected;
            fn read(value: &DeValue<'_>) -> Option<$type> {
                let word = value.as_str()?;
                [$(($word, $value)),+].into_iter().find(|(name, _)| *name == word).map(|(_, value)| value)
            }
            fn show(&self) -> String {
                let known = [$(($word, $value)),+].into_iter().find(|(_, value)| value == self);
                quote(known.map_or("", |(name, _)| name))
            }
            fn hint(value: &DeValue<'_>) -> Option<String> {
                let near = nearest(value.as_str()?, [$($word),+])?;
                Some(format!("did you mean \"{near}\"? ({})", $expected))
            }
        }
    };
}

words!(Layer, "layer", "relay, partial, final or replayer",
    "relay" => Layer::Relay, "partial" => Layer::Partial, "final" => Layer::Final, "replayer" => Layer::Replayer);
words!(HealthMode, "health mode", "strict, lenient or auto",
    "strict" => HealthMode::Strict, "lenient" => HealthMode::Lenient, "auto" => HealthMode::Auto);
words!(ReplayStart, "way to start", "floor, paused or rate",
    "floor" => ReplayStart::Floor, "paused" => ReplayStart::Paused, "rate" => ReplayStart::Rate);
words!(RingKind, "ring", "carbon_ch, carbon_ch_ccr, fnv1a_ch or jump_fnv1a_ch",
    "carbon_ch" => RingKind::CarbonCh, "carbon_ch_ccr" => RingKind::CarbonChCcr,
    "fnv1a_ch" => RingKind::Fnv1aCh, "jump_fnv1a_ch" => RingKind::JumpFnv1aCh);

impl Setting for SpillSync {
    const KIND: &'static str = "sync interval";
    const EXPECTED: &'static str = "\"always\", or how long a write may stay unsynced, such as \"50ms\"";
    fn read(value: &DeValue<'_>) -> Option<SpillSync> {
        match value.as_str()? {
            "always" => Some(SpillSync::Always),
            text => parse_duration(text).filter(|every| !every.is_zero()).map(SpillSync::Every),
        }
    }
    fn show(&self) -> String {
        match self {
            SpillSync::Always => quote("always"),
            SpillSync::Every(every) => every.show(),
        }
    }
    fn hint(value: &DeValue<'_>) -> Option<String> {
        unit_forgotten(value, "ms")
    }
}

impl Setting for Threads {
    const KIND: &'static str = "number of threads";
    const EXPECTED: &'static str = "\"auto\" (one per core) or a whole number from 1 to 256";
    fn read(value: &DeValue<'_>) -> Option<Threads> {
        if value.as_str() == Some("auto") {
            return Some(Threads::Auto);
        }
        let count = whole_number(value).and_then(|count| u16::try_from(count).ok())?;
        (1..=256).contains(&count).then_some(Threads::Count(count))
    }
    fn show(&self) -> String {
        match self {
            Threads::Auto => quote("auto"),
            Threads::Count(count) => count.to_string(),
        }
    }
}

/// The word of `[telemetry] graphite` before the stores are known.
impl Setting for OwnMetrics<String> {
    const KIND: &'static str = "destination of own metrics";
    const EXPECTED: &'static str = "\"off\", \"route\" or the name of a store";
    fn read(value: &DeValue<'_>) -> Option<OwnMetrics<String>> {
        Some(match value.as_str()? {
            "off" => OwnMetrics::Off,
            "route" => OwnMetrics::Route,
            store => OwnMetrics::Store(store.to_owned()),
        })
    }
    fn show(&self) -> String {
        quote(match self {
            OwnMetrics::Off => "off",
            OwnMetrics::Route => "route",
            OwnMetrics::Store(store) => store,
        })
    }
}
