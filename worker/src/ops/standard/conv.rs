//! `Conv`: convolution. <https://onnx.ai/onnx/operators/onnx__Conv.html>
//!
//! Opsets: 1, 11 (defaults of strides and dilations), 22 (bfloat16). One, two or three spatial axes,
//! groups, dilations, `auto_pad`; asymmetric pads are padded first.

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::window::Window;
use crate::{Error, Result};

pub const OP: Op = Op::new("Conv", &[1, 11, 22], prepare);

/// `[N, C, spatial…]`, `[M, C / group, kernel…]`, `[M]` to `[N, M, spatial…]`.
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let window = Window::of(prepare.node)?;
    let groups = prepare.node.int("group", 1)?;
    let shape = prepare.node.ints("kernel_shape")?.map(<[i64]>::to_vec);
    single(move |arguments| {
        let (input, weight) = (arguments.get(0)?, arguments.get(1)?);
        let size = weight.size();
        let kernel = size.get(2..).unwrap_or_default();
        if shape.as_ref().is_some_and(|shape| shape != kernel) {
            return Err(Error::user(format!(
                "`kernel_shape` {shape:?} does not fit the weight's shape {size:?}"
            )));
        }
        let placed = window.place(&input.size(), kernel)?;
        let padded;
        let (input, padding) = if placed.is_symmetric() {
            (input, placed.begin.clone())
        } else {
            padded = placed.pad(input, 0.0)?;
            (&padded, vec![0; kernel.len()])
        };
        Ok(input.f_convolution(
            weight,
            arguments.optional(2),
            &placed.strides,
            padding,
            &placed.dilations,
            false,
            vec![0; kernel.len()],
            groups,
        )?)
    })
}
