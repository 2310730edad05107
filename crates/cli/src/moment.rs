//! Points in time as operators write and read them. Everything is UTC.

use std::time::Duration;

use engine::time::UnixSeconds;

const DAY: i64 = 86_400;
/// Beyond the year 9999 there is no RFC 3339; such a number is shown as it is.
const YEAR_9999_ENDS: u64 = 253_402_300_800;

/// RFC 3339 (`2026-06-24T03:10:00Z`), seconds since 1970, `now`, or a time before now (`-2h`, `-1h30m`).
///
/// # Errors
/// Says what would be right.
pub(crate) fn parse(text: &str, now: UnixSeconds) -> Result<u64, String> {
    let text = text.trim();
    let now = u64::from(now.0);
    if text == "now" {
        return Ok(now);
    }
    if let Some(before) = text.strip_prefix('-').and_then(config::parse_duration) {
        return before_now(now, before, text);
    }
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong(text));
    }
    rfc_3339(text).ok_or_else(|| wrong(text))
}

fn before_now(now: u64, before: Duration, text: &str) -> Result<u64, String> {
    now.checked_sub(before.as_secs()).ok_or_else(|| format!("\"{text}\" is before 1970"))
}

fn wrong(text: &str) -> String {
    format!("\"{text}\" is no time: write 2026-06-24T03:10:00Z, seconds since 1970, -2h, or now")
}

/// Date, `T` or a space, time with an optional fraction (which is cut off), `Z` or an offset.
fn rfc_3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone_at)?;
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let ended = date.next().is_none() && parts.next().is_none();
    let digits = !fraction.is_empty() && fraction.chars().all(|c| c.is_ascii_digit());
    // A leap second is the last second of its minute: no line carries one.
    let in_range = (1..=12).contains(&month) && hour < 24 && minute < 60 && second < 60;
    if !ended || !digits || !in_range || day < 1 || day > days_of(year, month) {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset(zone)?;
    u64::try_from(seconds).ok()
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, zone.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.chars().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of the Gregorian calendar. The year begins in March here, so that the leap day is its last; 153 days are five months
/// from March on.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// RFC 3339, to the second.
pub(crate) fn show(at: u64) -> String {
    let seconds = match i64::try_from(at) {
        Ok(seconds) if at < YEAR_9999_ENDS => seconds,
        Ok(_) | Err(_) => return at.to_string(),
    };
    let (days, rest) = (seconds / DAY, seconds % DAY);
    // The inverse of the above: 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14 22:13:20z", 1_700_000_000),
            ("2023-11-14T22:13:20.999Z", 1_700_000_000),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000),
            ("2023-11-14T16:43:20-05:30", 1_700_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800),
            ("1970-01-01T00:00:00Z", 0),
            ("1700000000", 1_700_000_000),
            ("now", 1_700_000_000),
            ("-2h", 1_699_992_800),
            ("-1h30m", 1_699_994_600),
            ("-500ms", 1_700_000_000),
        ] {
            assert_eq!(parse(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2h",
            "-2",
            "-99999d",
            "2023-11-14",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:60Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+2:00",
            "2023-11-14T22:13:20+25:00",
            "1969-12-31T23:59:59Z",
            "+2023-11-14T22:13:20Z",
            "99999999999999999999",
        ] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        // Each day of four centuries, at another second of it.
        for day in 0..146_097 {
            let at = day * 86_400 + day * 7 % 86_400;
            assert_eq!(parse(&show(at), NOW), Ok(at));
        }
        assert_eq!(show(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(show(YEAR_9999_ENDS - 1), "9999-12-31T23:59:59Z");
        assert_eq!(show(u64::MAX), u64::MAX.to_string());
    }
}
