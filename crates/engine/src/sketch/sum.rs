//! Sums that do not depend on the order of their parts.

/// A sum kept as a leading `f64` and what rounding cut off it, about 106 bits together.
///
/// As long as the values of one sum span less than that, addition is exact and any order or grouping gives the same
/// [`DoubleDouble::value`]. A sum beyond the range of `f64` becomes infinite and stays so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleDouble {
    leading: f64,
    rest: f64,
}

impl DoubleDouble {
    pub const ZERO: DoubleDouble = DoubleDouble { leading: 0.0, rest: 0.0 };

    /// From the two parts that [`DoubleDouble::parts`] gave.
    pub const fn from_parts(leading: f64, rest: f64) -> DoubleDouble {
        DoubleDouble { leading, rest }
    }

    /// Leading part and rest.
    pub const fn parts(self) -> (f64, f64) {
        (self.leading, self.rest)
    }

    /// Adds one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.leading, value);
        self.leading = sum;
        self.rest += error;
    }

    /// Adds `value * value` without rounding it first.
    #[inline]
    pub fn add_square(&mut self, value: f64) {
        let (product, error) = two_product(value, value);
        self.add(product);
        self.rest += error;
    }

    /// Adds another sum.
    #[inline]
    pub fn merge(&mut self, other: DoubleDouble) {
        let (sum, error) = two_sum(self.leading, other.leading);
        self.leading = sum;
        self.rest += error + other.rest;
    }

    /// The sum, rounded once. Infinite or NaN when it left the range of `f64`.
    pub fn value(self) -> f64 {
        if self.leading.is_finite() { self.leading + self.rest } else { self.leading }
    }

    /// `self * factor - other * other`, computed in both parts: what a variance is made of. It keeps the digits that
    /// plain arithmetic loses when the values are large and close to each other.
    pub fn scaled_minus_square(self, factor: f64, other: DoubleDouble) -> f64 {
        let (a, a_rest) = two_sum(self.leading, self.rest);
        let (b, b_rest) = two_sum(other.leading, other.rest);
        let (left, left_error) = two_product(a, factor);
        let (right, right_error) = two_product(b, b);
        let (difference, error) = two_sum(left, -right);
        difference + (error + ((left_error + a_rest * factor) - (right_error + 2.0 * b * b_rest)))
    }
}

/// The rounded sum and exactly what rounding lost (Knuth).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    (sum, error)
}

/// The rounded product and exactly what rounding lost (Dekker). Not `mul_add`: without the instruction, which the
/// baseline of x86-64 lacks, that is a slow library call.
#[inline]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let (a_high, a_low) = split(a);
    let (b_high, b_low) = split(b);
    let error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, error)
}

/// Two halves of 26 bits each.
#[inline]
fn split(value: f64) -> (f64, f64) {
    let scaled = value * 134_217_729.0; // 2^27 + 1
    let high = scaled - (scaled - value);
    (high, value - high)
}
