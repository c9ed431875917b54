//! Pooling over windows: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>.
//!
//! Opsets: MaxPool 8, 10, 11, 12, 22; AveragePool 7, 10, 11, 19 (dilations), 22. One to three spatial axes,
//! `ceil_mode`, `auto_pad`, `count_include_pad`, asymmetric pads. Refused: MaxPool's indices, dilated
//! averages, `ceil_mode` together with asymmetric pads.

use tch::{Kind, Tensor};

use super::kernel::{Kernel, Op, Prepare, single};
use super::window::{Placed, Window};
use crate::{Error, Result};

/// `MaxPool`.
pub const MAX_POOL: Op = Op::new("MaxPool", &[8, 10, 11, 12, 22], prepare_max);

/// `AveragePool`.
pub const AVERAGE_POOL: Op = Op::new("AveragePool", &[7, 10, 11, 19, 22], prepare_average);

fn kernel_shape(prepare: &Prepare) -> Result<Vec<i64>> {
    let shape = prepare.node.ints("kernel_shape")?;
    let shape = shape.ok_or_else(|| Error::user("attribute `kernel_shape` is missing"))?;
    if shape.is_empty() || shape.len() > 3 || shape.iter().any(|&extent| extent < 1) {
        return Err(Error::user(format!("`kernel_shape` {shape:?} is not one to three extents")));
    }
    Ok(shape.to_vec())
}

/// Whether libtorch takes the pads itself: alike at both ends, at most half a kernel.
fn is_native(placed: &Placed, kernel: &[i64]) -> bool {
    placed.is_symmetric() && placed.begin.iter().zip(kernel).all(|(&pad, &k)| pad <= k / 2)
}

fn refuse_ceil(ceil: bool) -> Result<()> {
    if ceil {
        return Err(Error::user(
            "`ceil_mode` with asymmetric pads, or pads of over half a kernel, is not supported",
        ));
    }
    Ok(())
}

fn prepare_max(prepare: &Prepare) -> Result<Kernel> {
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

fn prepare_average(prepare: &Prepare) -> Result<Kernel> {
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
