//! Quantities as an operator writes them: a whole number with its unit. Reading and printing are inverse.

use std::time::Duration;

use engine::rate;

const DURATION_UNITS: [(&str, u64); 6] = [
    // Longer suffixes first where one ends with the other; the factor is in microseconds.
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

const BYTE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// `100ms`, `5m`, `1h30m`: one or more numbers, each with its unit (us, ms, s, m, h, d). `None` if it is anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut micros = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        micros = micros.checked_add(number.checked_mul(*factor)?)?;
        rest = after;
    }
    Some(Duration::from_micros(micros))
}

/// The shortest text of one unit that [`parse_duration`] reads back to the same value (days are printed as hours).
pub(crate) fn show_duration(value: Duration) -> String {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 {
        return "0s".into();
    }
    // Days are read but never printed: "24h" is what people write for a horizon.
    let fits =
        DURATION_UNITS.iter().rev().filter(|(name, _)| *name != "d").find(|(_, factor)| micros.is_multiple_of(*factor));
    let (name, factor) = fits.copied().unwrap_or(("us", 1));
    format!("{}{name}", micros / factor)
}

/// `256KiB`, `20GiB`, `10GB`: a number with its unit. `None` if it is anything else.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

/// The shortest binary text that [`parse_bytes`] reads back to the same value.
pub(crate) fn show_bytes(value: u64) -> String {
    let binary = BYTE_UNITS.iter().take(5).rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (name, factor) = binary.copied().unwrap_or(("B", 1));
    format!("{}{name}", value / factor)
}

/// `50%`: a whole number from 0 to 100 and a percent sign.
pub(crate) fn parse_percent(text: &str) -> Option<u8> {
    let (number, unit) = leading_number(text.trim())?;
    if unit.trim_start() != "%" || number > 100 {
        return None;
    }
    u8::try_from(number).ok()
}

/// `50000/s`, `50k/s`, `max`: points per second. In a file every quantity has its unit; else it is as
/// [`engine::rate::parse`] reads it.
pub(crate) fn parse_rate(text: &str) -> Option<u64> {
    let text = text.trim();
    (text.ends_with("/s") || text == "max").then(|| rate::parse(text).ok())?
}

/// A plain whole number; `_` may group its digits.
pub(crate) fn parse_count(text: &str) -> Option<u64> {
    let (number, rest) = leading_number(text.trim())?;
    rest.is_empty().then_some(number)
}

/// The whole number at the start, and what follows it.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    if digits.starts_with('_') || digits.ends_with('_') {
        return None;
    }
    let number = digits.replace('_', "").parse().ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(read: impl Fn(&str) -> Option<T>, good: &[(&str, T)], bad: &[&str]) {
        for (text, value) in good {
            assert_eq!(read(text).as_ref(), Some(value), "{text}");
        }
        for text in bad {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_for_each_number() {
        let seconds = Duration::from_secs;
        check(
            parse_duration,
            &[
                ("100ms", Duration::from_millis(100)),
                ("5m", seconds(300)),
                ("24h", seconds(86_400)),
                ("1d", seconds(86_400)),
                ("1h30m", seconds(5_400)),
                ("0s", seconds(0)),
                ("250us", Duration::from_micros(250)),
            ],
            &[
                "",
                "5",
                "s",
                "5sec",
                "5 s",
                "-5s",
                "1.5s",
                "99999999999999999999s",
                "18446744073709551615d",
                "5s3",
                "５s",
            ],
        );
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        check(
            parse_bytes,
            &[("256KiB", 262_144), ("20GiB", 21_474_836_480), ("1kB", 1_000), ("0B", 0), ("16 KiB", 16_384)],
            &["", "256", "256K", "1.5GiB", "20gib", "-1B", "99999999TiB", "99999999999999999999B"],
        );
    }

    #[test]
    fn percents_end_at_a_hundred() {
        check(parse_percent, &[("0%", 0), ("50%", 50), ("100 %", 100)], &["101%", "50", "-1%", "5.5%", "%"]);
    }

    #[test]
    fn rates_are_per_second() {
        let good = [("50000/s", 50_000), ("50_000/s", 50_000), ("1.5k/s", 1_500), ("max", rate::RATE_MAX)];
        check(parse_rate, &good, &["50000", "50/m", "/s", "_1/s", "0/s", "-1/s", "101M/s"]);
    }

    #[test]
    fn what_is_printed_reads_back() {
        for micros in [0, 1, 999, 1_000, 1_500_000, 60_000_000, 90_000_000, 86_400_000_000, u64::MAX] {
            let value = Duration::from_micros(micros);
            assert_eq!(parse_duration(&show_duration(value)), Some(value));
        }
        for bytes in [0, 1, 1_000, 1_024, 16_384, 1 << 40, u64::MAX] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(show_bytes(16 << 10), "16KiB");
    }
}
