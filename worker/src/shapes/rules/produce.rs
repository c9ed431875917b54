//! Values made of shapes and numbers.

use super::super::Extent;
use super::super::fact::{Asked, Fact};
use crate::Result;

/// Shape.
pub fn shape(asked: &Asked) -> Result<Vec<Fact>> {
    let (start, end) = (asked.node.int("start", 0)?, asked.node.int("end", i64::MAX)?);
    let Some(shape) = asked.shape(0) else { return Ok(vec![asked.of_rank(0, 1)]) };
    let rank = shape.len() as i64;
    let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(start), clamp(end));
    Ok(vec![Fact::vector(shape[start..end.max(start)].to_vec())])
}

/// Size.
pub fn size(asked: &Asked) -> Result<Vec<Fact>> {
    let elements = asked.shape(0).and_then(product).map(|size| vec![size]);
    Ok(vec![Fact { shape: Some(Vec::new()), elements }])
}

/// The product of extents; `None`: it is too long.
pub(super) fn product(extents: &[Extent]) -> Option<Extent> {
    extents.iter().try_fold(Extent::from(1), |product, extent| product.times(extent))
}

/// Extents, where all of them are numbers.
pub(super) fn numbers(shape: &[Extent]) -> Option<Vec<usize>> {
    shape.iter().map(|extent| usize::try_from(extent.number()?).ok()).collect()
}

/// ConstantOfShape.
pub fn constant_of_shape(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(extents) = asked.elements(0) else {
        let rank = asked.shape(0).and_then(|shape| shape.first()?.number());
        return Ok(vec![
            rank.map_or_else(Fact::default, |rank| asked.of_rank(0, rank.clamp(0, 64) as usize)),
        ]);
    };
    let mut fact = Fact::shaped(extents.to_vec());
    // Vectors of a known length, which exporters compare shapes with.
    let count = match extents {
        [] => Some(1),
        [only] => only.number(),
        _ => None,
    };
    let value = asked.node.tensor("value")?.map(Fact::of).and_then(|value| value.elements);
    if let (Some(count @ 0..=64), Some([value])) = (count, value.as_deref()) {
        fact.elements = Some(vec![value.clone(); count as usize]);
    }
    Ok(vec![fact])
}

/// Range, of integers.
pub fn range(asked: &Asked) -> Result<Vec<Fact>> {
    let one = |index| asked.elements(index).and_then(<[Extent]>::first);
    let count = || {
        let (start, limit, delta) = (one(0)?, one(1)?, one(2)?.number()?);
        let count = limit.minus(start)?.ceil_div(delta)?;
        count.is_natural().then_some(count)
    };
    let count = count();
    let elements = || {
        let (start, delta) = (one(0)?, one(2)?);
        let number = count.as_ref()?.number().filter(|count| (0..=64).contains(count))?;
        (0..number).map(|index| start.plus(&delta.times(&index.into())?)).collect()
    };
    let elements = elements();
    Ok(vec![Fact { shape: Some(vec![asked.or_free(count, 0, 0)]), elements }])
}
