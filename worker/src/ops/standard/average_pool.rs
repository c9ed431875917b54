//! `AveragePool`: the mean over windows. <https://onnx.ai/onnx/operators/onnx__AveragePool.html>
//!
//! Opsets: 1, 7 (`count_include_pad`), 10 (`ceil_mode`), 11, 19 (dilations), 22 (bfloat16). One to three spatial axes, `auto_pad`,
//! asymmetric pads. Refused: dilations, `ceil_mode` together with asymmetric pads.

use tch::Tensor;

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::pooling::{is_native, kernel_shape, refuse_ceil};
use crate::ops::window::Window;
use crate::{Error, Result};

pub const OP: Op = Op::new("AveragePool", &[1, 7, 10, 11, 19, 22], prepare)
    .limits("dilations; `ceil_mode` together with asymmetric pads");

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let (window, kernel) = (Window::of(prepare.node)?, kernel_shape(prepare)?);
    if window.is_dilated() {
        return Err(Error::user("`dilations` of an average other than 1 are not supported"));
    }
    let ceil = prepare.node.int("ceil_mode", 0)? != 0;
    let include_pad = prepare.node.int("count_include_pad", 0)? != 0;
    single(move |arguments| {
        let input = arguments.get(0)?;
        let placed = window.place(&input.size(), &kernel)?;
        if is_native(&placed, &kernel) {
            return average(input, &kernel, &placed.strides, &placed.begin, ceil, include_pad);
        }
        refuse_ceil(ceil)?;
        let zeros = vec![0; kernel.len()];
        let over_all = |tensor: &Tensor| {
            average(&placed.pad(tensor, 0.0)?, &kernel, &placed.strides, &zeros, false, true)
        };
        let mean = over_all(input)?;
        if include_pad {
            return Ok(mean);
        }
        // The share of each window that is not padding.
        Ok(mean.f_div(&over_all(&input.f_ones_like()?)?)?)
    })
}

fn average(
    input: &Tensor,
    kernel: &[i64],
    strides: &[i64],
    pads: &[i64],
    ceil: bool,
    include_pad: bool,
) -> Result<Tensor> {
    Ok(match kernel.len() {
        1 => input.f_avg_pool1d(kernel, strides, pads, ceil, include_pad)?,
        2 => input.f_avg_pool2d(kernel, strides, pads, ceil, include_pad, None)?,
        _ => input.f_avg_pool3d(kernel, strides, pads, ceil, include_pad, None)?,
    })
}
