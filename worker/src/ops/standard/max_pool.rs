//! `MaxPool`: the maximum over windows. <https://onnx.ai/onnx/operators/onnx__MaxPool.html>
//!
//! Opsets: 1, 8 (indices), 10 (`ceil_mode`, dilations), 11, 12 (small integers), 22 (bfloat16). One to three spatial axes, `auto_pad`,
//! asymmetric pads. Refused: the output of indices, `ceil_mode` together with asymmetric pads.

use tch::{Kind, Tensor};

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::pooling::{is_native, kernel_shape, refuse_ceil};
use crate::ops::window::Window;
use crate::{Error, Result};

pub const OP: Op = Op::new("MaxPool", &[1, 8, 10, 11, 12, 22], prepare)
    .limits("the output of indices; `ceil_mode` together with asymmetric pads");

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    if prepare.node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return Err(Error::user("the output of indices is not supported"));
    }
    let (window, kernel) = (Window::of(prepare.node)?, kernel_shape(prepare)?);
    let ceil = prepare.node.int("ceil_mode", 0)? != 0;
    single(move |arguments| {
        let input = arguments.get(0)?;
        let kind = input.kind();
        if matches!(kind, Kind::Int8 | Kind::Uint8) {
            let pooled = max(&input.f_to_kind(Kind::Float)?, &window, &kernel, ceil)?;
            return Ok(pooled.f_to_kind(kind)?);
        }
        max(input, &window, &kernel, ceil)
    })
}

fn max(input: &Tensor, window: &Window, kernel: &[i64], ceil: bool) -> Result<Tensor> {
    let placed = window.place(&input.size(), kernel)?;
    let padded;
    let zeros = vec![0; kernel.len()];
    let (input, pads) = if is_native(&placed, kernel) {
        (input, &placed.begin)
    } else {
        refuse_ceil(ceil)?;
        padded = placed.pad(input, f64::NEG_INFINITY)?;
        (&padded, &zeros)
    };
    let (strides, dilations) = (&placed.strides, &placed.dilations);
    Ok(match kernel.len() {
        1 => input.f_max_pool1d(kernel, strides, pads, dilations, ceil)?,
        2 => input.f_max_pool2d(kernel, strides, pads, dilations, ceil)?,
        _ => input.f_max_pool3d(kernel, strides, pads, dilations, ceil)?,
    })
}
