//! `MaxPool`: the maximum over windows, and where it is. <https://onnx.ai/onnx/operators/onnx__MaxPool.html>
//!
//! Opsets: 1, 8 (indices), 10 (`ceil_mode`, dilations), 11, 12 (small integers), 22 (bfloat16). One to three spatial axes, all
//! attributes.

use tch::{Kind, Tensor};

use crate::Result;
use crate::ops::kernel::{Kernel, Op, Prepare};
use crate::ops::pooling::{fit, is_native, kernel_shape};
use crate::ops::window::Window;
use crate::shapes::rules;

pub const OP: Op = Op::new("MaxPool", &[1, 8, 10, 11, 12, 22], prepare).shapes(rules::pool);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let (window, kernel) = (Window::of(node)?, kernel_shape(prepare)?);
    let ceil = node.int("ceil_mode", 0)? != 0;
    let column_major = node.int("storage_order", 0)? != 0;
    let with_indices = node.outputs.get(1).is_some_and(|name| !name.is_empty());
    Ok(Box::new(move |a| {
        let input = a.get(0)?;
        let kind = input.kind();
        // libtorch's kernels are of floats, which hold integers of 8 bits.
        let small = matches!(kind, Kind::Int8 | Kind::Uint8);
        let input = if small { &input.f_to_kind(Kind::Float)? } else { input };
        let pool = Pool { window: &window, kernel: &kernel, ceil };
        let mut outputs = if with_indices {
            pool.with_indices(input, column_major)?
        } else {
            vec![pool.values(input)?]
        };
        if small {
            outputs[0] = outputs[0].f_to_kind(kind)?;
        }
        Ok(outputs)
    }))
}

struct Pool<'a> {
    window: &'a Window,
    kernel: &'a [i64],
    ceil: bool,
}

/// An input on which libtorch's pooling with the given pads is the standard's.
struct Padded {
    input: Tensor,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    ceil: bool,
    /// How much was padded before, at the begin.
    begin: Vec<i64>,
}

impl Pool<'_> {
    fn pad(&self, input: &Tensor) -> Result<Padded> {
        let mut placed = self.window.place(&input.size(), self.kernel)?;
        let zeros = vec![0; self.kernel.len()];
        let native = is_native(&placed, self.kernel);
        let (input, pads, begin) = if native {
            (input.shallow_clone(), placed.begin, zeros)
        } else {
            fit(&mut placed, &input.size(), self.kernel, self.ceil)?;
            (placed.pad(input, f64::NEG_INFINITY)?, zeros, placed.begin)
        };
        let (strides, dilations) = (placed.strides, placed.dilations);
        Ok(Padded { input, strides, dilations, pads, ceil: native && self.ceil, begin })
    }

    fn values(&self, input: &Tensor) -> Result<Tensor> {
        let Padded { input, strides, dilations, pads, ceil, .. } = self.pad(input)?;
        let kernel = self.kernel;
        Ok(match kernel.len() {
            1 => input.f_max_pool1d(kernel, strides, pads, dilations, ceil)?,
            2 => input.f_max_pool2d(kernel, strides, pads, dilations, ceil)?,
            _ => input.f_max_pool3d(kernel, strides, pads, dilations, ceil)?,
        })
    }

    /// Values, and their places in the whole input laid out row by row, or with the first spatial axis innermost.
    fn with_indices(&self, input: &Tensor, column_major: bool) -> Result<Vec<Tensor>> {
        let size = input.size();
        let Padded { input, strides, dilations, pads, ceil, begin } = self.pad(input)?;
        let kernel = self.kernel;
        let (values, places) = match kernel.len() {
            1 => input.f_max_pool1d_with_indices(kernel, strides, pads, dilations, ceil)?,
            2 => input.f_max_pool2d_with_indices(kernel, strides, pads, dilations, ceil)?,
            _ => input.f_max_pool3d_with_indices(kernel, strides, pads, dilations, ceil)?,
        };
        let (spatial, padded) = (&size[2..], &input.size()[2..]);
        let device = input.device();
        let planes = Tensor::f_arange(size[0] * size[1], (Kind::Int64, device))?;
        let mut shape = vec![1; size.len()];
        shape[..2].copy_from_slice(&size[..2]);
        let plane = spatial.iter().product::<i64>();
        let mut indices = planes.f_mul_scalar(plane)?.f_reshape(shape)?;
        for axis in 0..kernel.len() {
            let inner: i64 = padded[axis + 1..].iter().product();
            let coordinate = places
                .f_div_scalar_mode(inner, "floor")?
                .f_remainder(padded[axis])?
                .f_sub_scalar(begin[axis])?;
            let step: i64 = if column_major {
                spatial[..axis].iter().product()
            } else {
                spatial[axis + 1..].iter().product()
            };
            indices = indices.f_add(&coordinate.f_mul_scalar(step)?)?;
        }
        Ok(vec![values, indices])
    }
}
