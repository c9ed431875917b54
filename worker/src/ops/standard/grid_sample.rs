//! `GridSample`: an image read at given places.
//! <https://onnx.ai/onnx/operators/onnx__GridSample.html>
//!
//! Opsets: 16, 20 (new names of modes, volumes), 22. `[N, C, H, W]` at `[N, H', W', 2]`, or `[N, C, D, H, W]` at
//! `[N, D', H', W', 3]`; places are x, y (, z) from -1 to 1. Refused: cubic interpolation of volumes.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("GridSample", &[16, 20, 22], |prepare| {
    let node = prepare.node;
    let default = if prepare.opset < 20 { "bilinear" } else { "linear" };
    // libtorch's numbers.
    let mode = match node.text("mode", default)? {
        "bilinear" | "linear" => 0,
        "nearest" => 1,
        "bicubic" | "cubic" => 2,
        other => return Err(Error::user(format!("`mode` = {other} is not defined"))),
    };
    let padding = match node.text("padding_mode", "zeros")? {
        "zeros" => 0,
        "border" => 1,
        "reflection" => 2,
        other => return Err(Error::user(format!("`padding_mode` = {other} is not defined"))),
    };
    let align_corners = node.int("align_corners", 0)? != 0;
    single(move |a| Ok(a.get(0)?.f_grid_sampler(a.get(1)?, mode, padding, align_corners)?))
})
.limits("cubic interpolation of volumes")
.shapes(rules::grid_sample);
