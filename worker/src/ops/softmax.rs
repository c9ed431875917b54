//! Softmax: <https://onnx.ai/onnx/operators/onnx__Softmax.html>, <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>.
//!
//! Opsets 11 (over all axes from `axis` on, default 1) and 13 (over one axis, default the last).

use tch::Tensor;

use super::kernel::{Kernel, Op, Prepare, axis_from_front, single};
use crate::Result;

/// `Softmax`.
pub const SOFTMAX: Op =
    Op::new("Softmax", &[1, 11, 13], |p| prepare(p, |x, axis| Ok(x.f_softmax(axis, None)?)));

/// `LogSoftmax`.
pub const LOG_SOFTMAX: Op =
    Op::new("LogSoftmax", &[1, 11, 13], |p| prepare(p, |x, axis| Ok(x.f_log_softmax(axis, None)?)));

fn prepare(prepare: &Prepare, run: fn(&Tensor, i64) -> Result<Tensor>) -> Result<Kernel> {
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
