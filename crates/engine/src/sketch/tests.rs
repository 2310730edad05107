use proptest::prelude::*;

use super::codec::{Reader, put_varint};
use super::*;

/// A seeded generator, so that failures repeat.
fn mix(seed: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&seed.to_le_bytes())
}

fn sketch_of(values: &[f64]) -> DdSketch {
    let mut sketch = DdSketch::new();
    values.iter().for_each(|value| sketch.add(*value));
    sketch
}

fn set_of(hashes: impl Iterator<Item = u64>) -> Hll {
    let mut set = Hll::new();
    hashes.for_each(|hash| set.add(hash));
    set
}

/// Every quantile asked for is within 1 % of the value at its rank.
#[track_caller]
fn check_quantiles(values: &[f64]) {
    let sketch = sketch_of(values);
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    for permille in [0u16, 1, 10, 250, 500, 750, 900, 990, 999, 1000] {
        let exact = sorted[usize::from(permille) * (sorted.len() - 1) / 1000];
        let near = sketch.quantile(permille).expect("there are values");
        let allowed = exact.abs() * 0.01 + if exact.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { 0.0 };
        assert!((near - exact).abs() <= allowed, "p{permille}: {near} for {exact}");
    }
}

#[test]
fn quantiles_are_within_one_per_cent_over_the_whole_range_of_numbers() {
    // Every power of two with mantissas all over the octave, so that every kind of bucket edge is met.
    for exponent in -1022..=1023 {
        for step in 0..40u32 {
            let value = 2f64.powi(exponent) * (1.0 + f64::from(step) / 40.0);
            for value in [value, -value] {
                let near = sketch_of(&[value]).quantile(500).expect("there is a value");
                assert!((near / value - 1.0).abs() <= 0.01, "{near} for {value}");
            }
        }
    }
}

#[test]
fn quantiles_are_right_at_the_edges_of_the_range() {
    check_quantiles(&[0.0, -0.0, 5e-324, -5e-324]);
    check_quantiles(&[f64::MAX, f64::MIN, f64::MIN_POSITIVE, -f64::MIN_POSITIVE, 1.0]);
    check_quantiles(&[1.0 - f64::EPSILON / 2.0, 2.0 - f64::EPSILON, 1.0]);
    let many: Vec<f64> = (0..20_000u64).map(|seed| (mix(seed) % 1_000_000) as f64 / 7.0 - 20_000.0).collect();
    check_quantiles(&many);
}

#[test]
fn an_empty_sketch_has_no_quantile() {
    assert_eq!(DdSketch::new().quantile(500), None);
}

#[test]
fn a_sketch_of_every_bucket_keeps_all_of_them() {
    let mut sketch = DdSketch::new();
    for exponent in -1000..1000 {
        sketch.add(2f64.powi(exponent));
        sketch.add(-2f64.powi(exponent));
    }
    let lowest = sketch.quantile(0).expect("there are values");
    assert!((lowest / -2f64.powi(999) - 1.0).abs() < 0.01, "nothing was collapsed: {lowest}");
    assert_eq!(sketch.count(), 4000);
}

#[test]
fn small_sets_are_counted_exactly_and_large_ones_within_five_per_cent() {
    for size in [0u64, 1, 2, 17, 255, 256] {
        assert_eq!(set_of((0..size).map(mix)).estimate(), size);
    }
    for size in [257u64, 500, 1000, 5000, 10_000, 20_000, 100_000, 1_000_000] {
        let estimate = set_of((0..size).map(mix)).estimate();
        // Three standard errors of 1.6 %.
        assert!((estimate as f64 / size as f64 - 1.0).abs() < 0.05, "{estimate} for {size}");
    }
}

#[test]
fn a_series_seen_twice_counts_once() {
    assert_eq!(set_of((0..100_000).map(|seed| mix(seed % 200))).estimate(), 200);
}

#[test]
fn a_sum_keeps_what_plain_addition_loses() {
    let mut sum = DoubleDouble::ZERO;
    [1e17, 1.0, -1e17, 1e-3].iter().for_each(|value| sum.add(*value));
    assert_eq!(sum.value(), 1.001);
    let mut squares = DoubleDouble::ZERO;
    let mut total = DoubleDouble::ZERO;
    for value in [1e9 + 1.0, 1e9 - 1.0, 1e9 + 1.0, 1e9 - 1.0] {
        squares.add_square(value);
        total.add(value);
    }
    assert_eq!(squares.scaled_minus_square(4.0, total), 16.0, "variance 1, times n squared");
}

#[test]
fn a_sum_out_of_range_is_infinite() {
    let mut sum = DoubleDouble::ZERO;
    [f64::MAX, f64::MAX].iter().for_each(|value| sum.add(*value));
    assert!(!sum.value().is_finite());
}

#[test]
fn a_count_never_promises_more_than_the_bytes_hold() {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, u64::MAX);
    assert_eq!(Reader::new(&bytes).count(8), Err(DecodeError::Truncated));
    assert_eq!(
        Reader::new(&[0xff; 10]).varint(),
        Err(DecodeError::Malformed("a variable-length integer of more than 64 bits"))
    );
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        -1e6..1e6f64,
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        (-100i32..100).prop_map(f64::from),
        Just(0.0)
    ]
}

proptest! {
    #[test]
    fn varints_come_back(values in prop::collection::vec(any::<u64>(), 0..20)) {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| put_varint(&mut bytes, value >> (value % 64)));
        let mut reader = Reader::new(&bytes);
        for value in values {
            prop_assert_eq!(reader.varint(), Ok(value >> (value % 64)));
        }
        prop_assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn sketches_merge_to_the_sketch_of_all(left in prop::collection::vec(any_value(), 0..200), right in prop::collection::vec(any_value(), 0..200)) {
        let (mut ab, mut ba) = (sketch_of(&left), sketch_of(&right));
        ab.merge(&sketch_of(&right));
        ba.merge(&sketch_of(&left));
        let all: Vec<f64> = left.iter().chain(&right).copied().collect();
        prop_assert_eq!(&ab, &sketch_of(&all));
        prop_assert_eq!(&ba, &ab);
        let mut bytes = Vec::new();
        ab.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(DdSketch::decode(&mut reader), Ok(ab));
        prop_assert_eq!(reader.remaining(), 0);
        if !all.is_empty() {
            check_quantiles(&all);
        }
    }

    #[test]
    fn sets_merge_to_the_set_of_all(left in 0u64..600, overlap in 0u64..300, right in 0u64..600) {
        let (from, until) = (left.saturating_sub(overlap), left + right);
        let (mut ab, mut ba) = (set_of((0..left).map(mix)), set_of((from..until).map(mix)));
        ab.merge(&set_of((from..until).map(mix)));
        ba.merge(&set_of((0..left).map(mix)));
        prop_assert_eq!(&ab, &set_of((0..until).rev().map(mix)));
        prop_assert_eq!(&ba, &ab);
        let mut bytes = Vec::new();
        ab.encode(&mut bytes);
        prop_assert_eq!(Hll::decode(&mut Reader::new(&bytes)), Ok(ab));
    }

    #[test]
    fn sums_do_not_depend_on_the_order(mut values in prop::collection::vec(-1e12..1e12f64, 1..200), cut in any::<prop::sample::Index>(), seed in any::<u64>()) {
        let total = |values: &[f64]| {
            let mut sum = DoubleDouble::ZERO;
            values.iter().for_each(|value| sum.add(*value));
            sum
        };
        let direct = total(&values).value();
        values.sort_by_key(|value| mix(value.to_bits() ^ seed));
        let (left, right) = values.split_at(cut.index(values.len()));
        let mut merged = total(right);
        merged.merge(total(left));
        prop_assert_eq!(merged.value(), direct);
    }

    #[test]
    fn garbage_is_no_sketch_and_no_set_but_no_panic_either(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(sketch) = DdSketch::decode(&mut Reader::new(&bytes)) {
            prop_assert!(sketch.heap_bytes() <= 4 * bytes.len());
            prop_assert_eq!(sketch.quantile(500).is_some(), !sketch.is_empty());
        }
        if let Ok(set) = Hll::decode(&mut Reader::new(&bytes)) {
            prop_assert!(set.estimate() <= 300);
        }
    }
}
