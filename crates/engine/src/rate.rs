//! Rates of replay: how they are written, and which of them are taken. One answer for the cluster file, the command line
//! and every node that replays, so that the same mistake is refused everywhere, in the same words.

use std::fmt;

/// What `max` stands for, in points per second: far above what any machine sends, so that nothing but the receivers and
/// the network limits. It is a rate like any other, not zero with a meaning of its own. Above it a rate is a slip.
pub const RATE_MAX: u64 = 100_000_000;

/// What would be right; every refusal says it.
pub const EXPECTED: &str =
    "a rate is 1/s to 100M/s, such as 50000/s, 50k/s, 1.5M/s, or max; pausing is `spillway replay pause`";

const FACTORS: [(char, u128); 3] = [('k', 1_000), ('K', 1_000), ('M', 1_000_000)];
/// More digits behind the point than any rate needs; the arithmetic below stays far from its bounds.
const FRACTION_DIGITS_MAX: usize = 9;
const WHOLE_DIGITS_MAX: usize = 20;

/// Why something is no rate, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRate {
    text: String,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoNumber,
    Negative,
    Zero,
    BelowOne,
    TooMuch,
}

impl NoRate {
    /// The same with what stays in force.
    pub fn in_force(&self, now: impl fmt::Display) -> String {
        format!("{self}; in force: {now}")
    }
}

impl fmt::Display for NoRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::NoNumber => "is no rate",
            Fault::Negative => "is negative",
            Fault::Zero => "is a standstill, not a rate",
            Fault::BelowOne => "is less than one point per second",
            Fault::TooMuch => "is absurd",
        };
        write!(f, "\"{}\" {fault}: {EXPECTED}", self.text)
    }
}

impl std::error::Error for NoRate {}

/// Takes a number of points per second that is a rate.
///
/// # Errors
/// Says what is wrong with it and what would be right.
pub fn check(points: u64) -> Result<u64, NoRate> {
    let fault = match points {
        0 => Fault::Zero,
        1..=RATE_MAX => return Ok(points),
        _ => Fault::TooMuch,
    };
    Err(NoRate { text: format!("{points}/s"), fault })
}

/// `50000`, `50000/s`, `50k/s`, `1.5M/s`, `max`: points per second, 1 to [`RATE_MAX`].
///
/// # Errors
/// Says what is wrong with it and what would be right.
pub fn parse(text: &str) -> Result<u64, NoRate> {
    let text = text.trim();
    let wrong = |fault| NoRate { text: text.to_owned(), fault };
    if text == "max" {
        return Ok(RATE_MAX);
    }
    let number = text.strip_suffix("/s").unwrap_or(text);
    if let Some(negative) = number.strip_prefix('-')
        && negative.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(wrong(Fault::Negative));
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
        return Err(wrong(Fault::NoNumber));
    }
    let (whole, fraction) = (whole.replace('_', ""), fraction.trim_end_matches('0'));
    if whole.len() > WHOLE_DIGITS_MAX || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(wrong(Fault::TooMuch));
    }
    let no_number = |_| wrong(Fault::NoNumber);
    let places = u32::try_from(fraction.len()).map_err(|_| wrong(Fault::NoNumber))?;
    let whole: u128 = whole.parse().map_err(no_number)?;
    let tail: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(no_number)? };
    let points = whole * factor + tail * factor / 10u128.pow(places);
    match u64::try_from(points) {
        Ok(0) if whole == 0 && tail == 0 => Err(wrong(Fault::Zero)),
        Ok(0) => Err(wrong(Fault::BelowOne)),
        Ok(points) if points <= RATE_MAX => Ok(points),
        Ok(_) | Err(_) => Err(wrong(Fault::TooMuch)),
    }
}

/// As [`parse`] takes it back.
pub fn show(points: u64) -> String {
    if points >= RATE_MAX { "max".into() } else { format!("{points}/s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(text: &str, points: u64) {
        assert_eq!(parse(text), Ok(points), "{text}");
    }

    #[track_caller]
    fn bad(text: &str, part: &str) {
        let said = parse(text).expect_err(text).to_string();
        assert_eq!(said, format!("\"{}\" {part}: {EXPECTED}", text.trim()));
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
            good(text, points);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_reason_and_the_bounds() {
        for text in ["0", "0/s", "0.0k/s", "00"] {
            bad(text, "is a standstill, not a rate");
        }
        for text in ["0.5", "0.0001k"] {
            bad(text, "is less than one point per second");
        }
        for text in ["-1", "-50k/s", "-0"] {
            bad(text, "is negative");
        }
        for text in ["100.1M", "99999999999999999999999999M", "1001M/s", "1.0000000001", "18446744073709551616"] {
            bad(text, "is absurd");
        }
        let others = [
            "", "/s", "nan", "NaN/s", "inf", "-inf", "1e9", "50/m", "50 k", "1G", "k", ".5k", "5.", "1_", "_1",
            "1.2.3", "５",
        ];
        for text in others {
            bad(text, "is no rate");
        }
        assert!(EXPECTED.contains(&format!("{}M/s", RATE_MAX / 1_000_000)), "the bound that is said is the real one");
    }

    #[test]
    fn a_number_is_refused_as_its_text_is() {
        for points in [0, RATE_MAX + 1, u64::MAX] {
            assert_eq!(check(points), parse(&format!("{points}/s")));
        }
        assert_eq!([check(1), check(RATE_MAX)], [Ok(1), Ok(RATE_MAX)]);
        let said = check(0).expect_err("no rate").in_force(show(50_000));
        assert_eq!(said, format!("\"0/s\" is a standstill, not a rate: {EXPECTED}; in force: 50000/s"));
    }

    #[test]
    fn a_rate_that_is_shown_reads_back() {
        for points in [1, 50_000, 99_999_999, RATE_MAX] {
            assert_eq!(parse(&show(points)), Ok(points));
        }
        assert_eq!(show(u64::MAX), "max");
    }
}
