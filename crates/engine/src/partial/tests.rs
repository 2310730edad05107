use proptest::prelude::*;

use super::*;

const ALL: [Function; 12] = [
    Function::Sum,
    Function::Count,
    Function::Min,
    Function::Max,
    Function::Avg,
    Function::First,
    Function::Last,
    Function::Rate,
    Function::Stddev,
    Function::Percentile(500),
    Function::Percentile(990),
    Function::Distinct,
];

#[derive(Clone, Copy, Debug)]
struct Point {
    value: f64,
    order: PointOrder,
    series: u64,
}

fn point(value: f64, ts: u32, seq: u32) -> Point {
    let series = xxhash_rust::xxh3::xxh3_64(&[u8::try_from(seq % 7).expect("below 7")]);
    Point { value, order: PointOrder { ts, sender: 3, epoch: 1, seq, index: 0 }, series }
}

fn fold(shape: Shape, points: &[Point]) -> Partial {
    let mut partial = Partial::new(shape);
    points.iter().for_each(|point| partial.fold(point.value, point.order, point.series));
    partial
}

fn values(partial: &Partial) -> Vec<Option<f64>> {
    ALL.iter().map(|function| partial.value(*function, 10)).collect()
}

fn encoded(partial: &Partial) -> Vec<u8> {
    let mut bytes = Vec::new();
    partial.encode(&mut bytes);
    bytes
}

/// Folds `numbers` one second apart and compares one function over windows of ten seconds.
#[track_caller]
fn check(function: Function, numbers: &[f64], expected: f64) {
    let points: Vec<Point> = (0u32..).zip(numbers).map(|(at, value)| point(*value, 100 + at, at)).collect();
    let value = fold(Shape::of(&[function]), &points).value(function, 10).expect("there is a value");
    let allowed = if matches!(function, Function::Percentile(_)) { expected.abs() * 0.01 } else { 0.0 };
    assert!((value - expected).abs() <= allowed, "{function:?} of {numbers:?} is {value}, not {expected}");
}

#[test]
fn every_function_of_three_points() {
    let numbers = [3.0, 1.0, 2.5];
    for (function, expected) in [
        (Function::Sum, 6.5),
        (Function::Count, 3.0),
        (Function::Min, 1.0),
        (Function::Max, 3.0),
        (Function::Avg, 6.5 / 3.0),
        (Function::First, 3.0),
        (Function::Last, 2.5),
        (Function::Rate, 0.65),
        (Function::Percentile(0), 1.0),
        (Function::Percentile(500), 2.5),
        (Function::Percentile(1000), 3.0),
        (Function::Distinct, 3.0),
    ] {
        check(function, &numbers, expected);
    }
    check(Function::Stddev, &[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 2.0);
}

#[test]
fn stddev_survives_large_values_close_together() {
    check(Function::Stddev, &[1e9 + 1.0, 1e9 - 1.0], 1.0);
    check(Function::Stddev, &[0.1, 0.1, 0.1], 0.0);
    check(Function::Stddev, &[5.0], 0.0);
}

#[test]
fn first_and_last_go_by_the_points_time_then_by_identity() {
    let shape = Shape::of(&[Function::First, Function::Last]);
    let points = [point(1.0, 50, 9), point(2.0, 40, 8), point(3.0, 50, 2), point(4.0, 40, 9)];
    let partial = fold(shape, &points);
    assert_eq!(partial.value(Function::First, 10), Some(2.0));
    assert_eq!(partial.value(Function::Last, 10), Some(1.0));
}

#[test]
fn no_points_have_no_value() {
    assert_eq!(values(&Partial::new(Shape::of(&ALL))), vec![None; ALL.len()]);
}

#[test]
fn a_component_that_one_side_lacks_is_dropped_and_the_rest_stays() {
    let points = [point(1.0, 1, 1), point(5.0, 2, 2)];
    let mut left = fold(Shape::of(&[Function::Percentile(990), Function::Last]), &points[..1]);
    left.merge(&fold(Shape::of(&[Function::Last, Function::Distinct]), &points[1..]));
    assert_eq!(left.value(Function::Percentile(990), 10), None);
    assert_eq!(left.value(Function::Distinct, 10), None);
    assert_eq!(left.value(Function::Last, 10), Some(5.0));
    assert_eq!(left.value(Function::Sum, 10), Some(6.0));
    left.merge(&fold(Shape::PLAIN, &points));
    assert_eq!(left.value(Function::Last, 10), None);
    assert_eq!(left.value(Function::Count, 10), Some(4.0));
}

#[test]
fn a_sum_out_of_range_has_no_value_and_the_others_do() {
    let partial = fold(Shape::of(&ALL), &[point(f64::MAX, 1, 1), point(f64::MAX, 2, 2)]);
    assert_eq!(partial.value(Function::Sum, 10), None);
    assert_eq!(partial.value(Function::Stddev, 10), None);
    assert_eq!(partial.value(Function::Max, 10), Some(f64::MAX));
    let mut reader_bytes = encoded(&partial);
    reader_bytes.push(7);
    let mut reader = Reader::new(&reader_bytes);
    let back = Partial::decode(&mut reader).expect("it was encoded");
    assert_eq!(back.value(Function::Max, 10), Some(f64::MAX));
    assert_eq!(reader.remaining(), 1);
}

#[test]
fn a_minus_zero_is_a_zero() {
    for numbers in [[0.0, -0.0], [-0.0, 0.0]] {
        let points: Vec<Point> = numbers.iter().map(|value| point(*value, 1, 1)).collect();
        let partial = fold(Shape::PLAIN, &points);
        for function in [Function::Min, Function::Max, Function::Sum] {
            assert!(partial.value(function, 1).is_some_and(f64::is_sign_positive));
        }
    }
}

#[test]
fn one_plain_point_takes_ten_bytes() {
    assert_eq!(encoded(&fold(Shape::PLAIN, &[point(3.5, 1, 1)])).len(), 10);
    assert_eq!(size_of::<Partial>(), 48);
}

fn any_point() -> impl Strategy<Value = Point> {
    let value = prop_oneof![-1e9..1e9f64, (-50i32..50).prop_map(f64::from)];
    (value, 0u32..60, any::<u32>()).prop_map(|(value, ts, seq)| point(value, ts, seq))
}

proptest! {
    #[test]
    fn any_order_and_grouping_gives_the_same_values(
        points in prop::collection::vec(any_point(), 1..60),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 2),
        plain in any::<bool>(),
    ) {
        let shape = if plain { Shape::PLAIN } else { Shape::of(&ALL) };
        let direct = fold(shape, &points);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(points.len() + 1)).collect();
        cuts.sort_unstable();
        let [a, b, c] = [&points[..cuts[0]], &points[cuts[0]..cuts[1]], &points[cuts[1]..]].map(|part| fold(shape, part));
        // (a + b) + c
        let mut left = a.clone();
        left.merge(&b);
        left.merge(&c);
        // c + (b + a), through the wire
        let mut tail = b.clone();
        tail.merge(&a);
        let mut right = c.clone();
        right.merge(&tail);
        let right = Partial::decode(&mut Reader::new(&encoded(&right))).expect("it was encoded");
        let mut reversed = points.clone();
        reversed.reverse();
        for other in [&left, &right, &fold(shape, &reversed)] {
            prop_assert_eq!(values(other), values(&direct));
            prop_assert_eq!(other.points(), direct.points());
        }
    }

    #[test]
    fn what_was_encoded_comes_back(points in prop::collection::vec(any_point(), 1..40), functions in prop::sample::subsequence(ALL.to_vec(), 0..ALL.len())) {
        let partial = fold(Shape::of(&functions), &points);
        let bytes = encoded(&partial);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Partial::decode(&mut reader), Ok(partial));
        prop_assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn changed_bytes_never_panic(
        points in prop::collection::vec(any_point(), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&fold(Shape::of(&ALL), &points));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(mut partial) = Partial::decode(&mut Reader::new(&bytes)) {
            partial.merge(&fold(Shape::of(&ALL), &points));
            prop_assert!(values(&partial).iter().flatten().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(partial) = Partial::decode(&mut Reader::new(&bytes)) {
            prop_assert!(partial.points() > 0);
            prop_assert!(partial.heap_bytes() <= size_of::<Extra>() + 8 * bytes.len());
        }
    }
}
