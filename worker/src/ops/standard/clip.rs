//! `Clip`: to between two limits, each of which may be left out. <https://onnx.ai/onnx/operators/onnx__Clip.html>
//!
//! Opsets: 1 and 6 (limits are attributes), 11 (they become inputs), 12 (integers), 13 (bfloat16). Where the limits cross, the result is the
//! upper one, as of opset 13.

use tch::{Kind, Tensor};

use crate::Result;
use crate::ops::kernel::{Arguments, Kernel, Op, Prepare, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Clip", &[1, 6, 11, 12, 13], prepare).shapes(rules::same_as_first);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    if prepare.opset < 11 {
        let limit = |name: &str| {
            let given = prepare.node.attributes.contains_key(name);
            let value = prepare.node.float(name, 0.0)?;
            Ok::<_, crate::Error>(given.then_some(f64::from(value)))
        };
        let (low, high) = (limit("min")?, limit("max")?);
        return single(move |a| clamp_numbers(a, low, high));
    }
    let constant = |index: usize| match (prepare.node.input(index), prepare.constant(index)) {
        (None, _) => Some(None),
        (Some(_), Some(data)) => data.to_f32().ok().and_then(|v| v.first().copied()).map(Some),
        (Some(_), None) => None,
    };
    // Limits known beforehand are the common case (ReLU6) and the one that needs no tensor.
    if let (Some(low), Some(high)) = (constant(1), constant(2)) {
        let (low, high) = (low.map(f64::from), high.map(f64::from));
        return single(move |a| {
            let x = a.get(0)?;
            if x.kind() == Kind::Float {
                clamp_numbers(a, low, high)
            } else {
                clamp_tensors(x, a.optional(1), a.optional(2))
            }
        });
    }
    single(|a| clamp_tensors(a.get(0)?, a.optional(1), a.optional(2)))
}

/// Where the limits cross, libtorch gives the upper one, as the standard does.
///
/// The functions with a name have a backward pass of one step, and can be done in place. What lies on a limit has no gradient
/// then, as in PyTorch's layers of these names.
fn clamp_numbers(a: &Arguments, low: Option<f64>, high: Option<f64>) -> Result<Tensor> {
    let x = a.get(0)?;
    Ok(match (low, high, a.spare(0)) {
        (Some(0.0), None, Some(mut x)) => x.f_relu_()?,
        (Some(0.0), None, None) => x.f_relu()?,
        (Some(0.0), Some(6.0), Some(mut x)) => x.f_relu6_()?,
        (Some(0.0), Some(6.0), None) => x.f_relu6()?,
        (low, high, _) => clamp(x, low, high)?,
    })
}

fn clamp(x: &Tensor, low: Option<f64>, high: Option<f64>) -> Result<Tensor> {
    Ok(match (low, high) {
        (Some(low), Some(high)) => x.f_clamp(low, high)?,
        (Some(low), None) => x.f_clamp_min(low)?,
        (None, Some(high)) => x.f_clamp_max(high)?,
        (None, None) => x.shallow_clone(),
    })
}

fn clamp_tensors(x: &Tensor, low: Option<&Tensor>, high: Option<&Tensor>) -> Result<Tensor> {
    if low.is_none() && high.is_none() {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_clamp_tensor(low, high)?)
}
