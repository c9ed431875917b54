//! Element by element with broadcasting: <https://onnx.ai/onnx/operators/onnx__Add.html> and its neighbours.
//!
//! Opsets: Add, Sub, Mul, Div 7, 13, 14; Pow 7, 12 (types may differ), 13, 15; Min and Max 8, 12, 13.

use tch::{Kind, Tensor};

use super::kernel::{Kernel, Op, Prepare, single};
use crate::Result;

/// `Add`.
pub const ADD: Op = Op::new("Add", &[7, 13, 14], |_| single(|a| Ok(a.get(0)?.f_add(a.get(1)?)?)));

/// `Sub`.
pub const SUB: Op = Op::new("Sub", &[7, 13, 14], |_| single(|a| Ok(a.get(0)?.f_sub(a.get(1)?)?)));

/// `Mul`.
pub const MUL: Op = Op::new("Mul", &[7, 13, 14], |_| single(|a| Ok(a.get(0)?.f_mul(a.get(1)?)?)));

/// `Div`; integers are divided towards zero.
pub const DIV: Op = Op::new("Div", &[7, 13, 14], |_| {
    single(|a| {
        let (x, y) = (a.get(0)?, a.get(1)?);
        if is_float(x) { Ok(x.f_div(y)?) } else { Ok(x.f_div_tensor_mode(y, "trunc")?) }
    })
});

/// `Pow`; the result has the type of the base.
pub const POW: Op = Op::new("Pow", &[7, 12, 13, 15], |_| {
    single(|a| {
        let (base, exponent) = (a.get(0)?, a.get(1)?);
        Ok(base.f_pow(exponent)?.f_to_kind(base.kind())?)
    })
});

/// `Min` of any number of tensors.
pub const MIN: Op = Op::new("Min", &[8, 12, 13], |p| fold(p, Tensor::f_minimum));

/// `Max` of any number of tensors.
pub const MAX: Op = Op::new("Max", &[8, 12, 13], |p| fold(p, Tensor::f_maximum));

fn is_float(tensor: &Tensor) -> bool {
    matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

fn fold(
    prepare: &Prepare,
    pick: fn(&Tensor, &Tensor) -> Result<Tensor, tch::TchError>,
) -> Result<Kernel> {
    let count = prepare.node.inputs.len();
    single(move |a| {
        (1..count).try_fold(a.get(0)?.shallow_clone(), |so_far, i| Ok(pick(&so_far, a.get(i)?)?))
    })
}
