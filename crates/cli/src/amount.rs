//! Numbers as operators write and read them: rates, counts, sizes.

/// What `max` stands for, in points per second: far above what any machine sends, so that nothing but the receivers and
/// the network limits, and what every node that replays takes. It is a rate like any other, not zero with a meaning of its own.
pub(crate) const RATE_MAX: u64 = 100_000_000;

const FACTORS: [(char, u128); 3] = [('k', 1_000), ('K', 1_000), ('M', 1_000_000)];
/// More digits behind the point than any rate needs; the arithmetic below stays far from its bounds.
const FRACTION_DIGITS_MAX: usize = 9;

/// `50000`, `50000/s`, `50k/s`, `1.5M/s`, `max`: points per second, 1 to [`RATE_MAX`].
///
/// # Errors
/// Says what is wrong with it and what would be right.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text == "max" {
        return Ok(RATE_MAX);
    }
    let no_rate = || format!("\"{text}\" is no rate: it is points per second, such as 50000/s, 50k/s, 1.5M/s, or max");
    let number = text.strip_suffix("/s").unwrap_or(text);
    if let Some(negative) = number.strip_prefix('-')
        && negative.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!("\"{text}\" is negative: {PAUSING}"));
    }
    let last = number.chars().next_back();
    let factor = FACTORS.iter().find(|(suffix, _)| last == Some(*suffix));
    let (digits, factor) = match factor {
        Some((suffix, factor)) => (number.strip_suffix(*suffix).unwrap_or(number), *factor),
        None => (number, 1),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.ends_with('_');
    let all_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_');
    if !are_digits(whole) || !all_digits(whole) || fraction.is_empty() || !fraction.chars().all(|c| c.is_ascii_digit())
    {
        return Err(no_rate());
    }
    let (whole, fraction) = (whole.replace('_', ""), fraction.trim_end_matches('0'));
    if whole.len() > 20 || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(format!("\"{text}\" is absurd: {LIMIT}"));
    }
    let places = u32::try_from(fraction.len()).map_err(|_| no_rate())?;
    let whole: u128 = whole.parse().map_err(|_| no_rate())?;
    let tail: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| no_rate())? };
    let points = whole * factor + tail * factor / 10u128.pow(places);
    match u64::try_from(points) {
        Ok(0) if whole == 0 && tail == 0 => Err(format!("\"{text}\" is a standstill, not a rate: {PAUSING}")),
        Ok(0) => Err(format!("\"{text}\" is less than one point per second: {PAUSING}")),
        Ok(points) if points <= RATE_MAX => Ok(points),
        Ok(_) | Err(_) => Err(format!("\"{text}\" is absurd: {LIMIT}")),
    }
}

const PAUSING: &str = "pausing is `spillway replay pause`";
const LIMIT: &str = "a rate is at most 100M/s; say max for no ceiling";

/// As [`parse_rate`] takes it back.
pub(crate) fn rate(points: u64) -> String {
    if points >= RATE_MAX { "max".into() } else { format!("{points}/s") }
}

/// `9999`, `12.3k`, `1.20M`: exact below ten thousand, then three digits.
pub(crate) fn count(value: u64) -> String {
    if value < 10_000 {
        return value.to_string();
    }
    let units = [("k", 1_000u64), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];
    scaled(value, &units)
}

/// `512 B`, `45.3 MiB`.
pub(crate) fn bytes(value: u64) -> String {
    if value < 1 << 10 {
        return format!("{value} B");
    }
    scaled(value, &[(" KiB", 1 << 10), (" MiB", 1 << 20), (" GiB", 1 << 30), (" TiB", 1 << 40)])
}

/// Three digits of the largest unit that is not above the value. Rounded down: 999,999 is not yet a million.
fn scaled(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().rev().find(|(_, factor)| value >= *factor).or(units.first());
    let (unit, factor) = fitting.copied().unwrap_or(("", 1));
    let (whole, rest) = (value / factor, u128::from(value % factor));
    let hundredths = rest * 100 / u128::from(factor);
    match whole {
        0..10 => format!("{whole}.{hundredths:02}{unit}"),
        10..100 => format!("{whole}.{}{unit}", hundredths / 10),
        100.. => format!("{whole}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<u64, &str>) {
        match (parse_rate(text), expected) {
            (Ok(points), Ok(expected)) => assert_eq!(points, expected, "{text}"),
            (Err(said), Err(part)) => assert!(said.contains(part) && said.contains(text.trim()), "{text}: {said}"),
            (said, _) => panic!("{text}: {said:?}"),
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, points) in [
            ("50000", 50_000),
            ("50000/s", 50_000),
            ("50_000/s", 50_000),
            ("50k/s", 50_000),
            ("50K", 50_000),
            ("1.5M/s", 1_500_000),
            ("0.5k", 500),
            ("1.50", 1),
            ("1", 1),
            ("100M/s", RATE_MAX),
            (" max ", RATE_MAX),
        ] {
            check(text, Ok(points));
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_reason() {
        for text in ["0", "0/s", "0.0k/s", "00"] {
            check(text, Err("pausing is `spillway replay pause`"));
        }
        for text in ["0.5", "0.0001k"] {
            check(text, Err("less than one point per second"));
        }
        for text in ["-1", "-50k/s", "-0"] {
            check(text, Err("is negative"));
        }
        for text in ["100.1M", "99999999999999999999999999M", "1001M/s", "1.0000000001", "18446744073709551616"] {
            check(text, Err("is absurd"));
        }
        let others = [
            "", "/s", "nan", "NaN/s", "inf", "-inf", "1e9", "50/m", "50 k", "1G", "k", ".5k", "5.", "1_", "_1",
            "1.2.3", "５",
        ];
        for text in others {
            check(text, Err("is no rate: it is points per second"));
        }
    }

    #[test]
    fn a_rate_that_is_shown_reads_back() {
        for points in [1, 50_000, 99_999_999, RATE_MAX] {
            assert_eq!(parse_rate(&rate(points)), Ok(points));
        }
        assert_eq!(rate(u64::MAX), "max");
    }

    #[test]
    fn large_numbers_have_three_digits_and_are_never_rounded_up() {
        let counts = [0, 9_999, 10_000, 999_999, 1_000_000, 20_100_000, u64::MAX].map(count);
        assert_eq!(counts, ["0", "9999", "10.0k", "999k", "1.00M", "20.1M", "18446744T"]);
        let sizes = [0, 1_023, 1_024, 47_500_000, 1 << 40].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "45.2 MiB", "1.00 TiB"]);
    }
}
