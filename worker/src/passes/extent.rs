//! How large the result of an operator on constants may be, before it is computed.
//!
//! A few bytes of a hostile model can ask for any amount of memory: a `ConstantOfShape` of 2^60 elements, a table
//! of the products of two long vectors. What the estimate allows is computed; the rest is left to the run.

use crate::graph::{Node, TensorData};

/// Operators whose results are not larger than the broadcast of their inputs, or than all inputs together.
const BOUNDED: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Concat",
    "Cos",
    "CumSum",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Flatten",
    "Floor",
    "GatherElements",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Round",
    "ScatterND",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Size",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
];

/// At least as many elements as the result has; `None`: nobody knows.
pub fn at_most(node: &Node, inputs: &[Option<&TensorData>]) -> Option<u128> {
    let values = |index: usize| inputs.get(index).copied().flatten()?.to_i64().ok();
    let count = |index: usize| Some(inputs.get(index).copied().flatten()?.len() as u128);
    match node.op_type.as_str() {
        "ConstantOfShape" => product(&values(0)?),
        // Each extent is that of the input or that of the shape, so the product of all is enough.
        "Expand" => count(0)?.checked_mul(product(&values(1)?)?),
        "Tile" => count(0)?.checked_mul(product(&values(1)?)?),
        "Range" => range([0, 1, 2].map(|index| inputs.get(index).copied().flatten())),
        "Gather" => {
            let data = inputs.first().copied().flatten()?;
            let axis = node.int("axis", 0).ok()?;
            let axis = if axis < 0 { axis.checked_add(data.shape.len() as i64)? } else { axis };
            let extent = *data.shape.get(usize::try_from(axis).ok()?)?;
            Some(data.len() as u128 / u128::from(extent.unsigned_abs().max(1)) * count(1)?)
        }
        // Each axis of the result is an axis of the input, and what is put before and behind it.
        "Pad" => {
            let data = inputs.first().copied().flatten()?;
            let pads = match node.ints("pads").ok()? {
                Some(pads) => pads.to_vec(),
                None => values(1)?,
            };
            // On chosen axes, or in an opset that names the attribute otherwise: left to the run.
            if node.input(3).is_some() || pads.len() != 2 * data.shape.len() {
                return None;
            }
            let (begin, end) = pads.split_at(data.shape.len());
            let extents = data.shape.iter().zip(begin.iter().zip(end));
            let extents = extents.map(|(&extent, (&begin, &end))| {
                [extent, begin, end].into_iter().map(|it| u128::from(it.unsigned_abs())).sum()
            });
            all_of(extents)
        }
        "Resize" => match (values(3), inputs.get(2).copied().flatten()) {
            // Of chosen axes, each of the others has the input's extent. A policy may make larger ones of the sizes.
            (Some(sizes), _) if !node.attributes.contains_key("keep_aspect_ratio_policy") => {
                product(&sizes)?.checked_mul(count(0)?)
            }
            (None, Some(scales)) => {
                let scales = scales.to_f32().ok()?;
                let scale: f64 =
                    scales.into_iter().map(|scale| f64::from(scale).max(1.0)).product();
                let all = count(0)? as f64 * scale;
                (all < 1e18).then_some(all.ceil() as u128)
            }
            _ => None,
        },
        "OneHot" => {
            let depth = values(1)?.first()?.unsigned_abs();
            count(0)?.checked_mul(u128::from(depth))
        }
        "MatMul" => {
            let [a, b] = [0, 1].map(|index| inputs.get(index).copied().flatten());
            let (a, b) = (a?, b?);
            let (rows, columns) = (rows_and_rest(a, -2), rows_and_rest(b, -1));
            // Batches broadcast: their product is enough.
            rows.checked_mul(columns)?.checked_mul(batches(a)?)?.checked_mul(batches(b)?)
        }
        op if BOUNDED.contains(&op) => {
            let inputs = inputs.iter().copied().flatten();
            let sum: u128 = inputs.clone().map(|data| data.len() as u128).sum();
            Some(broadcast(inputs)?.max(sum))
        }
        // Small inputs are no promise of a small result.
        _ => None,
    }
}

/// Of whole numbers, or, as PyTorch writes the centres of a detector's cells, of floats.
fn range(inputs: [Option<&TensorData>; 3]) -> Option<u128> {
    if let [Some(start), Some(limit), Some(delta)] =
        inputs.map(|data| data?.to_i64().ok()?.first().copied())
    {
        let way = (i128::from(limit) - i128::from(start)).unsigned_abs();
        return Some(way / u128::from(delta.unsigned_abs().max(1)) + 1);
    }
    let [start, limit, delta] = inputs.map(|data| data?.to_f32().ok()?.first().copied());
    let steps = ((f64::from(limit?) - f64::from(start?)) / f64::from(delta?)).ceil();
    // Not of NaN either.
    (steps < 1e18).then(|| steps.max(0.0) as u128 + 1)
}

fn product(extents: &[i64]) -> Option<u128> {
    all_of(extents.iter().map(|extent| u128::from(extent.unsigned_abs())))
}

fn all_of(extents: impl Iterator<Item = u128>) -> Option<u128> {
    extents.map(|extent| extent.max(1)).try_fold(1, u128::checked_mul)
}

/// Extent of an axis of a matrix, from the end; a vector's only axis is summed over.
fn rows_and_rest(data: &TensorData, from_end: i64) -> u128 {
    let rank = data.shape.len() as i64;
    let axis = usize::try_from(rank + from_end).ok().filter(|_| rank >= 2);
    axis.map_or(1, |axis| u128::from(data.shape[axis].unsigned_abs()))
}

/// How many matrices a tensor holds.
fn batches(data: &TensorData) -> Option<u128> {
    product(&data.shape[..data.shape.len().saturating_sub(2)])
}

/// Elements of the broadcast of all shapes; where they do not fit, the larger extents count.
fn broadcast<'t>(tensors: impl Iterator<Item = &'t TensorData>) -> Option<u128> {
    let mut extents: Vec<i64> = Vec::new();
    for tensor in tensors {
        for (index, &extent) in tensor.shape.iter().rev().enumerate() {
            match extents.get_mut(index) {
                Some(known) => *known = (*known).max(extent),
                None => extents.push(extent),
            }
        }
    }
    product(&extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most_of(op: &str, inputs: &[TensorData]) -> Option<u128> {
        let inputs: Vec<_> = inputs.iter().map(Some).collect();
        at_most(&Node::new("", op, &["a", "b"], &["y"]), &inputs)
    }

    #[test]
    fn results_are_estimated_without_making_them() {
        let huge = TensorData::i64(&[3], &[1 << 20; 3]);
        let values = |values: &[i64]| TensorData::i64(&[values.len() as i64], values);
        let one = TensorData::f32(&[1], &[1.0]);
        assert_eq!(at_most_of("ConstantOfShape", std::slice::from_ref(&huge)), Some(1 << 60));
        assert_eq!(at_most_of("ConstantOfShape", &[values(&[i64::MAX; 3])]), None);
        assert_eq!(at_most_of("Expand", &[one.clone(), huge.clone()]), Some(1 << 60));
        assert_eq!(at_most_of("Tile", &[one.clone(), values(&[1 << 40])]), Some(1 << 40));
        let range = [values(&[i64::MIN]), values(&[i64::MAX]), values(&[1])];
        assert_eq!(at_most_of("Range", &range), Some(1 << 64));
        let range = |numbers: [f32; 3]| {
            at_most_of("Range", &numbers.map(|number| TensorData::f32(&[], &[number])))
        };
        assert_eq!(range([0.0, 40.0, 1.0]), Some(41));
        assert_eq!(range([1.0, 0.0, -0.25]), Some(5));
        assert_eq!(range([1.0, 0.0, 0.25]), Some(1));
        assert_eq!(range([0.0, 1.0, 0.0]), None);
        assert_eq!(range([0.0, f32::INFINITY, 1.0]), None);
        assert_eq!(range([0.0, f32::MAX, f32::MIN_POSITIVE]), None);
        assert_eq!(range([f32::NAN, 1.0, 1.0]), None);
        let vector = TensorData::f32(&[1000], &[0.0; 1000]);
        let column = TensorData { shape: vec![1000, 1], ..vector.clone() };
        assert_eq!(at_most_of("Add", &[vector.clone(), column.clone()]), Some(1_000_000));
        assert_eq!(at_most_of("Gather", &[column.clone(), values(&[0; 500])]), Some(500));
        assert_eq!(at_most_of("Pad", &[vector.clone(), values(&[0, 1])]), Some(1001));
        assert_eq!(
            at_most_of("Pad", &[vector.clone(), values(&[i64::MIN, 1])]).map(|n| n > 1 << 62),
            Some(true)
        );
        assert_eq!(at_most_of("Pad", &[vector.clone(), values(&[1])]), None);
        assert_eq!(at_most_of("OneHot", &[values(&[1, 2, 3]), values(&[1 << 40])]), Some(3 << 40));
        let row = TensorData { shape: vec![1, 1000], ..vector.clone() };
        assert_eq!(at_most_of("MatMul", &[column.clone(), row.clone()]), Some(1_000_000));
        assert_eq!(at_most_of("MatMul", &[row, column]), Some(1));
        assert_eq!(at_most_of("MatMul", &[vector.clone(), vector.clone()]), Some(1));
        let resize = |given: [Option<&TensorData>; 4]| {
            at_most(&Node::new("", "Resize", &["x", "r", "s", "z"], &["y"]), &given)
        };
        let scales = TensorData::f32(&[1], &[1.5]);
        assert_eq!(resize([Some(&vector), None, Some(&scales), None]), Some(1500));
        let scales = TensorData::f32(&[1], &[f32::MAX]);
        assert_eq!(resize([Some(&vector), None, Some(&scales), None]), None);
        assert_eq!(resize([Some(&one), None, None, Some(&values(&[1 << 40]))]), Some(1 << 40));
    }
}
