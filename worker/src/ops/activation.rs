//! Activations, element by element: <https://onnx.ai/onnx/operators/onnx__Relu.html> and its neighbours.
//!
//! Opsets: Relu 6, 13, 14; LeakyRelu 6, 16; Clip 11 (limits become inputs), 12, 13; Sigmoid and Tanh 6, 13;
//! HardSigmoid 6, 22; HardSwish 14, 22; Erf 9, 13; Gelu 20.

use tch::{Kind, Tensor};

use super::kernel::{Kernel, Op, Prepare, single};
use crate::{Error, Result};

/// `Relu`: max(x, 0).
pub const RELU: Op = Op::new("Relu", &[6, 13, 14], |_| single(|a| Ok(a.get(0)?.f_relu()?)));

/// `Sigmoid`: 1 / (1 + e^-x).
pub const SIGMOID: Op = Op::new("Sigmoid", &[6, 13], |_| single(|a| Ok(a.get(0)?.f_sigmoid()?)));

/// `Tanh`.
pub const TANH: Op = Op::new("Tanh", &[6, 13], |_| single(|a| Ok(a.get(0)?.f_tanh()?)));

/// `Erf`.
pub const ERF: Op = Op::new("Erf", &[9, 13], |_| single(|a| Ok(a.get(0)?.f_erf()?)));

/// `LeakyRelu`: x, or alpha x where x is negative.
pub const LEAKY_RELU: Op = Op::new("LeakyRelu", &[6, 16], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 0.01)?);
    single(move |a| {
        let x = a.get(0)?;
        let scaled = x.f_mul_scalar(alpha)?;
        Ok(x.f_where_self(&x.f_ge(0.0)?, &scaled)?)
    })
});

/// `HardSigmoid`: max(0, min(1, alpha x + beta)).
pub const HARD_SIGMOID: Op = Op::new("HardSigmoid", &[6, 22], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 0.2)?);
    let beta = f64::from(prepare.node.float("beta", 0.5)?);
    single(move |a| Ok(a.get(0)?.f_mul_scalar(alpha)?.f_add_scalar(beta)?.f_clamp(0.0, 1.0)?))
});

/// `HardSwish`: x max(0, min(1, x / 6 + 0.5)).
pub const HARD_SWISH: Op =
    Op::new("HardSwish", &[14, 22], |_| single(|a| Ok(a.get(0)?.f_hardswish()?)));

/// `Gelu`: x times the normal distribution's cumulative, or its `tanh` approximation.
pub const GELU: Op = Op::new("Gelu", &[20], |prepare| {
    let approximate = prepare.node.text("approximate", "none")?.to_owned();
    if !["none", "tanh"].contains(&approximate.as_str()) {
        return Err(Error::user(format!("`approximate` = {approximate} is not defined")));
    }
    single(move |a| Ok(a.get(0)?.f_gelu(&approximate)?))
});

/// `Clip`: to between two limits, each of which may be left out.
pub const CLIP: Op = Op::new("Clip", &[11, 12, 13], clip);

fn clip(prepare: &Prepare) -> Result<Kernel> {
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
            if x.kind() != Kind::Float {
                return clamp(x, a.optional(1), a.optional(2));
            }
            Ok(match (low, high) {
                // Where the limits cross the standard gives the upper one, as libtorch does.
                (Some(low), Some(high)) => x.f_clamp(low, high)?,
                (Some(low), None) => x.f_clamp_min(low)?,
                (None, Some(high)) => x.f_clamp_max(high)?,
                (None, None) => x.shallow_clone(),
            })
        });
    }
    single(|a| clamp(a.get(0)?, a.optional(1), a.optional(2)))
}

fn clamp(x: &Tensor, low: Option<&Tensor>, high: Option<&Tensor>) -> Result<Tensor> {
    if low.is_none() && high.is_none() {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_clamp_tensor(low, high)?)
}
