//! Sums, means and maxima along axes: <https://onnx.ai/onnx/operators/onnx__ReduceMean.html> and its neighbours.
//!
//! Opsets 1, 11 (negative axes), 13, 18 (axes become an input; ReduceSum at 13), 20 (ReduceMax: bool). PyTorch's newer exporter
//! writes an adaptive average pooling to 1×1 as ReduceMean.

use tch::Tensor;

use super::kernel::{Kernel, Op, Prepare, axis_from_front, single};
use crate::Result;

/// `ReduceMean`.
pub const REDUCE_MEAN: Op = Op::new("ReduceMean", &[1, 11, 13, 18], |prepare| {
    reduce(prepare, 18, |x, axes, keep| Ok(x.f_mean_dim(axes, keep, None)?))
});

/// `ReduceSum`.
pub const REDUCE_SUM: Op = Op::new("ReduceSum", &[1, 11, 13], |prepare| {
    reduce(prepare, 13, |x, axes, keep| Ok(x.f_sum_dim_intlist(axes, keep, x.kind())?))
});

/// `ReduceMax`.
pub const REDUCE_MAX: Op = Op::new("ReduceMax", &[1, 11, 12, 13, 18, 20], |prepare| {
    reduce(prepare, 18, |x, axes, keep| Ok(x.f_amax(axes, keep)?))
});

/// `[…]` to the same with the axes of extent 1, or without them where `keepdims` is 0.
fn reduce(
    prepare: &Prepare,
    moved: i64,
    run: fn(&Tensor, &[i64], bool) -> Result<Tensor>,
) -> Result<Kernel> {
    let fixed = prepare.moved_ints("axes", moved)?;
    let from_input = prepare.opset >= moved;
    let keep = prepare.node.int("keepdims", 1)? != 0;
    let empty_is_none = prepare.node.int("noop_with_empty_axes", 0)? != 0;
    single(move |a| {
        let input = a.get(0)?;
        let axes = if from_input { a.ints(1)? } else { fixed.clone() }.unwrap_or_default();
        if axes.is_empty() && empty_is_none {
            return Ok(input.shallow_clone());
        }
        let rank = input.dim();
        let axes: Vec<i64> = if axes.is_empty() {
            (0..rank as i64).collect()
        } else {
            axes.iter().map(|&axis| axis_from_front(axis, rank)).collect::<Result<_>>()?
        };
        run(input, &axes, keep)
    })
}
