//! What reductions along axes share: which axes, and whether they stay.

use tch::Tensor;

use super::kernel::{Kernel, Prepare, axis_from_front, single};
use crate::Result;

/// `[…]` to the same with the reduced axes of extent 1, or without them where `keepdims` is 0. `axes` are an attribute
/// before opset `moved`, then an input; `run` is given them from the front, and whether they stay.
pub fn reduce(
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
