//! Matrix products: <https://onnx.ai/onnx/operators/onnx__Gemm.html>,
//! <https://onnx.ai/onnx/operators/onnx__MatMul.html>.
//!
//! Opsets: Gemm 7, 9, 11 (C optional), 13; MatMul 1, 9, 13.

use super::kernel::{Kernel, Op, Prepare, single};
use crate::Result;

/// `Gemm`: alpha A' B' + beta C.
pub const GEMM: Op = Op::new("Gemm", &[7, 9, 11, 13], prepare);

/// `MatMul`, as numpy's.
pub const MAT_MUL: Op =
    Op::new("MatMul", &[1, 9, 13], |_| single(|a| Ok(a.get(0)?.f_matmul(a.get(1)?)?)));

#[expect(clippy::float_cmp, reason = "exactly 1 is the neutral factor")]
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let alpha = f64::from(node.float("alpha", 1.0)?);
    let beta = f64::from(node.float("beta", 1.0)?);
    let (trans_a, trans_b) = (node.int("transA", 0)? != 0, node.int("transB", 0)? != 0);
    let plain = alpha == 1.0 && beta == 1.0 && !trans_a && trans_b;
    single(move |arguments| {
        let (a, b, c) = (arguments.get(0)?, arguments.get(1)?, arguments.optional(2));
        if plain && c.is_none_or(|c| c.dim() == 1 && c.size()[0] == b.size()[0]) {
            return Ok(a.f_linear(b, c)?);
        }
        let a = if trans_a { &a.f_transpose(0, 1)? } else { a };
        let b = if trans_b { &b.f_transpose(0, 1)? } else { b };
        let product = a.f_matmul(b)?;
        let product = if alpha == 1.0 { product } else { product.f_mul_scalar(alpha)? };
        Ok(match c {
            None => product,
            Some(c) if beta == 1.0 => product.f_add(c)?,
            Some(c) => product.f_add(&c.f_mul_scalar(beta)?)?,
        })
    })
}
