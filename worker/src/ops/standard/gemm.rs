//! `Gemm`: `alpha` A' B' + `beta` C, A and B transposed where asked for. <https://onnx.ai/onnx/operators/onnx__Gemm.html>
//!
//! Opsets: 1 and 6 (C broadcasts where asked for), 7 (it does so by itself), 9 (integers), 11 (C optional), 13 (bfloat16).

use tch::Tensor;

use crate::Result;
use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Gemm", &[1, 6, 7, 9, 11, 13], prepare).shapes(rules::gemm);

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
        let scaled = |x: Tensor, factor: f64| {
            // libtorch makes floats of integers times a float.
            let kind = x.kind();
            if factor == 1.0 { Ok(x) } else { x.f_mul_scalar(factor)?.f_to_kind(kind) }
        };
        let product = scaled(a.f_matmul(b)?, alpha)?;
        Ok(match c {
            None => product,
            Some(c) => product.f_add(&scaled(c.shallow_clone(), beta)?)?,
        })
    })
}
