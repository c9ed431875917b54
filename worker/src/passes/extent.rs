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
        "Range" => {
            let [start, limit, delta] = [0, 1, 2].map(|index| values(index)?.first().copied());
            let (start, limit, delta) = (start?, limit?, delta?);
            let way = (i128::from(limit) - i128::from(start)).unsigned_abs();
            Some(way / u128::from(delta.unsigned_abs().max(1)) + 1)
        }
        "Gather" => {
            let data = inputs.first().copied().flatten()?;
            let axis = node.int("axis", 0).ok()?;
            let axis = if axis < 0 { axis.checked_add(data.shape.len() as i64)? } else { axis };
            let extent = *data.shape.get(usize::try_from(axis).ok()?)?;
            Some(data.len() as u128 / u128::from(extent.unsigned_abs().max(1)) * count(1)?)
        }
        op if BOUNDED.contains(&op) => {
            let inputs = inputs.iter().copied().flatten();
            let sum: u128 = inputs.clone().map(|data| data.len() as u128).sum();
            Some(broadcast(inputs)?.max(sum))
        }
        // Pads, sizes and depths are values or attributes: small inputs are no promise of a small result.
        _ => None,
    }
}

fn product(extents: &[i64]) -> Option<u128> {
    let extents = extents.iter().map(|extent| u128::from(extent.unsigned_abs()));
    extents.map(|extent| extent.max(1)).try_fold(1, u128::checked_mul)
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
        let vector = TensorData::f32(&[1000], &[0.0; 1000]);
        let column = TensorData { shape: vec![1000, 1], ..vector.clone() };
        assert_eq!(at_most_of("Add", &[vector.clone(), column.clone()]), Some(1_000_000));
        assert_eq!(at_most_of("Gather", &[column, values(&[0; 500])]), Some(500));
        assert_eq!(at_most_of("Pad", &[vector, values(&[0, 1])]), None);
    }
}
