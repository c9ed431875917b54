//! `Add`: a + b, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Add.html>
//!
//! Opsets: 1 and 6 (broadcasting at an `axis` and where asked for), 7 (as NumPy), 13 (bfloat16), 14 (small integers).

use tch::Tensor;

use crate::Result;
use crate::ops::elementwise::binary;
use crate::ops::kernel::{Arguments, Kernel, Op, Prepare, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Add", &[1, 6, 7, 13, 14], prepare).shapes(rules::add);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let general = binary(prepare, Tensor::f_add)?;
    single(move |a| match in_place(a)? {
        Some(sum) => Ok(sum),
        None => Ok(general(a)?.swap_remove(0)),
    })
}

/// The sum over one of the numbers, where its memory is spare and the sum fits.
fn in_place(a: &Arguments) -> Result<Option<Tensor>> {
    let Some(index) = a.spare.filter(|&index| index < 2) else { return Ok(None) };
    let (Some(mut x), other) = (a.spare(index), a.get(1 - index)?) else { return Ok(None) };
    let fits = x.size() == other.size() && x.kind() == other.kind();
    Ok(if fits { Some(x.f_add_(other)?) } else { None })
}
