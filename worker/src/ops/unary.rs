//! Functions of one number, element by element: <https://onnx.ai/onnx/operators/onnx__Neg.html> and its neighbours.
//!
//! Opsets 6, 13 (bfloat16).

use tch::Tensor;

use super::kernel::{Kernel, Op, Prepare, single};
use crate::Result;

/// `Neg`: -x.
pub const NEG: Op = op("Neg", |p| apply(p, |x| Ok(x.f_neg()?)));
/// `Abs`: |x|.
pub const ABS: Op = op("Abs", |p| apply(p, |x| Ok(x.f_abs()?)));
/// `Sqrt`: √x.
pub const SQRT: Op = op("Sqrt", |p| apply(p, |x| Ok(x.f_sqrt()?)));
/// `Exp`: eˣ.
pub const EXP: Op = op("Exp", |p| apply(p, |x| Ok(x.f_exp()?)));
/// `Log`: the natural logarithm.
pub const LOG: Op = op("Log", |p| apply(p, |x| Ok(x.f_log()?)));
/// `Reciprocal`: 1 / x.
pub const RECIPROCAL: Op = op("Reciprocal", |p| apply(p, |x| Ok(x.f_reciprocal()?)));

const fn op(name: &'static str, prepare: fn(&Prepare) -> Result<Kernel>) -> Op {
    Op::new(name, &[6, 13], prepare)
}

fn apply(_: &Prepare, run: fn(&Tensor) -> Result<Tensor>) -> Result<Kernel> {
    single(move |a| run(a.get(0)?))
}
