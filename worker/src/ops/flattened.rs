//! Functions along an axis that meant a matrix before opset 13: all axes from `axis` on were one.

use tch::Tensor;

use super::kernel::{Kernel, Prepare, axis_from_front, single};
use crate::Result;

/// Runs a function along `axis` (default the last), or before opset 13 along all axes from `axis` on
/// (default 1) as one.
pub fn over_axis(prepare: &Prepare, run: fn(&Tensor, i64) -> Result<Tensor>) -> Result<Kernel> {
    let flattens = prepare.opset < 13;
    let axis = prepare.node.int("axis", if flattens { 1 } else { -1 })?;
    single(move |a| {
        let input = a.get(0)?;
        if !flattens {
            return run(input, axis);
        }
        let size = input.size();
        let rows: i64 = size[..axis_from_front(axis, size.len())? as usize].iter().product();
        Ok(run(&input.f_reshape([rows, -1])?, 1)?.f_reshape(size)?)
    })
}
