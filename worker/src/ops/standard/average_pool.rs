//! `AveragePool`: the mean over windows. <https://onnx.ai/onnx/operators/onnx__AveragePool.html>
//!
//! Opsets: 1, 7 (`count_include_pad`), 10 (`ceil_mode`), 11, 19 (dilations), 22 (bfloat16). One to three spatial axes, all attributes.
//! What a window reaches beyond the pads with `ceil_mode` never counts.

use tch::Tensor;

use crate::Result;
use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::pooling::{fit, is_native, kernel_shape, window_sum};
use crate::ops::window::Window;
use crate::shapes::rules;

pub const OP: Op = Op::new("AveragePool", &[1, 7, 10, 11, 19, 22], prepare).shapes(rules::pool);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let (window, kernel) = (Window::of(prepare.node)?, kernel_shape(prepare)?);
    let ceil = prepare.node.int("ceil_mode", 0)? != 0;
    let include_pad = prepare.node.int("count_include_pad", 0)? != 0;
    single(move |a| {
        let input = a.get(0)?;
        let placed = window.place(&input.size(), &kernel)?;
        if is_native(&placed, &kernel) && !window.is_dilated() {
            let (strides, pads) = (&placed.strides, &placed.begin);
            return Ok(match kernel.len() {
                1 => input.f_avg_pool1d(&kernel, strides, pads, ceil, include_pad)?,
                2 => input.f_avg_pool2d(&kernel, strides, pads, ceil, include_pad, None)?,
                _ => input.f_avg_pool3d(&kernel, strides, pads, ceil, include_pad, None)?,
            });
        }
        general(input, &window, &kernel, ceil, include_pad)
    })
}

/// The sum over each window by the count of what is in it.
fn general(
    input: &Tensor,
    window: &Window,
    kernel: &[i64],
    ceil: bool,
    include_pad: bool,
) -> Result<Tensor> {
    let size = input.size();
    let mut placed = window.place(&size, kernel)?;
    let mut shape = vec![1, 1];
    shape.extend(&size[2..]);
    let ones = Tensor::f_ones(shape, (input.kind(), input.device()))?;
    let counted = placed.pad(&ones, f64::from(u8::from(include_pad)))?;
    let moved = fit(&mut placed, &size, kernel, ceil)?;
    let beyond: Vec<i64> = moved.iter().rev().flat_map(|&moved| [0, moved]).collect();
    let counted = counted.f_pad(beyond, "constant", 0.0)?;
    let sums = window_sum(&placed.pad(input, 0.0)?, kernel, &placed)?;
    Ok(sums.f_div(&window_sum(&counted, kernel, &placed)?)?)
}
