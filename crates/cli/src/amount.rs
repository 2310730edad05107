//! Counts and sizes as operators read them. Rates are `engine::rate`'s.

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

    #[test]
    fn large_numbers_have_three_digits_and_are_never_rounded_up() {
        let counts = [0, 9_999, 10_000, 999_999, 1_000_000, 20_100_000, u64::MAX].map(count);
        assert_eq!(counts, ["0", "9999", "10.0k", "999k", "1.00M", "20.1M", "18446744T"]);
        let sizes = [0, 1_023, 1_024, 47_500_000, 1 << 40].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "45.2 MiB", "1.00 TiB"]);
    }
}
