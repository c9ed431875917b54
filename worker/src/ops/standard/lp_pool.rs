//! `LpPool`: the p-norm over windows. <https://onnx.ai/onnx/operators/onnx__LpPool.html>
//!
//! Opsets: 2 (`p` an integer), 11, 18 (dilations, `ceil_mode`), 22 (bfloat16). One to three spatial axes, all attributes.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::ops::pooling::{fit, kernel_shape, window_sum};
use crate::ops::window::Window;
use crate::shapes::rules;

pub const OP: Op = Op::new("LpPool", &[2, 11, 18, 22], |prepare| {
    let (window, kernel) = (Window::of(prepare.node)?, kernel_shape(prepare)?);
    let ceil = prepare.node.int("ceil_mode", 0)? != 0;
    let p = prepare.node.int("p", 2)?;
    if p < 1 {
        return Err(Error::user(format!("`p` = {p}, expected at least 1")));
    }
    single(move |a| {
        let input = a.get(0)?;
        let mut placed = window.place(&input.size(), &kernel)?;
        fit(&mut placed, &input.size(), &kernel, ceil)?;
        let powers = placed.pad(&input.f_abs()?.f_pow_tensor_scalar(p)?, 0.0)?;
        Ok(window_sum(&powers, &kernel, &placed)?.f_pow_tensor_scalar(1.0 / p as f64)?)
    })
})
.shapes(rules::pool);
