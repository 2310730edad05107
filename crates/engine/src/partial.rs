//! The mergeable state of one output key and window.
//!
//! A [`Partial`] is a function of the multiset of points folded into it: points and parts may come in any order and
//! grouping. Exactly so for count, min, max, first, last, percentiles and distinct; sum, average, rate and standard
//! deviation to the last printed digit (see [`DoubleDouble`]).
//!
//! Layout, appended by [`Partial::encode`]:
//!
//! ```text
//! components u8   bit 0 sum of squares, 1 first, 2 last, 3 sketch, 4 distinct, 7 `sum rest` present
//! n          varint, at least 1
//! sum        f64
//! sum rest   f64   only with bit 7
//! min, max   f64   only when n > 1 (else both are the sum)
//! squares    f64, f64                                   only with bit 0
//! first      ts varint, sender u64, epoch varint, seq varint, index varint, value f64     only with bit 1
//! last       the same                                   only with bit 2
//! sketch     see `sketch::DdSketch`                     only with bit 3
//! distinct   see `sketch::Hll`                          only with bit 4
//! ```

#[cfg(test)]
mod tests;

use crate::rule::Function;
use crate::sketch::codec::{DecodeError, Reader, put_f64, put_varint};
use crate::sketch::{DdSketch, DoubleDouble, Hll};

/// Which components beyond n, sum, min and max a rule's functions need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape(u8);

impl Shape {
    /// Only n, sum, min and max.
    pub const PLAIN: Shape = Shape(0);
    const SQUARES: Shape = Shape(1);
    const FIRST: Shape = Shape(2);
    const LAST: Shape = Shape(4);
    const SKETCH: Shape = Shape(8);
    const DISTINCT: Shape = Shape(16);
    const ALL: u8 = 31;

    /// What `functions` need together.
    pub fn of(functions: &[Function]) -> Shape {
        functions.iter().fold(Shape::PLAIN, |shape, function| Shape(shape.0 | Shape::of_one(*function).0))
    }

    fn of_one(function: Function) -> Shape {
        match function {
            Function::Sum | Function::Count | Function::Min | Function::Max | Function::Avg | Function::Rate => {
                Shape::PLAIN
            }
            Function::First => Shape::FIRST,
            Function::Last => Shape::LAST,
            Function::Stddev => Shape::SQUARES,
            Function::Percentile(_) => Shape::SKETCH,
            Function::Distinct => Shape::DISTINCT,
        }
    }

    #[inline]
    const fn has(self, part: Shape) -> bool {
        self.0 & part.0 != 0
    }
}

/// Where a point stands among all points of a window: by its own time, then by its identity. Never by arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PointOrder {
    /// The point's own timestamp, seconds.
    pub ts: u32,
    pub sender: u64,
    pub epoch: u32,
    pub seq: u32,
    /// The point's place in its batch.
    pub index: u32,
}

/// See the module's head. 48 bytes, and nothing on the heap when the shape is [`Shape::PLAIN`].
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    n: u64,
    sum: DoubleDouble,
    min: f64,
    max: f64,
    extra: Option<Box<Extra>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extra {
    shape: Shape,
    squares: DoubleDouble,
    first: (PointOrder, f64),
    last: (PointOrder, f64),
    sketch: DdSketch,
    distinct: Hll,
}

impl Partial {
    /// No points yet.
    pub fn new(shape: Shape) -> Partial {
        Partial::reusing(shape, None)
    }

    /// No points yet, in memory that another partial gave back with [`Partial::into_extra`].
    pub(crate) fn reusing(shape: Shape, spare: Option<Box<Extra>>) -> Partial {
        let extra = (shape != Shape::PLAIN).then(|| {
            let mut extra = spare.unwrap_or_default();
            extra.shape = shape;
            extra.squares = DoubleDouble::ZERO;
            extra.first = Default::default();
            extra.last = Default::default();
            extra.sketch.clear();
            extra.distinct.clear();
            extra
        });
        Partial { n: 0, sum: DoubleDouble::ZERO, min: f64::INFINITY, max: f64::NEG_INFINITY, extra }
    }

    pub(crate) fn into_extra(self) -> Option<Box<Extra>> {
        self.extra
    }

    /// How many points are in it.
    pub const fn points(&self) -> u64 {
        self.n
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.extra
            .as_ref()
            .map_or(0, |extra| size_of::<Extra>() + extra.sketch.heap_bytes() + extra.distinct.heap_bytes())
    }

    /// Adds one point. `value`: finite (the line parser refuses others). `series_hash`: of the *input* series.
    #[inline]
    pub fn fold(&mut self, value: f64, order: PointOrder, series_hash: u64) {
        // Turns -0 into 0: of two zeros that compare equal, min and max would keep whichever came first.
        let value = value + 0.0;
        self.n += 1;
        self.sum.add(value);
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
        if let Some(extra) = &mut self.extra {
            extra.fold(value, order, series_hash, self.n == 1);
        }
    }

    /// Adds all points of `other`. A component that one of the two does not have is dropped: a percentile of only some
    /// of the points would be wrong, none is honest. (Only possible across a change of a rule's functions.)
    pub fn merge(&mut self, other: &Partial) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = other.clone();
            return;
        }
        match (&mut self.extra, &other.extra) {
            (Some(ours), Some(theirs)) => {
                ours.merge(theirs);
                if ours.shape == Shape::PLAIN {
                    self.extra = None;
                }
            }
            (Some(_), None) => self.extra = None,
            (None, Some(_) | None) => {}
        }
        self.n = self.n.saturating_add(other.n);
        self.sum.merge(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The value of `function`; none when there are no points, when the component for it is missing, or when the
    /// result is outside the range of `f64`.
    ///
    /// `interval`: the rule's, in seconds. Standard deviation is that of the whole population, from (n, sum, sum of
    /// squares); a variance that rounding made negative is zero. A percentile is within 1 % of the point at rank
    /// `floor(p * (n - 1))`, and never outside min..max.
    pub fn value(&self, function: Function, interval: u32) -> Option<f64> {
        if self.n == 0 {
            return None;
        }
        let n = self.n as f64;
        let extra = |part: Shape| self.extra.as_deref().filter(|extra| extra.shape.has(part));
        let value = match function {
            Function::Sum => self.sum.value(),
            Function::Count => n,
            Function::Min => self.min,
            Function::Max => self.max,
            Function::Avg => self.sum.value() / n,
            Function::Rate => self.sum.value() / f64::from(interval.max(1)),
            Function::First => extra(Shape::FIRST)?.first.1,
            Function::Last => extra(Shape::LAST)?.last.1,
            Function::Stddev => {
                let spread = extra(Shape::SQUARES)?.squares.scaled_minus_square(n, self.sum);
                if spread.is_nan() { spread } else { spread.max(0.0).sqrt() / n }
            }
            Function::Percentile(permille) => {
                extra(Shape::SKETCH)?.sketch.quantile(permille)?.clamp(self.min, self.max)
            }
            Function::Distinct => extra(Shape::DISTINCT)?.distinct.estimate() as f64,
        };
        // Adding zero: -0 is printed as 0.
        value.is_finite().then_some(value + 0.0)
    }

    /// Appends the layout of this module. Only for a partial with points.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let shape = self.extra.as_ref().map_or(Shape::PLAIN, |extra| extra.shape);
        let (sum, rest) = self.sum.parts();
        let has_rest = rest != 0.0;
        out.push(shape.0 | if has_rest { 0x80 } else { 0 });
        put_varint(out, self.n);
        put_f64(out, sum);
        if has_rest {
            put_f64(out, rest);
        }
        if self.n > 1 {
            put_f64(out, self.min);
            put_f64(out, self.max);
        }
        if let Some(extra) = &self.extra {
            extra.encode(out);
        }
    }

    /// Reads what [`Partial::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no partial. Allocations are bounded by a small multiple of the bytes given.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Partial, DecodeError> {
        let components = reader.u8()?;
        let shape = Shape(components & 0x7f);
        if shape.0 & !Shape::ALL != 0 {
            return Err(DecodeError::Malformed("an unknown component of a partial"));
        }
        let n = reader.varint()?;
        if n == 0 {
            return Err(DecodeError::Malformed("a partial without points"));
        }
        let sum = reader.f64()?;
        let rest = if components & 0x80 != 0 { reader.f64()? } else { 0.0 };
        let (min, max) = if n > 1 { (reader.f64_finite()?, reader.f64_finite()?) } else { (sum, sum) };
        if !min.is_finite() || min > max {
            return Err(DecodeError::Malformed("a partial whose minimum is no number or above its maximum"));
        }
        let extra = if shape == Shape::PLAIN { None } else { Some(Box::new(Extra::decode(shape, reader)?)) };
        Ok(Partial { n, sum: DoubleDouble::from_parts(sum, rest), min, max, extra })
    }
}

impl Extra {
    #[inline]
    fn fold(&mut self, value: f64, order: PointOrder, series_hash: u64, only: bool) {
        if self.shape.has(Shape::SKETCH) {
            self.sketch.add(value);
        }
        if self.shape.has(Shape::SQUARES) {
            self.squares.add_square(value);
        }
        if self.shape.has(Shape::FIRST) && (only || stands_before((order, value), self.first)) {
            self.first = (order, value);
        }
        if self.shape.has(Shape::LAST) && (only || stands_before(self.last, (order, value))) {
            self.last = (order, value);
        }
        if self.shape.has(Shape::DISTINCT) {
            self.distinct.add(series_hash);
        }
    }

    fn merge(&mut self, other: &Extra) {
        self.shape = Shape(self.shape.0 & other.shape.0);
        self.squares.merge(other.squares);
        if stands_before(other.first, self.first) {
            self.first = other.first;
        }
        if stands_before(self.last, other.last) {
            self.last = other.last;
        }
        self.sketch.merge(&other.sketch);
        self.distinct.merge(&other.distinct);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if self.shape.has(Shape::SQUARES) {
            let (squares, rest) = self.squares.parts();
            put_f64(out, squares);
            put_f64(out, rest);
        }
        for (part, pick) in [(Shape::FIRST, self.first), (Shape::LAST, self.last)] {
            if self.shape.has(part) {
                put_varint(out, u64::from(pick.0.ts));
                out.extend_from_slice(&pick.0.sender.to_le_bytes());
                put_varint(out, u64::from(pick.0.epoch));
                put_varint(out, u64::from(pick.0.seq));
                put_varint(out, u64::from(pick.0.index));
                put_f64(out, pick.1);
            }
        }
        if self.shape.has(Shape::SKETCH) {
            self.sketch.encode(out);
        }
        if self.shape.has(Shape::DISTINCT) {
            self.distinct.encode(out);
        }
    }

    fn decode(shape: Shape, reader: &mut Reader<'_>) -> Result<Extra, DecodeError> {
        let mut extra = Extra { shape, ..Extra::default() };
        if shape.has(Shape::SQUARES) {
            extra.squares = DoubleDouble::from_parts(reader.f64()?, reader.f64()?);
        }
        if shape.has(Shape::FIRST) {
            extra.first = decode_pick(reader)?;
        }
        if shape.has(Shape::LAST) {
            extra.last = decode_pick(reader)?;
        }
        if shape.has(Shape::SKETCH) {
            extra.sketch = DdSketch::decode(reader)?;
        }
        if shape.has(Shape::DISTINCT) {
            extra.distinct = Hll::decode(reader)?;
        }
        Ok(extra)
    }
}

fn decode_pick(reader: &mut Reader<'_>) -> Result<(PointOrder, f64), DecodeError> {
    let ts = reader.varint_u32()?;
    let sender = reader.u64_fixed()?;
    let (epoch, seq, index) = (reader.varint_u32()?, reader.varint_u32()?, reader.varint_u32()?);
    Ok((PointOrder { ts, sender, epoch, seq, index }, reader.f64_finite()?))
}

/// By order, then by the value's bits: two points never share an order, but if a broken sender made them, both nodes
/// must still choose the same.
#[inline]
fn stands_before(left: (PointOrder, f64), right: (PointOrder, f64)) -> bool {
    (left.0, left.1.to_bits()) < (right.0, right.1.to_bits())
}
