//! Until when a certificate is valid: the one field of X.509 that nobody else gives us, read without a parser of the
//! whole (RFC 5280, 4.1).

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity, in seconds since 1970; `None` if this is no certificate.
pub(crate) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (signed, _) = value(certificate, SEQUENCE)?;
    let (fields, _) = value(signed, SEQUENCE)?;
    let after_version = value(fields, VERSION).map_or(fields, |(_, rest)| rest);
    // Serial number, signature algorithm, issuer.
    let after_issuer = skip(skip(skip(after_version)?)?)?;
    let (validity, _) = value(after_issuer, SEQUENCE)?;
    time(skip(validity)?)
}

/// The content of the value at the front, which must have this tag, and what stands behind.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag).then_some((content, rest))
}

fn skip(der: &[u8]) -> Option<&[u8]> {
    any(der).map(|(_, _, rest)| rest)
}

fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // The long form: so many bytes of length follow. A certificate has no need of more than four.
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, of 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(der: &[u8]) -> Option<u64> {
    let (tag, text, _) = any(der)?;
    let digits = text.strip_suffix(b"Z")?;
    let number = |from: usize, length: usize| {
        digits
            .get(from..from + length)?
            .iter()
            .try_fold(0u64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
    };
    let (year, at) = match tag {
        UTC_TIME => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    let days = days_since_1970(year, month, day)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// In the Gregorian calendar; before 1970 is `None`.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let of_years: u64 = (1970..year).filter(|_| fits).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let of_months: u64 = lengths.iter().zip(1..month).map(|(length, _)| length).sum();
    fits.then_some(of_years + of_months + day.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["relay-1".into()]).expect("names");
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signs").der().to_vec()
    }

    #[test]
    fn the_end_of_validity_is_read_in_both_notations() {
        for (year, month, day, expected) in [
            (1971, 1, 1, 31_536_000),
            (2024, 2, 29, 1_709_164_800),
            (2026, 11, 27, 1_795_737_600),
            (2049, 12, 31, 2_524_521_600),
            // From 2050 on the year has four digits.
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            assert_eq!(not_after(&certificate(year, month, day)), Some(expected), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_trips_nothing() {
        let good = certificate(2030, 1, 1);
        for end in 0..good.len() {
            assert_eq!(not_after(&good[..end]), None, "{end} bytes");
        }
        for at in 0..good.len().min(300) {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                // Any answer, but an answer.
                let _end: Option<u64> = not_after(&bad);
            }
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
