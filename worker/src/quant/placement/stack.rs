//! Weights that are several matrices: the constant second factor `[…, K, N]` of a MatMul.

use crate::graph::{Node, TensorData};

/// By how much the largest magnitudes of a stack's matrices may differ. The product of the smallest matrix loses 6 dB for each factor of 2: of normal
/// distributions it has 37 dB where all are alike (38 with a scale for each column), 27 at 4, 22 at 8 and 16 at 16; with 7 bits 33, 21, 16 and 10. The
/// large matrices hide it, the whole product has 36 at any of them. Quantized networks have 28 to 39 (`docs/placement.md`).
const MOST_SPREAD: f32 = 4.0;

/// Whether a weight of that shape is several matrices, or one in more than two dimensions: all of them have one scale.
pub fn has_one_scale(layer: &Node, shape: &[i64]) -> bool {
    layer.op_type == "MatMul" && shape.len() > 2
}

/// Whether a weight of that shape is several matrices.
pub fn is_stack(layer: &Node, shape: &[i64]) -> bool {
    let matrices = || shape[..shape.len() - 2].iter().product::<i64>();
    has_one_scale(layer, shape) && matrices() > 1
}

/// Whether one scale serves all matrices of a stack; `Err`: the factor by which their largest magnitudes differ too much. Zeros are exact at any scale.
pub fn one_scale_serves(stack: &TensorData) -> Result<bool, f32> {
    let Ok(values) = stack.to_f32() else { return Ok(false) };
    let matrix = stack.shape.iter().rev().take(2).product::<i64>().max(1) as usize;
    let amax = |values: &[f32]| values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let magnitudes = values.chunks(matrix).map(amax).filter(|amax| *amax > 0.0);
    let (least, most) =
        magnitudes.fold((f32::INFINITY, 0.0_f32), |(low, high), a| (low.min(a), high.max(a)));
    let spread = if most > 0.0 { most / least } else { 1.0 };
    if spread > MOST_SPREAD { Err(spread) } else { Ok(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_like_magnitudes_have_one_scale() {
        let stack = |last: f32| TensorData::f32(&[3, 1, 2], &[1.0, -4.0, 0.0, 0.0, last, 0.1]);
        assert_eq!(one_scale_serves(&stack(-1.0)), Ok(true));
        assert_eq!(one_scale_serves(&stack(0.5)), Err(8.0));
        assert_eq!(one_scale_serves(&stack(32.0)), Err(8.0));
        assert_eq!(one_scale_serves(&TensorData::f32(&[2, 1, 1], &[0.0; 2])), Ok(true));
        assert_eq!(one_scale_serves(&TensorData::i64(&[2, 1, 1], &[1, 1])), Ok(false));
    }

    #[test]
    fn a_stack_is_several_matrices() {
        let matmul = Node::new("m", "MatMul", &["x", "w"], &["y"]);
        let stacks: [&[i64]; 5] = [&[4], &[4, 4], &[1, 4, 4], &[2, 4, 4], &[2, 1, 4, 4]];
        assert_eq!(stacks.map(|shape| is_stack(&matmul, shape)), [false, false, false, true, true]);
        assert!(!is_stack(&Node::new("c", "Conv", &["x", "w"], &["y"]), &[2, 4, 4]));
    }
}
