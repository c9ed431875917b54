//! `Upsample`: interpolation to longer axes, before Resize.
//! <https://onnx.ai/onnx/operators/onnx__Upsample.html>
//!
//! Opsets: 7 (scales an attribute), 9 (an input); the standard withdrew it with opset 10. Places are x / scale, as
//! runtimes have it: the standard does not say.

use crate::Error;
use crate::ops::interpolation::{Coordinates, Filter, Method, Rounding, resize};
use crate::ops::kernel::{Few, Op, single};
use crate::ops::standard::resize::{by_scales, floats};
use crate::shapes::rules;

pub const OP: Op = Op::new("Upsample", &[7, 9], |prepare| {
    let filter = match prepare.node.text("mode", "nearest")? {
        "nearest" => Filter::Nearest(Rounding::Floor),
        "linear" => Filter::Linear,
        other => return Err(Error::user(format!("`mode` = {other} is not defined"))),
    };
    let fixed = prepare.node.floats("scales")?.map(<[f32]>::to_vec);
    let fixed = if prepare.opset < 9 { Some(fixed.unwrap_or_default()) } else { None };
    let given = Few::new(prepare, 1);
    let method = Method {
        coordinates: Coordinates::Asymmetric,
        filter,
        exclude_outside: false,
        antialias: false,
        extrapolation: 0.0,
    };
    single(move |a| {
        let scales = match &fixed {
            Some(scales) => scales.clone(),
            None => floats(a, &given)?.ok_or_else(|| Error::user("input `scales` is missing"))?,
        };
        if let Some(scale) = scales.iter().find(|&&scale| scale < 1.0) {
            return Err(Error::user(format!("a scale of {scale} makes smaller")));
        }
        resize(a.get(0)?, &by_scales(a.get(0)?, &scales, None, &[])?, &method)
    })
})
.until(9)
.shapes(rules::upsample);
